"""What the rest of the node asks about the mesh: who is a member, by which key, at which address, in which role.

Pure questions over the merged records of `roll.py`; every answer has been verified, address hints apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Rows, Verifier
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.records import MemberRecord, PeerRecord
from offgrid_node.protocol.mesh.roll import CheckCertificate, Roll
from offgrid_node.protocol.mesh.stored import StoredRecords, read_genesis

PREFIX_CHARS_MIN = 4


class Directory(Roll):
    """The members of one mesh, as this node knows them."""

    @classmethod
    def load(cls, rows: Rows, verify: Verifier, check_certificate: CheckCertificate) -> Directory:
        """From committed rows, every signature checked; what is not of this mesh is left out and noticed. Raises
        FailedPrecondition (reason NoMesh) on a node that belongs to none, Corrupt when the genesis is no good."""
        genesis = read_genesis(rows, verify)
        directory = cls(genesis, verify, check_certificate)
        stored = StoredRecords.read(rows, genesis, verify, check_certificate)
        directory._admins, directory._members, directory._peers = stored.admins, stored.members, stored.peers
        directory.notices.extend(stored.refused)
        for node_id in directory.live():
            directory._fingerprints[node_id_of(directory._members[node_id].record.public_key)] = node_id
        return directory

    @property
    def mesh_name(self) -> str:
        return self.genesis.mesh_name

    @property
    def mesh_id(self) -> str:
        return self.genesis.mesh_id

    def member(self, node_id: str) -> MemberRecord | None:
        """The record that stands, a tombstone too; None for a stranger."""
        held = self._members.get(node_id)
        return held.record if held else None

    def peer(self, node_id: str) -> PeerRecord | None:
        held = self._peers.get(node_id)
        return held.record if held else None

    def resolve(self, text: str, *, removed: bool = False) -> str:
        """The live member (with `removed`: or removed one) that a person means by its id, its name, or the first
        characters of its id. Raises NotFound, and InvalidRequest when several fit or the prefix is too short."""
        if self.is_member(text):
            return text
        for pool in (self.live(), [n for n in self.all_ids() if not self.is_member(n)] if removed else []):
            found = [n for n in pool if self._members[n].record.name == text]
            if not found and len(text) >= PREFIX_CHARS_MIN:
                found = [n for n in pool if n.startswith(text)]
            if len(found) > 1:
                raise InvalidRequest.field("node", f"{text!r} fits {len(found)} nodes: {', '.join(found[:4])}")
            if found:
                return found[0]
        if any(node_id.startswith(text) for node_id in self.live()):
            raise InvalidRequest.field("node", f"{text!r} is too short: at least {PREFIX_CHARS_MIN} characters")
        raise NotFound(f"no member is called {text!r}", reason="NoSuchNode", metadata={"node": text[:64]})

    def node_of_fingerprint(self, fingerprint: str) -> str | None:
        """The live member whose current key has this fingerprint (`ids.node_id_of`)."""
        return self._fingerprints.get(fingerprint)

    def certificates(self) -> list[bytes]:
        """Identity certificates (DER) of the live members: whom this node trusts."""
        return [self._members[node_id].proof.certificate for node_id in self.live()]

    def certificate(self, node_id: str) -> bytes | None:
        """A live member's identity certificate; also a lately removed one's, so that it can be told."""
        if self.is_member(node_id):
            return self._members[node_id].proof.certificate
        return self._departed[node_id][0] if node_id in self._departed else None

    def current_key(self, node_id: str) -> bytes | None:
        held = self._members.get(node_id)
        return held.record.public_key if held else None

    def addresses(self, node_id: str) -> list[str]:
        """ "host:port", best first: what the node itself signed, then unproved hints."""
        if node_id in self._departed:
            return list(self._departed[node_id][1])
        held = self._peers.get(node_id)
        return list(dict.fromkeys((*(held.record.addresses if held else ()), *self._hints.get(node_id, ()))))

    def roles_in_force(self, node_id: str) -> frozenset[int]:
        """What the node's own config asks for and its record allows; empty for anyone not a live member."""
        held = self._peers.get(node_id)
        if held is None or not self.is_member(node_id):
            return frozenset()
        return held.record.roles & self._members[node_id].record.roles

    def may_have_role(self, node_id: str, role: int) -> bool:
        """Whether a live member may have the role for all that is known here: what its own config asks for may not
        have come yet."""
        held, peer = self._members.get(node_id), self._peers.get(node_id)
        if held is None or not self.is_member(node_id):
            return False
        return role in held.record.roles and (peer is None or role in peer.record.roles)

    def proofs(self, node_id: str) -> list[mesh_pb2.MemberProof]:
        """What convinces another node: the record that stands, behind it the admin record it may lean on."""
        current, admin = self._members.get(node_id), self._admins.get(node_id)
        found = [admin.proof] if admin and (current is None or admin.record.body != current.record.body) else []
        return [*found, current.proof] if current else found

    def vouchers(self, node_id: str) -> list[common_pb2.Signed]:
        """What shows a stranger whose key a node's is (`vouching.vouched`): its record, then that of the admin who
        issued it; empty for a node that nothing is known of."""
        current = self._members.get(node_id)
        if current is None:
            return []
        issuer = self._admins.get(current.record.issuer)
        return [held.proof.record for held in (current, issuer) if held is not None]

    def signed_peer(self, node_id: str) -> common_pb2.Signed | None:
        held = self._peers.get(node_id)
        return held.message if held else None

    def held(self) -> Iterator[mesh_pb2.HeldRecord]:
        """The version of each record, for a sync."""
        for node_id in self.all_ids():
            record, peer = self._members[node_id].record, self._peers.get(node_id)
            yield mesh_pb2.HeldRecord(
                node_id=node_id,
                member_epoch=record.epoch,
                removed=record.removed,
                peer_version=peer.record.version if peer else 0,
            )

    def digest(self) -> bytes:
        """16 bytes over all that stands; equal on two nodes that hold the same."""
        if self._digest[0] != self.revision:
            state = hashlib.blake2b(digest_size=16, person=b"og.members.v1", salt=self.salt)
            for node_id in self.all_ids():
                peer = self._peers.get(node_id)
                state.update(self._members[node_id].record.body_hash + (peer.record.body_hash if peer else bytes(32)))
            self._digest = (self.revision, state.digest())
        return self._digest[1]

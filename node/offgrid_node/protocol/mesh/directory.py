"""What the rest of the node asks about the mesh: who is a member, by which key, at which address, in which role.

Pure questions over the merged records of `roll.py` and `rooted.py`; every answer is verified, address hints apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from difflib import get_close_matches

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Rows, Verifier
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.held import CheckCertificate
from offgrid_node.protocol.mesh.keychange import KEY_CHANGE_KIND, Chain, key_at, mark
from offgrid_node.protocol.mesh.records import MEMBER_KIND, MemberRecord, PeerRecord
from offgrid_node.protocol.mesh.roll import forked
from offgrid_node.protocol.mesh.rooted import ROOT_FORKED, RootedRoll
from offgrid_node.protocol.mesh.stored import StoredRecords, read_genesis, read_root
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.signing import digest_of

PREFIX_CHARS_MIN = 4
NAMES_TRIED_MAX = 256  # for one that is almost what was typed

FRAME_BYTES = 8  # at most, around a record in a message


class Directory(RootedRoll):
    """The members of one mesh, as this node knows them."""

    @classmethod
    def load(cls, rows: Rows, verify: Verifier, check_certificate: CheckCertificate) -> Directory:
        """From committed rows, every signature checked; what is not of this mesh is left out and noticed. Raises
        FailedPrecondition (reason NoMesh) on a node that belongs to none, Corrupt when the genesis is no good."""
        genesis = read_genesis(rows, verify)
        directory = cls(genesis, verify, check_certificate)
        directory.root, directory._rival_root = read_root(rows, directory.genesis, verify)
        if directory._rival_root is not None:
            directory.notice(ROOT_FORKED)
        stored = StoredRecords.read(rows, directory.root, verify, check_certificate)
        directory._admins, directory._members, directory._peers = stored.admins, stored.members, stored.peers
        directory.notices.extend(stored.refused)
        directory._chains, directory._rivals = stored.chains, stored.rivals
        directory.notices.extend(map(forked, stored.rivals))
        for node_id in directory.live():
            directory._fingerprints[node_id_of(directory.current_key(node_id) or b"")] = node_id
        return directory

    @property
    def mesh_name(self) -> str:
        return self.genesis.mesh_name

    @property
    def mesh_id(self) -> str:
        return self.genesis.mesh_id

    @property
    def mesh_tag(self) -> bytes:
        return self.genesis.mesh_tag

    def member(self, node_id: str) -> MemberRecord | None:
        """The record that stands, a tombstone too; None for a stranger."""
        held = self._members.get(node_id)
        return held.record if held else None

    def peer(self, node_id: str) -> PeerRecord | None:
        held = self._peers.get(node_id)
        return held.record if held else None

    def resolve(self, text: str, *, removed: bool = False) -> str:
        """The live member (with `removed`: or removed one) that a person means by its id, its name, or the first
        characters of its id; the fingerprint of its present key will do as well. Raises NotFound, and InvalidRequest
        when several fit or the prefix is too short."""
        if self.is_member(text):
            return text
        if text in self._fingerprints:
            return self._fingerprints[text]
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
        meant = self._meant(text)
        said = f"no member is called {text[:64]!r}" + (f"; did you mean {meant!r}?" if meant else "")
        raise NotFound(said, reason="NoSuchNode", metadata={"node": text[:64]})

    def _meant(self, text: str) -> str:
        """The name of a live member that is almost this; "" if none is."""
        names = {self._members[node_id].record.name for node_id in self.live()[:NAMES_TRIED_MAX]}
        return next(iter(get_close_matches(text[:64].lower(), sorted(names), 1)), "")

    def node_of_fingerprint(self, fingerprint: str) -> str | None:
        """The live member whose current key has this fingerprint (`ids.node_id_of`)."""
        return self._fingerprints.get(fingerprint)

    def certificates(self) -> list[bytes]:
        """Identity certificates (DER) of the live members: whom this node trusts."""
        return [self._certificate(node_id) for node_id in self.live()]

    def certificate(self, node_id: str) -> bytes | None:
        """A live member's identity certificate; also a lately removed one's, so that it can be told."""
        if self.is_member(node_id):
            return self._certificate(node_id)
        return self._departed[node_id][0] if node_id in self._departed else None

    def _certificate(self, node_id: str) -> bytes:
        chain = self._chains.get(node_id)
        return chain[-1].message.certificate if chain else self._members[node_id].proof.certificate

    def first_certificate(self, node_id: str) -> bytes:
        """Of the key that a live member's record names."""
        return self._members[node_id].proof.certificate

    def keys(self, node_id: str) -> tuple[bytes, ...]:
        """All that a node has ever signed with, the newest first: for what was signed in its time."""
        held, chain = self._members.get(node_id), self._chains.get(node_id, ())
        if held is None:
            return ()
        return (*(each.change.public_key for each in reversed(chain)), held.record.public_key)

    def key_at(
        self, node_id: str, *, height: int | None = None, seq: int | None = None, number: int | None = None
    ) -> bytes | None:
        """The key of a node's block of that height, or of its transaction of that number; or the one that came after
        `number` others. None of whom, or of what, is not known here."""
        held = self._members.get(node_id)
        if held is None:
            return None
        chain = self._chains.get(node_id, ())
        if number is not None and number > len(chain):
            return None
        return key_at(held.record.public_key, chain, height=height, seq=seq, number=number)

    def key_number(self, node_id: str) -> int:
        """How often its identity key was replaced."""
        return len(self._chains.get(node_id, ()))

    def chain(self, node_id: str) -> Chain:
        """How its identity keys follow one another."""
        return self._chains.get(node_id, ())

    def key_changes(self, node_id: str) -> list[mesh_pb2.KeyChange]:
        return [held.message for held in self._chains.get(node_id, ())]

    def root_changes(self, bytes_max: int | None = None) -> mesh_pb2.RootChanges:
        """What convinces another node of the root's key of now, and those whom the root itself made members, as far as
        they fit."""
        made = self._root_row()
        left = bytes_max - made.ByteSize() if bytes_max is not None else None
        for node_id, held in self._members.items() if made.changes else ():
            if held.record.issuer:
                continue
            proofs = self.proofs(node_id)
            if left is not None and (left := left - sum(proof.ByteSize() + FRAME_BYTES for proof in proofs)) < 0:
                break
            made.members.extend(proofs)
        return made

    def has_rival(self, node_id: str) -> bool:
        """Whether two follow one key of it, and the root has not said which."""
        return node_id in self._rivals

    def kept_by_root(self) -> list[bytes]:
        """Digests of all that stands here by the root's word, for the next root key to stand by."""
        held = (*self._members.values(), *self._admins.values())
        kept = [digest_of(MEMBER_KIND, self.salt, each.record.body) for each in held if not each.record.issuer]
        changes = (held.change for chain in self._chains.values() for held in chain)
        return [*kept, *(digest_of(KEY_CHANGE_KIND, self.salt, change.body) for change in changes if change.by_root)]

    def wrapping_key(self, node_id: str) -> WrappingKey | None:
        """For which key objects are wrapped that a live member may read; None for anyone else."""
        peer, key = self.peer(node_id), self.current_key(node_id)
        if key is None or not self.is_member(node_id):
            return None
        return WrappingKey(peer.wrap_number, peer.wrap_key) if peer and peer.wrap_number else WrappingKey(0, key)

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
        found = [*found, current.proof] if current else found
        if found and node_id in self._chains:
            found[0] = _with_changes(found[0], self.key_changes(node_id))
        if found and node_id in self._rivals:
            found.append(_with_changes(found[0], [held.message for held in self._rivals[node_id]]))
        return found

    def vouchers(self, node_id: str) -> list[mesh_pb2.MemberProof]:
        """What shows a stranger whose keys a node's are (`vouching.vouched`): its record, then that of the admin who
        issued it, each with the keys that followed; empty for a node that nothing is known of."""
        current = self._members.get(node_id)
        if current is None:
            return []
        issuer = self._admins.get(current.record.issuer)
        held = (each for each in (current, issuer) if each is not None)
        return [_with_changes(each.proof, self.key_changes(each.record.node_id)) for each in held]

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
                key_number=self.key_number(node_id),
            )

    def digest(self) -> bytes:
        """16 bytes over all that stands; equal on two nodes that hold the same."""
        if self._digest[0] != self.revision:
            state = hashlib.blake2b(digest_size=16, person=b"og.members.v1", salt=self.salt)
            for node_id in self.all_ids():
                rivalled = node_id in self._rivals  # where its peer record is another's by another key
                peer = None if rivalled else self._peers.get(node_id)
                state.update(self._members[node_id].record.body_hash + (peer.record.body_hash if peer else bytes(32)))
                state.update(mark(self._chains.get(node_id, ()), rivalled=rivalled))
            state.update(self.root_digest())
            self._digest = (self.revision, state.digest())
        return self._digest[1]


def _with_changes(proof: mesh_pb2.MemberProof, changes: list[mesh_pb2.KeyChange]) -> mesh_pb2.MemberProof:
    return mesh_pb2.MemberProof(record=proof.record, certificate=proof.certificate, key_changes=changes)

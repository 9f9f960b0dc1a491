"""The records of a mesh as a node finds them in its own rows, trusted no more than a peer's.

Rows outlive what wrote them: a folder may be used again for another mesh, a backup may be patched together. The
certificates of the members are whom TLS lets in, so every signature is checked again at each start (18,000 a second on
a laptop). What does not belong here is left out and said; anti-entropy brings again what should have been there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from google.protobuf.message import DecodeError

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Rows, Verifier
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, PeerFault
from offgrid_node.protocol.mesh.held import (
    GENESIS_KEY,
    ROOT_CHANGES_KEY,
    CheckCertificate,
    HeldMember,
    HeldPeer,
    check_form,
)
from offgrid_node.protocol.mesh.keychange import Chain, are_rivals, check_chain
from offgrid_node.protocol.mesh.records import (
    MEMBER_KIND,
    PEER_KIND,
    Genesis,
    decode_member,
    decode_peer,
    open_genesis,
)
from offgrid_node.protocol.mesh.root import Root, open_root
from offgrid_node.protocol.signing import digest_of


def read_genesis(rows: Rows, verify: Verifier) -> common_pb2.Signed:
    """The genesis that everything else is checked against. Raises FailedPrecondition (reason NoMesh) on a node that
    belongs to no mesh, Corrupt (reason GenesisDamaged) when it is not signed by the root key it names."""
    row = rows.get("mesh", GENESIS_KEY)
    if row is None:
        raise FailedPrecondition(
            "this node's store belongs to no mesh. Restore the store from a backup, or start anew in another folder: "
            "offgrid-node join TOKEN --dir ANOTHER-FOLDER (or init)",
            reason="NoMesh",
        )
    try:
        message = common_pb2.Signed.FromString(row)
        open_genesis(message, verify)
    except (DecodeError, PeerFault) as error:
        raise Corrupt(f"the mesh's genesis in this store is damaged: {error}", reason="GenesisDamaged") from error
    return message


def read_root(rows: Rows, genesis: Genesis, verify: Verifier) -> tuple[Root, Root | None]:
    """The root as it is now, and another one by a root key that is in two hands. Raises Corrupt (reason RootDamaged):
    without that row a key of before would be in force again."""
    try:
        row = mesh_pb2.RootChanges.FromString(rows.get("mesh", ROOT_CHANGES_KEY) or b"")
        root, rival = (open_root(genesis, changes, verify) for changes in (row.changes, row.rival))
    except (DecodeError, PeerFault) as error:
        raise Corrupt(
            f"what this store has of the mesh's root keys is damaged: {error}", reason="RootDamaged"
        ) from error
    return root, rival if rival.number else None


class StoredRecords(msgspec.Struct):
    """The rows that stand up to checking, and in `refused` a sentence on each kind of which some do not."""

    root: Root
    verify: Verifier
    check_certificate: CheckCertificate
    admins: dict[str, HeldMember] = msgspec.field(default_factory=dict)
    members: dict[str, HeldMember] = msgspec.field(default_factory=dict)
    peers: dict[str, HeldPeer] = msgspec.field(default_factory=dict)
    chains: dict[str, Chain] = msgspec.field(default_factory=dict)
    rivals: dict[str, Chain] = msgspec.field(default_factory=dict)
    refused: list[str] = msgspec.field(default_factory=list)

    @classmethod
    def read(cls, rows: Rows, root: Root, verify: Verifier, check_certificate: CheckCertificate) -> StoredRecords:
        """`root` as `read_root` returned it. Admins come first: they vouch for members, and those for peers."""
        stored = cls(root, verify, check_certificate)
        stored._read(rows, "admins", stored._take_admin)
        stored._read_chains(rows, stored.admins)
        stored._read(rows, "members", stored._take_member)
        stored._read_chains(rows, stored.members)
        stored._drop_lapsed()
        stored._read(rows, "peers", stored._take_peer)
        return stored

    def _read(self, rows: Rows, table: str, take: Callable[[str, bytes], None]) -> None:
        refused = 0
        for key, value in rows.scan(table):
            try:
                take(key.decode("ascii"), value)
            except (DecodeError, UnicodeDecodeError, PeerFault):
                refused += 1
        self._say(refused, table)

    def _say(self, refused: int, table: str) -> None:
        if refused:
            self.refused.append(f"{refused} rows of {table} in this node's store are not of this mesh; left out")

    def _read_chains(self, rows: Rows, holders: dict[str, HeldMember]) -> None:
        """Of those whose record is known by now: an admin's are needed for what it has issued."""
        refused = 0
        for key, value in rows.scan("key_changes"):
            node_id = key.decode("ascii", "replace")
            held = holders.get(node_id)
            if held is None or node_id in self.chains:
                continue
            try:
                row, first = mesh_pb2.KeyChangesRow.FromString(value), held.record.public_key
                chain, rival = (
                    check_chain(self.root, node_id, first, changes, self.verify, self.check_certificate)
                    for changes in (row.changes, row.rival)
                )
                self.chains[node_id] = chain
                if are_rivals(rival, chain):
                    self.rivals[node_id] = rival
            except (DecodeError, PeerFault):
                refused += 1
        self._say(refused, "key_changes")

    def _keys(self, held: HeldMember) -> list[bytes]:
        """The newest first."""
        chain = self.chains.get(held.record.node_id, ())
        return [*(each.change.public_key for each in reversed(chain)), held.record.public_key]

    def _take_admin(self, node_id: str, value: bytes) -> None:
        held = self._open(node_id, value)
        if not held.record.admin:
            raise PeerFault(f"{node_id} is no admin", reason="NotAnAdmin")
        self.admins[node_id] = held

    def _take_member(self, node_id: str, value: bytes) -> None:
        self.members[node_id] = self._open(node_id, value)

    def _take_peer(self, node_id: str, value: bytes) -> None:
        message = common_pb2.Signed.FromString(value)
        peer, member = decode_peer(message.body), self.members.get(node_id)
        if member is None or member.record.removed or peer.node_id != node_id:
            raise PeerFault(f"peer record: {node_id} is no member", reason="NotAMember")
        self._check(self._keys(member)[:1], PEER_KIND, message)
        self.peers[node_id] = HeldPeer(peer, message)

    def _open(self, node_id: str, value: bytes) -> HeldMember:
        """A membership record under the signature of whom it names as its issuer."""
        proof = mesh_pb2.MemberProof.FromString(value)
        record = decode_member(proof.record.body)
        issuer = self.admins.get(record.issuer)
        if record.node_id != node_id or (record.issuer and (issuer is None or record.admin)):
            raise PeerFault(f"member {node_id}: not issued by an admin of this mesh", reason="NotAnAdmin")
        check_form(record, proof.certificate, self.check_certificate)
        if issuer is not None:
            # What this node took in before an admin's key was replaced stays, until the admin's new word comes.
            self._check(self._keys(issuer), MEMBER_KIND, proof.record)
        elif not self.root.said(MEMBER_KIND, proof.record.body, proof.record.signature, self.verify):
            raise PeerFault("bad signature", reason="BadSignature")
        return HeldMember(record, proof)

    def _check(self, keys: Sequence[bytes], kind: bytes, message: common_pb2.Signed) -> None:
        digest = digest_of(kind, self.root.genesis.salt, message.body)
        if not any(self.verify(key, digest, message.signature) for key in keys):
            raise PeerFault("bad signature", reason="BadSignature")

    def _drop_lapsed(self) -> None:
        """Live members stand only by the root or by an admin in force."""
        in_force = {"", *(n for n, held in self.members.items() if held.record.admin)}
        lapsed = [
            n for n, held in self.members.items() if not held.record.removed and held.record.issuer not in in_force
        ]
        for node_id in lapsed:
            del self.members[node_id]
        self._say(len(lapsed), "members")

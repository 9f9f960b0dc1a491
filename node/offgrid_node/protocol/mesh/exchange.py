"""Anti-entropy of membership and peer records: who tells whom what (Demers et al. 1987, push-pull).

A full exchange sends the versions held and gets back what is newer; a push sends records and no versions. Versions
do not tell two different records of one epoch apart: then the digests still differ, and both sides push everything.
How the root's keys followed one another seldom changes, so it travels to those alone whose digest of it is another.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, PeerFault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.records import decode_peer
from offgrid_node.protocol.mesh.roll import MEMBERS_MAX

EXCHANGE_BYTES_MAX = 1024 * 1024  # of records in one message; the rest follows with the next exchange
RECORDS_MAX = 4 * MEMBERS_MAX  # in one message, whatever their size


class Parcel:
    """Records for one message, up to EXCHANGE_BYTES_MAX (or `bytes_max`)."""

    def __init__(self, directory: Directory, bytes_max: int = EXCHANGE_BYTES_MAX) -> None:
        self.members: list[mesh_pb2.MemberProof] = []
        self.peers: list[common_pb2.Signed] = []
        self.root: mesh_pb2.RootChanges | None = None
        self._directory = directory
        self._left = bytes_max

    def add_root(self) -> None:
        """First of all: who has not heard of it takes no new word of the root's."""
        self.root = self._directory.root_changes(self._left)
        self._left -= self.root.ByteSize()

    def add(self, node_id: str, *, member: bool = True, peer: bool = True) -> bool:
        """Adds what is held of a node; False when it does not fit any more."""
        proofs = self._directory.proofs(node_id) if member else []
        signed = self._directory.signed_peer(node_id) if peer else None
        size = sum(proof.ByteSize() for proof in proofs) + (signed.ByteSize() if signed else 0)
        if size > self._left:
            return False
        self._left -= size
        self.members += proofs
        if signed:
            self.peers.append(signed)
        return True


def full_request(directory: Directory) -> mesh_pb2.SyncMembersRequest:
    """Asks for whatever is newer than what we hold."""
    return mesh_pb2.SyncMembersRequest(held=directory.held(), root_digest=directory.root_digest())


def push_request(directory: Directory, node_ids: Iterable[str], *, root: bool = False) -> mesh_pb2.SyncMembersRequest:
    """Tells what we hold of these nodes, as far as it fits; with `root`, of the root's keys before that."""
    parcel = Parcel(directory)
    if root:
        parcel.add_root()
    for node_id in node_ids:
        if not parcel.add(node_id):
            break
    return mesh_pb2.SyncMembersRequest(members=parcel.members, peers=parcel.peers, root=parcel.root)


def merge(directory: Directory, told: mesh_pb2.SyncMembersRequest | mesh_pb2.SyncMembersResponse) -> Fault | None:
    """Merges what came in and returns the first refusal. One bad record does not keep the others out."""
    refusal: Fault | None = None
    try:
        directory.accept_root(told.root)
    except Fault as fault:
        refusal = fault
    for proof in sorted(told.members, key=lambda proof: not proof.key_changes):  # by the newest keys others are checked
        try:
            directory.accept_member(proof)
        except Fault as fault:
            refusal = refusal or fault
    for message in told.peers:
        refusal = _merge_peer(directory, message) or refusal
    return refusal


def _merge_peer(directory: Directory, message: common_pb2.Signed) -> Fault | None:
    try:
        node_id = decode_peer(message.body).node_id
    except Fault as fault:
        return fault
    known = directory.member(node_id)
    if known is not None and known.removed:  # the sender may not have heard of the removal yet
        return None
    try:
        directory.accept_peer(message)
    except Fault as fault:
        return None if directory.has_rival(node_id) else fault  # of two keys the sender may know the other
    return None


def answer(directory: Directory, request: mesh_pb2.SyncMembersRequest) -> mesh_pb2.SyncMembersResponse:
    """Merges the caller's records and returns what it lacks and what we lack.

    Raises InvalidRequest when it is oversized and PeerFault when one of its records was refused.
    """
    records = len(request.members) + len(request.peers) + len(request.root.members)
    if len(request.held) > MEMBERS_MAX or records > RECORDS_MAX:
        raise InvalidRequest.field("held", f"at most {MEMBERS_MAX} members and {RECORDS_MAX} records in one message")
    refusal = merge(directory, request)
    if isinstance(refusal, PeerFault):
        raise refusal
    root_digest = directory.root_digest()
    if not request.held:
        return mesh_pb2.SyncMembersResponse(root_digest=root_digest)
    parcel = Parcel(directory)
    if request.root_digest != root_digest:
        parcel.add_root()
    theirs = {held.node_id: held for held in request.held}
    wanted = [held.node_id for held in request.held if _newer(held, _ours(directory, held.node_id))]
    for node_id in directory.all_ids():
        ours, held = _ours(directory, node_id), theirs.get(node_id, mesh_pb2.HeldRecord())
        member = (ours.removed, ours.member_epoch) > (held.removed, held.member_epoch)
        member = member or (ours.key_number > held.key_number and not held.removed)
        peer = ours.peer_version > held.peer_version and not held.removed
        if (member or peer) and not parcel.add(node_id, member=member, peer=peer):
            break
    return mesh_pb2.SyncMembersResponse(
        members=parcel.members, peers=parcel.peers, wanted=wanted, root=parcel.root, root_digest=root_digest
    )


def _ours(directory: Directory, node_id: str) -> mesh_pb2.HeldRecord:
    member, peer = directory.member(node_id), directory.peer(node_id)
    return mesh_pb2.HeldRecord(
        member_epoch=member.epoch if member else 0,
        removed=member.removed if member else False,
        peer_version=peer.version if peer else 0,
        key_number=directory.key_number(node_id),
    )


def _newer(theirs: mesh_pb2.HeldRecord, ours: mesh_pb2.HeldRecord) -> bool:
    """Whether they hold something of this node that we lack."""
    if (theirs.removed, theirs.member_epoch) > (ours.removed, ours.member_epoch):
        return True
    return (theirs.peer_version > ours.peer_version or theirs.key_number > ours.key_number) and not ours.removed

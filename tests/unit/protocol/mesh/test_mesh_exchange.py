"""What members hand on to each other of records, and what they do not."""

from __future__ import annotations

from mesh_world import World

from offgrid.pieces import read_known
from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey, identity_certificate
from offgrid_node.protocol.mesh.exchange import EXCHANGE_BYTES_MAX, Parcel, merge
from offgrid_node.protocol.mesh.keychange import KeyChange, sign_change
from offgrid_node.protocol.mesh.records import PEER_KIND, ROLES_ALL, PeerRecord, signed

TAG = bytes((0xFA, 0x3F))  # of field 1,023, which no message has, as bytes


def with_more(message: mesh_pb2.MemberProof, field: str) -> None:
    """A field that is unknown here, within one that is not."""
    size = EXCHANGE_BYTES_MAX
    more = TAG + bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14)) + bytes(size)
    part = getattr(message, field)
    (part[0] if field == "key_changes" else part).MergeFromString(more)


def test_what_nobody_has_signed_is_not_kept_with_a_record_and_keeps_no_other_back() -> None:
    world = World(3, 3)
    world.run(5_000)
    liar, directory = [*world.nodes.values()][1], world.first.mesh.directory
    following = NodeKey(b"n" * 32, liar.node_id)
    body = KeyChange(liar.node_id, 1, liar.key.public_key, following.public_key, 0, 0, 1)
    proof = mesh_pb2.MemberProof()
    proof.CopyFrom(directory.proofs(liar.node_id)[-1])
    change = sign_change(directory.genesis, body, liar.key, following, identity_certificate(following))
    proof.key_changes.append(change)
    for field in ("record", "key_changes"):
        with_more(proof, field)
    peer = signed(
        PEER_KIND, directory.salt, PeerRecord(liar.node_id, 99, ROLES_ALL, ("there:1",), "test").body, following
    )
    peer.MergeFromString(proof.record.SerializeToString()[-EXCHANGE_BYTES_MAX - 5 :])
    assert peer.ByteSize() > EXCHANGE_BYTES_MAX
    request = mesh_pb2.SyncMembersRequest(members=[proof], peers=[peer])
    came = read_known(mesh_pb2.SyncMembersRequest, request.SerializeToString())
    assert merge(directory, came) is None
    assert directory.current_key(liar.node_id) == following.public_key
    assert directory.addresses(liar.node_id)[0] == "there:1"
    parcel = Parcel(directory)
    assert all(parcel.add(node_id) for node_id in directory.all_ids())

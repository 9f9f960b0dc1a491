"""Rules of the mesh: what is signed once (memberships, addresses), and that nobody comes back from the dead in an old
incarnation, nor speaks in a life that its disk does not know; a node restored from a backup may, for it has to refute
news of lives that it has forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.mesh.machine import BOOT_KEY
from offgrid_node.protocol.mesh.records import decode_member, decode_peer
from offgrid_node.protocol.mesh.swim import BOOT_SHIFT
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules


class MeshRules(Rules):
    """Of what nodes say about themselves and about members."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._incarnation: dict[str, int] = {}
        self._former: dict[str, int] = {}  # the last incarnation of the life before this one

    def requests(self) -> Mapping[type[Message], Passed]:
        return {
            mesh_pb2.PingRequest: lambda source, _, request: self._alive(source, request.news[0]),
            mesh_pb2.SyncMembersRequest: lambda _, __, request: self._records(request.members, request.peers),
        }

    def replies(self) -> Mapping[type[Message], Passed]:
        return {
            mesh_pb2.PingResponse: lambda source, _, reply: self._alive(source, reply.news[0]),
            mesh_pb2.SyncMembersResponse: lambda _, __, reply: self._records(reply.members, reply.peers),
        }

    def on_start(self, node: str) -> None:
        if node in self._incarnation:
            self._former[node] = self._incarnation[node]

    def _alive(self, node: str, news: mesh_pb2.LivenessNews) -> None:
        if news.node_id != node or node in self._evidence.dishonest:
            return
        durable = int.from_bytes(self._evidence.row(node, "meta", BOOT_KEY) or b"", "big")
        if news.incarnation >> BOOT_SHIFT > durable:
            raise Violation(f"{self._evidence.name_of(node)} speaks in a life that its disk does not know")
        if news.incarnation < self._incarnation.get(node, 0) or news.incarnation == self._former.get(node):
            raise Violation(f"{self._evidence.name_of(node)} came back in an older incarnation")
        self._incarnation[node] = news.incarnation

    def _records(self, members: Iterable[mesh_pb2.MemberProof], peers: Iterable[common_pb2.Signed]) -> None:
        for proof in members:
            record = decode_member(proof.record.body)
            what = "tombstone" if record.removed else "member"
            self._evidence.sign(what, record.issuer or "root", record.node_id, record.epoch, proof.record.body)
        for signed in peers:
            peer = decode_peer(signed.body)
            self._evidence.sign("peer", peer.node_id, "", peer.version, signed.body)

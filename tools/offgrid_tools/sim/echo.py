"""A road that brings a whole transfer once more, long after: what an owner said to a host of an object comes again, in
its order, when the host may have been told otherwise: that the object is deleted, or lies with others."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND

AGAIN_CHANCE = 0.4
LATE_US = ((2 * SECOND, 12 * SECOND), (12 * SECOND, 60 * SECOND))  # once, twice or never
GAP_US = 60 * MS
TIMEOUT_MS = 2_000
METHODS = {
    objects_pb2.OpenReplicaRequest: "OpenReplica",
    objects_pb2.WriteReplicaRequest: "WriteReplica",
    objects_pb2.RebuildReplicaRequest: "RebuildReplica",
    objects_pb2.CommitReplicaRequest: "CommitReplica",
    objects_pb2.PutReplicaRequest: "PutReplica",
}
OVER = ("EpochOver", "ReplicaDropped")  # reasons of faults


class Echo:
    """Hears every replica on its way."""

    def __init__(self, cluster: Cluster) -> None:
        self._network, self._engine, self._rng = cluster.network, cluster.engine, cluster.engine.rng
        self._met = cluster.monitor.met.counts
        self._heard: dict[tuple[str, str, str], list[Message]] = {}  # by owner, host and object
        for kind in METHODS:
            self._network.overhear(kind, self._hear)

    def _hear(self, owner: str, host: str, request: Message) -> None:
        transfer = owner, host, _object_of(request)
        self._heard.setdefault(transfer, []).append(request)
        if isinstance(request, objects_pb2.CommitReplicaRequest | objects_pb2.PutReplicaRequest):
            self._say_again(owner, host, self._heard.pop(transfer))

    def _say_again(self, owner: str, host: str, said: list[Message]) -> None:
        for late_us in LATE_US:
            if self._rng.random() < AGAIN_CHANCE:
                self._engine.after(self._rng.randint(*late_us), partial(self._say, owner, host, said))

    def _say(self, owner: str, host: str, said: list[Message]) -> None:
        """The next of them, and once that has come to its end the others."""
        first, *rest = said
        method = f"offgrid.v1.ObjectService/{METHODS[type(first)]}"

        def ended(outcome: Message | Fault) -> None:
            if isinstance(outcome, Fault) and outcome.reason in OVER:
                self._met["late transfers refused"] += 1
            if rest:
                self._engine.after(GAP_US, partial(self._say, owner, host, rest))

        self._network.call(owner, host, method, first, TIMEOUT_MS, ended, honest=False)


def _object_of(request: Message) -> str:
    """Of which object it is."""
    if isinstance(request, objects_pb2.WriteReplicaRequest | objects_pb2.RebuildReplicaRequest):
        return request.object_id
    assert isinstance(
        request, objects_pb2.OpenReplicaRequest | objects_pb2.CommitReplicaRequest | objects_pb2.PutReplicaRequest
    )
    return Manifest.decode(request.manifest.signed.body).object_id

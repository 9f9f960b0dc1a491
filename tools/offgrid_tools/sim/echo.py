"""A road that brings a whole transfer once more, long after: what an owner said to a host comes again, in its order,
when the host may have been told otherwise."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND

AGAIN_CHANCE = 0.4
LATE_US, GAP_US = (2 * SECOND, 12 * SECOND), 60 * MS
TIMEOUT_MS = 2_000
METHODS = {
    objects_pb2.OpenReplicaRequest: "OpenReplica",
    objects_pb2.WriteReplicaRequest: "WriteReplica",
    objects_pb2.CommitReplicaRequest: "CommitReplica",
    objects_pb2.PutReplicaRequest: "PutReplica",
}


class Echo:
    """Hears every replica on its way."""

    def __init__(self, cluster: Cluster) -> None:
        self._network, self._engine, self._rng = cluster.network, cluster.engine, cluster.engine.rng
        self._heard: dict[tuple[str, str], list[Message]] = {}
        for kind in METHODS:
            self._network.overhear(kind, self._hear)

    def _hear(self, owner: str, host: str, request: Message) -> None:
        if isinstance(request, objects_pb2.PutReplicaRequest):
            self._say_again(owner, host, [request])
            return
        self._heard.setdefault((owner, host), []).append(request)
        if isinstance(request, objects_pb2.CommitReplicaRequest):
            self._say_again(owner, host, self._heard.pop((owner, host)))

    def _say_again(self, owner: str, host: str, said: list[Message]) -> None:
        if self._rng.random() < AGAIN_CHANCE:
            self._engine.after(self._rng.randint(*LATE_US), partial(self._say, owner, host, said))

    def _say(self, owner: str, host: str, said: list[Message]) -> None:
        """The next of them, and the others after it."""
        first, *rest = said
        method = f"offgrid.v1.ObjectService/{METHODS[type(first)]}"
        self._network.call(owner, host, method, first, TIMEOUT_MS, lambda outcome: None, honest=False)
        if rest:
            self._engine.after(GAP_US, partial(self._say, owner, host, rest))

"""The rule of promises: what `info` says may be lost before an object is, may be lost.

At the end of a run the hosts that are bad for good count as lost already. Whatever else weighs less than the promise
leaves as many whole shards of every durable object as give it back: tried for all sets of its hosts, by what is on
their disks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import OBJECTS, REPLICAS, replica_key
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.objects import ObjectRules
from offgrid_tools.sim.monitor.quorum import least_loss


class Promise(msgspec.Struct, frozen=True):
    """Of a durable object at its owner, which was to bear the loss of what weighs less than `required_milli`, and bears
    that of what weighs less than `promised_milli`. `held` are whole shards on disks, by hosts
    whose acks count; `weights` are those of all whose acks count."""

    object_id: str
    required_milli: int
    promised_milli: int
    needed: int
    total: int
    held: Mapping[str, frozenset[int]]
    weights: Mapping[str, int]
    local: bool  # its owner has all of it

    def left(self, gone: Collection[str]) -> int:
        """How many shards are left when these hosts are."""
        return len({shard for host, shards in self.held.items() if host not in gone for shard in shards})

    def lost_milli(self, gone: Collection[str]) -> int:
        """What of the promise is used up by these hosts."""
        return sum(weight for host, weight in self.weights.items() if host in gone)

    def survives_milli(self, gone: Collection[str]) -> int:
        """What of the others must be lost before it is, by what is on their disks."""
        sound = {host: set(shards) for host, shards in self.held.items() if host not in gone and shards}
        return least_loss(sound, self.weights, self.needed)

    def allows(self, gone: Collection[str]) -> bool:
        return self.lost_milli(gone) < self.promised_milli


class PromiseRules:
    """Reads owners' rows and hosts' disks."""

    def __init__(self, evidence: Evidence, objects: ObjectRules) -> None:
        self._evidence, self._objects = evidence, objects

    def of(self, owner: str) -> Iterator[Promise]:
        """Of each durable object of this owner."""
        for key, value in self._evidence.stores[owner].scan(OBJECTS):
            row = objects_pb2.ObjectRow.FromString(value)
            if row.object.state == objects_pb2.OBJECT_STATE_DURABLE:
                yield self._promise(owner, key.decode(), row)

    def find(self, owner: str, object_id: str) -> Promise | None:
        """Of one object, if it is durable."""
        value = self._evidence.row(owner, OBJECTS, object_id.encode())
        row = objects_pb2.ObjectRow.FromString(value or b"")
        durable = value is not None and row.object.state == objects_pb2.OBJECT_STATE_DURABLE
        return self._promise(owner, object_id, row) if durable else None

    def _promise(self, owner: str, object_id: str, row: objects_pb2.ObjectRow) -> Promise:
        body, epoch = Manifest.decode(row.object.manifest.signed.body), Epoch.decode(row.epoch.body)
        held = {}
        for ack in row.object.acks:
            kept = self._evidence.row(ack.node_id, REPLICAS, replica_key(object_id, owner))
            if kept is not None:
                whole = self._objects.whole_shards(ack.node_id, objects_pb2.ReplicaRow.FromString(kept))
                held[ack.node_id] = whole & (frozenset(ack.shards) if epoch.layout else {0})
        weights = {ack.node_id: epoch.weights[ack.node_id] for ack in row.object.acks}
        # Any copy will do: those of different hosts are as good as different shards, one of which is needed.
        if not epoch.layout:
            held = {
                host: frozenset({place}) if shards else frozenset() for place, (host, shards) in enumerate(held.items())
            }
        made = row.object
        return Promise(object_id, made.required_milli, made.acked_milli, body.k, body.n, held, weights, made.local)

    def check(self, owner: str, bad: Collection[str]) -> None:
        for promise in self.of(owner):
            if not promise.allows(bad):
                continue  # more is gone than was promised
            survives = promise.survives_milli(bad)
            still = promise.promised_milli - promise.lost_milli(bad)
            if survives < still:
                raise Violation(
                    f"{promise.object_id} may still lose {still} of weight, says its owner: {survives} loses it"
                )

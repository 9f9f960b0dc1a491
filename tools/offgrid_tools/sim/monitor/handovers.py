"""Rules of hosts that give something up: nobody lets go of what others count on.

- told: what a host has acked goes when its owner has deleted it or laid it elsewhere, or a day after it expires by the
  host's own clock, and for no other reason;
- for good: of what an epoch has taken away nothing is taken in again under an epoch below that one;
- complete: nobody is told to, before all who are to hold it instead have acked;
- in order: by then what is left elsewhere bears the loss that the object was to bear, but for what is lost already by
  hosts that nobody counts on;
- drained: of a host that says so no owner counts on anything; and in the end it says so, unless what it keeps is to lie
  with one that lies or loses it again and again, or came late from a life that is over.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.expiry import HOST_LATE_US
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import DROPPED, MOVED, OBJECTS, REPLICAS, number_of, object_of
from offgrid_node.protocol.quorum.records import Ack, Epoch
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.promises import PromiseRules
from offgrid_tools.sim.monitor.rules import Passed, Rules, Written


class HandOverRules(Rules):
    """Of hosts' rows, and of what their owners are told."""

    def __init__(self, evidence: Evidence, promises: PromiseRules) -> None:
        self._evidence, self._promises = evidence, promises
        self._kept: dict[tuple[str, bytes], objects_pb2.ReplicaRow] = {}
        self._fences: dict[tuple[str, bytes], int] = {}  # the highest epoch that took something away

    def requests(self) -> Mapping[type[Message], Passed]:
        return {objects_pb2.DeliverNoticesRequest: lambda source, _, request: self._check_complete(source, request)}

    def _check_complete(self, owner: str, notices: objects_pb2.DeliverNoticesRequest) -> None:
        for signed in notices.moved:
            epoch = Epoch.decode(signed.body)
            object_id = object_of(epoch.quorum_id)
            row = objects_pb2.ObjectRow.FromString(self._evidence.row(owner, OBJECTS, object_id.encode()) or b"")
            held = {ack.node_id: {*ack.shards} for ack in row.object.acks}
            laid = {node: {*shards} for node, shards in epoch.shards.items() if shards} if epoch.layout else {}
            lacking = [node for node, shards in laid.items() if not shards <= held.get(node, set())]
            if row.epoch != signed or lacking or (not laid and len(held) < row.copies_wanted):
                name = self._evidence.name_of(owner)
                raise Violation(f"{name} has {object_id} dropped, and not all who are to hold it have acked")

    def rows(self) -> Mapping[str, Written]:
        return {MOVED: self._on_moved, REPLICAS: self._on_replica}

    def on_restored(self, node: str) -> None:
        """It has forgotten what it was told since."""
        self._kept = {key: row for key, row in self._kept.items() if key[0] != node}
        self._fences = {key: epoch for key, epoch in self._fences.items() if key[0] != node}

    def _on_moved(self, host: str, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self._fences[host, key] = max(number_of(value), self._fences.get((host, key), 0))

    def _on_replica(self, host: str, key: bytes, value: bytes | None) -> None:
        before = self._kept.pop((host, key), None)
        if value is None:
            if before is not None:
                self._check_told(host, key, before)
                self._check_order(host, key)
            return
        row = self._kept[host, key] = objects_pb2.ReplicaRow.FromString(value)
        if before is None or before.ack.body != row.ack.body:
            self._check_fence(host, key, row)
        elif len(row.moved) > len(before.moved):
            self._check_order(host, key)

    def _check_told(self, host: str, key: bytes, row: objects_pb2.ReplicaRow) -> None:
        if any(self._evidence.row(host, fences, key) is not None for fences in (DROPPED, MOVED)):
            return
        expires_us = Manifest.decode(row.manifest.signed.body).expires_us
        if not expires_us or self._evidence.latest_us[host]() < expires_us + HOST_LATE_US:
            raise Violation(f"{self._evidence.name_of(host)} lets go of {key.decode()}, and nobody has told it to")

    def _check_fence(self, host: str, key: bytes, row: objects_pb2.ReplicaRow) -> None:
        fence, epoch = self._fences.get((host, key), 0), Ack.decode(row.ack.body).epoch
        if epoch < fence:
            name = self._evidence.name_of(host)
            raise Violation(f"{name} takes {key.decode()} under epoch {epoch}, and epoch {fence} took it away")

    def _check_order(self, host: str, key: bytes) -> None:
        """Of what was deleted nothing has to be left."""
        object_id, _, owner = key.decode().partition("/")
        promise = self._promises.find(owner, object_id)
        if promise is None or promise.local or self._evidence.row(host, DROPPED, key) is not None:
            return
        bad = self._evidence.bad
        still, survives = promise.required_milli - promise.lost_milli(bad), promise.survives_milli(bad)
        if survives < still:
            name = self._evidence.name_of(host)
            raise Violation(
                f"{name} gives way with {object_id}: {still} of weight may be lost, and {survives} loses it"
            )

    # ---- what its owner was told

    def on_drained(self, host: str) -> None:
        """It may stop for good, it says."""
        for owner, store in self._evidence.stores.items():
            for key, value in store.copy().scan(OBJECTS):
                made = objects_pb2.ObjectRow.FromString(value).object
                if any(ack.node_id == host for ack in made.acks):
                    name, whose = self._evidence.name_of(host), self._evidence.name_of(owner)
                    raise Violation(f"{name} is drained, it says, and {whose} counts on it for {key.decode()}")

    def waits_for_proof(self, host: str) -> bool:
        """Whether all that it still keeps is to be proved first, and cannot be, or came from a life that is over."""
        for key, _ in self._evidence.stores[host].scan(REPLICAS):
            object_id, _, owner = key.decode().partition("/")
            row = objects_pb2.ObjectRow.FromString(self._evidence.row(owner, OBJECTS, object_id.encode()) or b"")
            if (host, object_id) in self._evidence.late:
                continue  # its owner does not know yet that it is here
            layout = Epoch.decode(row.epoch.body).layout if row.HasField("epoch") else ()
            placed = {*layout, *(ack.node_id for ack in row.object.acks)}
            if not placed & self._evidence.doubted:
                return False
        return True

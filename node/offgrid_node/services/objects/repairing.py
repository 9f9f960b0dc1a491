"""Carries out Rebuild: a host is told to make its shards of an object from those of others, until its ack of them is
here.

No byte of it passes this node, so nobody here can tell whether the host has what it vouches for: its root is that of
the manifest by the host's own word. Audits ask for proof soon after.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS
from offgrid_node.protocol.objects.errands import Rebuild, Shipped, SumPart
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.runtime import Runtime
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.objects.combining import SUM_BYTES_MAX, UNFIT, asked_ms
from offgrid_node.services.objects.headway import Headway
from offgrid_node.services.objects.holders import Carrier, call, opening
from offgrid_node.services.objects.pulling import SLICE_MS
from offgrid_node.services.objects.replicas import Members
from offgrid_node.services.objects.shipping import BEGINNINGS_MAX, COMMIT_BYTES_PER_S, checked_ack

BEGIN_AGAIN = frozenset({"NotOpened", "ReplicaIncomplete", "ReplicaDamaged"})


class _Order(msgspec.Struct):
    """One under way; the same again takes its place before the next step."""

    work: Rebuild
    manifest: Manifest
    epoch: Epoch
    lost: tuple[int, ...] = ()

    @classmethod
    def of(cls, work: Rebuild) -> _Order:
        return cls(work, Manifest.decode(work.manifest.signed.body), Epoch.decode(work.epoch.body))


class Repairing:
    """Rebuilds that are under way, one for each object and host."""

    def __init__(
        self, runtime: Runtime, carrier: Carrier, members: Callable[[], Members], verify: Verifier, later: Later
    ) -> None:
        self._runtime, self._carrier, self._members, self._verify = runtime, carrier, members, verify
        self._later = later
        self._orders: dict[tuple[str, str], _Order] = {}

    def rebuild(self, work: Rebuild) -> None:
        """Its end enters the runtime as Shipped. Machines that were loaded anew say it again: it goes on as it is."""
        key = work.object_id, work.node
        known, order = self._orders.get(key), _Order.of(work)
        if known is not None:
            known.work, known.manifest, known.epoch = order.work, order.manifest, order.epoch
            return
        self._orders[key] = order

        def ended(outcome: common_pb2.Signed | Fault) -> None:
            del self._orders[key]
            ack, fault = (None, outcome) if isinstance(outcome, Fault) else (outcome, None)
            unfit = fault.metadata.get(UNFIT, "") if fault is not None else ""
            spoilt = fault is not None and fault.reason == "WrongRoot"
            end = Shipped(
                work.object_id, work.node, ack, fault, unfit=unfit, spoilt=spoilt, rebuilt=True, lost=order.lost
            )
            self._runtime.deliver("objects", end)

        run(self._carry(order), ended)

    def _carry(self, order: _Order) -> Flow[common_pb2.Signed]:
        begun = 0
        while True:
            begun += 1
            try:
                yield from self._fill(order)
                return (yield from self._commit(order))
            except FailedPrecondition as fault:
                if fault.reason not in BEGIN_AGAIN or begun == BEGINNINGS_MAX:
                    raise

    def _fill(self, order: _Order) -> Flow[None]:
        """Until the host has all bytes of its shards."""
        work, total = order.work, order.manifest.shard_bytes
        opened = yield opening(self._carrier, work)
        reached = {told.shard: told.offset for told in opened.shards}
        headway = Headway(work.node, reached, total, self._now_ms())
        while missing := headway.missing:
            if lost := tuple(shard for shard in missing if shard not in order.work.sums):
                order.lost = lost
                text = f"{work.node} lacks shards {lost}, which it had acked"
                raise FailedPrecondition(text, reason="ReplicaLost")
            self._check_wanted(order)
            answer = yield from self._ask(order, missing)
            further = {told.shard: told.offset for told in answer.shards}
            if wait_ms := headway.on_answer(further, answer.retry_ms, self._now_ms()):
                yield self._pause(wait_ms)

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms

    def _ask(self, order: _Order, missing: list[int]) -> Flow[objects_pb2.RebuildReplicaResponse]:
        sums = [objects_pb2.ShardSum(shard=shard, parts=_parts(order.work.sums, shard)) for shard in missing]
        request = objects_pb2.RebuildReplicaRequest(object_id=order.work.object_id, sums=sums)
        longest_ms = max(asked_ms(SUM_BYTES_MAX, each.parts) for each in sums)
        answer: objects_pb2.RebuildReplicaResponse = yield call(
            self._carrier,
            order.work.node,
            "RebuildReplica",
            request,
            objects_pb2.RebuildReplicaResponse,
            timeout_ms=2 * SLICE_MS + longest_ms + CALL_TIMEOUT_MS,
        )
        return answer

    def _commit(self, order: _Order) -> Flow[common_pb2.Signed]:
        """The host's ack, which is checked: it is the host's, of this epoch and of no other thing."""
        while True:
            work, epoch = order.work, order.epoch
            request = objects_pb2.CommitReplicaRequest(
                object_id=work.object_id, manifest=work.manifest, epoch=work.epoch
            )
            size_bytes = len(epoch.shards[work.node]) * order.manifest.shard_bytes
            answer = yield call(
                self._carrier,
                work.node,
                "CommitReplica",
                request,
                objects_pb2.CommitReplicaResponse,
                timeout_ms=CALL_TIMEOUT_MS + size_bytes * 1_000 // COMMIT_BYTES_PER_S,
            )
            if order.work is work:  # else a newer epoch is wanted by now
                checked_ack(answer.ack, work.node, epoch, self._members(), self._verify)
                return answer.ack  # type: ignore[no-any-return]

    def _check_wanted(self, order: _Order) -> None:
        """A shard that lies elsewhere by now, or was deleted, is not made twice."""
        value = self._runtime.store.get(OBJECTS, order.work.object_id.encode())
        row = objects_pb2.ObjectRow.FromString(value) if value is not None else objects_pb2.ObjectRow()
        laid = Epoch.decode(row.epoch.body).shards if row.HasField("epoch") else {}
        if laid.get(order.work.node) != order.epoch.shards[order.work.node]:
            text = f"{order.work.node} is to hold other shards of {order.work.object_id} by now"
            raise FailedPrecondition(text, reason="EpochOver")

    def _pause(self, wait_ms: int) -> Callable[[Callable[[None], None]], None]:
        return lambda done: self._later(wait_ms, lambda: done(None))


def _parts(sums: Mapping[int, tuple[SumPart, ...]], shard: int) -> list[objects_pb2.SumPart]:
    return [
        objects_pb2.SumPart(node_id=part.node, shards=part.shards, coefficients=part.coefficients)
        for part in sums[shard]
    ]

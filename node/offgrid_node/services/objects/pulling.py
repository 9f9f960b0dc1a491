"""RebuildReplica: a host makes the shards that it is to hold from those of others, piece by piece, into the very files
that an owner would fill; CommitReplica then hashes and vouches for them as for any others.

It pulls for some seconds and answers how far it has come. Nothing of it goes on by itself: an owner that is gone, or
thinks otherwise by now, asks no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Step, settled, ticket_of, together
from offgrid_node.services.objects.combining import SUM_BYTES_MAX, Combining, Parts, asked_ms, check_parts
from offgrid_node.services.objects.incoming import Incoming
from offgrid_node.services.objects.repair_pace import RepairPace
from offgrid_node.services.objects.replicas import Replicas

WINDOW = 4  # sums of one replica under way
SUMS_MAX = 12  # of all replicas, but one for each: half of what a node lets one caller have under way
SLICE_MS = 5_000  # then it answers


class _Pull(msgspec.Struct):
    """One slice of one replica's. `reached` says how far each shard has come, `gaps` from where on it will not."""

    incoming: Incoming
    sums: Mapping[int, Parts]
    reached: dict[int, int]
    until_ms: int
    waiting: dict[tuple[int, int], Callable[[bool], None]] = msgspec.field(default_factory=dict)
    gaps: dict[int, int] = msgspec.field(default_factory=dict)
    retry_ms: int = 0
    fault: Fault | None = None
    spans: Iterator[tuple[int, int, int]] = iter(())

    def __post_init__(self) -> None:
        self.spans = self._spans()

    def _spans(self) -> Iterator[tuple[int, int, int]]:
        total = self.incoming.claim.manifest.shard_bytes
        for shard in self.sums:
            for offset in range(self.reached[shard], total, SUM_BYTES_MAX):
                yield shard, offset, min(SUM_BYTES_MAX, total - offset)

    @property
    def broken(self) -> bool:
        return self.fault is not None or self.retry_ms > 0

    def turn(self, shard: int, offset: int) -> Step[bool]:
        """Waits until the shard has come so far; False when it will not any more."""

        def start(done: Callable[[bool], None]) -> None:
            if self.reached[shard] == offset:
                done(True)
            elif offset > self.gaps.get(shard, offset):
                done(False)
            else:
                self.waiting[shard, offset] = done

        return start

    def on_written(self, shard: int, size: int) -> None:
        self.reached[shard] = size
        if (done := self.waiting.pop((shard, size), None)) is not None:
            done(True)

    def on_fault(self, fault: Fault, shard: int, offset: int) -> None:
        """What comes too often comes again; anything else ends it. What is under way before the gap is written."""
        if isinstance(fault, Exhausted):
            self.retry_ms = max(self.retry_ms, fault.retry_ms or 1, 1)
        else:
            self.fault = self.fault or fault
        self.gaps[shard] = min(offset, self.gaps.get(shard, offset))
        for behind in [place for place in self.waiting if place[0] == shard and place[1] > offset]:
            self.waiting.pop(behind)(False)


class Pulling:
    """The handler of RebuildReplica."""

    def __init__(self, runtime: Runtime, replicas: Replicas, combining: Combining, pace: RepairPace) -> None:
        self._runtime, self._replicas, self._combining, self._pace = runtime, replicas, combining, pace
        self._pulls: set[tuple[str, str]] = set()
        self._flying = 0  # sums under way

    def rebuild(self, caller: Caller, request: objects_pb2.RebuildReplicaRequest) -> Ticket:
        incoming = self._replicas.coming(caller.node_id, request.object_id)
        claim = incoming.claim
        shards = [each.shard for each in request.sums]
        if not shards or len({*shards}) < len(shards) or not {*shards} <= {*claim.shards}:
            said = f"of shards {shards}; each once, of those that the epoch lays here: {claim.shards}"
            raise InvalidRequest.field("sums", said)
        for each in request.sums:
            check_parts("sums.parts", each.parts)
        if claim.key in self._pulls:
            text = f"{request.object_id} is being rebuilt here already"
            raise Exhausted(text, reason="RebuildUnderWay", retry_ms=1_000)
        return ticket_of(self._answer(incoming, {each.shard: each.parts for each in request.sums}))

    def _answer(self, incoming: Incoming, sums: Mapping[int, Parts]) -> Flow[Message]:
        claim = incoming.claim
        self._pulls.add(claim.key)
        try:
            have = yield from self._replicas.progress(claim)
            reached = {shard: have[shard] for shard in sums}
            pull = _Pull(incoming, sums, reached, self._runtime.clock.now().mono_ms + SLICE_MS)
            yield together([settled(self._lane(pull, first=not lane)) for lane in range(WINDOW)])
        finally:
            self._pulls.discard(claim.key)
        if pull.fault is not None:
            raise pull.fault
        told = [objects_pb2.ShardProgress(shard=shard, offset=reached) for shard, reached in pull.reached.items()]
        return objects_pb2.RebuildReplicaResponse(shards=told, retry_ms=pull.retry_ms)

    def _lane(self, pull: _Pull, *, first: bool) -> Flow[None]:
        """One piece after another, side by side with other lanes; each is written once those before it are."""
        while not pull.broken and self._runtime.clock.now().mono_ms < pull.until_ms:
            if not first and self._flying >= SUMS_MAX:
                return
            span = next(pull.spans, None)
            if span is None:
                return
            try:
                yield settled(self._piece(pull, *span))
            except Fault as fault:
                pull.on_fault(fault, *span[:2])

    def _piece(self, pull: _Pull, shard: int, offset: int, length: int) -> Flow[None]:
        parts, left_ms = pull.sums[shard], asked_ms(length, pull.sums[shard])
        object_id = pull.incoming.claim.manifest.object_id
        self._flying += 1
        try:
            yield from self._pace.pull(length, SLICE_MS)
            data = yield from self._combining.sum_of(object_id, offset, length, parts, left_ms)
        finally:
            self._flying -= 1
        if not (yield pull.turn(shard, offset)):
            return
        size = yield self._replicas.append(pull.incoming, shard, offset, data)
        if size != offset + length:
            raise FailedPrecondition(f"{size} bytes of shard {shard} are here, not {offset + length}", reason="Gap")
        pull.on_written(shard, size)

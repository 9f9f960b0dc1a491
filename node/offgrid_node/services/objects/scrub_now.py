"""ScrubReplicas: whoever owns this host has all that it keeps for others read now, or one object.

The same reading as the paced rounds' (`checking.py`), beside them. Nothing of it is remembered: it ends with the call
that asked for it, or with the node.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest, NotFound
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.tables import REPLICAS, replica_prefix
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import RETRY_MS, Bulk
from offgrid_node.services.flow import Flow, Later, run
from offgrid_node.services.objects.background import let_others, pause
from offgrid_node.services.objects.checking import Checking, Turn, Walk, kept_shards, manifest_in
from offgrid_node.services.objects.rate import Rate
from offgrid_node.services.objects.sharing import PREFIX_CHARS_MIN
from offgrid_node.services.stream import Stream

BYTES_PER_S_MIN = 100_000  # below it there would be no word for longer than ten seconds
OBJECT_ID_CHARS = 34  # of a whole one
SAY_MS = 200  # between two messages
DAMAGED_MAX = 1_000  # in one message: about 100 kB


class _Told(msgspec.Struct):
    """What the reader is told, all of it and since the last message."""

    stream: Stream
    total_bytes: int
    said_ms: int
    read_bytes: int = 0
    shards: int = 0
    damaged_total: int = 0
    unread_total: int = 0
    damaged: list[objects_pb2.DamagedShard] = msgspec.field(default_factory=list)

    def take(self, turn: Turn) -> None:
        self.read_bytes += turn.read_bytes
        self.shards += turn.shard_done
        self.unread_total += turn.refused is not None
        if turn.lost is not None:
            owner, holding = turn.lost.owner, turn.lost.holding
            self.damaged_total += len(holding.shards)
            self.damaged += (
                objects_pb2.DamagedShard(object_id=holding.object_id, shard=shard, owner=owner)
                for shard in holding.shards
            )

    def say(self, now_ms: int, *, done: bool = False) -> None:
        self.stream.push(
            objects_pb2.ScrubReplicasResponse(
                read_bytes=self.read_bytes,
                total_bytes=self.total_bytes,
                shards=self.shards,
                damaged=self.damaged,
                damaged_total=self.damaged_total,
                unread_total=self.unread_total,
                done=done,
            )
        )
        self.said_ms, self.damaged = now_ms, []


class ScrubNow:
    """One at a time."""

    def __init__(self, runtime: Runtime, checking: Checking, bulk: Bulk, later: Later) -> None:
        self._runtime, self._checking, self._bulk, self._later = runtime, checking, bulk, later
        self._under_way: Stream | None = None

    def begin(self, request: objects_pb2.ScrubReplicasRequest) -> Stream:
        """Messages until it is done. Raises FailedPrecondition (ScrubUnderWay), NotFound and InvalidRequest."""
        if self._under_way is not None:
            text = (
                "a scrub that was asked for is under way here; wait until it is done, or end the command that runs it"
            )
            raise FailedPrecondition(text, reason="ScrubUnderWay")
        if 0 < request.bytes_per_s < BYTES_PER_S_MIN:
            allowed = f"{BYTES_PER_S_MIN} or more, or 0 for no limit"
            raise InvalidRequest.field("bytes_per_s", f"{request.bytes_per_s}; allowed is {allowed}")
        prefix, total_bytes = self._what(request.object)
        stream = self._under_way = Stream()
        stream.when_closed(self._closed)
        told = _Told(stream, total_bytes, self._now_ms())
        rate = Rate(self._now_ms, request.bytes_per_s)
        told.say(told.said_ms)
        run(
            self._read(told, self._checking.walk(prefix=prefix), rate),
            lambda end: stream.end(end if isinstance(end, Fault) else None),
        )
        return stream

    def _closed(self) -> None:
        self._under_way = None

    def _read(self, told: _Told, walk: Walk, rate: Rate) -> Flow[None]:
        while not told.stream.ended:
            try:
                turn = yield from self._checking.turn(walk)
            except Exhausted as busy:
                yield pause(self._later, busy.retry_ms or RETRY_MS)
                continue
            told.take(turn)
            if turn.ended:
                told.say(self._now_ms(), done=True)
                return
            if self._now_ms() - told.said_ms >= SAY_MS or len(told.damaged) >= DAMAGED_MAX:
                told.say(self._now_ms())
            rate.take(turn.cost_bytes)
            yield from let_others(rate, self._bulk, self._later)

    def _now_ms(self) -> int:
        return self._runtime.clock.now().mono_ms

    # ---- which

    def _what(self, text: str) -> tuple[bytes, int]:
        """Where its rows are, and how many bytes they stand for."""
        if not text:
            return b"", self._checking.kept_bytes()
        object_id, manifests = self._find(text)
        store = self._runtime.store
        total_bytes = sum(each.shard_bytes * len(kept_shards(store, each)) for each in manifests)
        return replica_prefix(object_id), total_bytes

    def _find(self, text: str) -> tuple[str, list[Manifest]]:
        """Which one it is, and its manifest for each of its owners, but for those whose row is damaged. Hosts do not
        know what owners call their objects."""
        if not text.startswith("o-") or not PREFIX_CHARS_MIN <= len(text) <= OBJECT_ID_CHARS:
            allowed = f"an object's id, or its first characters, {PREFIX_CHARS_MIN} or more"
            raise InvalidRequest.field("object", f"{text[:OBJECT_ID_CHARS]!r}; allowed is {allowed}")
        damaged, manifests = list[bytes](), list[Manifest]()
        for _, value in sound(self._runtime.store.scan, REPLICAS, prefix=text.encode(), on_damaged=damaged.append):
            manifests.append(manifest_in(value))
            if manifests[-1].object_id != manifests[0].object_id:
                break
        ids = {each.object_id for each in manifests} | {key.decode().partition("/")[0] for key in damaged}
        if len(ids) > 1:
            raise InvalidRequest.field("object", f"{text!r} fits several objects; give more of the id")
        if not damaged and not any(kept_shards(self._runtime.store, each) for each in manifests):
            raise NotFound(f"nothing of an object {text!r} is kept here for others", reason="ReplicaNotFound")
        return ids.pop(), manifests

"""What an owner finds out about its hosts, for placement: each is asked, now and then, what it still takes of this
owner, and how long its answer took is its distance; how fast it is shows when something is shipped to it. Its answer
names its life as well: what it has acked before it named this one may be lost.

Nothing of it is durable, all of it grows old, and a host of which nothing is known is a host all the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from statistics import median_low

import msgspec
from msgspec.structs import replace

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.objects.errands import Shipped
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.preference import UNKNOWN, Facts
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.timers import Timers

GET_CAPACITY = "offgrid.v1.ObjectService/GetCapacity"
ASK_TIMEOUT_MS = 5_000
ASK_BYTES = 60  # of a question with its answer
REPORT_SHARE = 100  # of a slow road's time one part may be for questions that something gives rise to
EVERY_MS = 60_000  # each host, a quarter sooner or later
APART_MS = 1_000  # from one question to the next on average: of more hosts each is asked less often
FIRST_MS_MAX = 1_000  # a host that comes is asked within it, not by all owners at once
REPORT_GAP_MS = 1_000  # however often it reports something
UNDER_WAY_MAX = 8
SAMPLES_MAX = 5  # the middle one of so many counts
AGAIN_MS = 2_000  # one that does not answer may only just have started: asked again after it, then twice it, ...
SILENT_ROUNDS_MAX = 6  # a host that has not answered so often is one of which nothing is known
SPEED_BYTES_MIN = 262_144  # what is smaller says how far a host is, not how fast
SPEED_AGE_MAX_MS = 3_600_000
LIFE_BYTES_MAX = 16


class AskTag(msgspec.Struct, frozen=True):
    """What a GetCapacity was about."""

    sent_ms: int


class _Seen(msgspec.Struct):
    """Of one life of a host. `speeds` in bytes a second, each with its instant."""

    facts: Facts = UNKNOWN
    life: bytes | None = None  # as it last said
    unanswered: int = 0
    round_trips_ms: deque[int] = msgspec.field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))
    speeds: deque[tuple[int, int]] = msgspec.field(default_factory=lambda: deque(maxlen=SAMPLES_MAX))


class Measuring:
    """Asks, and tells `hosts`."""

    def __init__(self, hosts: Hosts, draft: Draft, on_anew: Callable[[str, Now], None]) -> None:
        """`on_anew` hears of a host that names the life it lives for the first time, though it may never have seemed
        gone."""
        self._hosts, self._draft, self._on_anew = hosts, draft, on_anew
        self._seen: dict[str, _Seen] = {}
        self._due: Timers[str] = Timers()
        self._asked_ms: dict[str, int] = {}  # living hosts, and when each was asked last
        self._under_way: dict[str, int] = {}  # host → when it was asked

    def deadline_ms(self) -> int | None:
        return self._due.next_ms() if len(self._under_way) < UNDER_WAY_MAX else None

    # ---- inputs

    def on_up(self, node_id: str, now: Now, rng: Rng) -> None:
        """It is new, or known and says something new of itself."""
        self._seen.setdefault(node_id, _Seen())
        self._due.set(node_id, now.mono_ms + rng.randrange(0, FIRST_MS_MAX))

    def on_reported(self, node_id: str, now: Now) -> None:
        """The host says that something has changed there; it is asked a second after the last time at the earliest."""
        if node_id in self._seen:
            asked_ms = self._asked_ms.get(node_id, now.mono_ms - REPORT_GAP_MS)
            gap_ms = max(REPORT_GAP_MS, self._hosts.pace(node_id).apart_ms(ASK_BYTES, REPORT_SHARE))
            self._due.set(node_id, max(now.mono_ms, asked_ms + gap_ms))

    def on_down(self, node_id: str) -> None:
        self._asked_ms.pop(node_id, None)
        self._seen.pop(node_id, None)
        self._due.cancel(node_id)

    def on_answered(self, tag: AskTag, answer: Answered, now: Now) -> bool:
        """Whether its host takes more than it did."""
        if self._under_way.get(answer.node) == tag.sent_ms:
            del self._under_way[answer.node]
        seen = self._seen.get(answer.node)
        if seen is None:
            return False
        if isinstance(answer.reply, objects_pb2.GetCapacityResponse):
            seen.unanswered = 0
            seen.round_trips_ms.append(max(0, now.mono_ms - tag.sent_ms))
            seen.facts = _facts(answer.reply)
            self._heed_life(answer.node, seen, answer.reply.life[:LIFE_BYTES_MAX], now)
        else:
            again_ms = max(AGAIN_MS, self._hosts.pace(answer.node).apart_ms(ASK_BYTES, REPORT_SHARE))
            self._ask_again(answer.node, now.mono_ms + (again_ms << seen.unanswered))
            seen.unanswered = min(seen.unanswered + 1, SILENT_ROUNDS_MAX)
            if seen.unanswered >= SILENT_ROUNDS_MAX:
                seen.facts = UNKNOWN
                seen.round_trips_ms.clear()
        return self._tell(answer.node, seen, now)

    def on_shipped(self, event: Shipped, now: Now) -> None:
        """What a host took it has room for no more, until it says so itself."""
        seen = self._seen.get(event.node)
        if seen is None or not event.sent_bytes:
            return
        if event.sent_bytes >= SPEED_BYTES_MIN and event.ack is not None:
            seen.speeds.append((now.mono_ms, event.sent_bytes * 1_000 // max(1, event.took_ms)))
        if (room := seen.facts.room_bytes) is not None:
            seen.facts = replace(seen.facts, room_bytes=max(0, room - event.sent_bytes))
        self._tell(event.node, seen, now)

    def close_step(self, now: Now, rng: Rng) -> None:
        for node_id in self._due.take_due(now.mono_ms, UNDER_WAY_MAX - len(self._under_way)):
            every_ms = max(EVERY_MS, APART_MS * len(self._seen), self._hosts.pace(node_id).apart_ms(ASK_BYTES))
            self._due.set(node_id, now.mono_ms + rng.randrange(every_ms * 3 // 4, every_ms * 5 // 4))
            self._under_way[node_id] = self._asked_ms[node_id] = now.mono_ms
            request, tag = objects_pb2.GetCapacityRequest(), AskTag(now.mono_ms)
            self._draft.send(Call("objects", node_id, GET_CAPACITY, request, tag, ASK_TIMEOUT_MS, early=True))

    # ---- inside

    def _ask_again(self, node_id: str, at_ms: int) -> None:
        due_ms = self._due.due_ms(node_id)
        if due_ms is None or at_ms < due_ms:
            self._due.set(node_id, at_ms)

    def _heed_life(self, node_id: str, seen: _Seen, life: bytes, now: Now) -> None:
        if seen.life != life:
            seen.life = life
            self._on_anew(node_id, now)

    def _tell(self, node_id: str, seen: _Seen, now: Now) -> bool:
        speeds = [speed for at_ms, speed in seen.speeds if now.mono_ms - at_ms <= SPEED_AGE_MAX_MS]
        round_trip_ms = median_low(seen.round_trips_ms) if seen.round_trips_ms else None
        bytes_per_s = median_low(speeds) if speeds else None
        return self._hosts.on_facts(node_id, replace(seen.facts, round_trip_ms=round_trip_ms, bytes_per_s=bytes_per_s))


def _facts(said: objects_pb2.GetCapacityResponse) -> Facts:
    return Facts(takes=said.keeps_replicas, drained=said.drained, room_bytes=said.owner_free_bytes)

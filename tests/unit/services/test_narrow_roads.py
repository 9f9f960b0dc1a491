"""Reading over roads of some pace, in virtual time: what was asked for comes, also where nobody waits for it any more.
So what is asked for twice, or given up too soon, is seen as bytes."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Any

import msgspec
import pytest

from offgrid.pieces import Buffer
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, OutcomeUnknown
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.manifest import COPY, NONCE_BYTES, REED_SOLOMON, STRIPE_BYTES, Manifest
from offgrid_node.services.flow import Step
from offgrid_node.services.objects.gathering import Gathered, Gathering, Span
from offgrid_node.services.objects.holders import Holders
from offgrid_node.services.objects.pulls import Pulls

AT_ONCE = 3  # stripes, as a client asks for them
RTT_MS = 40
BODY = Manifest(base32(bytes(20)), bytes(NONCE_BYTES), 8 * STRIPE_BYTES, STRIPE_BYTES, 1, COPY, (bytes(32),), 1)


class Roads:
    """A reader's one road to all hosts, first in first out; a host may be slower than that, or silent at times. It
    stands for the trust that the reader has in them, too."""

    self_id = "a reader"

    def __init__(self, bytes_per_s: int) -> None:
        self.bytes_per_s, self.slow_hosts = bytes_per_s, dict[str, int]()
        self.ms, self.came_bytes, self.queued_ms_max = 0, 0, 0
        self.silent: Callable[[str], bool] = lambda host: False
        self._free_ms, self._events, self._tie = dict[str, int](), list[tuple[int, int, Callable[[], None]]](), count()

    def now_ms(self) -> int:
        return self.ms

    def rank(self, host: str) -> tuple[bool, bool, int]:
        return False, False, 0

    def has_free_road(self, host: str) -> bool:
        return True

    def shun(self, host: str, for_ms: int) -> None: ...

    def on_fault(self, host: str, fault: Fault) -> None: ...

    def why(self, host: str, fault: Fault) -> str:
        return fault.message

    def named(self, fault: Fault, asked: list[str]) -> list[str]:
        return []

    def may_answer_later(self, host: str, fault: Fault) -> bool:
        return True

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.ms + delay_ms, next(self._tie), callback))

    def request(self, node: str, method: str, request: Any, timeout_ms: int, done: Callable[[Any], None]) -> None:
        over = False

        def end(outcome: Any) -> None:
            nonlocal over
            if not over:
                over = True
                done(outcome)

        self.later(timeout_ms, lambda: end(OutcomeUnknown("too late")))
        if self.silent(node):
            return
        lane, rate = (node, self.slow_hosts[node]) if node in self.slow_hosts else ("", self.bytes_per_s)
        begin = max(self.ms + RTT_MS, self._free_ms.get(lane, 0))
        self._free_ms[lane] = begin + max(1, request.length * 1_000 // rate)
        self.came_bytes += request.length
        self.queued_ms_max = max(self.queued_ms_max, begin - self.ms - RTT_MS)
        answer = objects_pb2.ReadReplicaResponse(data=bytes(request.length))
        self.later(self._free_ms[lane] - self.ms, lambda: end(answer))

    def run(self, over: Callable[[], bool]) -> None:
        while not over():
            self.ms, _, callback = heapq.heappop(self._events)
            callback()


def unchecked(shard: int, answer: objects_pb2.ReadReplicaResponse) -> Step[Buffer]:
    return lambda done: done(answer.data)


def read(roads: Roads, body: Manifest, holders: Holders, on_stripe: Callable[[int], None] = lambda index: None) -> int:
    """All of it, AT_ONCE stripes under way; answers how many came, and asks for none after one that did not."""
    ground: Any = roads
    pulls, came, failed, under_way = Pulls(ground, ground), list[int](), list[int](), iter(range(body.stripes))

    def begin() -> None:
        index = next(under_way, None)
        if index is not None and not failed:
            Gathering(Span(body, index, 1), holders, ground, pulls, roads.later, unchecked, end(index)).start()

    def end(index: int) -> Callable[[Gathered], None]:
        def ended(gathered: Gathered) -> None:
            (came if len(gathered.pieces) >= body.k else failed).append(index)
            on_stripe(index)
            begin()

        return ended

    for _ in range(AT_ONCE):
        begin()
    roads.run(lambda: len(came) == body.stripes or bool(failed))
    return len(came)


@pytest.mark.parametrize("bytes_per_s", [8_000, 32_000, 250_000, 1_000_000, 12_500_000])
def test_each_byte_of_a_sole_host_comes_once_and_the_road_is_full(bytes_per_s: int) -> None:
    roads = Roads(bytes_per_s)
    assert read(roads, BODY, Holders(["a"])) == BODY.stripes
    assert roads.came_bytes == BODY.sealed_bytes
    assert roads.ms <= 1.15 * BODY.sealed_bytes * 1_000 / bytes_per_s + 20 * RTT_MS


@pytest.mark.parametrize("bytes_per_s", [250_000, 1_000_000, 12_500_000])
def test_what_is_urgent_waits_a_moment_behind_what_is_read(bytes_per_s: int) -> None:
    roads = Roads(bytes_per_s)
    read(roads, BODY, Holders(["a"]))
    assert roads.queued_ms_max <= 1_200


def test_a_road_that_becomes_narrow_costs_no_byte_twice() -> None:
    roads = Roads(10_000_000)

    def narrow(index: int) -> None:
        roads.bytes_per_s = 250_000

    assert read(roads, BODY, Holders(["a"]), narrow) == BODY.stripes
    assert roads.came_bytes == BODY.sealed_bytes


def test_of_three_copies_beyond_a_narrow_road_one_is_read() -> None:
    roads = Roads(250_000)
    assert read(roads, BODY, Holders(["a", "b", "c"])) == BODY.stripes
    assert roads.came_bytes <= 1.1 * BODY.sealed_bytes


def test_of_shards_beyond_a_narrow_road_hardly_more_than_it_takes_are_read() -> None:
    roads = Roads(250_000)
    body = msgspec.structs.replace(BODY, k=4, codec=REED_SOLOMON, roots=(bytes(32),) * 6)
    laid = {shard: [f"host {shard}"] for shard in range(6)}
    assert read(roads, body, Holders((), laid)) == body.stripes
    assert roads.came_bytes <= 1.25 * body.k * body.shard_bytes


@pytest.mark.parametrize("trickle", [1, 3_000, 20_000])
def test_a_host_that_trickles_holds_nobody_up_where_another_has_a_copy(trickle: int) -> None:
    roads = Roads(12_500_000)
    roads.slow_hosts["a"] = trickle
    assert read(roads, BODY, Holders(["a", "b"])) == BODY.stripes
    assert roads.ms <= 12_000


def test_a_sole_host_that_trickles_or_falls_silent_is_given_up() -> None:
    for roads in (Roads(1), Roads(250_000)):
        roads.silent = lambda host, roads=roads: roads.ms > 5_000  # type: ignore[misc]
        assert read(roads, BODY, Holders(["a"])) < BODY.stripes
        assert roads.ms <= 60_000


def test_after_a_moment_of_silence_it_goes_on_behind_what_has_come() -> None:
    roads = Roads(250_000)
    roads.silent = lambda host: 3_000 < roads.ms < 6_000
    assert read(roads, BODY, Holders(["a"])) == BODY.stripes
    assert roads.came_bytes <= BODY.sealed_bytes + (128 << 10)

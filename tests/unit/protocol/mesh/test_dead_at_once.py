"""A process that is surely gone is known to be so within a moment; less than surely costs a probe and no more."""

from __future__ import annotations

from random import Random

import pytest

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Effect, Reply
from offgrid_node.protocol.errors import CONNECTION_REFUSED, Fault, OutcomeUnknown, Unavailable
from offgrid_node.protocol.mesh.liveness import LivenessCalls, RelayTag
from offgrid_node.protocol.mesh.probing import LOOKS
from offgrid_node.protocol.mesh.swim import ALIVE, DEAD, SUSPECT, News, Swim

INTERVAL_MS = 1_000
REFUSED = Unavailable("nobody listens there", reason=CONNECTION_REFUSED)
SILENT = OutcomeUnknown("no answer", reason="DeadlineExceeded")
RESET = Unavailable("connection reset by peer", reason="NotConnected")
LOOK_MS = INTERVAL_MS // 10


class Town:
    """What `me` believes of `it`, with `helpers` who are alive."""

    def __init__(self, helpers: int = 2) -> None:
        self.swim, self.rng = Swim("me", 1, INTERVAL_MS, 0), Random(1)
        self.calls = LivenessCalls(self.swim, INTERVAL_MS)
        self.helpers = [f"helper {number}" for number in range(helpers)]
        for node in ("it", *self.helpers):
            self.swim.watch(node, 0)
            self.swim.heard(node, 1 << 20, 0)

    def lose_road(self, now_ms: int = 10) -> list[Call]:
        return _calls(self.calls.road_lost("it", b"", Now(now_ms, 0)))

    def answer(self, call: Call, outcome: Fault | mesh_pb2.PingViaResponse, now_ms: int = 10) -> list[Call]:
        reply, fault = (None, outcome) if isinstance(outcome, Fault) else (outcome, None)
        return _calls(self.calls.answered(Answered(call.tag, call.node, reply, fault), b"", Now(now_ms, 0), self.rng))

    def begin(self) -> None:
        """The first interval: all are probed, and answer."""
        for call in _calls(self.calls.tick(b"", Now(0, 0), self.rng)):
            self.calls.answered(Answered(call.tag, call.node, pong(call.node), None), b"", Now(0, 0), self.rng)

    def looks(self, now_ms: int) -> list[Call]:
        """Probes of it that are due by then, before any of the others is."""
        for node in self.helpers:
            self.swim.heard(node, 1 << 20, now_ms)
        return [call for call in _calls(self.calls.tick(b"", Now(now_ms, 0), self.rng)) if call.node == "it"]

    def fails(self, probe: Call, now_ms: int) -> None:
        """It has reset our connection and the helpers', as a process does that is being taken apart."""
        for asked in self.answer(probe, RESET, now_ms):
            self.answer(asked, mesh_pb2.PingViaResponse(), now_ms)

    def dead_after_ms(self) -> int:
        """How long from now (10 ms) it is taken for dead, nothing being heard of it."""
        for now_ms in range(10, 10_000, 10):
            self.swim.tick(now_ms, self.rng)
            if self.swim.liveness("it") == DEAD:
                return now_ms - 10
        return -1


def pong(node: str) -> mesh_pb2.PingResponse:
    return mesh_pb2.PingResponse(news=[mesh_pb2.LivenessNews(node_id=node, liveness=1, incarnation=1 << 20)])


def _calls(effects: list[Effect]) -> list[Call]:
    return [effect for effect in effects if isinstance(effect, Call)]


def test_a_lost_connection_is_followed_by_one_probe_at_once() -> None:
    town = Town()
    [probe] = town.lose_road()
    assert (probe.node, probe.method.rpartition("/")[2]) == ("it", "Ping")
    assert town.lose_road() == [], "one is under way"
    assert town.swim.liveness("it") == ALIVE


def test_who_is_doubted_already_is_probed_as_well_and_who_is_dead_is_not() -> None:
    town = Town()
    town.swim.silent("it", 0)
    assert [call.node for call in town.lose_road()] == ["it"]
    town = Town()
    town.swim.learn([News("it", DEAD, 1 << 20)], 10_000)
    assert town.lose_road(10_000) == []


def test_refused_to_all_who_try_it_is_dead_in_half_an_interval() -> None:
    town = Town()
    [probe] = town.lose_road()
    for asked in town.answer(probe, REFUSED):
        assert town.swim.liveness("it") == ALIVE
        town.answer(asked, mesh_pb2.PingViaResponse(answered=False, refused=True))
    assert town.swim.liveness("it") == SUSPECT
    assert town.dead_after_ms() == INTERVAL_MS // 2


def test_without_anybody_to_ask_being_refused_oneself_is_enough() -> None:
    town = Town(helpers=0)
    [probe] = town.lose_road()
    assert town.answer(probe, REFUSED) == []
    assert town.dead_after_ms() == INTERVAL_MS // 2


@pytest.mark.parametrize(
    ("direct", "others"),
    [
        (SILENT, [mesh_pb2.PingViaResponse(refused=True)] * 2),
        (REFUSED, [mesh_pb2.PingViaResponse(refused=True), mesh_pb2.PingViaResponse()]),
        (REFUSED, [SILENT, mesh_pb2.PingViaResponse(refused=True)]),
        (SILENT, [mesh_pb2.PingViaResponse()] * 2),
    ],
)
def test_where_somebody_was_not_refused_it_has_its_whole_time(
    direct: Fault, others: list[Fault | mesh_pb2.PingViaResponse]
) -> None:
    town = Town()
    [probe] = town.lose_road()
    for asked, outcome in zip(town.answer(probe, direct), others, strict=True):
        town.answer(asked, outcome)
    assert town.dead_after_ms() == 2 * INTERVAL_MS + 300


def test_one_that_merely_hung_up_stays_alive() -> None:
    town = Town()
    [probe] = town.lose_road()
    town.calls.answered(Answered(probe.tag, "it", pong("it"), None), b"", Now(20, 0), town.rng)
    assert town.swim.liveness("it") == ALIVE


def test_a_suspect_that_is_refused_later_waits_no_longer_than_that() -> None:
    town = Town()
    town.swim.silent("it", 10)
    town.swim.silent("it", 110, refused=True)
    assert town.dead_after_ms() == 100 + INTERVAL_MS // 2


def test_whose_connection_ended_and_is_refused_is_gone_though_a_slow_road_has_still_to_answer() -> None:
    town = Town()
    town.swim.on_beacon("it", 1 << 20, 60_000, 5)
    town.lose_road()
    town.calls.road_refused("it", Now(10, 0))
    assert 0 <= town.dead_after_ms() <= INTERVAL_MS


def test_who_is_refused_though_no_connection_has_ended_may_be_elsewhere_by_now() -> None:
    town = Town()
    town.calls.road_refused("it", Now(10, 0))
    assert town.swim.liveness("it") == ALIVE


def test_a_helper_says_that_it_was_refused() -> None:
    town = Town()
    town.calls.asked_ping_via(7, mesh_pb2.PingViaRequest(target="it", timeout_ms=100), b"", Now(10, 0))
    replies = town.calls.answered(Answered(RelayTag(7), "it", None, REFUSED), b"", Now(20, 0), town.rng)
    assert [effect.outcome for effect in replies if isinstance(effect, Reply)] == [
        mesh_pb2.PingViaResponse(answered=False, refused=True)
    ]


class TestWhoseConnectionBrokeAndNobodyKnowsMore:
    """A killed process resets for a moment, before nobody listens there."""

    def test_is_looked_at_again_soon_and_is_then_surely_gone(self) -> None:
        town = town_where_it_broke()
        assert (town.swim.liveness("it"), town.calls.deadline_ms()) == (SUSPECT, 10 + LOOK_MS)
        assert town.looks(9 + LOOK_MS) == []
        [probe] = town.looks(10 + LOOK_MS)
        for asked in town.answer(probe, REFUSED, 120):
            town.answer(asked, mesh_pb2.PingViaResponse(refused=True), 120)
        assert town.dead_after_ms() == 110 + INTERVAL_MS // 2

    def test_is_looked_at_a_few_times_only(self) -> None:
        town, now_ms = town_where_it_broke(), 10
        for _ in range(LOOKS):
            now_ms += LOOK_MS
            [probe] = town.looks(now_ms)
            town.fails(probe, now_ms)
        assert town.looks(now_ms + LOOK_MS) == []
        assert town.calls.deadline_ms() > now_ms + LOOK_MS

    def test_is_looked_at_again_though_a_probe_was_under_way_when_it_broke(self) -> None:
        town = Town()
        [probe] = town.lose_road()
        assert town.lose_road() == []
        town.fails(probe, 20)
        assert len(town.looks(20 + LOOK_MS)) == 1

    def test_is_left_alone_once_it_is_heard(self) -> None:
        town = town_where_it_broke()
        [probe] = town.looks(10 + LOOK_MS)
        town.calls.answered(Answered(probe.tag, "it", pong("it"), None), b"", Now(120, 0), town.rng)
        assert town.swim.liveness("it") == ALIVE
        assert town.looks(120 + LOOK_MS) == []

    def test_is_left_alone_once_it_is_dead(self) -> None:
        town = town_where_it_broke()
        town.swim.learn([News("it", DEAD, 1 << 20)], 5_000)
        assert town.swim.liveness("it") == DEAD
        town.calls.tick(b"", Now(5_000, 0), town.rng)
        assert town.looks(5_000 + LOOK_MS) == []


def town_where_it_broke() -> Town:
    town = Town()
    town.begin()
    [probe] = town.lose_road()
    town.fails(probe, 10)
    return town


def test_a_helper_that_is_refused_looks_for_itself_at_once() -> None:
    town = Town()
    town.begin()
    town.calls.answered(Answered(RelayTag(7), "it", None, REFUSED), b"", Now(20, 0), town.rng)
    assert town.looks(20) == [], "nobody had asked"
    for ticket, wanted in ((7, 1), (8, 0)):
        town.calls.asked_ping_via(ticket, mesh_pb2.PingViaRequest(target="it", timeout_ms=100), b"", Now(20, 0))
        town.calls.answered(Answered(RelayTag(ticket), "it", None, REFUSED), b"", Now(20, 0), town.rng)
        assert len(town.looks(20)) == wanted, "one look, however many ask"

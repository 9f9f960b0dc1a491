"""Calls over one shared channel: few at a time, the urgent first, and none that waits longer than its caller would."""

from __future__ import annotations

from offgrid_node.services.link_turns import BULK_MAX, URGENT_MAX, WAITING_MAX, LinkTurns, Turn
from offgrid_transports.sharing import GATHER_MS
from offgrid_transports.transport import Priority

CONTROL, JOB, BULK = Priority.CONTROL, Priority.JOB, Priority.BULK


class Bench:
    def __init__(self) -> None:
        self.now_ms = 0.0
        self.turns = LinkTurns(lambda: self.now_ms)
        self.begun: list[str] = []
        self.given_up: list[str] = []

    def ask(self, name: str, priority: Priority = JOB, until_ms: float = 1_000.0, alike: str | None = None) -> bool:
        turn = Turn(until_ms, lambda: self.begun.append(name), lambda: self.given_up.append(name), alike)
        return self.turns.ask(priority, turn)


def test_so_many_are_under_way_and_the_next_begins_when_one_ends() -> None:
    bench = Bench()
    for name in ("a", "b", "c"):
        assert bench.ask(name)
    assert (bench.begun, URGENT_MAX) == (["a", "b"], 2)
    bench.turns.end(JOB)
    assert bench.begun == ["a", "b", "c"]


def test_what_is_more_urgent_goes_first_and_bulk_has_a_place_of_its_own() -> None:
    bench = Bench()
    for name, priority in (("a", JOB), ("b", JOB), ("job", JOB), ("control", CONTROL), ("x", BULK), ("y", BULK)):
        bench.ask(name, priority)
    assert (bench.begun, BULK_MAX) == (["a", "b", "x"], 1)
    bench.turns.end(JOB)
    bench.turns.end(JOB)
    bench.turns.end(BULK)
    assert bench.begun[3:] == ["control", "job", "y"]


def test_who_has_waited_for_too_long_is_told_that_nothing_was_sent() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.ask(name)
    bench.ask("late", until_ms=500.0)
    bench.ask("patient", until_ms=5_000.0)
    bench.now_ms = 600.0
    bench.turns.end(JOB)
    assert (bench.begun, bench.given_up) == (["a", "b", "patient"], ["late"])


def test_so_many_may_wait() -> None:
    bench = Bench()
    for number in range(URGENT_MAX + WAITING_MAX):
        assert bench.ask(str(number))
    assert not bench.ask("one too many")
    assert len(bench.turns) == WAITING_MAX


def test_those_who_ask_several_alike_begin_together() -> None:
    bench = Bench()
    for name in ("to x", "to y", "to z"):
        bench.ask(name, BULK, alike="the same")
    bench.ask("another", BULK, alike="something else")
    assert bench.begun == ["to x", "to y", "to z"]
    bench.now_ms = GATHER_MS
    bench.ask("to u", BULK, alike="the same")
    bench.ask("to v", BULK, alike="something else")
    assert len(bench.begun) == 3, "what began before is gone already"
    for _ in range(3):
        assert len(bench.begun) == 3
        bench.turns.end(BULK)
    assert bench.begun[3:] == ["another", "to v"]

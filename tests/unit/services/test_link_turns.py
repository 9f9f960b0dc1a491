"""Calls over one radio: few at a time, the urgent first, each peer in turn, and none that waits longer than its caller
would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offgrid_node.services.link_turns import (
    BULK_MAX,
    URGENT_MAX,
    WAITING_BYTES_MAX,
    WAITING_MAX,
    LinkTurns,
    NoTurn,
    Turn,
)
from offgrid_transports.sharing import GATHER_MS
from offgrid_transports.transport import Priority

CONTROL, JOB, BULK = Priority.CONTROL, Priority.JOB, Priority.BULK


class Bench:
    """`ends_at_once`: calls are over before `begin` returns."""

    def __init__(self, *, ends_at_once: bool = False) -> None:
        self.now_ms = 0.0
        self.timers: list[tuple[float, Callable[[], object]]] = []
        self.turns = LinkTurns(lambda: self.now_ms, lambda ms, fn: self.timers.append((self.now_ms + ms, fn)))
        self.begun: list[str] = []
        self.given_up: list[str] = []
        self.asked: dict[str, Turn] = {}
        self.ends_at_once = ends_at_once

    def ask(
        self,
        name: str,
        priority: Priority = JOB,
        until_ms: float = 1_000.0,
        alike: str | None = None,
        *,
        peer: str = "",
        length: int = 100,
    ) -> None:
        def begin() -> None:
            self.begun.append(name)
            if self.ends_at_once:
                self.end(name)

        give_up = lambda: self.given_up.append(name)  # noqa: E731
        self.asked[name] = Turn(peer or name, priority, length, until_ms, begin, give_up, alike)
        self.turns.ask(self.asked[name])

    def end(self, name: str) -> None:
        self.turns.end(self.asked[name])

    def wait_until(self, ms: float) -> None:
        self.now_ms = ms
        due = [fn for due_ms, fn in self.timers if due_ms <= ms]
        self.timers = [timer for timer in self.timers if timer[0] > ms]
        for fn in due:
            fn()


def test_so_many_are_under_way_and_the_next_begins_when_one_ends() -> None:
    bench = Bench()
    for name in ("a", "b", "c"):
        bench.ask(name)
    assert (bench.begun, URGENT_MAX) == (["a", "b"], 2)
    bench.end("a")
    assert bench.begun == ["a", "b", "c"]


def test_what_is_more_urgent_goes_first_and_bulk_has_a_place_of_its_own() -> None:
    bench = Bench()
    for name, priority in (("a", JOB), ("b", JOB), ("job", JOB), ("control", CONTROL), ("x", BULK), ("y", BULK)):
        bench.ask(name, priority)
    assert (bench.begun, BULK_MAX) == (["a", "b", "x"], 1)
    for name in ("a", "b", "x"):
        bench.end(name)
    assert bench.begun[3:] == ["control", "job", "y"]


@pytest.mark.parametrize("priority", [JOB, BULK])
def test_who_asks_for_much_does_not_keep_others_from_their_turn(priority: Priority) -> None:
    bench = Bench()
    for number in range(4):
        bench.ask(f"many {number}", priority, peer="many")
    for peer in ("one", "another"):
        bench.ask(peer, priority)
    for number in range(4):
        bench.end(bench.begun[number])
    assert set(bench.begun[:4]) >= {"many 0", "many 1", "one", "another"}, "each before the third of the first"


def test_who_has_waited_for_too_long_is_told_that_nothing_was_sent() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.ask(name)
    bench.ask("late", until_ms=500.0)
    bench.ask("patient", until_ms=5_000.0)
    bench.now_ms = 600.0
    bench.end("a")
    assert (bench.begun, bench.given_up) == (["a", "b", "patient"], ["late"])


def test_it_is_told_when_its_time_is_up_though_nothing_ends() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.ask(name)
    bench.ask("patient", until_ms=900.0)
    bench.ask("late", until_ms=500.0)
    for ms, given_up in ((499, []), (500, ["late"]), (899, ["late"]), (900, ["late", "patient"])):
        bench.wait_until(ms)
        assert bench.given_up == given_up
    assert (len(bench.turns), bench.begun) == (0, ["a", "b"])


def test_so_many_may_wait() -> None:
    bench = Bench()
    for number in range(URGENT_MAX + WAITING_MAX):
        bench.ask(str(number))
    with pytest.raises(NoTurn, match="1024 calls wait for their turn on this link already"):
        bench.ask("one too many")
    assert len(bench.turns) == WAITING_MAX


def test_and_so_many_bytes() -> None:
    bench = Bench()
    for number in range(BULK_MAX + 2):
        bench.ask(str(number), BULK, length=WAITING_BYTES_MAX // 2)
    with pytest.raises(NoTurn, match=f"hold {WAITING_BYTES_MAX} bytes, this one has 1; {WAITING_BYTES_MAX} are"):
        bench.ask("a byte too many", length=1)
    bench.end("0")
    bench.ask("now there is room", BULK, length=1)
    assert len(bench.turns) == 2


def test_calls_that_end_as_they_begin_are_no_deeper_than_one() -> None:
    bench = Bench()
    for name in ("a", "b"):
        bench.ask(name)
    for number in range(WAITING_MAX):
        bench.ask(str(number))
    bench.ends_at_once = True
    bench.end("a")
    assert (len(bench.begun), len(bench.turns)) == (2 + WAITING_MAX, 0)


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
    for name in ("to x", "to y", "to z"):
        assert len(bench.begun) == 3
        bench.end(name)
    assert bench.begun[3:] == ["another", "to v"]


def test_one_that_cannot_begin_is_not_under_way_and_keeps_no_other_from_its_turn() -> None:
    bench = Bench()
    for name in ("to x", "to y", "to z"):
        bench.ask(name, BULK, alike="another" if name == "to x" else "the same")

    def fail() -> None:
        raise RuntimeError("to v")

    bench.turns.ask(Turn("v", BULK, 100, 1_000.0, fail, fail, "the same"))
    bench.ask("to u", BULK, alike="the same")
    bench.ask("last", BULK)
    with pytest.raises(RuntimeError, match="to v"):
        bench.end("to x")
    bench.wait_until(0)
    assert bench.begun == ["to x", "to y", "to z"], "those who began have the place"
    for name in ("to y", "to z"):
        bench.end(name)
    assert bench.begun[3:] == ["to u"]
    bench.end("to u")
    assert (bench.begun[4:], len(bench.turns)) == (["last"], 0)


def test_one_that_cannot_be_given_up_keeps_no_other_from_hearing_of_it() -> None:
    bench = Bench()

    def fail() -> None:
        raise RuntimeError("late as well")

    for name in ("a", "b"):
        bench.ask(name)
    bench.turns.ask(Turn("v", JOB, 100, 500.0, fail, fail))
    bench.ask("late", until_ms=500.0)
    with pytest.raises(RuntimeError, match="late as well"):
        bench.wait_until(500)
    bench.wait_until(500)
    assert (bench.given_up, len(bench.turns)) == (["late"], 0)

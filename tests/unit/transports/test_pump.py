"""An endpoint goes on turning, whatever a callback raises."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import pytest

from offgrid_transports.dispatch import Dispatch
from offgrid_transports.pump import Pump
from offgrid_transports.timers import Timers


class World:
    def __init__(self) -> None:
        self.now_ms = 0
        self.alarms: list[tuple[int, Callable[[], object]]] = []
        self.rung: list[Hashable] = []
        self.timers = Timers()
        self.pump = Pump(lambda: self.now_ms, self.schedule, self.timers, Dispatch())
        self.pump.on_timer = self.on_timer

    def schedule(self, delay_ms: int, what: Callable[[], object]) -> None:
        self.alarms.append((self.now_ms + delay_ms, what))

    def on_timer(self, now_ms: float, key: Hashable) -> None:
        self.rung.append(key)
        if key == "bad":
            raise ZeroDivisionError

    def ring(self) -> None:
        alarm = min(self.alarms, key=lambda each: each[0])
        self.alarms.remove(alarm)
        self.now_ms = alarm[0]
        alarm[1]()


def test_what_is_owed_is_told_in_order_and_never_nested() -> None:
    world, told = World(), list[str]()

    def first() -> None:
        world.pump.owe(lambda: told.append("third"))
        world.pump.turn()
        told.append("first")

    world.pump.owe(first)
    world.pump.owe(lambda: told.append("second"))
    world.pump.turn()
    assert told == ["first", "second", "third"]


def test_a_callback_that_raises_keeps_no_other_from_being_called() -> None:
    world, told = World(), list[str]()
    world.pump.owe(lambda: 1 / 0)
    world.pump.owe(lambda: told.append("next"))
    with pytest.raises(ZeroDivisionError):
        world.pump.turn()
    world.ring()
    assert told == ["next"]


def test_a_timer_that_raises_stops_no_other() -> None:
    world = World()
    for key, due_ms in (("bad", 5), ("due with it", 5), ("later", 9)):
        world.timers.set(key, due_ms)
    world.pump.turn()
    with pytest.raises(ZeroDivisionError):
        world.ring()
    world.ring()
    assert (world.rung, world.now_ms) == (["bad", "due with it"], 5)
    world.ring()
    assert (world.rung[2:], world.now_ms) == (["later"], 9)

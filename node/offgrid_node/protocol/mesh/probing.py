"""The probes that are under way: first the member itself, then others in our stead, then silence (SWIM, section 3.1).

A call may get lost without a word, so every probe has a time by which it is over. A member to whom the connection has
broken is looked at again soon: while a killed process is taken apart its kernel resets what has just been accepted, and
only a moment later does it say that nobody listens.
"""

from __future__ import annotations

import itertools

import msgspec

from offgrid_node.protocol.mesh.quiet import Quiet
from offgrid_node.protocol.timers import Timers

HELPERS = 2  # the paper's k
LOOKS, LOOK_INTERVALS = 3, 0.1  # at whose connection broke, so long as nobody knows more; a process is gone before that


class _Probe(msgspec.Struct):
    target: str
    due_ms: int
    helpers: set[str] = msgspec.field(default_factory=set)
    refused: bool = False  # by all who have tried: nobody listens there


class Prober:
    """At most one probe per member at a time."""

    def __init__(self, interval_ms: int, quiet: Quiet | None = None) -> None:
        self.direct_ms = max(1, interval_ms // 2)
        self.indirect_ms = max(1, interval_ms * 3 // 4)
        self._quiet = quiet or Quiet()
        self._look_ms = max(1, int(LOOK_INTERVALS * interval_ms))
        self._numbers = itertools.count(1)
        self._open: dict[int, _Probe] = {}
        self._looks: dict[str, int] = {}  # left, by member
        self._looks_due: Timers[str] = Timers()

    def deadline_ms(self) -> int | None:
        """When `take_looks` has something to say."""
        return self._looks_due.next_ms()

    def road_lost(self, target: str) -> None:
        """The connection to it has broken: until somebody knows more it is looked at again."""
        self._looks[target] = LOOKS

    def is_looking(self, target: str) -> bool:
        """Its connection has broken, and nobody knows more."""
        return target in self._looks

    def look_now(self, target: str, now_ms: int) -> None:
        """There is other reason to look."""
        if target not in self._looks:
            self.road_lost(target)
            self._looks_due.set(target, now_ms)

    def take_looks(self, now_ms: int) -> list[str]:
        """Whom to probe again now."""
        return self._looks_due.take_due(now_ms)

    def look_again(self, target: str, now_ms: int) -> None:
        """Nobody knows more of it yet."""
        left = self._looks.pop(target, 0)
        if left:
            self._looks[target] = left - 1
            self._looks_due.set(target, now_ms + self._look_ms)

    def known(self, target: str) -> None:
        """It lives, or is surely gone."""
        if self._looks.pop(target, None) is not None:
            self._looks_due.cancel(target)

    def start(self, target: str, now_ms: int) -> int | None:
        """A number for a new probe; None while one is under way."""
        if any(probe.target == target for probe in self._open.values()):
            return None
        number = next(self._numbers)
        self._open[number] = _Probe(target, now_ms + 2 * (self.direct_ms + self._quiet.longer_ms(target)))
        return number

    def end(self, number: int) -> None:
        """The target lives, or nothing more is to be done."""
        self._open.pop(number, None)

    def is_open(self, number: int) -> bool:
        return number in self._open

    def ask_others(self, number: int, helpers: list[str], now_ms: int, *, refused: bool = False) -> None:
        """The direct probe has failed; these were asked to try."""
        probe = self._open[number]
        slow_ms = self._quiet.longer_ms(probe.target) + max(map(self._quiet.longer_ms, helpers), default=0)
        probe.helpers, probe.refused = set(helpers), refused
        probe.due_ms = now_ms + 2 * (self.indirect_ms + slow_ms)

    def other_failed(self, number: int, helper: str, *, refused: bool = False) -> bool:
        """One of them got no answer either; True when it was the last."""
        probe = self._open.get(number)
        if probe is None or helper not in probe.helpers:
            return False
        probe.helpers.remove(helper)
        probe.refused = probe.refused and refused
        return not probe.helpers

    def was_refused(self, number: int) -> bool:
        """Whether all who have tried found that nobody listens there."""
        probe = self._open.get(number)
        return probe is not None and probe.refused and not probe.helpers

    def overdue(self, now_ms: int) -> list[tuple[int, str, bool]]:
        """(number, target, whether others were asked already) of each probe whose end got lost."""
        return [(n, probe.target, bool(probe.helpers)) for n, probe in self._open.items() if probe.due_ms <= now_ms]

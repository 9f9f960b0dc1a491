"""The probes that are under way: first the member itself, then others in our stead, then silence (SWIM, section 3.1).

A call may get lost without a word, so every probe has a time by which it is over.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

HELPERS = 2  # the paper's k


@dataclass(slots=True)
class _Probe:
    target: str
    due_ms: int
    helpers: set[str] = field(default_factory=set)
    refused: bool = False  # by all who have tried: nobody listens there


class Prober:
    """At most one probe per member at a time."""

    def __init__(self, interval_ms: int) -> None:
        self.direct_ms = max(1, interval_ms // 2)
        self.indirect_ms = max(1, interval_ms * 3 // 4)
        self._numbers = itertools.count(1)
        self._open: dict[int, _Probe] = {}

    def start(self, target: str, now_ms: int) -> int | None:
        """A number for a new probe; None while one is under way."""
        if any(probe.target == target for probe in self._open.values()):
            return None
        number = next(self._numbers)
        self._open[number] = _Probe(target, now_ms + 2 * self.direct_ms)
        return number

    def end(self, number: int) -> None:
        """The target lives, or nothing more is to be done."""
        self._open.pop(number, None)

    def is_open(self, number: int) -> bool:
        return number in self._open

    def ask_others(self, number: int, helpers: list[str], now_ms: int, *, refused: bool = False) -> None:
        """The direct probe has failed; these were asked to try."""
        probe = self._open[number]
        probe.helpers, probe.due_ms, probe.refused = set(helpers), now_ms + 2 * self.indirect_ms, refused

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

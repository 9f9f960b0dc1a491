"""Figures and their thresholds: the pure rule of when an alert begins, ends and is told.

A figure is looked at every few seconds. A threshold is reached by RISE looks in a row above it, and left by FALL looks
in a row below CLEAR of it (a Schmitt trigger, with delays): a figure that moves between the two changes nothing, and a
single bad one neither. A count has no such band, since one more or less of it is news. What nobody has said for STALE
looks has ended. All is counted in looks: no clock that is set, and no sleep of the machine, makes an alert or ends one.

Changes are told, to the journal and to whoever the owner names, TOLD_MAX at once and one more each TOLD_EVERY looks.
What cannot be told now is when it may, if it is still so: each telling says how it is then. States are in memory alone:
after a start all is ok until it was looked at, and the journal's NODE_STARTED says that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum

import msgspec

RISE, FALL, STALE = 3, 6, 60  # looks
CLEAR = 0.9  # of a threshold
ALERTS_MAX = 1_024  # figures that are judged; further ones are not until others have ended
TOLD_MAX, TOLD_EVERY = 16, 12

Key = tuple[str, str]  # name, and what it is about


class State(IntEnum):
    OK = 0
    WARN = 1
    CRITICAL = 2


class Limits(msgspec.Struct, frozen=True):
    """Thresholds of a figure. That of a count is left as soon as the count is not above it."""

    warn: float | None = None
    critical: float | None = None
    is_count: bool = False


class Alert(msgspec.Struct, frozen=True):
    """How a figure stands. `about`: a session's id, "" for this node. `threshold`: the one that it is beyond, in the
    state OK the lowest. `since_us`: when the state began, by the machine's clock of then."""

    name: str
    about: str
    state: State
    since_us: int
    value: float
    threshold: float


class _Trigger:
    """One threshold of one figure."""

    __slots__ = ("_is_count", "_looks", "on", "threshold")

    def __init__(self, threshold: float, *, is_count: bool) -> None:
        self.threshold, self._is_count, self.on, self._looks = threshold, is_count, False, 0

    def look(self, value: float) -> None:
        turns = self._is_clear(value) if self.on else value > self.threshold
        self._looks = self._looks + 1 if turns else 0
        if self._looks == (FALL if self.on else RISE):
            self.on, self._looks = not self.on, 0

    def _is_clear(self, value: float) -> bool:
        return value <= self.threshold if self._is_count else value < CLEAR * self.threshold


class _Figure:
    """One figure: its triggers by the state that they mean."""

    def __init__(self, limits: Limits, now_us: int) -> None:
        wanted = ((State.WARN, limits.warn), (State.CRITICAL, limits.critical))
        self._triggers = {
            state: _Trigger(threshold, is_count=limits.is_count) for state, threshold in wanted if threshold is not None
        }
        self.value = 0.0
        self.state = self.told = State.OK
        self.since_us = now_us
        self.unseen = 0

    @property
    def threshold(self) -> float:
        trigger = self._triggers.get(self.state)
        return trigger.threshold if trigger is not None else min(each.threshold for each in self._triggers.values())

    @property
    def has_ended(self) -> bool:
        return self.unseen >= STALE

    def look(self, value: float | None, now_us: int) -> None:
        """None: nobody has said it anew."""
        self.unseen = 0 if value is not None else self.unseen + 1
        if value is not None:
            self.value = value
            for trigger in self._triggers.values():
                trigger.look(value)
        state = max((state for state, trigger in self._triggers.items() if trigger.on), default=State.OK)
        self._set(State.OK if self.has_ended else state, now_us)

    def end(self, now_us: int) -> None:
        self.unseen = STALE
        self._set(State.OK, now_us)

    def _set(self, state: State, now_us: int) -> None:
        if state != self.state:
            self.state, self.since_us = state, now_us


class Alerts:
    """All figures of a node that have a threshold."""

    def __init__(self, limits: Mapping[str, Limits]) -> None:
        """By a figure's name; one without a threshold is not judged."""
        self._limits = {name: each for name, each in limits.items() if (each.warn, each.critical) != (None, None)}
        self._figures: dict[Key, _Figure] = {}
        self._credit, self._looks = TOLD_MAX, 0

    @property
    def abouts(self) -> frozenset[str]:
        """What there are figures of, without those that have ended."""
        return frozenset(about for (_, about), figure in self._figures.items() if not figure.has_ended)

    def all(self) -> Sequence[Alert]:
        """The worst first, then by name."""
        shown = [_alert(key, figure) for key, figure in self._figures.items() if not figure.has_ended]
        return sorted(shown, key=lambda alert: (-alert.state, alert.about, alert.name))

    def look(self, samples: Mapping[Key, float], now_us: int) -> Sequence[Alert]:
        """What was seen since the last look. Returns what is to be told."""
        for key in samples:
            self._begin(key, now_us)
        for key, figure in self._figures.items():
            figure.look(samples.get(key), now_us)
        return self._tell()

    def end(self, about: str, now_us: int) -> None:
        """It is there no more: what was said of it is over."""
        for key, figure in self._figures.items():
            if key[1] == about:
                figure.end(now_us)

    def _begin(self, key: Key, now_us: int) -> None:
        limits, known = self._limits.get(key[0]), self._figures.get(key)
        if known is not None and known.has_ended:  # told as it was; it begins anew
            fresh = _Figure(self._limits[key[0]], now_us)
            fresh.told = known.told
            self._figures[key] = fresh
        elif known is None and limits is not None and len(self._figures) < ALERTS_MAX:
            self._figures[key] = _Figure(limits, now_us)

    def _tell(self) -> Sequence[Alert]:
        self._looks += 1
        if self._looks % TOLD_EVERY == 0:
            self._credit = min(TOLD_MAX, self._credit + 1)
        told = []
        for key, figure in sorted(self._figures.items(), key=lambda item: -item[1].state):
            if figure.state != figure.told and self._credit:
                self._credit -= 1
                figure.told = figure.state
                told.append(_alert(key, figure))
            if figure.has_ended and figure.told == State.OK:
                del self._figures[key]
        return told


def _alert(key: Key, figure: _Figure) -> Alert:
    return Alert(*key, figure.state, figure.since_us, figure.value, figure.threshold)

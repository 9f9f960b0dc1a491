"""Calls over a radio take turns: what all say at once there, nobody hears.

Of one node few calls are under way on a radio, bulk apart from the rest, and whatever is more urgent goes first; where
that is equal, whoever has fewest calls under way, and of those whoever had a turn longest ago. A call that has waited
for as long as its caller would ends as one that was not sent. Calls that ask several peers alike begin together,
whatever is under way: on the air they are said once (offgrid_transports/sharing.py).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable

import msgspec

from offgrid_transports.sharing import GATHER_MS
from offgrid_transports.transport import Priority, Schedule, TransportError

URGENT_MAX, BULK_MAX = 2, 1  # calls under way
WAITING_MAX = 1024
WAITING_BYTES_MAX = 32 * 1024 * 1024


class NoTurn(TransportError):
    """Too much waits already."""


class Turn(msgspec.Struct, frozen=True, eq=False):
    """A call that waits, to a peer, with a body of so many bytes. `begin` sends it, unless it raises; `give_up` says
    that it was not sent. Those with the same `alike`, unless it is None, ask for the same."""

    peer: str
    priority: Priority
    length: int
    until_ms: float
    begin: Callable[[], None]
    give_up: Callable[[], None]
    alike: Hashable = None

    @property
    def bulk(self) -> bool:
        return self.priority is Priority.BULK


class LinkTurns:
    """Of one radio."""

    def __init__(self, now_ms: Callable[[], float], later: Schedule) -> None:
        self._now_ms, self._later = now_ms, later
        self._waiting: list[Turn] = []  # as they came
        self._waiting_bytes = 0
        self._under_way = set[Turn]()
        self._begun: tuple[Hashable, float] = (None, 0.0)  # what was asked for last, and when
        self._served: dict[str, int] = {}  # peers for whom calls wait: when they last had a turn, by this count
        self._serving = 0
        self._alarm_ms = math.inf
        self._going_on = False

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def ask(self, turn: Turn) -> None:
        """It begins now, or when its turn has come. Whoever began calls `end`. Raises NoTurn, and what a `begin` or a
        `give_up` raises: the others have their turn all the same."""
        alike, begun_ms = self._begun
        if turn.alike is not None and turn.alike == alike and self._now_ms() < begun_ms + GATHER_MS:
            self._begin(turn)
            return
        if len(self) >= WAITING_MAX:
            raise NoTurn(f"{len(self)} calls wait for their turn on this link already")
        if self._waiting_bytes + turn.length > WAITING_BYTES_MAX:
            waiting = f"calls that wait for their turn on this link hold {self._waiting_bytes} bytes"
            raise NoTurn(f"{waiting}, this one has {turn.length}; {WAITING_BYTES_MAX} are allowed")
        self._waiting.append(turn)
        self._waiting_bytes += turn.length
        self._go_on()

    def end(self, turn: Turn) -> None:
        """A call that had begun is over."""
        self._under_way.discard(turn)
        self._go_on()

    # ---- inside

    def _go_on(self) -> None:
        """Calls may end while others begin: whoever is going on already sees to them."""
        if self._going_on:
            return
        self._going_on = more = True
        try:
            while more:
                more = self._give_up_late() or self._begin_next()
        finally:
            self._going_on = False
            if more:
                self._later(0, self._go_on)
            self._arm()

    def _give_up_late(self) -> bool:
        now_ms = self._now_ms()
        late = [turn for turn in self._waiting if turn.until_ms <= now_ms]
        for turn in late:
            self._take(turn)
            turn.give_up()
        return bool(late)

    def _begin_next(self) -> bool:
        room = {bulk: self._count(bulk=bulk) < most for bulk, most in ((False, URGENT_MAX), (True, BULK_MAX))}
        ready = [turn for turn in self._waiting if room[turn.bulk]]
        if not ready:
            return False
        by_peer = Counter((turn.bulk, turn.peer) for turn in self._under_way)
        first = min(
            ready, key=lambda turn: (turn.priority, by_peer[turn.bulk, turn.peer], self._served.get(turn.peer, 0))
        )
        along = [] if first.alike is None else [
            turn for turn in self._waiting
            if turn.alike == first.alike and turn.priority is first.priority and turn is not first
        ]  # fmt: skip
        self._begun = first.alike, self._now_ms()
        for turn in (first, *along):
            self._take(turn)
            if turn is first:
                self._serve(turn.peer)
            self._begin(turn)
        return True

    def _serve(self, peer: str) -> None:
        waiting = {turn.peer for turn in self._waiting}
        self._serving += 1
        self._served = {each: at for each, at in self._served.items() if each in waiting}
        self._served[peer] = self._serving

    def _begin(self, turn: Turn) -> None:
        self._under_way.add(turn)
        try:
            turn.begin()
        except BaseException:
            self._under_way.discard(turn)
            raise

    def _take(self, turn: Turn) -> None:
        """It waits no more."""
        self._waiting.remove(turn)
        self._waiting_bytes -= turn.length

    def _count(self, *, bulk: bool) -> int:
        return sum(turn.bulk is bulk for turn in self._under_way)

    def _arm(self) -> None:
        """For the first one that will have waited for too long."""
        due_ms = min((turn.until_ms for turn in self._waiting), default=math.inf)
        if due_ms < self._alarm_ms:
            self._alarm_ms = due_ms
            self._later(max(1, math.ceil(due_ms - self._now_ms())), lambda: self._ring(due_ms))

    def _ring(self, due_ms: float) -> None:
        if self._alarm_ms == due_ms:
            self._alarm_ms = math.inf
        self._go_on()

"""Calls over a shared channel take turns: what all say at once there, nobody hears.

Of one node few calls are under way on a channel, bulk apart from the rest, and whatever is more urgent goes first. A
call that has waited for as long as its caller would ends as one that was not sent. Calls that ask several peers alike
begin together, whatever is under way: on the air they are said once (offgrid_transports/sharing.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from offgrid_transports.sharing import GATHER_MS
from offgrid_transports.transport import Priority

URGENT_MAX, BULK_MAX = 2, 1  # calls under way
WAITING_MAX = 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that waits. `begin` sends it; `give_up` says that it was not sent. Those with the same `alike`, unless it
    is None, ask for the same."""

    until_ms: float
    begin: Callable[[], None]
    give_up: Callable[[], None]
    alike: Hashable = None


class LinkTurns:
    """Of one channel."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._waiting: dict[Priority, deque[Turn]] = {priority: deque() for priority in Priority}
        self._under_way = {False: 0, True: 0}  # bulk or not
        self._begun: tuple[Hashable, float] = (None, 0.0)  # what was asked for last, and when

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def ask(self, priority: Priority, turn: Turn) -> bool:
        """It begins now, or when its turn has come; False when too many wait. Whoever began calls `end`."""
        if len(self) >= WAITING_MAX:
            return False
        alike, begun_ms = self._begun
        if turn.alike is not None and turn.alike == alike and self._now_ms() < begun_ms + GATHER_MS:
            self._begin(priority, [turn])
            return True
        self._waiting[priority].append(turn)
        self._go_on()
        return True

    def end(self, priority: Priority) -> None:
        """A call that had begun is over."""
        self._under_way[priority is Priority.BULK] -= 1
        self._go_on()

    def _go_on(self) -> None:
        now_ms = self._now_ms()
        for priority, waiting in self._waiting.items():
            late = [turn for turn in waiting if turn.until_ms <= now_ms]
            if late:
                self._waiting[priority] = deque(turn for turn in waiting if turn.until_ms > now_ms)
                for turn in late:
                    turn.give_up()
        for priority in Priority:
            bulk, waiting = priority is Priority.BULK, self._waiting[priority]
            while waiting and self._under_way[bulk] < (BULK_MAX if bulk else URGENT_MAX):
                first = waiting.popleft()
                along = [] if first.alike is None else [turn for turn in waiting if turn.alike == first.alike]
                for turn in along:
                    waiting.remove(turn)
                self._begun = first.alike, now_ms
                self._begin(priority, [first, *along])

    def _begin(self, priority: Priority, turns: Sequence[Turn]) -> None:
        self._under_way[priority is Priority.BULK] += len(turns)
        for turn in turns:
            turn.begin()

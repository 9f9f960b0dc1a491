"""Calls over a shared channel take turns: what all say at once there, nobody hears.

Of one node few calls are under way on a channel, bulk apart from the rest, and whatever is more urgent goes first. A
call that has waited for as long as its caller would ends as one that was not sent.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from offgrid_transports.transport import Priority

URGENT_MAX, BULK_MAX = 2, 1  # calls under way
WAITING_MAX = 1024


@dataclass(frozen=True, slots=True)
class Turn:
    """A call that waits. `begin` sends it; `give_up` says that it was not sent."""

    until_ms: float
    begin: Callable[[], None]
    give_up: Callable[[], None]


class LinkTurns:
    """Of one channel."""

    def __init__(self, now_ms: Callable[[], float]) -> None:
        self._now_ms = now_ms
        self._waiting: dict[Priority, deque[Turn]] = {priority: deque() for priority in Priority}
        self._under_way = {False: 0, True: 0}  # bulk or not

    def __len__(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    def ask(self, priority: Priority, turn: Turn) -> bool:
        """It begins now, or when its turn has come; False when too many wait. Whoever began calls `end`."""
        if len(self) >= WAITING_MAX:
            return False
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
            bulk = priority is Priority.BULK
            while self._waiting[priority] and self._under_way[bulk] < (BULK_MAX if bulk else URGENT_MAX):
                self._under_way[bulk] += 1
                self._waiting[priority].popleft().begin()

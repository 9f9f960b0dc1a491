"""The turning of an endpoint: whatever came in, what is due is done, what others are owed is told, what may leave
leaves, and the next time is set. Never nested, so no callback comes from within a call."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable

from offgrid_transports.dispatch import Dispatch
from offgrid_transports.session import Session
from offgrid_transports.timers import Timers
from offgrid_transports.transport import Schedule


class Pump:
    """Timers of sessions are set here, as ("session", number)."""

    def __init__(
        self,
        now_ms: Callable[[], float],
        schedule: Schedule,
        timers: Timers,
        dispatch: Dispatch,
    ) -> None:
        self._now_ms, self._schedule = now_ms, schedule
        self.on_timer: Callable[[float, Hashable], None] = lambda now_ms, key: None
        """Does what a timer was set for."""
        self._timers, self._dispatch = timers, dispatch
        self._owed: deque[Callable[[], object]] = deque()
        self._due: deque[Hashable] = deque()
        self._running = self._again = False
        self._alarm_ms = math.inf

    def owe(self, callback: Callable[[], object]) -> None:
        """Called in the next turn."""
        self._owed.append(callback)

    def tell(self) -> None:
        """What is owed, now."""
        while self._owed:
            self._owed.popleft()()

    def turn(self) -> None:
        """What a callback raises is raised here; the rest is done in the next turn, which follows at once."""
        if self._running:
            self._again = True  # whoever turns already will see to it
            return
        self._running = more = True
        now_ms = self._now_ms()
        try:
            more = self._rounds()
        finally:
            self._running = False
            due_ms = self._timers.deadline_ms
            self._arm(now_ms if more else min(math.inf if due_ms is None else due_ms, self._dispatch.wake_ms))

    # ---- inside

    def _rounds(self) -> bool:
        """Whether there is more to send at once, when others have had their turn."""
        while True:
            self._again = False
            now_ms = self._now_ms()
            self._due.extend(self._timers.take_due(math.floor(now_ms)))
            while self._due:
                self.on_timer(now_ms, self._due.popleft())
            self.tell()
            rested, more = self._dispatch.send(now_ms)
            for session in rested:
                self._rest(now_ms, session)
            if not self._again:
                return more

    def _rest(self, now_ms: float, session: Session) -> None:
        next_ms = session.next_ms(now_ms)
        due_ms = None if next_ms == math.inf else math.ceil(max(next_ms, now_ms + 1))
        self._timers.set(("session", session.ours), due_ms)

    def _arm(self, due_ms: float) -> None:
        if due_ms >= self._alarm_ms:
            return
        self._alarm_ms = due_ms
        self._schedule(max(0, math.ceil(due_ms - self._now_ms())), lambda: self._ring(due_ms))

    def _ring(self, due_ms: float) -> None:
        if self._alarm_ms == due_ms:
            self._alarm_ms = math.inf
        self.turn()

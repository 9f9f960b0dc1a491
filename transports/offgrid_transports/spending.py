"""Who has used how much of a link's time in the last hour, to the minute. Pure."""

from __future__ import annotations

from collections import defaultdict, deque

from offgrid_transports.transport import Priority

MINUTE_MS = 60_000
MINUTES = 60
WHO_MAX = 64  # in a minute; more are counted as OTHERS
OTHERS = "others"

Spent = dict[tuple[str, Priority], float]


class Spending:
    def __init__(self) -> None:
        self._minutes: deque[tuple[int, defaultdict[tuple[str, Priority], float]]] = (
            deque()
        )  # each minute, and the milliseconds used in it

    def add(self, now_ms: float, who: str, priority: Priority, air_ms: float) -> None:
        if air_ms <= 0:
            return
        minute = int(now_ms // MINUTE_MS)
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, defaultdict(float)))
            self._forget(minute)
        spent = self._minutes[-1][1]
        if len(spent) >= WHO_MAX and (who, priority) not in spent:
            who = OTHERS
        spent[who, priority] += air_ms

    def last_hour(self, now_ms: float) -> Spent:
        """Milliseconds, by whom it was for and how urgent."""
        self._forget(int(now_ms // MINUTE_MS))
        found: Spent = defaultdict(float)
        for _, spent in self._minutes:
            for key, air_ms in spent.items():
                found[key] += air_ms
        return dict(found)

    def _forget(self, minute: int) -> None:
        while self._minutes and self._minutes[0][0] <= minute - MINUTES:
            self._minutes.popleft()

"""When to try what has failed: soon, then later, then not for a while, then once (Nygard, Release It!, 2007).

closed ── fails RETRIES + 1 times in a row ──▶ open ── after OPEN_S ──▶ half open ── fails ──▶ open
  ▲                                                                        │
  └──────────────────────────────── works ────────────────────────────────┘
"""

from __future__ import annotations

RETRIES, RETRY_S = 3, 0.1  # each pause twice the one before it
OPEN_S = 5.0


class Breaker:
    """Of one that tries one thing at a time. `now_s` is a monotonic clock's."""

    def __init__(self) -> None:
        self._failed = 0
        self._due_s = 0.0
        self.failures = self.openings = 0  # in all

    def state(self, now_s: float) -> str:
        """closed, open or half-open."""
        if self._failed <= RETRIES:
            return "closed"
        return "open" if now_s < self._due_s else "half-open"

    def wait_s(self, now_s: float) -> float:
        """Until the next try."""
        return max(0.0, self._due_s - now_s)

    def on_success(self) -> None:
        self._failed, self._due_s = 0, 0.0

    def on_failure(self, now_s: float) -> None:
        self._failed += 1
        self.failures += 1
        self.openings += self._failed == RETRIES + 1
        self._due_s = now_s + (RETRY_S * 2 ** (self._failed - 1) if self._failed <= RETRIES else OPEN_S)

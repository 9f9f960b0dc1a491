"""How much may be said beside what is carried: a share of a link's time, gathered up to a bound (a token bucket)."""

from __future__ import annotations

import math

SHARE = 0.02
DEPTH_MS = 1_500.0  # of air that may be said at once
DEPTH_FRAMES = 12  # and at least so many


class Budget:
    """Of one link, in milliseconds of air. `begun_ms` is now: it begins full."""

    def __init__(self, now_ms: float, share: float = SHARE, depth_ms: float = DEPTH_MS) -> None:
        self._share, self._depth_ms = share, depth_ms
        self._left_ms, self._at_ms = depth_ms, now_ms

    def deepen(self, depth_ms: float) -> None:
        """It gathers up to so much, once that is known of the link."""
        if depth_ms > self._depth_ms:
            self._left_ms += depth_ms - self._depth_ms
            self._depth_ms = depth_ms

    def wait_ms(self, now_ms: float, air_ms: float) -> float:
        """Until so much may be said; infinite for more than it ever gathers."""
        if air_ms > self._depth_ms:
            return math.inf
        self._gather(now_ms)
        return max(0.0, (air_ms - self._left_ms) / self._share)

    def spend(self, now_ms: float, air_ms: float) -> None:
        """It was said. What could not wait may leave a debt, of one depth at most."""
        self._gather(now_ms)
        self._left_ms = max(-self._depth_ms, self._left_ms - air_ms)

    def _gather(self, now_ms: float) -> None:
        self._left_ms = min(self._depth_ms, self._left_ms + (now_ms - self._at_ms) * self._share)
        self._at_ms = now_ms

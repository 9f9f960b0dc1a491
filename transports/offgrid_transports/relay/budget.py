"""How much may be said beside what is carried: a share of a link's time, gathered up to a bound (a token bucket)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

SHARE = 0.02
DEPTH_MS = 1_500.0  # of air that may be said at once
DEPTH_FRAMES = 12  # and at least so many
AIR_MS_MIN = 5.0  # what a frame costs where it takes no air
SHARERS_MAX = 256
WHOLE_DEPTH = 2  # times what one gathers


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


class Shares:
    """What may be spent for others of a link's time: `whole` for all, and of it `one` for each. Each gathers as much as
    so many frames take. `who` has to be known for sure: all whom anybody may pretend to be go by one name."""

    def __init__(self, now_ms: float, one: float, whole: float, frames: int) -> None:
        self._one, self._frames = one, frames
        self._whole = Budget(now_ms, whole, 0.0)
        self._of: OrderedDict[Hashable, Budget] = OrderedDict()

    def take(self, now_ms: float, who: Hashable, air_ms: float) -> bool:
        """It is spent, if there is so much."""
        air_ms = max(AIR_MS_MIN, air_ms)
        own = self._of.get(who)
        if own is None:
            own = self._of[who] = Budget(now_ms, self._one, 0.0)
            if len(self._of) > SHARERS_MAX:
                self._of.popitem(last=False)
        self._of.move_to_end(who)
        own.deepen(self._frames * air_ms)
        self._whole.deepen(WHOLE_DEPTH * self._frames * air_ms)
        if own.wait_ms(now_ms, air_ms) > 0 or self._whole.wait_ms(now_ms, air_ms) > 0:
            return False
        own.spend(now_ms, air_ms)
        self._whole.spend(now_ms, air_ms)
        return True

"""How much may be said beside what is carried: a share of a link's time, gathered up to a bound (a token bucket)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import NamedTuple

import msgspec

SHARE = 0.02
DEPTH_MS = 1_500.0  # of air that may be said at once
DEPTH_FRAMES = 12  # and at least so many
SHARERS_MAX = 256
WHOLE_DEPTH = 2  # times what one gathers,
WHOLE_DEPTH_MS = 25.0  # and at least so much


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


class Share(NamedTuple):
    """Of a link's time for `one`, and for all; so many `frames` of one at once. A frame costs `least_ms` where it takes
    less air, or none."""

    one: float
    whole: float
    frames: int
    least_ms: float = 5.0

    def of(self, part: float) -> Share:
        """Where no more than that part of the time may be used."""
        return self._replace(one=self.one * part, whole=self.whole * part)


class _Sharer(msgspec.Struct):
    own: Budget
    taken_ms: float = -math.inf  # when something was


class Shares:
    """What may be spent for others of a link's time: a share for each, and of the whole share what there is. Where that
    is spent, whoever has waited as long as it takes to gather a frame for each of them is still taken: so the greedy
    keep nobody out, however many they are. `who` has to be known for sure: all whom anybody may pretend to be go by one
    name."""

    def __init__(self, now_ms: float, share: Share) -> None:
        self._share = share
        self._whole = Budget(now_ms, share.whole, WHOLE_DEPTH_MS)
        self._of: OrderedDict[Hashable, _Sharer] = OrderedDict()  # who was taken longest ago first

    def __len__(self) -> int:
        """Who had something lately."""
        return len(self._of)

    def take(self, now_ms: float, who: Hashable, air_ms: float) -> bool:
        """It is spent, if there is so much."""
        share, air_ms = self._share, max(self._share.least_ms, air_ms)
        self._forget(now_ms, air_ms)
        sharer = self._of.get(who) or _Sharer(Budget(now_ms, share.one, 0.0))
        sharer.own.deepen(share.frames * air_ms)
        self._whole.deepen(WHOLE_DEPTH * share.frames * air_ms)
        if sharer.own.wait_ms(now_ms, air_ms) > 0:
            return False
        is_turn = sharer.taken_ms + self._turns_ms(air_ms) <= now_ms and (who in self._of or not self._full)
        if self._whole.wait_ms(now_ms, air_ms) > 0 and not is_turn:
            return False
        if who not in self._of and self._full:
            self._of.popitem(last=False)
        sharer.own.spend(now_ms, air_ms)
        self._whole.spend(now_ms, air_ms)
        sharer.taken_ms = now_ms
        self._of[who] = sharer
        self._of.move_to_end(who)
        return True

    @property
    def _full(self) -> bool:
        return len(self._of) >= SHARERS_MAX

    def _turns_ms(self, air_ms: float) -> float:
        """In which all together gather as much as a frame of each."""
        return len(self._of) * air_ms / self._share.whole

    def _forget(self, now_ms: float, air_ms: float) -> None:
        """Those who have gathered all that they may again."""
        gathered_ms = max(self._share.frames * air_ms / self._share.one, self._turns_ms(air_ms))
        while self._of and next(iter(self._of.values())).taken_ms + gathered_ms <= now_ms:
            self._of.popitem(last=False)

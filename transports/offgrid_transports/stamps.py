"""Times that only rise, by which what is new is told from a recording (as WireGuard's), and who has said which.

A node's own go by its clock while that runs ahead of them, and by one at a time where it was set back. They are noted
an hour ahead, so that they rise over restarts as well. A clock that is centuries ahead has no say.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress

from offgrid_transports.keep import Keep

STAMP_BYTES = 6
STAMP_MAX = (1 << 8 * STAMP_BYTES) - 1
CLOCK_MAX = STAMP_MAX // 2  # in the year 6429: behind it there is room for as many again
AHEAD_MS = 3_600_000
KEPT_AS = "stamps"
NEWEST_MAX = 4_096
LIKELY_MS = 4 * AHEAD_MS  # ahead of one's own: clocks differ, and who was started anew is an hour ahead of its own
FORGOTTEN_MS = 3_600_000
"""One that is farther ahead, made up perhaps, keeps the node whose name it bears unheard for so long, not for ever."""


class Stamps:
    """A node's own. `clock_ms` is the wall clock's, which may leap either way; `keep` outlives restarts."""

    def __init__(self, clock_ms: Callable[[], int], keep: Keep) -> None:
        self._clock_ms, self._keep = clock_ms, keep
        kept = b""
        with suppress(OSError):
            kept = keep.load(KEPT_AS) or b""
        self._last = self._noted = int.from_bytes(kept) if len(kept) == STAMP_BYTES else 0

    def __call__(self) -> int:
        """The next one."""
        self._last = min(STAMP_MAX, max(self._last + 1, min(self._clock_ms(), CLOCK_MAX)))
        if self._last + AHEAD_MS // 2 > self._noted:
            self._noted = min(STAMP_MAX, self._last + AHEAD_MS)
            self._keep.save(KEPT_AS, self._noted.to_bytes(STAMP_BYTES), lambda error: None)
        return self._last


class Newest:
    """The newest of each of others; whoever was heard longest ago gives way. `own` is a node's own next one."""

    def __init__(self, own: Callable[[], int]) -> None:
        self._own = own
        self._stamps: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def is_new(self, now_ms: float, name: Hashable, stamp: int) -> bool:
        """Whether it lies behind the last of that name, which it takes the place of."""
        before, until_ms = self._stamps.get(name, (-1, now_ms))
        if stamp <= before and now_ms < until_ms:
            return False
        likely = stamp <= self._own() + LIKELY_MS
        self._stamps[name] = stamp, math.inf if likely else now_ms + FORGOTTEN_MS
        self._stamps.move_to_end(name)
        if len(self._stamps) > NEWEST_MAX:
            self._stamps.popitem(last=False)
        return True

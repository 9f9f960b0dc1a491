"""How long a soak waits for what must come true: for as long as it goes on. A slow machine takes its time; what is
stuck ends nothing any more."""

from __future__ import annotations

import time
from collections.abc import Iterable

STILL_S = 120.0  # in which nothing ends


class Patience:
    """With things that must end, each known by a name."""

    def __init__(self, still_s: float = STILL_S) -> None:
        self._still_s = still_s
        self._seen: set[str] = set()
        self._ended: set[str] = set()
        self._until = time.monotonic() + still_s

    def waits_for(self, left: Iterable[str]) -> bool:
        """Whether to wait for what is left; something that ends, begins again and ends is no progress."""
        left = {*left}
        ended = self._seen - left - self._ended
        self._seen |= left
        if ended:
            self._ended |= ended
            self._until = time.monotonic() + self._still_s
        return time.monotonic() < self._until

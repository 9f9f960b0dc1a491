"""So many bytes a second: a leaky bucket as a meter (the generic cell rate algorithm of ITU-T I.371)."""

from __future__ import annotations

from collections.abc import Callable

UNLIMITED = 0
BURST_MS = 1_000  # what was not used is there for so long


class Rate:
    """`bytes_per_s` 0: as fast as it goes."""

    def __init__(self, now_ms: Callable[[], int], bytes_per_s: int = UNLIMITED) -> None:
        self._now_ms, self.bytes_per_s = now_ms, bytes_per_s
        self._free_ms = 0.0  # all that was taken is over by then

    def wait_ms(self) -> int:
        """Until the next may begin."""
        return max(0, int(self._free_ms - self._now_ms()))

    def take(self, size_bytes: int) -> None:
        if self.bytes_per_s != UNLIMITED:
            begins_ms = max(self._free_ms, self._now_ms() - BURST_MS)
            self._free_ms = begins_ms + size_bytes * 1_000 / self.bytes_per_s

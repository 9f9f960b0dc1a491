"""How busy others keep a radio channel, as one station hears it, and how long a frame therefore waits for its turn."""

from __future__ import annotations

from collections import deque

SPAN_MS = 10_000
LOAD_MAX = 0.8


class Crowd:
    """Of one link; what is heard is remembered for SPAN_MS."""

    def __init__(self) -> None:
        self._heard: deque[tuple[int, float]] = deque()
        self._air_ms = 0.0

    def hear(self, now_ms: int, air_ms: float) -> None:
        """A frame of somebody else's."""
        self._heard.append((now_ms, air_ms))
        self._air_ms += air_ms
        self._forget(now_ms)

    def wait_ms(self, now_ms: int) -> float:
        """Until a frame begins, beyond what it waits on an empty channel: that of a queue with so much before it."""
        self._forget(now_ms)
        if not self._heard:
            return 0.0
        load = min(LOAD_MAX, self._air_ms / SPAN_MS)
        return load / (1 - load) * self._air_ms / len(self._heard)

    def _forget(self, now_ms: int) -> None:
        while self._heard and self._heard[0][0] <= now_ms - SPAN_MS:
            self._air_ms -= self._heard.popleft()[1]

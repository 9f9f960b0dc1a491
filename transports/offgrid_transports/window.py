"""Which calls of a session have begun: a sliding window of numbers, as IPsec's against replay (RFC 6479)."""

from __future__ import annotations

WINDOW_CALLS = 4096  # how far calls may overtake each other; four times what a client keeps in flight


class CallWindow:
    """Says of a call number whether it was marked; one that has fallen out of the window counts as marked."""

    def __init__(self) -> None:
        self._newest = 0
        self._bits = 0

    def marked(self, call: int) -> bool:
        if call > self._newest:
            return False
        age = self._newest - call
        return age >= WINDOW_CALLS or bool(self._bits >> age & 1)

    def mark(self, call: int) -> None:
        if call > self._newest:
            shift = call - self._newest
            self._bits = self._bits << shift if shift < WINDOW_CALLS else 0
            self._newest = call
        age = self._newest - call
        if age < WINDOW_CALLS:
            self._bits = (self._bits | 1 << age) & ((1 << WINDOW_CALLS) - 1)

"""What an RNode that was handed frames holds, and when that leaves, as far as it can be known. Pure.

It says READY when it has read what came before the question. While it sends it does nothing else, and it sends all that
it had read when it began; what it is handed meanwhile it reads after that. So when it has sent, what it had said READY
about before has left: that is certain. When the rest will, is a guess.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

from offgrid_transports.lora.rnode_firmware import QUEUE_BYTES_MAX

AHEAD_MS = 2_500  # of air handed over, so that what it sends in one go is long, and what is urgent waits no longer
LATENCY_MS = 50  # of the line and the firmware
QUESTIONS_MAX = 256


class Held(NamedTuple):
    """A frame, by its number among all."""

    number: int
    length: int
    air_ms: float


class RNodeQueue:
    def __init__(self) -> None:
        self.free_ms = 0.0
        """When all of it will have left."""
        self._handed = self._read = 0  # frames in all
        self._questions: deque[int] = deque()  # READY asked for, after so many frames
        self._held: deque[Held] = deque()
        self._begins_ms = -math.inf  # to send; what comes later leaves after that

    def clear(self) -> None:
        """It is empty."""
        self._held.clear()
        self._questions.clear()
        self._read = self._handed
        self.free_ms, self._begins_ms = 0.0, -math.inf

    def room_ms(self, length: int) -> float:
        """When a frame may be handed over."""
        whole = sum(held.length for held in self._held) + length <= QUEUE_BYTES_MAX
        return self.free_ms - AHEAD_MS if whole else self.free_ms + LATENCY_MS

    def on_handed(self, now_ms: int, length: int, air_ms: float, access_ms: float) -> None:
        """A frame, to a modem that takes `access_ms` to get at the channel."""
        if now_ms >= self.free_ms + LATENCY_MS:
            self._held.clear()
            self._begins_ms = self.free_ms = now_ms + access_ms
        elif now_ms > self._begins_ms:
            self._begins_ms = self.free_ms = self.free_ms + access_ms
        self._held.append(Held(self._handed, length, air_ms))
        self._handed += 1
        self.free_ms += air_ms

    def ask(self) -> bool:
        """Whether READY may be asked for now; it has to be, then."""
        if len(self._questions) == QUESTIONS_MAX:
            return False
        self._questions.append(self._handed)
        return True

    def on_ready(self) -> None:
        if self._questions:
            self._read = self._questions.popleft()

    def on_sent(self, now_ms: int, access_ms: float) -> None:
        """It has just sent all that it had."""
        while self._held and self._held[0].number < self._read:
            self._held.popleft()
        self._begins_ms = now_ms + access_ms
        self.free_ms = self._begins_ms + sum(held.air_ms for held in self._held) if self._held else now_ms - LATENCY_MS

    @property
    def unread(self) -> int:
        """How many of the newest frames it may not have read yet."""
        return self._handed - self._read

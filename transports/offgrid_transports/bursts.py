"""When to ask on a shared medium: at the end of each burst, and of what may leave before the answer.

Word of a burst comes when the medium is free, and its sender does not wait for it idly: the next one may begin, for a
modem that has sent for long has to leave the medium to others anyway, and then the word gets through.
"""

from __future__ import annotations

from collections import deque

BURST_FRAMES = 24  # the queue of an RNode
UNANSWERED_MAX = 2  # bursts
PART_BYTES = 16  # what a piece needs beside its bytes, about


class Bursts:
    def __init__(self) -> None:
        self._frames = self._parts = 0  # of the one under way
        self._asked: deque[int] = deque()  # the last frames of those that asked

    @property
    def has_pieces(self) -> bool:
        """The burst under way has, so its end has to ask."""
        return self._parts > 0

    @property
    def full(self) -> bool:
        """There has to be word of some before more may leave."""
        return len(self._asked) >= UNANSWERED_MAX

    def question(self, number: int, *, whole: bool, waiting_bytes: int, room: int) -> int | None:
        """How many frames that ask follow this one, which asks as well; None where this one does not. What stands whole
        in a frame is answered by itself. `room` is a frame's."""
        self._frames += 1
        self._parts += not whole
        if not waiting_bytes or self._frames == BURST_FRAMES:
            asks = self._parts > 0
            if asks:
                self._asked.append(number)
            self._frames = self._parts = 0
            return 0 if asks else None
        nearly = waiting_bytes <= room - PART_BYTES or self._frames == BURST_FRAMES - 1
        return 1 if nearly and self._parts else None

    def answered(self, newest: int) -> int:
        """There is word, up to that frame. Up to which one there is word, then: who heard the last but one waited for
        the last."""
        last = newest
        while self._asked and self._asked[0] - 1 <= newest:
            last = max(last, self._asked.popleft())
        return last

    def clear(self) -> None:
        """No word is expected any more of those that have ended; the one under way goes on."""
        self._asked.clear()

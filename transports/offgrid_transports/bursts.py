"""When to ask on a shared medium: at the end of each burst, and then its sender is silent until there is word of it.

Two who find the medium free at the same moment drown each other out, so who has asked leaves it to the answer. Bursts
grow while word comes of them. After one of which none came the next is of two frames, which both ask: what they carry
is new, so asking again costs nothing.
"""

from __future__ import annotations

BURST_FRAMES, BURST_FRAMES_MAX = 24, 96
ASKING_FRAMES = 2  # at the end of a burst, for one may be lost
PART_BYTES = 16  # what a piece needs beside its bytes, about


class Bursts:
    def __init__(self) -> None:
        self._frames = self._parts = 0  # of the one under way
        self._frames_max = BURST_FRAMES
        self._asked: int | None = None  # the last frame of the one that asked
        self.begins_anew = False
        """No word came, and nothing has left since."""

    @property
    def has_pieces(self) -> bool:
        """The burst under way has, so its end has to ask."""
        return self._parts > 0

    @property
    def full(self) -> bool:
        """There has to be word before more may leave."""
        return self._asked is not None

    def feel(self) -> None:
        """Its peer has been silent for long, and may be away: the next one is a question first of all."""
        if not self._frames and not self.full:
            self._frames_max = ASKING_FRAMES

    def question(self, number: int, *, whole: bool, waiting_bytes: int, room: int) -> int | None:
        """How many frames that ask follow this one, which asks as well; None where this one does not. What stands whole
        in a frame is answered by itself. `room` is a frame's."""
        self.begins_anew = False
        self._frames += 1
        self._parts += not whole
        if not waiting_bytes or self._frames >= self._frames_max:
            asks = self._parts > 0
            if asks:
                self._asked = number
            self._frames = self._parts = 0
            return 0 if asks else None
        nearly = waiting_bytes <= room - PART_BYTES or self._frames == self._frames_max - 1
        return 1 if nearly and self._parts else None

    def answered(self, newest: int) -> int:
        """There is word, up to that frame. Up to which one there is word, then: who heard the last but one waited for
        the last."""
        if self._asked is None or newest < self._asked - 1:
            return newest
        last, self._asked = max(newest, self._asked), None
        self._frames_max = min(max(2 * self._frames_max, BURST_FRAMES), BURST_FRAMES_MAX)
        return last

    def unanswered(self) -> None:
        """No word came in time."""
        self._asked, self._frames_max, self.begins_anew = None, ASKING_FRAMES, True

    def clear(self) -> None:
        """No word is expected any more of those that have ended; the one under way goes on."""
        self._asked = None

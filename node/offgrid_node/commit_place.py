"""Where commits run: in the loop's thread while the disk is quick, in a thread of their own while it is slow. Pure.

A hand-over to a thread and back costs more than a quick flush, but the loop answers nobody while it waits for a disk.
A disk's mood changes: others write to it, an SD card cleans up, a machine goes from its battery to the mains.
"""

from __future__ import annotations

from collections import deque
from statistics import median

INLINE_MAX_MS = 5.0  # a flush slower than this would be felt by everything else in the loop
INLINE_AGAIN_MS = 4.0  # below, so that a disk in between does not change it all the time; a thread's switches are in it
STALL_MS = 50.0  # one commit of this kind is enough: twice a late checkpoint's time, and peers' probes wait as long
SLOW_COMMITS = 16  # whose middle one says that the disk has become slow
QUICK_COMMITS = 64  # whose middle one says that it is quick again, none of them a stall


class CommitPlace:
    """Told how long each commit took, it says where the next one belongs."""

    def __init__(self, *, threaded: bool) -> None:
        self.threaded = threaded
        self._took_ms: deque[float] = deque(maxlen=QUICK_COMMITS)  # since the last change

    def took(self, commit_ms: float) -> None:
        self._took_ms.append(commit_ms)
        if self._is_quick_again() if self.threaded else self._is_slow_now():
            self.threaded = not self.threaded
            self._took_ms.clear()

    def _is_slow_now(self) -> bool:
        took_ms = self._took_ms
        if took_ms[-1] > STALL_MS:
            return True
        if took_ms[-1] <= INLINE_MAX_MS or len(took_ms) < SLOW_COMMITS:
            return False
        return median(list(took_ms)[-SLOW_COMMITS:]) > INLINE_MAX_MS

    def _is_quick_again(self) -> bool:
        took_ms = self._took_ms
        if took_ms[-1] >= INLINE_AGAIN_MS or len(took_ms) < QUICK_COMMITS:
            return False
        return median(took_ms) < INLINE_AGAIN_MS and max(took_ms) <= STALL_MS

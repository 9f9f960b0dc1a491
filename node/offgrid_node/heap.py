"""What Python's collector of cycles looks at. By itself it goes through all of a node's memory whenever that has grown
by a quarter: 200 ms for a core with 100,000 open jobs, in which the node does nothing else, to find next to nothing,
for what a job leaves behind is freed by its reference counts.

So what there is at the start is looked at no more (`gc.freeze`), and what has grown since neither, once a full look
took longer than LOOK_MS_MAX. What becomes garbage among all that, in a cycle, is found when everything is looked at
once more: every THAW_S, and when machines were discarded.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_MS_MAX = 15  # of processor time: a caller does not notice
THAW_S = 3_600.0
FULL = 2  # the collector's name for a look at everything


@contextmanager
def growing() -> Iterator[None]:
    """For what builds much that stays and leaves no garbage: nothing is looked at meanwhile."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Heap:
    """There is one in a process. Belongs to the loop's thread, though the collector calls it in any."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Once all is there that stays."""
        gc.collect()
        gc.freeze()
        gc.callbacks.append(self._on_look)
        self._wait()

    def thaw(self) -> None:
        """The next full look goes through everything."""
        gc.unfreeze()

    def close(self) -> None:
        if self._on_look in gc.callbacks:
            gc.callbacks.remove(self._on_look)
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(THAW_S, self._on_time)

    def _on_time(self) -> None:
        self.thaw()
        self._wait()

    def _on_look(self, phase: str, info: dict[str, int]) -> None:
        if info["generation"] < FULL:
            return
        if phase == "start":
            self._began_s = time.thread_time()
        elif (time.thread_time() - self._began_s) * 1000 > LOOK_MS_MAX:
            gc.freeze()

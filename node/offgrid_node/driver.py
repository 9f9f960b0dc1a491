"""Drives the runtime from an asyncio loop: one turn per loop tick while there is input, one timer for deadlines.

While the disk is quick the commit runs inline (a thread beside a busy interpreter costs more than it saves); while it
is slow, the packed commit goes to one worker thread and the inbox fills meanwhile. Which it is, the commits themselves
tell (`commit_place.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import ceil

from offgrid_node.commit_place import CommitPlace
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.runtime import Pending, Runtime

COMMIT_SAMPLES = 256  # of which status and health tell
PAUSE_MS, PAUSE_MAX_MS = 50, 1_000  # after a lost batch or a failed load, doubling: no busy loop on a full disk


class Driver:
    """Owns the timing of one runtime. Everything but the packed commit runs in the loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        threaded: bool,
        on_commit: Callable[[int, float], None] | None = None,
    ) -> None:
        """`threaded` says where the first commits run.

        `on_commit` is told, in the loop's thread, how many inputs shared a transaction and how long it took."""
        self._loop = loop
        self._on_commit = on_commit
        self._runtime: Runtime | None = None
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0  # when it fires
        self._place = CommitPlace(threaded=threaded)
        self._thread = ThreadPoolExecutor(1, "commit")  # begins with its first commit
        self._commit_ms: deque[float] = deque(maxlen=COMMIT_SAMPLES)
        self._untaken = 0  # commits since take_commit_ms was asked
        self._began: float | None = None  # the commit that is under way
        self._failures = 0
        self._pause_ms = 0
        self._closed = False

    @property
    def mode(self) -> str:
        return "thread" if self._place.threaded else "inline"

    @property
    def commit_ms_p50(self) -> float:
        ordered = sorted(self._commit_ms)
        return ordered[len(ordered) // 2] if ordered else 0.0

    def take_commit_ms(self) -> float | None:
        """The 99th percentile (nearest rank) of the commits since this was asked last, COMMIT_SAMPLES at most, and of
        the one that is under way, by how long it has been; None where there were none."""
        many, self._untaken = min(self._untaken, len(self._commit_ms)), 0
        newest = list(islice(reversed(self._commit_ms), many))
        if (began := self._began) is not None:
            newest.append((time.perf_counter() - began) * 1000)
        return sorted(newest)[ceil(0.99 * len(newest)) - 1] if newest else None

    def start(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.poke()

    def poke(self) -> None:
        """There may be input: take a turn in the next loop tick, so that what arrives in this one shares it."""
        if self._scheduled or self._closed or self._runtime is None:
            return
        self._scheduled = True
        if self._pause_ms:
            self._loop.call_later(self._pause_ms / 1000, self._turn)
        else:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        runtime = self._runtime
        if runtime is None or self._closed:
            return
        runtime.wake()
        pending = runtime.gather()
        if pending is None:
            if not runtime.committing:
                self._rest()
            return
        if not pending.batch:
            self._commit_inline(pending)
        elif not self._place.threaded and pending.early:
            self._loop.call_soon(self._commit_inline, pending)  # after the carriers' tick: others work while we wait
        elif not self._place.threaded:
            self._commit_inline(pending)
        else:
            future = self._loop.run_in_executor(self._thread, self._commit, pending)
            future.add_done_callback(lambda done: self._finish(pending, done.result()))

    def _commit_inline(self, pending: Pending) -> None:
        if self._closed:  # since it was put off: as if the process had died before
            return
        self._finish(pending, self._commit(pending))

    def _commit(self, pending: Pending) -> Fault | None:
        assert self._runtime is not None
        self._began = began = time.perf_counter()
        try:
            self._runtime.commit(pending)
        except Fault as fault:
            return fault
        except Exception as error:  # noqa: BLE001 - an unknown failure of the disk must not be taken for a commit
            return Internal(f"the store failed: {type(error).__name__}: {error}", reason="StoreFailed")
        finally:
            pending.commit_s, self._began = time.perf_counter() - began, None
        return None

    def _finish(self, pending: Pending, fault: Fault | None) -> None:
        assert self._runtime is not None
        if self._closed:
            return
        if pending.batch:
            self._place.took(pending.commit_s * 1000)  # of one that failed as well: the loop waits for it no less
        try:
            if fault is None:
                if pending.batch:
                    self._commit_ms.append(pending.commit_s * 1000)
                    self._untaken += 1
                    if self._on_commit is not None:
                        self._on_commit(pending.inputs, pending.commit_s)
                self._runtime.settle(pending)
            else:
                self._runtime.fail(pending, fault)
        finally:
            self._rest()

    def _rest(self) -> None:
        """A turn is over: whatever the inbox holds by now is the next one's, after a pause if something was lost."""
        assert self._runtime is not None
        self._slow_down()
        if self._runtime.inbox_depth or self._pause_ms:
            self.poke()
        else:
            self._arm()

    def _slow_down(self) -> None:
        assert self._runtime is not None
        lost, self._failures = self._runtime.failures != self._failures, self._runtime.failures
        self._pause_ms = min(PAUSE_MAX_MS, max(PAUSE_MS, 2 * self._pause_ms)) if lost else 0

    def _arm(self) -> None:
        assert self._runtime is not None
        due = self._runtime.deadline_ms()
        if due is None or (self._timer is not None and self._timer_ms <= due):
            return  # a turn in vain when it fires costs less than a timer for each turn
        if self._timer is not None:
            self._timer.cancel()
        delay_ms = max(0, due - self._runtime.clock.now().mono_ms)
        self._timer, self._timer_ms = self._loop.call_later(delay_ms / 1000, self._on_time), due

    def _on_time(self) -> None:
        self._timer = None
        self.poke()

    async def close(self) -> None:
        """Lets a running commit end; nothing leaves the node any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._loop.run_in_executor(None, self._thread.shutdown)

"""Work that blocks (disk, sealing, hashing) away from the runtime's thread, bounded in number and in bytes.

What has the same key runs in the order in which it came and never side by side: a blob grows by one hand. How work is
carried is a parameter: a pool of threads in the daemon, a later moment in the simulator, at once in tests.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Exhausted, Fault, Internal, Unavailable
from offgrid_node.services.flow import Step

TASKS_MAX = 4_096  # waiting or running
BYTES_MAX = 256 * 1024 * 1024  # that they hold
THREADS = 4  # two cores seal and hash while two wait for a disk; the interpreter lock is free meanwhile
RETRY_MS = 200

T = TypeVar("T")
Ended = Callable[[Any], None]
Carry = Callable[[Callable[[], Any], Ended], None]
"""Runs the work, which never raises, somewhere; then calls back with what it returned, in the runtime's thread."""

_log = logging.getLogger(__name__)


class _Task(msgspec.Struct, frozen=True):
    work: Callable[[], Any]
    done: Ended
    key: str
    size_bytes: int


class Bulk:
    """All methods belong to the runtime's thread; only the work itself runs elsewhere."""

    def __init__(self, carry: Carry, *, tasks_max: int = TASKS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._carry = carry
        self._tasks_max, self._bytes_max = tasks_max, bytes_max
        self._lanes: dict[str, deque[_Task]] = {}
        self.tasks = 0
        self.held_bytes = 0
        self._stopping = False

    def check_going(self) -> None:
        """For work that takes long, from any thread, now and then. Raises Unavailable once the node is stopping."""
        if self._stopping:
            raise Unavailable("this node is stopping", reason="Stopping")

    def stop(self) -> None:
        """What takes long gives up; nothing new begins."""
        self._stopping = True

    def run(self, work: Callable[[], T], *, key: str = "", size_bytes: int = 0) -> Step[T]:
        """A step for a flow: what `work` returns, or the Fault that it raised; any other error is Internal.

        `size_bytes` is what the task keeps in memory. Ends with Exhausted (reason BulkBusy) when there is no room.
        """

        def start(done: Ended) -> None:
            if self._stopping:
                done(Unavailable("this node is stopping", reason="Stopping"))
                return
            if self.tasks >= self._tasks_max or (self.tasks and self.held_bytes + size_bytes > self._bytes_max):
                busy = f"{self.tasks} tasks of {self.held_bytes} bytes are at this node's disk already"
                done(Exhausted(busy, reason="BulkBusy", retry_ms=RETRY_MS))
                return
            self.tasks += 1
            self.held_bytes += size_bytes
            task = _Task(work, done, key, size_bytes)
            if key in self._lanes:
                self._lanes[key].append(task)
                return
            if key:
                self._lanes[key] = deque()
            self._start(task)

        return start

    def _start(self, task: _Task) -> None:
        def ended(outcome: Any) -> None:
            self.tasks -= 1
            self.held_bytes -= task.size_bytes
            lane = self._lanes.get(task.key)
            if lane:
                self._start(lane.popleft())
            elif lane is not None:
                del self._lanes[task.key]
            task.done(outcome)

        self._carry(lambda: outcome_of(task.work), ended)


def outcome_of(work: Callable[[], T]) -> T | Fault:
    """What it returns, or how it failed."""
    try:
        return work()
    except Fault as fault:
        return fault
    except Exception as error:  # noqa: BLE001 - at the edge of a thread: whoever waits must be told
        _log.exception("work in the background failed", extra=fields("bulk_failed"))
        return Internal(f"work in the background failed: {type(error).__name__}: {error}", reason="BulkFailed")


def inline(work: Callable[[], Any], ended: Ended) -> None:
    """A Carry for tests: at once, in this very thread."""
    ended(work())


class Threads:
    """A Carry of a few threads. `post` brings a callback into the runtime's thread, from any."""

    def __init__(self, post: Callable[[Callable[[], None]], object], count: int = THREADS) -> None:
        self._post = post
        self._pool = ThreadPoolExecutor(count, "bulk")
        self._closed = False

    def __call__(self, work: Callable[[], Any], ended: Ended) -> None:
        if self._closed:
            return  # nobody waits for anything any more

        def carry() -> None:
            outcome = work()
            if not self._closed:
                self._post(lambda: None if self._closed else ended(outcome))

        self._pool.submit(carry)

    def close(self) -> None:
        """Lets what runs end; what waits never begins, and nothing comes back any more."""
        self._closed = True
        self._pool.shutdown(cancel_futures=True)

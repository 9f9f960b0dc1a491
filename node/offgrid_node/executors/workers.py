"""Threads that carry out what they are handed, at once: without the futures of concurrent.futures, whose locks cost
more than a short run does."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from offgrid_node.logs import fields

IDLE_S = 10.0  # a thread that has had nothing to do for so long ends

_log = logging.getLogger(__name__)

Job = Callable[[], None]


class Workers:
    """At most `count` threads, started as they are needed; what is more waits in its order."""

    def __init__(self, count: int, name: str, idle_s: float = IDLE_S) -> None:
        self._count, self._name, self._idle_s = count, name, idle_s
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._open = 0  # jobs that were handed over and have not ended
        self._closed = False

    @property
    def threads(self) -> int:
        return self._threads

    def submit(self, job: Job) -> None:
        """`job` should not raise: nobody is told but the log."""
        with self._lock:
            self._open += 1
            starts = self._threads < min(self._open, self._count)
            self._threads += starts
            self._jobs.put(job)
        if starts:
            threading.Thread(target=self._serve, name=self._name).start()

    def close(self) -> None:
        """Threads end once there is nothing left to do; nothing is waited for."""
        with self._lock:
            self._closed = True
            for _ in range(self._threads):
                self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._next()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - at the edge of a thread, which goes on with the next one
                _log.exception("work of a thread failed", extra=fields("thread_work_failed", threads=self._name))
            del job  # nothing of it is kept while the next one is awaited
            with self._lock:
                self._open -= 1

    def _next(self) -> Job | None:
        """None: this thread is needed no more, and not counted any more."""
        try:
            job = self._jobs.get(timeout=0 if self._closed else self._idle_s)
        except Empty:
            job = None
        if job is None:
            with self._lock:
                if not self._closed:
                    with suppress(Empty):  # handed over meanwhile, if no other thread was faster
                        return self._jobs.get_nowait()
                self._threads -= 1
        return job

"""Jobs that were given up, told to the node by the batch: CancelJobs in a thread that lives while there are any."""

from __future__ import annotations

import threading
import time
from collections import deque

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.client.silence import PAUSE_MS_MAX
from offgrid.v1 import jobs_pb2

CANCEL_MAX = 256  # what a node takes in one call
CLOSE_WITHIN_S = 2.0  # how long `close` waits until what was given up is told


class Withdrawals:
    """Thread-safe. A node that does not answer is asked again until `close`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, job_id: str) -> None:
        with self._lock:
            self._waiting.append(job_id)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="offgrid-cancel", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Returns once all is told, or after CLOSE_WITHIN_S."""
        with self._lock:
            self._closed, thread = True, self._thread
        if thread is not None:
            thread.join(CLOSE_WITHIN_S)

    def _work(self) -> None:
        while job_ids := self._take():
            request = jobs_pb2.CancelJobsRequest(job_ids=job_ids, reason="given up by the client that submitted it")
            try:
                self._calls.unary("JobService/CancelJobs", request, jobs_pb2.CancelJobsResponse)
            except OffgridError as error:
                if not error.outcome_unknown or self._closed:
                    continue  # such as of jobs that the node has forgotten: nothing is left to stop
                with self._lock:
                    self._waiting.extendleft(reversed(job_ids))
                time.sleep(PAUSE_MS_MAX / 1000)

    def _take(self) -> list[str]:
        with self._lock:
            taken = [self._waiting.popleft() for _ in range(min(CANCEL_MAX, len(self._waiting)))]
            if not taken:
                self._thread = None
            return taken

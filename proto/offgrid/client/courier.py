"""Jobs sent by the batch: what gathers while one call is under way shares the next; one stream tells how all ended.

A lone job leaves at once; where many are under way, a call waits a few milliseconds for what their ends bring. It is
repeated with its request id, and the stream is opened again with the jobs still awaited: a restart of the node loses
and doubles nothing.
"""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.errors import OffgridError
from offgrid.client.futures import JobFuture
from offgrid.client.silence import PAUSE_MS_MAX
from offgrid.client.withdrawals import Withdrawals
from offgrid.v1 import jobs_pb2

BATCH_JOBS_MAX = 256  # what a node takes in one call
BATCH_BYTES_MAX = 3_000_000
GATHER_S = 0.01  # how long a call waits for more at most, where others are under way
IN_FLIGHT_MAX = 16_384  # what one stream may wait for; `submit` waits for room beyond it

Mode: TypeAlias = "jobs_pb2.DispatchMode.ValueType"

_PLACE = re.compile(r"jobs\[(\d+)\]")


class Parcel(NamedTuple):
    """A job on its way to the node."""

    task_id: str
    mode: Mode
    spec: jobs_pb2.JobSpec
    size_bytes: int
    future: JobFuture[Any]  # its result is set to the ended Job


class Courier:
    """Thread-safe. Two threads begin with the first job: one sends, one hears."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)  # parcels wait, or the courier is closed
        self._room = threading.Condition(self._lock)
        self._parcels: deque[Parcel] = deque()
        self._wanted = 1  # how many the sender waits for
        self._in_flight = 0
        self._awaited: dict[str, JobFuture[Any]] = {}
        self._early: dict[str, jobs_pb2.Job] = {}  # told of before the answer that names them has been read
        self._name = fresh_request_id()
        self._numbers = itertools.count(1)
        self._opened = 0  # streams so far
        self._outdated = 0  # streams up to this one do not know all jobs that are awaited
        self._watching = threading.Event()
        self._cancel_stream: Callable[[], object] = lambda: None
        self._threads: list[threading.Thread] = []
        self._closed: OffgridError | None = None
        self._withdrawals = Withdrawals(calls)

    def submit(self, task_id: str, mode: Mode, spec: jobs_pb2.JobSpec, future: JobFuture[Any]) -> None:
        """The future is given the job once it has ended, however. Waits for room when IN_FLIGHT_MAX are under way.

        Raises OffgridError once the courier is closed."""
        future.on_sending(self._withdrawals.add)
        parcel = Parcel(task_id, mode, spec, spec.ByteSize(), future)
        with self._lock:
            while self._in_flight >= IN_FLIGHT_MAX and self._closed is None:
                self._room.wait()
            if self._closed is not None:
                raise self._closed
            if not self._threads:
                self._begin()
            self._in_flight += 1
            self._parcels.append(parcel)
            if len(self._parcels) in (1, self._wanted):
                self._ready.notify()

    @property
    def closed(self) -> bool:
        """By `close`, or because the node has been gone for too long."""
        return self._closed is not None

    def close(self) -> None:
        """Gives up what is under way: its futures fail, the jobs go on."""
        self._fail_all(OffgridError("CANCELLED", "ClientClosed", "the client was closed"))
        self._cancel_stream()
        self._withdrawals.close()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=1.0)

    # ---- sending

    def _begin(self) -> None:
        for name, work in (("offgrid-hear", self._hear), ("offgrid-send", self._send)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _send(self) -> None:
        while batch := self._take():
            self._watching.wait()
            request = jobs_pb2.RunJobsRequest(
                task_id=batch[0].task_id,
                mode=batch[0].mode,
                jobs=[parcel.spec for parcel in batch],
                request_id=f"{self._name}:{next(self._numbers)}",
                watch=self._name,
            )
            opened = self._opened
            try:
                answer = self._run(request)
            except OffgridError as error:
                self._refused(batch, error)
                continue
            self._expect(batch, answer.job_ids)
            if not answer.watched or opened != self._opened:
                self._outdated = self._opened
                self._cancel_stream()  # the stream that follows names them

    def _run(self, request: jobs_pb2.RunJobsRequest) -> jobs_pb2.RunJobsResponse:
        """Repeated as long as a silent node is waited for: it may be restarting."""
        deadline = time.monotonic() + self._calls.reconnect_s
        while True:
            try:
                return self._calls.unary("JobService/RunJobs", request, jobs_pb2.RunJobsResponse)
            except OffgridError as error:
                if not error.outcome_unknown or self._closed is not None or time.monotonic() > deadline:
                    raise
            time.sleep(PAUSE_MS_MAX / 1000)

    def _take(self) -> list[Parcel]:
        """What has gathered for the first one's task, as much as a call takes; empty once the courier is closed."""
        with self._lock:
            batch: list[Parcel] = []
            while not batch and self._closed is None:
                while not self._parcels and self._closed is None:
                    self._ready.wait()
                self._gather()
                batch = self._next_batch()
            return batch

    def _next_batch(self) -> list[Parcel]:
        """The lock is held."""
        batch: list[Parcel] = []
        room = BATCH_BYTES_MAX
        while self._parcels and self._closed is None and len(batch) < BATCH_JOBS_MAX:
            parcel = self._parcels[0]
            if parcel.future.cancelled():
                self._parcels.popleft()
                self._in_flight -= 1
                self._room.notify()
                continue
            room -= parcel.size_bytes
            if batch and (room < 0 or parcel[:2] != batch[0][:2]):
                break
            batch.append(self._parcels.popleft())
        return batch

    def _gather(self) -> None:
        """A call costs as much as dozens of jobs. While many are under way, their ends bring the next ones within a
        moment: up to half of them are waited for. Whoever is alone, or one of two, is not kept. The lock is held."""
        deadline = time.monotonic() + GATHER_S
        while self._closed is None and len(self._parcels) < min(self._in_flight // 2, BATCH_JOBS_MAX):
            self._wanted = min(self._in_flight // 2, BATCH_JOBS_MAX)
            if not self._ready.wait(deadline - time.monotonic()):
                break
        self._wanted = 1

    def _expect(self, batch: Sequence[Parcel], job_ids: Sequence[str]) -> None:
        told, given_up = [], []
        with self._lock:
            closed = self._closed
            for parcel, job_id in zip(batch, job_ids, strict=True):
                job = self._early.get(job_id)
                if job is None and closed is None:
                    self._awaited[job_id] = parcel.future
                elif job is None:
                    given_up.append(parcel.future)
                else:
                    told.append((parcel.future, job))
            self._early.clear()
        for parcel, job_id in zip(batch, job_ids, strict=True):
            parcel.future.on_sent(job_id)
        self._resolve(told)
        if closed is not None:
            self._fail(given_up, closed)

    def _refused(self, batch: Sequence[Parcel], error: OffgridError) -> None:
        """Nothing of the batch was made. Those that are wrong themselves fail, the others are sent again; so are all
        when the node is full."""
        wrong = {int(found[1]) for violation in error.violations if (found := _PLACE.match(violation.field))}
        again = [parcel for index, parcel in enumerate(batch) if wrong and index not in wrong]
        if error.code == "RESOURCE_EXHAUSTED" and error.retry_ms is not None:
            time.sleep(min(error.retry_ms, PAUSE_MS_MAX) / 1000)
            again = list(batch)
        with self._lock:
            closed = self._closed
            again = [] if closed is not None else again
            self._parcels.extendleft(reversed(again))
        kept = {id(parcel) for parcel in again}
        self._fail([parcel.future for parcel in batch if id(parcel) not in kept], closed or error)

    # ---- hearing

    def _hear(self) -> None:
        silence = self._calls.silence("what was submitted")
        while self._closed is None:
            lost: OffgridError | None = None
            with self._lock:
                awaited = list(self._awaited)
                self._opened += 1
            request = jobs_pb2.WatchJobsRequest(watch=self._name, job_ids=awaited)
            silence.opening()
            try:
                stream = self._calls.stream(
                    "JobService/WatchJobs", request, jobs_pb2.WatchJobsResponse, on_start=self._started
                )
                for answer in stream:
                    silence.heard()
                    self._watching.set()
                    self._on_ends(answer)
            except OffgridError as error:
                if not error.outcome_unknown and error.reason != "SlowReader":
                    self._fail_all(error)
                    return
                lost = error
            try:
                silence.wait(lost, matters=self._in_flight > 0)
            except OffgridError as error:
                self._fail_all(error)
                return

    def _started(self, cancel: Callable[[], object]) -> None:
        self._cancel_stream = cancel
        if self._opened <= self._outdated or self._closed is not None:
            cancel()

    def _on_ends(self, answer: jobs_pb2.WatchJobsResponse) -> None:
        jobs: Iterable[jobs_pb2.Job] = answer.jobs
        if answer.large:
            jobs = [*jobs, *(self._get(job_id) for job_id in answer.large)]
        told = []
        with self._lock:
            for job in jobs:
                future = self._awaited.pop(job.job_id, None)
                if future is None:
                    self._early[job.job_id] = job
                else:
                    told.append((future, job))
        self._resolve(told)

    def _get(self, job_id: str) -> jobs_pb2.Job:
        return self._calls.unary(
            "JobService/GetJob", jobs_pb2.GetJobRequest(job_id=job_id), jobs_pb2.GetJobResponse
        ).job

    # ---- ends

    def _resolve(self, told: Sequence[tuple[JobFuture[Any], jobs_pb2.Job]]) -> None:
        self._left(len(told))
        for future, job in told:
            if future.set_running_or_notify_cancel():
                future.set_result(job)

    def _fail(self, futures: Sequence[JobFuture[Any]], error: OffgridError) -> None:
        self._left(len(futures))
        for future in futures:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)

    def _left(self, count: int) -> None:
        with self._lock:
            full, self._in_flight = self._in_flight >= IN_FLIGHT_MAX, self._in_flight - count
            if full and count:
                self._room.notify(count)

    def _fail_all(self, error: OffgridError) -> None:
        with self._lock:
            if self._closed is not None:
                return
            self._closed = error
            futures = [*self._awaited.values(), *(parcel.future for parcel in self._parcels)]
            self._awaited.clear()
            self._parcels.clear()
            self._ready.notify_all()
            self._room.notify_all()
        self._watching.set()
        self._fail(futures, error)

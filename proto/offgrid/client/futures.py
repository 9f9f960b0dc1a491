"""Jobs that are on their way, as futures: what `client.submit` returns, and what it raises.

They are `concurrent.futures.Future`s: that module's `wait` and `as_completed` take them. asyncio can `await` them.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from offgrid.client.errors import OffgridError
from offgrid.v1 import jobs_pb2

if TYPE_CHECKING:
    from offgrid.client.jobs import Jobs

R = TypeVar("R")
T = TypeVar("T")


class JobFailed(Exception):
    """A job that did not complete: failed, cancelled, expired.

    `error` is the node's stable word (JobTimeout, NoHostsAvailable, ExecutionFailed, …), `detail` its sentence, `log`
    what the work wrote on standard error, `job` all that is known of it.
    """

    def __init__(self, job: jobs_pb2.Job) -> None:
        self.error = job.error or _word(job.state)
        self.detail = job.error_detail
        self.log = job.result.log.decode("utf-8", "replace")
        self.job = job
        said = f"{self.error}: {self.detail}" if self.detail else self.error
        super().__init__(f"{said} (job {job.job_id})")

    def __reduce__(self) -> tuple[Callable[[bytes], JobFailed], tuple[bytes]]:
        return _job_failed, (self.job.SerializeToString(),)


def _job_failed(data: bytes) -> JobFailed:
    return JobFailed(jobs_pb2.Job.FromString(data))


def _word(state: jobs_pb2.JobState.ValueType) -> str:
    """ "Cancelled" for JOB_STATE_CANCELLED."""
    return jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_").capitalize()


class JobFuture(concurrent.futures.Future[R]):
    """A job on its way. `job_id` is empty until the node has made it."""

    def __init__(self) -> None:
        super().__init__()
        self.job_id = ""
        self._withdraw: Callable[[str], None] | None = None
        self._sent: threading.Event | None = None

    def cancel(self) -> bool:
        """Gives the job up, here at once and at the node a moment later: whatever runs is stopped, and unpaid.

        False when it has ended already. `client.jobs.cancel` waits for the node's word.
        """
        cancelled = super().cancel()
        self._tell_sent()
        if cancelled and self.job_id and self._withdraw is not None:
            self._withdraw(self.job_id)
        return cancelled

    def wait_sent(self, timeout: float | None = None) -> str:
        """The job's id, once the node has made it. Raises TimeoutError, and what kept the job from being made."""
        with self._condition:
            if not self.job_id and not self.done():
                self._sent = self._sent or threading.Event()
        if self._sent is not None and not self._sent.wait(timeout):
            raise TimeoutError
        if not self.job_id:
            super().result(0)
        return self.job_id

    def __await__(self) -> Generator[Any, None, R]:
        return self._in_loop().__await__()

    async def _in_loop(self) -> R:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def tell(_: object) -> None:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(wake)

        def wake() -> None:
            if not ended.done():
                ended.set_result(None)

        self.add_done_callback(tell)
        try:
            await ended
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self.cancelled():
            raise asyncio.CancelledError
        return await asyncio.to_thread(self.result) if self._takes_long() else self.result()

    def _takes_long(self) -> bool:
        """Whether `result` would keep the loop."""
        return False

    # ---- for whoever sends it

    def on_sending(self, withdraw: Callable[[str], None]) -> None:
        self._withdraw = withdraw

    def on_sent(self, job_id: str) -> None:
        self.job_id = job_id
        self._tell_sent()
        if self.cancelled() and self._withdraw is not None:
            self._withdraw(job_id)

    def set_exception(self, exception: BaseException | None) -> None:
        super().set_exception(exception)
        self._tell_sent()

    def _tell_sent(self) -> None:
        with self._condition:
            if self._sent is not None:
                self._sent.set()


class Future(JobFuture[R], Generic[R]):
    """What a submitted function returns, or what a submitted spec's job has become.

    A function's `result()` is its value; what it raised is raised here again, with the host's traceback as its cause. A
    spec's is the completed `Job`. Everything else raises JobFailed, or OffgridError where the node refused the job.
    """

    def __init__(self, jobs: Jobs, read: Callable[[jobs_pb2.Job], R]) -> None:
        super().__init__()
        self._jobs = jobs
        self._read = read
        self._outcome: tuple[R | None, BaseException | None] | None = None

    def job(self, timeout: float | None = None) -> jobs_pb2.Job:
        """The ended job, however it ended, with its receipt."""
        return cast("jobs_pb2.Job", super().result(timeout))

    def result(self, timeout: float | None = None) -> R:
        value, error = self._taken(self.job(timeout))
        if error is not None:
            raise error
        return cast("R", value)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        error = super().exception(timeout)
        return error if error is not None else self._taken(self.job(0))[1]

    def progress(self) -> Iterator[jobs_pb2.JobProgress]:
        """What the job says of itself while it runs, until it ends: `fraction`, `message`, new `log` and `output`."""
        yield from self._jobs.progress(self.wait_sent())

    def _takes_long(self) -> bool:
        """A large output is still to be fetched."""
        return super().exception(0) is None and bool(self.job(0).result.output_object)

    def _taken(self, job: jobs_pb2.Job) -> tuple[R | None, BaseException | None]:
        """Read once, by whoever asks first: not by the thread that hears of all ends."""
        if self._outcome is None:
            try:
                self._outcome = self._read(job), None
            except OffgridError as error:  # its large output could not be had just now
                return None, error
            except Exception as error:  # noqa: BLE001 - whatever the function raised on its host
                self._outcome = None, error
        return self._outcome


def as_completed(futures: Iterable[JobFuture[T]], timeout: float | None = None) -> Iterator[JobFuture[T]]:
    """The futures in the order of their ends. Raises TimeoutError after `timeout` seconds."""
    return cast("Iterator[JobFuture[T]]", concurrent.futures.as_completed(futures, timeout))

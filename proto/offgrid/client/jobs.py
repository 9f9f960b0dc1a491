"""jobs: made, sent, watched; and the market that they are cleared on."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.catalogue import Missions, Tasks
from offgrid.client.courier import Courier, JobFuture
from offgrid.client.errors import OffgridError
from offgrid.client.following import follow
from offgrid.client.mesh import Mesh
from offgrid.client.objects import Objects
from offgrid.client.paging import pages
from offgrid.client.targets import replaced
from offgrid.v1 import jobs_pb2
from offgrid.v1.jobs_pb2 import DispatchMode, JobState

MODES = {
    "": DispatchMode.DISPATCH_MODE_UNSPECIFIED,
    "auto": DispatchMode.DISPATCH_MODE_AUTO,
    "offgrid": DispatchMode.DISPATCH_MODE_OFFGRID,
    "disabled": DispatchMode.DISPATCH_MODE_DISABLED,
}
INPUT_IN_CALL_BYTES_MAX = 1024 * 1024  # a larger input is put as an object first, and the job names it
ENDED = frozenset(
    {
        JobState.JOB_STATE_COMPLETED,
        JobState.JOB_STATE_FAILED,
        JobState.JOB_STATE_CANCELLED,
        JobState.JOB_STATE_EXPIRED,
    }
)


class Jobs:
    """The jobs of JobService."""

    def __init__(self, calls: Calls, missions: Missions, tasks: Tasks, objects: Objects, mesh: Mesh) -> None:
        self._calls = calls
        self._missions = missions
        self._tasks = tasks
        self._objects = objects
        self._mesh = mesh
        self._lock = threading.Lock()
        self._courier: Courier | None = None
        self._task_id = ""  # of jobs that are submitted without one

    def create(
        self,
        task_id: str,
        payload: jobs_pb2.JobPayload,
        *,
        size_tokens: int = 0,
        timeout_ms: int = 0,
        request_id: str = "",
    ) -> jobs_pb2.Job:
        """A job of a task, not sent anywhere yet. See `offgrid.client.payloads` for the payload.

        `size_tokens` 0 is estimated from the payload, `timeout_ms` 0 is the node's default.
        """
        request_id = request_id or fresh_request_id()
        request = jobs_pb2.CreateJobRequest(
            task_id=task_id,
            job=_spec(self._placed(payload, request_id), size_tokens, timeout_ms),
            request_id=request_id,
        )
        return self._calls.unary("JobService/CreateJob", request, jobs_pb2.CreateJobResponse).job

    def dispatch(self, job_id: str, mode: str = "") -> jobs_pb2.DispatchJobResponse:
        """Sends a job to the mesh ("offgrid"), the local queue ("disabled") or whichever works ("auto").

        "" is what the node's config says. Doing it twice is harmless. Raises ValueError for an unknown mode.
        """
        request = jobs_pb2.DispatchJobRequest(job_id=job_id, mode=_mode(mode))
        return self._calls.unary("JobService/DispatchJob", request, jobs_pb2.DispatchJobResponse)

    def start(
        self,
        task_id: str,
        payloads: Sequence[jobs_pb2.JobPayload],
        *,
        mode: str = "",
        size_tokens: int = 0,
        timeout_ms: int = 0,
        request_id: str = "",
    ) -> Sequence[str]:
        """Makes up to 256 jobs of a task and sends them, all or none, in one durable step; returns their ids."""
        request_id = request_id or fresh_request_id()
        placed = [self._placed(payload, f"{request_id}/{index}") for index, payload in enumerate(payloads)]
        request = jobs_pb2.RunJobsRequest(
            task_id=task_id,
            jobs=[_spec(payload, size_tokens, timeout_ms) for payload in placed],
            mode=_mode(mode),
            request_id=request_id,
        )
        return self._calls.unary("JobService/RunJobs", request, jobs_pb2.RunJobsResponse).job_ids

    def submit(
        self,
        payload: jobs_pb2.JobPayload,
        *,
        task_id: str = "",
        mode: str = "",
        size_tokens: int = 0,
        timeout_ms: int = 0,
    ) -> JobFuture:
        """A job made and sent together with whatever else is submitted meanwhile; its future has the ended job.

        The future is a `concurrent.futures.Future` (for asyncio: `asyncio.wrap_future`); a job that failed is its
        result, not its exception. Without `task_id` the job joins a task of this client's own. With 16,384 of them
        under way it waits for room.
        """
        spec = _spec(self._placed(payload, fresh_request_id()), size_tokens, timeout_ms)
        return self._courier_now().submit(task_id or self._own_task(), _mode(mode), spec)

    def map(
        self, payloads: Iterable[jobs_pb2.JobPayload], *, task_id: str = "", mode: str = "", in_flight: int = 1_024
    ) -> Iterator[jobs_pb2.Job]:
        """The ended jobs in the order of their payloads; as many as `in_flight` are under way at once."""
        under_way: deque[JobFuture] = deque()
        for payload in payloads:
            under_way.append(self.submit(payload, task_id=task_id, mode=mode))
            if len(under_way) >= in_flight:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def get(self, job_id: str) -> jobs_pb2.Job:
        """The job with its output and log."""
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        return self._calls.unary("JobService/GetJob", request, jobs_pb2.GetJobResponse).job

    def output(self, job: jobs_pb2.Job) -> bytes:
        """What an ended job wrote, wherever it is: with the job, or in an object when it is large."""
        if job.result.output_object:
            return self._objects.read(job.result.output_object)
        return job.result.output

    def write_output(self, job: jobs_pb2.Job, target: str | BinaryIO) -> int:
        """The same to a file (by its path), which appears whole or not at all, or to a stream; returns its size."""
        if job.result.output_object:
            return self._objects.fetch(job.result.output_object, target)
        if not isinstance(target, str):
            return target.write(job.result.output)
        with replaced(target) as file:
            return file.write(job.result.output)

    def receipt(self, job_id: str) -> dict[str, Any]:
        """The job's receipt as a document that stands alone, see `offgrid.client.evidence`; `json.dumps` writes it.

        Raises OffgridError(FAILED_PRECONDITION, NoReceipt) for a job that has none."""
        from offgrid.client.evidence import document

        job = self.get(job_id)
        if not job.result.HasField("receipt"):
            state = JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            raise OffgridError("FAILED_PRECONDITION", "NoReceipt", f"job {job_id} is {state} and has no receipt")
        return document(job, self._mesh.proof(job.result.receipt.facts.node_id))

    def list(self, *, task_id: str = "", limit: int | None = None) -> Iterator[jobs_pb2.Job]:
        """Every job, or those of one task, without outputs and logs."""

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.Job], str]:
            request = jobs_pb2.ListJobsRequest(page_size=size, page_token=token, task_id=task_id)
            page = self._calls.unary("JobService/ListJobs", request, jobs_pb2.ListJobsResponse)
            return [*page.jobs], page.next_page_token

        return pages(fetch, limit)

    def watch(self, job_id: str) -> Iterator[jobs_pb2.Job]:
        """The job now and at each change; ends after the state that is its last, which comes with output and log.

        A node that restarts meanwhile is waited for, as long as one call may take; then OffgridError.
        """
        request = jobs_pb2.WatchJobRequest(job_id=job_id)

        def states(for_s: float | None) -> Iterator[jobs_pb2.Job]:
            answers = self._calls.stream("JobService/WatchJob", request, jobs_pb2.WatchJobResponse, timeout_s=for_s)
            return (answer.job for answer in answers)

        return follow(states, lambda job: job.state in ENDED, f"job {job_id}", self._calls.timeout_s)

    def run(
        self,
        payload: jobs_pb2.JobPayload,
        *,
        title: str = "",
        kind: str = "compute",
        task_id: str = "",
        mode: str = "",
        size_tokens: int = 0,
        timeout_ms: int = 0,
        on_change: Callable[[jobs_pb2.Job], None] | None = None,
    ) -> jobs_pb2.Job:
        """Mission, task, job and its end in one: returns the ended job with its result and receipt.

        With `task_id` the job joins that task and no mission is made. `on_change` sees the job at each change. A job
        that failed is returned, not raised: look at `job.state`, `job.error` and `job.result`.
        """
        _mode(mode)
        if not task_id:
            name = title or payload.input_name or "job"
            task_id = self._tasks.create(self._missions.create(name).mission_id, name, kind).task_id
        if on_change is None:
            job = self.submit(payload, task_id=task_id, mode=mode, size_tokens=size_tokens, timeout_ms=timeout_ms)
            return job.result()
        (job_id,) = self.start(task_id, [payload], mode=mode, size_tokens=size_tokens, timeout_ms=timeout_ms)
        for seen in self.watch(job_id):
            on_change(seen)
        return seen

    def close(self) -> None:
        """Gives up what was submitted and has not ended: the futures fail, the jobs go on."""
        with self._lock:
            if self._courier is not None:
                self._courier.close()

    # ---- inside

    def _placed(self, payload: jobs_pb2.JobPayload, request_id: str) -> jobs_pb2.JobPayload:
        """The payload, or one that names its input as an object of the node's. `request_id` is that of the job."""
        if len(payload.input) <= INPUT_IN_CALL_BYTES_MAX:
            return payload
        made = self._objects.put(payload.input, name=payload.input_name, request_id=_input_request_id(request_id))
        placed = jobs_pb2.JobPayload()
        placed.CopyFrom(payload)
        placed.ClearField("input")
        placed.input_object_id = made.object_id
        return placed

    def _courier_now(self) -> Courier:
        with self._lock:
            if self._courier is None or self._courier.closed:
                self._courier = Courier(self._calls)
            return self._courier

    def _own_task(self) -> str:
        with self._lock:
            if not self._task_id:
                mission = self._missions.create("jobs")
                self._task_id = self._tasks.create(mission.mission_id, "jobs").task_id
            return self._task_id


def _mode(mode: str) -> DispatchMode.ValueType:
    if mode not in MODES:
        raise ValueError(f"{mode!r} is no mode; there are {', '.join(name for name in MODES if name)}")
    return MODES[mode]


def _input_request_id(text: str) -> str:
    """Of the put of an input: the same for the same job, whatever the job's own request id looks like."""
    return f"input-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


def _spec(payload: jobs_pb2.JobPayload, size_tokens: int, timeout_ms: int) -> jobs_pb2.JobSpec:
    return jobs_pb2.JobSpec(payload=payload, size_tokens=size_tokens, timeout_ms=timeout_ms)


class Market:
    """What a broker's book holds."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def offers(self) -> jobs_pb2.ListOffersResponse:
        """The standing offers of this node's book, and how many orders wait in it."""
        book = jobs_pb2.ListOffersResponse()

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.BookEntry], str]:
            request = jobs_pb2.ListOffersRequest(page_size=size, page_token=token)
            page = self._calls.unary("MarketService/ListOffers", request, jobs_pb2.ListOffersResponse)
            book.queued = page.queued
            return [*page.entries], page.next_page_token

        book.entries.extend(pages(fetch, None))
        return book

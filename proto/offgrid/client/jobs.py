"""jobs: made, sent, watched; and the market that they are cleared on."""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Unpack

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.catalogue import Missions, Tasks
from offgrid.client.courier import Courier
from offgrid.client.errors import OffgridError
from offgrid.client.following import follow
from offgrid.client.futures import JobFuture
from offgrid.client.left_files import unpacked, write_into
from offgrid.client.mesh import Mesh
from offgrid.client.objects import Objects
from offgrid.client.options import JobOptions, Work, mode_of, spec_of
from offgrid.client.paging import pages
from offgrid.client.progress import each_once
from offgrid.client.targets import Target, replaced
from offgrid.v1 import jobs_pb2
from offgrid.v1.jobs_pb2 import JobState

KIND, LLM_KIND = "compute", "llm_call"
CANCEL_MAX = 256  # what a node takes in one call
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
        self._mission_id = ""
        self._task_ids: dict[str, str] = {}  # by kind, of jobs that are submitted without one

    def create(
        self,
        task_id: str,
        work: Work,
        *,
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> jobs_pb2.Job:
        """A job of a task, not sent anywhere yet: a payload (`offgrid.client.payloads`) or a whole JobSpec, and what
        `options.JobOptions` has."""
        request_id = request_id or fresh_request_id()
        spec = self.placed(work, options, request_id)
        request = jobs_pb2.CreateJobRequest(task_id=task_id, job=spec, request_id=request_id)
        return self._calls.unary("JobService/CreateJob", request, jobs_pb2.CreateJobResponse).job

    def dispatch(self, job_id: str, mode: str = "") -> jobs_pb2.DispatchJobResponse:
        """Sends a job to the mesh ("offgrid"), the local queue ("disabled") or whichever works ("auto").

        "" is what the node's config says. Doing it twice is harmless. Raises ValueError for an unknown mode.
        """
        request = jobs_pb2.DispatchJobRequest(job_id=job_id, mode=mode_of(mode))
        return self._calls.unary("JobService/DispatchJob", request, jobs_pb2.DispatchJobResponse)

    def start(
        self,
        task_id: str,
        works: Sequence[Work],
        *,
        mode: str = "",
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> jobs_pb2.RunJobsResponse:
        """Makes up to 256 jobs of a task and sends them, all or none, in one durable step; the answer has their ids,
        the way that they took, and why.

        Their `after` may name "#0", "#1", … for those that stand before in `works`."""
        request_id = request_id or fresh_request_id()
        request = jobs_pb2.RunJobsRequest(
            task_id=task_id,
            jobs=[self.placed(work, options, f"{request_id}/{index}") for index, work in enumerate(works)],
            mode=mode_of(mode),
            request_id=request_id,
        )
        return self._calls.unary("JobService/RunJobs", request, jobs_pb2.RunJobsResponse)

    def submit(
        self, work: Work, *, task_id: str = "", mode: str = "", **options: Unpack[JobOptions]
    ) -> JobFuture[jobs_pb2.Job]:
        """A job made and sent together with whatever else is submitted meanwhile; its future has the ended job.

        The future is a `concurrent.futures.Future` that asyncio may await; a job that failed is its result, not its
        exception (`client.submit` raises). Without `task_id` the job joins a task of this client's own. With 16,384 of
        them under way it waits for room.
        """
        future: JobFuture[jobs_pb2.Job] = JobFuture()
        self.send(work, future, task_id=task_id, mode=mode, options=options)
        return future

    def send(
        self, work: Work, future: JobFuture[Any], *, task_id: str = "", mode: str = "", options: JobOptions
    ) -> None:
        """As `submit`, with a future of the caller's own."""
        spec = self.placed(work, options, fresh_request_id())
        kind = LLM_KIND if spec.payload.HasField("llm") else KIND
        self._courier_now().submit(task_id or self._own_task(kind), mode_of(mode), spec, future)

    def map(
        self,
        works: Iterable[Work],
        *,
        task_id: str = "",
        mode: str = "",
        in_flight: int = 1_024,
        **options: Unpack[JobOptions],
    ) -> Iterator[jobs_pb2.Job]:
        """The ended jobs in the order of their works; as many as `in_flight` are under way at once."""
        under_way: deque[JobFuture[jobs_pb2.Job]] = deque()
        for work in works:
            under_way.append(self.submit(work, task_id=task_id, mode=mode, **options))
            if len(under_way) >= in_flight:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()

    def cancel(self, job_ids: Iterable[str] = (), *, task_id: str = "", reason: str = "") -> list[str]:
        """Takes jobs back, or all of a task that have not ended: what runs is stopped, and unpaid. Returns the ids of
        those that were open; doing it twice is harmless."""
        wanted = list(job_ids)
        pieces = [wanted[at : at + CANCEL_MAX] for at in range(0, len(wanted), CANCEL_MAX)] or [[]]
        cancelled: list[str] = []
        for piece in pieces:
            request = jobs_pb2.CancelJobsRequest(job_ids=piece, task_id=task_id, reason=reason)
            answer = self._calls.unary("JobService/CancelJobs", request, jobs_pb2.CancelJobsResponse)
            cancelled += answer.job_ids
        return cancelled

    def why(self, job_id: str) -> jobs_pb2.ExplainJobResponse:
        """The job's story, and for every host why it did or would not get it."""
        request = jobs_pb2.ExplainJobRequest(job_id=job_id)
        return self._calls.unary("JobService/ExplainJob", request, jobs_pb2.ExplainJobResponse)

    def get(self, job_id: str) -> jobs_pb2.Job:
        """The job with its output and log."""
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        return self._calls.unary("JobService/GetJob", request, jobs_pb2.GetJobResponse).job

    def executions(self, job_id: str) -> Sequence[jobs_pb2.Execution]:
        """Of a redundant job, in the order in which they were made: where each ran and whether its result was the one
        that was accepted."""
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        return self._calls.unary("JobService/GetJob", request, jobs_pb2.GetJobResponse).executions

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

    def files(self, job: jobs_pb2.Job) -> dict[str, bytes]:
        """The files that an ended job left and was asked for (`outputs`), by name; each is as its result says."""
        return unpacked(self._objects.read(job.result.files_object), job) if job.result.files_object else {}

    def write_files(self, job: jobs_pb2.Job, folder: Target) -> Sequence[Path]:
        """The same into a folder; returns their paths."""
        return write_into(folder, self.files(job))

    def receipt(self, job_id: str) -> dict[str, Any]:
        """The job's receipt as a document that stands alone, see `offgrid.client.evidence`; `json.dumps` writes it.

        Raises OffgridError(FAILED_PRECONDITION, NoReceipt) for a job that has none."""
        from offgrid.client.evidence import document

        job = self.get(job_id)
        if not job.result.HasField("receipt"):
            state = JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
            raise OffgridError("FAILED_PRECONDITION", "NoReceipt", f"job {job_id} is {state} and has no receipt")
        return document(job, self._mesh.proof(job.result.receipt.facts.node_id))

    def list(
        self,
        *,
        task_id: str = "",
        states: Iterable[str] = (),
        include_executions: bool = False,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[jobs_pb2.Job]:
        """Every job, or those of one task or in one of some states ("running", "failed", …), without outputs and logs.

        `include_executions` lists the executions of redundant jobs as well. Raises ValueError for an unknown state."""
        wanted = [_state(name) for name in states]

        def fetch(size: int, token: str) -> tuple[list[jobs_pb2.Job], str]:
            request = jobs_pb2.ListJobsRequest(
                page_size=size,
                page_token=token,
                task_id=task_id,
                states=wanted,
                include_executions=include_executions,
                newest_first=newest_first,
            )
            page = self._calls.unary("JobService/ListJobs", request, jobs_pb2.ListJobsResponse)
            return [*page.jobs], page.next_page_token

        return pages(fetch, limit)

    def watch(self, job_id: str) -> Iterator[jobs_pb2.Job]:
        """The job now and at each change; ends after the state that is its last, which comes with output and log.

        A node that restarts meanwhile is waited for, the client's `reconnect_s` long; then OffgridError WatchEnded.
        """
        request = jobs_pb2.WatchJobRequest(job_id=job_id)

        def states(for_s: float | None) -> Iterator[jobs_pb2.Job]:
            answers = self._calls.stream("JobService/WatchJob", request, jobs_pb2.WatchJobResponse, timeout_s=for_s)
            return (answer.job for answer in answers)

        return follow(states, lambda job: job.state in ENDED, self._calls.silence(f"job {job_id}"))

    def progress(self, job_id: str, *, within_s: float | None = None) -> Iterator[jobs_pb2.JobProgress]:
        """What the job says of itself while it runs: how far it is, what it is at, what is new on its standard error
        (and, of a language model, on its output). Ends with the job; what is missed is in its result. With `within_s`
        it ends so many seconds later at most."""
        request = jobs_pb2.WatchProgressRequest(job_id=job_id)

        def opened(for_s: float | None) -> Iterator[jobs_pb2.WatchProgressResponse]:
            answer = jobs_pb2.WatchProgressResponse
            return self._calls.stream("JobService/WatchProgress", request, answer, timeout_s=for_s)

        return each_once(opened, self._calls.silence(f"job {job_id}"), within_s)

    def run(
        self,
        work: Work,
        *,
        title: str = "",
        kind: str = "",
        task_id: str = "",
        mode: str = "",
        on_change: Callable[[jobs_pb2.Job], None] | None = None,
        **options: Unpack[JobOptions],
    ) -> jobs_pb2.Job:
        """Mission, task, job and its end in one: returns the ended job with its result and receipt.

        With `task_id` the job joins that task and no mission is made. `on_change` sees the job at each change. A job
        that failed is returned, not raised: look at `job.state`, `job.error` and `job.result`.
        """
        mode_of(mode)
        if not task_id:
            task_id = self.task_for(work, title=title, kind=kind)
        if on_change is None:
            return self.submit(work, task_id=task_id, mode=mode, **options).result()
        (job_id,) = self.start(task_id, [work], mode=mode, **options).job_ids
        for seen in self.watch(job_id):
            on_change(seen)
        return seen

    def placed(self, work: Work, options: JobOptions, request_id: str) -> jobs_pb2.JobSpec:
        """The job as it is sent, by whomever: what is too large for a call, and its files, are put first. `request_id`
        is its own."""
        spec = spec_of(work, options)
        if len(spec.payload.input) > INPUT_IN_CALL_BYTES_MAX:
            payload, put_id = spec.payload, _input_request_id(request_id)
            made = self._objects.put(payload.input, name=payload.input_name, request_id=put_id)
            payload.ClearField("input")
            payload.input_object_id = made.object_id
        for number, (name, source) in enumerate(options.get("files", {}).items()):
            object_id = source if isinstance(source, str) else ""
            if not isinstance(source, str):
                content = source if isinstance(source, bytes) else str(source)
                put_id = _input_request_id(f"{request_id}/files/{number}")
                object_id = self._objects.put(content, name=name, request_id=put_id).object_id
            spec.payload.files.add(name=name, object_id=object_id)
        return spec

    def task_for(self, work: Work, *, title: str = "", kind: str = "") -> str:
        """The id of a new task, in a mission of its own, for jobs such as this one."""
        payload = work.payload if isinstance(work, jobs_pb2.JobSpec) else work
        name, kind = title or payload.input_name or "job", kind or (LLM_KIND if payload.HasField("llm") else KIND)
        return self._tasks.create(self._missions.create(name).mission_id, name, kind).task_id

    def close(self) -> None:
        """Gives up what was submitted and has not ended: the futures fail, the jobs go on."""
        with self._lock:
            if self._courier is not None:
                self._courier.close()

    # ---- inside

    def _courier_now(self) -> Courier:
        with self._lock:
            if self._courier is None or self._courier.closed:
                self._courier = Courier(self._calls)
            return self._courier

    def _own_task(self, kind: str) -> str:
        with self._lock:
            if kind not in self._task_ids:
                self._mission_id = self._mission_id or self._missions.create("jobs").mission_id
                self._task_ids[kind] = self._tasks.create(self._mission_id, "jobs", kind).task_id
            return self._task_ids[kind]


def _state(name: str) -> JobState.ValueType:
    try:
        return JobState.Value(f"JOB_STATE_{name.upper()}")
    except ValueError:
        known = ", ".join(key.removeprefix("JOB_STATE_").lower() for key in JobState.keys()[1:])
        raise ValueError(f"{name!r} is no state of a job; there are {known}") from None


def _input_request_id(text: str) -> str:
    """Of the put of an input: the same for the same job, whatever the job's own request id looks like."""
    return f"input-{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"


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

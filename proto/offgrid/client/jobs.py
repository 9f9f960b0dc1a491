"""jobs: made, sent, watched; and the market that they are cleared on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from offgrid.client.calls import PAUSE_MS, PAUSE_MS_MAX, Calls, fresh_request_id
from offgrid.client.catalogue import Missions, Tasks
from offgrid.client.errors import OffgridError
from offgrid.client.paging import pages
from offgrid.v1 import jobs_pb2
from offgrid.v1.jobs_pb2 import DispatchMode, JobState

MODES = {
    "": DispatchMode.DISPATCH_MODE_UNSPECIFIED,
    "auto": DispatchMode.DISPATCH_MODE_AUTO,
    "offgrid": DispatchMode.DISPATCH_MODE_OFFGRID,
    "disabled": DispatchMode.DISPATCH_MODE_DISABLED,
}
ENDED = frozenset({JobState.JOB_STATE_COMPLETED, JobState.JOB_STATE_FAILED})


class Jobs:
    """The jobs of JobService."""

    def __init__(self, calls: Calls, missions: Missions, tasks: Tasks) -> None:
        self._calls = calls
        self._missions = missions
        self._tasks = tasks

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
        request = jobs_pb2.CreateJobRequest(
            task_id=task_id,
            payload=payload,
            size_tokens=size_tokens,
            timeout_ms=timeout_ms,
            request_id=request_id or fresh_request_id(),
        )
        return self._calls.unary("JobService/CreateJob", request, jobs_pb2.CreateJobResponse).job

    def dispatch(self, job_id: str, mode: str = "") -> jobs_pb2.DispatchJobResponse:
        """Sends a job to the mesh ("offgrid"), the local queue ("disabled") or whichever works ("auto").

        "" is what the node's config says. Doing it twice is harmless. Raises ValueError for an unknown mode.
        """
        if mode not in MODES:
            raise ValueError(f"{mode!r} is no mode; there are {', '.join(name for name in MODES if name)}")
        request = jobs_pb2.DispatchJobRequest(job_id=job_id, mode=MODES[mode])
        return self._calls.unary("JobService/DispatchJob", request, jobs_pb2.DispatchJobResponse)

    def get(self, job_id: str) -> jobs_pb2.Job:
        """The job with its output and log."""
        request = jobs_pb2.GetJobRequest(job_id=job_id)
        return self._calls.unary("JobService/GetJob", request, jobs_pb2.GetJobResponse).job

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
        request, last = jobs_pb2.WatchJobRequest(job_id=job_id), jobs_pb2.Job()
        lost_at, pause_ms = None, PAUSE_MS
        while True:
            lost: OffgridError | None = None
            try:
                for answer in self._calls.stream("JobService/WatchJob", request, jobs_pb2.WatchJobResponse):
                    lost_at, pause_ms = None, PAUSE_MS
                    if answer.job != last:
                        last = answer.job
                        yield last
                    if last.state in ENDED:
                        return
            except OffgridError as error:
                if not error.outcome_unknown:
                    raise
                lost = error
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > self._calls.timeout_s:
                raise lost or OffgridError("UNAVAILABLE", "WatchEnded", f"the node no longer tells of job {job_id}")
            time.sleep(pause_ms / 1000)
            pause_ms = min(PAUSE_MS_MAX, 2 * pause_ms)

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
        on_change: Callable[[jobs_pb2.Job], None] = lambda job: None,
    ) -> jobs_pb2.Job:
        """Mission, task, job, dispatch and watch in one: returns the ended job with its result and receipt.

        With `task_id` the job joins that task and no mission is made. `on_change` sees the job at each change. A job
        that failed is returned, not raised: look at `job.state`, `job.error` and `job.result`.
        """
        if mode not in MODES:
            raise ValueError(f"{mode!r} is no mode; there are {', '.join(name for name in MODES if name)}")
        if not task_id:
            name = title or payload.input_name or "job"
            task_id = self._tasks.create(self._missions.create(name).mission_id, name, kind).task_id
        job = self.create(task_id, payload, size_tokens=size_tokens, timeout_ms=timeout_ms)
        on_change(job)
        self.dispatch(job.job_id, mode)
        for seen in self.watch(job.job_id):
            on_change(seen)
            job = seen
        return job


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

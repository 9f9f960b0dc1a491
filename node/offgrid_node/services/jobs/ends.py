"""WatchJobs: who is told of the ends of which jobs, many at once.

A stream has a name that its caller chose, and RunJobs names the stream that is to hear of its jobs. They are known here
before they can end, since an answer leaves before anything that follows from it. Whoever lost the stream opens it again
and names the jobs that it still waits for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Exhausted, InvalidRequest, Unavailable
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.open_jobs import RESULT_INLINE_MAX, RESULTS
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.stream import Stream

WATCH_CHARS_MAX = 64
WATCH = re.compile(r"[A-Za-z0-9._:-]*\Z")
WATCHED_MAX = 16_384  # jobs that one stream waits for
MESSAGE_JOBS_MAX = 512
BACKLOG_MAX = 64  # messages of at most MESSAGE_JOBS_MAX small jobs


class Watch(msgspec.Struct):
    """An open stream, and the jobs whose ends it has not been told."""

    name: str
    stream: Stream
    awaited: set[str] = msgspec.field(default_factory=set)


class Ends:
    """The open streams by their names, and the jobs by the stream that waits for them."""

    def __init__(self, runtime: Runtime, shelf: Shelf) -> None:
        self._shelf = shelf
        self._watches: dict[str, Watch] = {}
        self._of_job: dict[str, Watch] = {}
        runtime.watch(self._on_events)

    def watch(self, name: str, job_ids: Sequence[str]) -> Stream:
        """A stream of the ends of these jobs, and of those that `tell_of` adds. What the former stream of this name
        waited for goes over to it."""
        check_watch(name, empty=False)
        if len(job_ids) > WATCHED_MAX:
            raise InvalidRequest.field("job_ids", f"{len(job_ids)} jobs; at most {WATCHED_MAX} are allowed")
        watch, former = Watch(name, Stream(BACKLOG_MAX)), self._watches.get(name)
        awaited = {*job_ids, *(former.awaited if former is not None else ())}
        if former is not None:
            former.stream.end(Unavailable("another stream of this name took its place", reason="WatchReplaced"))
        self._watches[name] = watch
        watch.stream.when_closed(lambda: self._close(watch))
        watch.stream.push(jobs_pb2.WatchJobsResponse())
        self._add(watch, awaited)
        self._push_ended(watch, awaited)
        return watch.stream

    def tell_of(self, name: str, ticket: Ticket) -> Ticket:
        """The ticket of a RunJobs whose jobs the stream of this name is to be told of."""

        def done(response: Message) -> Message:
            assert isinstance(response, jobs_pb2.RunJobsResponse)
            watch = self._watches.get(name)
            if watch is not None:
                response.watched = True
                self._add(watch, response.job_ids)
                self._push_ended(watch, response.ended)
            return response

        return ticket.map(done)

    # ---- inside

    def _on_events(self, events: Sequence[Record]) -> None:
        of_job = self._of_job
        if not of_job:
            return
        ended: dict[str, list[jobs_pb2.Job]] = {}
        for event in events:
            if event.subject in of_job and (job := event.job) is not None and job.state in ENDED:
                ended.setdefault(of_job[event.subject].name, []).append(job)
        for name, jobs in ended.items():
            if (watch := self._watches.get(name)) is not None:
                self._push(watch, jobs)

    def _push_ended(self, watch: Watch, job_ids: Iterable[str]) -> None:
        """Those of them that have ended by what is committed."""
        rows = [self._shelf.find(JOBS, jobs_pb2.Job, job_id) for job_id in sorted(job_ids)]
        self._push(watch, [job for job in rows if job is not None and job.state in ENDED])

    def _push(self, watch: Watch, jobs: Sequence[jobs_pb2.Job]) -> None:
        for job in jobs:
            watch.awaited.discard(job.job_id)
            self._of_job.pop(job.job_id, None)
        for message in _messages(jobs):
            watch.stream.push(message)

    def _add(self, watch: Watch, job_ids: Iterable[str]) -> None:
        for job_id in job_ids:
            watch.awaited.add(job_id)
            self._of_job[job_id] = watch
        if len(watch.awaited) > WATCHED_MAX:
            text = f"this stream waits for more than {WATCHED_MAX} jobs"
            watch.stream.end(Exhausted(text, reason="TooManyWatched"))

    def _close(self, watch: Watch) -> None:
        if self._watches.get(watch.name) is watch:
            del self._watches[watch.name]
        for job_id in watch.awaited:
            if self._of_job.get(job_id) is watch:
                del self._of_job[job_id]
        watch.awaited.clear()


def check_watch(name: str, *, empty: bool = True) -> None:
    """Raises InvalidRequest for what is no name of a stream."""
    if len(name) > WATCH_CHARS_MAX or not WATCH.match(name) or not (name or empty):
        least = 0 if empty else 1
        text = f"{least} to {WATCH_CHARS_MAX} characters of A-Z a-z 0-9 . _ : - are allowed"
        raise InvalidRequest.field("watch", text)


def with_result(job: jobs_pb2.Job, shelf: Shelf) -> jobs_pb2.Job:
    """The job with its output and log, wherever they lie, and without what is the core's own."""
    job.ClearField("kept_payload")
    if job.result_bytes > RESULT_INLINE_MAX:
        result = shelf.find(RESULTS, jobs_pb2.JobResult, job.result_of or job.job_id)
        if result is not None:
            job.result.CopyFrom(result)
    return job


def _messages(jobs: Sequence[jobs_pb2.Job]) -> Iterator[jobs_pb2.WatchJobsResponse]:
    for start in range(0, len(jobs), MESSAGE_JOBS_MAX):
        part = jobs[start : start + MESSAGE_JOBS_MAX]
        yield jobs_pb2.WatchJobsResponse(
            jobs=[job for job in part if job.result_bytes <= RESULT_INLINE_MAX],
            large=[job.job_id for job in part if job.result_bytes > RESULT_INLINE_MAX],
        )

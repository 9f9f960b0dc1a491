"""What jobs of this core say while they run, for whoever watches: WatchProgress, and ReportProgress behind it.

Kept in memory, and only of jobs that somebody watches or has watched lately. Each watcher gets what is known and what
follows; an attempt's log and output have offsets, so that nothing is shown twice; the last message is the ended job.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.errors import Exhausted, InvalidRequest
from offgrid_node.protocol.jobs.bounds import ID_CHARS_MAX, LOG_BYTES_MAX, MESSAGE_CHARS_MAX
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.runtime import Runtime
from offgrid_node.services.jobs.ends import with_result
from offgrid_node.services.jobs.speech import CALL_BYTES_MAX, CALL_ITEMS_MAX, OUTPUT_BYTES_MAX
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.stream import Stream

WATCHERS_MAX = 1_024
KNOWN_BYTES_MAX = 16 * 1024 * 1024  # of logs and outputs of all jobs, those heard of last
BACKLOG_MAX = 256  # messages of at most CALL_BYTES_MAX for a slow reader


class Known(msgspec.Struct):
    """What an attempt has said so far, as far as it has come here."""

    attempt: int = 0
    fraction: float | None = None
    message: str = ""
    log: bytearray = msgspec.field(default_factory=bytearray)
    output: bytearray = msgspec.field(default_factory=bytearray)
    streams: list[Watcher] = msgspec.field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.log) + len(self.output)

    def add(self, said: jobs_pb2.JobProgress) -> bool:
        """Whether there is news in it. What overlaps is taken once, what leaves a gap is not taken."""
        if said.attempt != self.attempt:
            if said.attempt < self.attempt:
                return False
            self.attempt, self.fraction, self.message = said.attempt, None, ""
            self.log.clear()
            self.output.clear()
        before = self.fraction, self.message, self.size_bytes
        self.fraction = said.fraction if said.HasField("fraction") else self.fraction
        self.message = said.message or self.message
        for kept, data, offset, most in (
            (self.log, said.log, said.log_offset, LOG_BYTES_MAX),
            (self.output, said.output, said.output_offset, OUTPUT_BYTES_MAX),
        ):
            if offset <= len(kept):
                kept += data[len(kept) - offset :][: most - len(kept)]
        return before != (self.fraction, self.message, self.size_bytes)


class Watcher(msgspec.Struct):
    """A stream and how far it has been told."""

    stream: Stream
    attempt: int = 0
    log_told: int = 0
    output_told: int = 0

    def tell(self, job_id: str, known: Known) -> None:
        if known.attempt != self.attempt:
            self.attempt, self.log_told, self.output_told = known.attempt, 0, 0
        told = jobs_pb2.JobProgress(job_id=job_id, attempt=known.attempt, message=known.message)
        told.log_offset, told.output_offset = self.log_told, self.output_told
        if known.fraction is not None:
            told.fraction = known.fraction
        told.log, told.output = bytes(known.log[self.log_told :]), bytes(known.output[self.output_told :])
        self.log_told, self.output_told = len(known.log), len(known.output)
        self.stream.push(jobs_pb2.WatchProgressResponse(progress=told))

    def end(self, job: jobs_pb2.Job) -> None:
        """The job has ended: what its result has and this stream has not been told, and the job."""
        last = jobs_pb2.WatchProgressResponse(job=job)
        log_told, output_told = (self.log_told, self.output_told) if job.attempt == self.attempt else (0, 0)
        log, output = job.result.log[log_told:], job.result.output[output_told:] if output_told else b""
        if log or output:
            rest = last.progress
            rest.job_id, rest.attempt, rest.log, rest.output = job.job_id, job.attempt, log, output
            rest.log_offset, rest.output_offset = log_told, output_told
        self.stream.push(last)
        self.stream.end()


class ProgressHub:
    """The jobs that are watched, and what is known of them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime, self._shelf = runtime, Shelf(runtime.store)
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._watchers = 0
        runtime.watch(self._on_events)

    def watch(self, job_id: str) -> Stream:
        """What is known now and what comes; ends with the job. Raises NotFound, Exhausted."""
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, job_id)
        if self._watchers >= WATCHERS_MAX:
            text = f"{self._watchers} streams of progress are open; at most {WATCHERS_MAX} are allowed"
            raise Exhausted(text, reason="TooManyWatchers", retry_ms=1_000)
        stream = Stream(BACKLOG_MAX)
        if job.state in ENDED:
            Watcher(stream).end(with_result(job, self._shelf))
            return stream
        known, watcher = self._known.setdefault(job_id, Known()), Watcher(stream)
        known.streams.append(watcher)
        self._watchers += 1
        stream.when_closed(lambda: self._close(known, watcher))
        watcher.tell(job_id, known)
        return stream

    def report(self, host: str, request: jobs_pb2.ReportProgressRequest) -> jobs_pb2.ReportProgressResponse:
        """From a host; what nobody watches, or it was not awarded, is answered as unwatched. Raises InvalidRequest."""
        check_progress(request)
        answer, core = jobs_pb2.ReportProgressResponse(), self._runtime.machine("jobs", JobsMachine).core
        for said in request.progress:
            known, entry = self._known.get(said.job_id), core.jobs.current((said.job_id, said.attempt))
            if entry is not None and entry.job.host == host and known is not None:
                self._known.move_to_end(said.job_id)
                if known.add(said):
                    for watcher in tuple(known.streams):
                        watcher.tell(said.job_id, known)
            if known is None or not known.streams:
                answer.unwatched.add(job_id=said.job_id, attempt=said.attempt)
        self._forget_old()
        return answer

    def _on_events(self, events: Sequence[Record]) -> None:
        for event in events if self._known else ():
            if event.subject in self._known and event.job is not None and event.job.state in ENDED:
                known, job = self._known.pop(event.subject), event.event.job
                for watcher in tuple(known.streams):
                    watcher.end(with_result(job, self._shelf))

    def _close(self, known: Known, watcher: Watcher) -> None:
        self._watchers -= 1
        known.streams.remove(watcher)

    def _forget_old(self) -> None:
        """Of what nobody watches any more, the oldest; a job's end takes the rest."""
        total = sum(known.size_bytes for known in self._known.values())
        for job_id in [job_id for job_id, known in self._known.items() if not known.streams]:
            if total <= KNOWN_BYTES_MAX and len(self._known) <= WATCHERS_MAX:
                return
            total -= self._known.pop(job_id).size_bytes


def check_progress(request: jobs_pb2.ReportProgressRequest) -> None:
    """Raises InvalidRequest naming the field that is out of bounds."""
    if len(request.progress) > CALL_ITEMS_MAX:
        text = f"{len(request.progress)} entries; at most {CALL_ITEMS_MAX} are allowed in one call"
        raise InvalidRequest.field("progress", text)
    for index, said in enumerate(request.progress):
        for name, size, most in (
            ("job_id", len(said.job_id), ID_CHARS_MAX),
            ("message", len(said.message), MESSAGE_CHARS_MAX),
            ("log", len(said.log), CALL_BYTES_MAX),
            ("output", len(said.output), CALL_BYTES_MAX),
        ):
            if size > most:
                raise InvalidRequest.field(f"progress[{index}].{name}", f"{size} long; at most {most} allowed")
        if said.HasField("fraction") and not 0 <= said.fraction <= 1:
            raise InvalidRequest.field(f"progress[{index}].fraction", f"{said.fraction}; 0 to 1 are allowed")

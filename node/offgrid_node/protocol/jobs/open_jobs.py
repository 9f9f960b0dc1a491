"""The jobs of a core that have not ended: its working set, and the moves that each of them may make.

Every move writes the job's row, and its event where one is due, into the step's batch. What to do next is `core.py`'s
business; here stands only what each move means. Ended jobs are rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import fresh_id
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.commands import CreateJob
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder, payload_digest, sign_order
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.receipts import COMPLETED
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import AWARDED, CREATED, ENDED, move
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.timers import Timers

JOBS, PAYLOADS, RESULTS = "jobs", "payloads", "results"
TASK_JOBS = "task_jobs"  # "<task id>/<job id>", empty: the jobs of a task without a look at all others
ATTEMPTS_SHOWN = 16
OUTCOME_CHARS_MAX = 500  # of how an attempt ended
ENDED_REMEMBERED = 10_000  # those not committed yet are among them; older ones are found in the rows


@dataclass(slots=True)
class Open:
    """A job that has not ended. `tries` counts failures in a row to find a host, `losses` hosts that died under it."""

    job: jobs_pb2.Job
    tries: int = 0
    losses: int = 0
    refusals: int = 0
    avoided: set[str] = field(default_factory=set)
    confirmed: bool = False  # its host has said, to this very process, that it runs the present attempt
    answer_by_ms: int | None = None  # until when the host is asked whether it does

    @property
    def key(self) -> AttemptKey:
        return self.job.job_id, self.job.attempt


class OpenJobs:
    """Open jobs by id, one timer for each, and who was accepted for those that ended lately."""

    def __init__(self, settings: JobsSettings, post: Post) -> None:
        self._settings, self._post = settings, post
        self._open: dict[str, Open] = {}
        self._ended: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._rows: Rows | None = None
        self.timers: Timers[str] = Timers()

    def load(self, rows: Rows) -> None:
        self._rows = rows
        for _, value in rows.scan(JOBS):
            job = jobs_pb2.Job.FromString(value)
            if job.state not in ENDED:
                self._open[job.job_id] = Open(job)

    # ---- questions

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Open]:
        """Those open now, oldest first; jobs may end while they are walked."""
        return iter(list(self._open.values()))

    def get(self, job_id: str) -> Open | None:
        return self._open.get(job_id)

    def current(self, key: AttemptKey) -> Open | None:
        """The job, if this is its present attempt."""
        entry = self._open.get(key[0])
        return entry if entry is not None and entry.job.attempt == key[1] else None

    def ended_by(self, job_id: str, attempt: int, host: str) -> bool:
        """Whether the job has ended with this attempt of this host."""
        known = self._ended.get(job_id)
        if known is None and self._rows is not None:
            value = self._rows.get(JOBS, job_id.encode())
            job = jobs_pb2.Job.FromString(value) if value is not None else jobs_pb2.Job()
            known = (job.attempt, job.host) if job.state in ENDED else None
        return known == (attempt, host)

    def order(self, job: jobs_pb2.Job) -> tuple[JobOrder, common_pb2.Signed]:
        """The present attempt's order, signed; Ed25519 gives the same bytes each time."""
        order = JobOrder(
            core=self._settings.node_id,
            job_id=job.job_id,
            attempt=job.attempt,
            kind=job.kind,
            needs=job.needs,
            size_tokens=job.size_tokens,
            payload_bytes=job.payload_bytes,
            payload_digest=job.payload_digest,
            timeout_ms=job.timeout_ms,
        )
        return order, sign_order(order, self._settings.signer, self._settings.salt)

    def payload(self, entry: Open, now: Now) -> bytes | None:
        """The stored payload; a job whose payload is damaged ends, so that it cannot stop all others for ever."""
        job_id = entry.job.job_id
        try:
            value = self._rows.get(PAYLOADS, job_id.encode()) if self._rows is not None else None
        except Corrupt as fault:
            self.fail(entry, "PayloadLost", fault.message, now)
            return None
        if value is None:
            self.fail(entry, "PayloadLost", f"the payload of job {job_id} is gone", now)
        return value

    # ---- moves

    def create(self, command: CreateJob, now: Now, rng: Rng) -> jobs_pb2.Job:
        job = jobs_pb2.Job(
            job_id=fresh_id("j", rng),
            task_id=command.task.task_id,
            mission_id=command.task.mission_id,
            kind=command.task.kind,
            state=CREATED,
            needs=command.needs,
            size_tokens=command.size_tokens,
            timeout_ms=command.timeout_ms,
            payload_bytes=len(command.payload),
            payload_digest=payload_digest(command.payload),
            created_us=now.utc_us,
            updated_us=now.utc_us,
            request_id=command.request_id,
            input_name=command.input_name,
        )
        self._open[job.job_id] = Open(job)
        self._post.put_bytes(PAYLOADS, job.job_id.encode(), command.payload)
        self._post.put_bytes(TASK_JOBS, f"{job.task_id}/{job.job_id}".encode(), b"")
        self.keep(job, now, EventType.JOB_CREATED)
        return job

    def award(self, entry: Open, event: str, broker: str, host: str, price_micro: int, now: Now) -> None:
        """The present attempt has a host. `event` is "award", or "start" where that is this node itself."""
        job = entry.job
        entry.tries = 0
        entry.avoided.clear()
        move(job, event)
        job.broker, job.host, job.price_micro = broker, host, price_micro
        job.attempts.add(number=job.attempt, host=host, started_us=now.utc_us)
        self.keep(job, now, EventType.JOB_AWARDED)

    def confirm(self, entry: Open, now: Now) -> None:
        """Its host has said that it runs the present attempt."""
        entry.confirmed = True
        if entry.job.state == AWARDED:
            move(entry.job, "start")
            self.keep(entry.job, now, EventType.JOB_AWARDED)

    def lose(self, entry: Open, outcome: str, now: Now) -> None:
        """Ends the present attempt; the next number is durable with this very batch."""
        job = entry.job
        self._end_attempt(job, outcome, now)
        self.close(job.broker, entry.key)
        move(job, "lose")
        job.attempt += 1
        entry.confirmed, entry.answer_by_ms = False, None
        job.host, job.price_micro = "", 0
        self.keep(job, now, EventType.JOB_DISPATCHED)

    def complete(self, entry: Open, result: jobs_pb2.JobResult, now: Now) -> None:
        """The one accepted result, whether the work did well or not."""
        job = entry.job
        well = result.status == COMPLETED
        self._end_attempt(job, result.status, now)
        self._post.put(RESULTS, job.job_id.encode(), result)
        move(job, "complete" if well else "fail")
        if not well:
            job.error, job.error_detail = "ExecutionFailed", f"exit code {result.exit_code}"
        job.result.CopyFrom(result)
        job.result.ClearField("output")
        job.result.ClearField("log")
        self._end(entry, now, EventType.JOB_COMPLETED if well else EventType.JOB_FAILED)

    def fail(self, entry: Open, error: str, detail: str, now: Now) -> None:
        self._end_attempt(entry.job, error, now)
        move(entry.job, "fail")
        entry.job.error, entry.job.error_detail = error, detail[:DETAIL_CHARS_MAX]
        self._end(entry, now, EventType.JOB_FAILED)

    def keep(self, job: jobs_pb2.Job, now: Now, etype: EventType | None = None) -> None:
        """Writes the row, and the event that goes with it."""
        job.updated_us = now.utc_us
        self._post.put(JOBS, job.job_id.encode(), job)
        if etype is not None:
            self._post.record(etype, job.job_id, job=job)

    def close(self, broker: str, key: AttemptKey) -> None:
        """Tells the broker that the attempt is over. Lost words heal by the host's next offer."""
        if broker:
            self._post.add("CloseLeases", broker, key, jobs_pb2.LeaseKey(job_id=key[0], attempt=key[1]))

    # ---- inside

    def _end(self, entry: Open, now: Now, etype: EventType) -> None:
        job = entry.job
        self.close(job.broker, entry.key)
        del self._open[job.job_id]
        self.timers.cancel(job.job_id)
        self._ended[job.job_id] = job.attempt, job.host
        if len(self._ended) > ENDED_REMEMBERED:
            self._ended.popitem(last=False)
        self._post.delete(PAYLOADS, job.job_id.encode())
        self.keep(job, now, etype)

    def _end_attempt(self, job: jobs_pb2.Job, outcome: str, now: Now) -> None:
        if job.attempts and job.attempts[-1].number == job.attempt:
            job.attempts[-1].outcome, job.attempts[-1].ended_us = outcome[:OUTCOME_CHARS_MAX], now.utc_us
            del job.attempts[:-ATTEMPTS_SHOWN]

"""The jobs of a core that have not ended: its working set, and the moves that each of them may make.

Every move writes the job's row, and its event where one is due, into the step's batch. What to do next is `core.py`'s
business; here stands only what each move means. Ended jobs are rows.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CostIncurred, ObjectAdded
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.closing import EXCUSED, SERVED
from offgrid_node.protocol.jobs.commands import NewJob
from offgrid_node.protocol.jobs.deadlines import Deadlines
from offgrid_node.protocol.jobs.dependencies import Dependencies
from offgrid_node.protocol.jobs.failures import forget_oldest
from offgrid_node.protocol.jobs.held import Held
from offgrid_node.protocol.jobs.index import JOBS, Index
from offgrid_node.protocol.jobs.job_events import JobEvents, with_payload
from offgrid_node.protocol.jobs.making import Making, execution_of
from offgrid_node.protocol.jobs.open_job import Ended, Open
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.pacing import Pacing
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, Post
from offgrid_node.protocol.jobs.receipts import COMPLETED as WELL
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import AWARDED, COMPLETED, ENDED, QUEUED, RUNNING, move
from offgrid_node.protocol.jobs.waiting import Waiting
from offgrid_node.protocol.timers import Timers

PAYLOADS, RESULTS = "payloads", "results"
# "<task id>/<job id>", empty: the jobs of a task without a look at all others. Jobs made together share one entry, with
# the beginning of their ids and PREFIXED.
TASK_JOBS = "task_jobs"
PAYLOAD_KEPT_MAX = 1_024  # bytes, in an open job's own row and in memory: a row of its own costs more than it holds
RESULT_INLINE_MAX = 1_024  # bytes of output and log that stand in the job's own row, and in the event of its end
SAID_MS = 250  # what is awarded and runs for less is told of by its end alone
ATTEMPTS_SHOWN = 16
OUTCOME_CHARS_MAX = 500  # of how an attempt ended
HOT_MAX = 8_192  # open jobs whose messages are unpacked: beyond it those looked at longest ago are packed
ENDED_REMEMBERED = 10_000  # those not committed yet are among them; older ones are found in the rows

LeaseEnd: TypeAlias = jobs_pb2.LeaseEnd.ValueType


class OpenJobs:
    """Open jobs by id, one timer for each, and how those ended that ended lately."""

    def __init__(self, settings: JobsSettings, post: Post) -> None:
        self._settings, self._post = settings, post
        self._open: dict[str, Open] = {}
        self._hot: OrderedDict[str, Open] = OrderedDict()  # unpacked, the longest first
        self._ended: OrderedDict[str, Ended] = OrderedDict()
        self._rows: Rows | None = None
        self._making, self._events = Making(), JobEvents()
        self._fresh: list[Open] = []
        self._fresh_at: Now | None = None
        self._unsaid: dict[str, Open] = {}
        self._say_ms: int | None = None
        self.timers: Timers[str] = Timers()
        self.deadlines = Deadlines()
        self.index = Index(post)
        self.dependencies = Dependencies()
        # Redundant jobs that have ended, and executions that have or have lost their host, for `redundant.py` to take.
        self.moved_kin: list[jobs_pb2.Job] = []
        self.avoided: Callable[[jobs_pb2.Job], list[str]] = lambda execution: []  # where no next attempt may go
        self.held = Held(post)
        self.waiting = Waiting(CALL_ITEMS_MAX, settings.paces)
        self.pacing = Pacing(CALL_ITEMS_MAX)

    def load(self, rows: Rows, now: Now) -> None:
        self._rows = rows
        self.held.load(rows)
        for value in self.index.load(rows):
            job = jobs_pb2.Job.FromString(value)
            if job.state not in ENDED and job.job_id not in self._open:
                doubtful = job.state == QUEUED and bool(job.broker)
                entry = Open(job, payload=job.kept_payload or None, doubtful=doubtful, is_new=False)
                job.ClearField("kept_payload")
                self._opened(entry, now, loaded=True)
                self._cool()

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

    def ended(self, job_id: str) -> Ended | None:
        """How the job ended; None for one that has not, or is not this core's."""
        known = self._ended.get(job_id)
        if known is None and self._rows is not None and job_id not in self._open:
            value = self._rows.get(JOBS, job_id.encode())
            job = jobs_pb2.Job.FromString(value) if value is not None else jobs_pb2.Job()
            known = Ended.of(job) if job.state in ENDED else None
        return known

    def standing(self, job_id: str) -> tuple[str, jobs_pb2.JobState.ValueType] | None:
        """Of any job of this core: its task and its state."""
        entry = self._open.get(job_id)
        if entry is not None:
            return entry.job.task_id, entry.job.state
        ended = self.ended(job_id)
        return (ended.task_id, ended.state) if ended is not None else None

    def deadline_ms(self) -> int | None:
        parts = self.waiting, self.deadlines, self.pacing
        deadlines = (self.timers.next_ms(), self._say_ms, *(part.deadline_ms() for part in parts))
        return min((due for due in deadlines if due is not None), default=None)

    def order(self, job: jobs_pb2.Job) -> JobOrder:
        """The present attempt's order: the same each time."""
        return JobOrder(
            self._settings.node_id,
            job.job_id,
            job.attempt,
            job.kind,
            job.needs,
            job.size_tokens,
            job.payload_bytes,
            job.payload_digest,
            job.timeout_ms,
            job.priority,
            job.price_max_micro or self._settings.price_max_micro,  # the broker pays a lone host so much
            job.requirements,
            tuple(job.avoid),
        )

    def order_body(self, entry: Open) -> bytes:
        """The same as it is carried: made once, though broker and host are both shown it."""
        if entry.order is None or entry.order[0] != entry.job.attempt:
            entry.order = entry.job.attempt, self.order(entry.job).encode()
        return entry.order[1]

    def begin(self, now: Now) -> None:
        """A step begins. What an earlier batch wrote is committed, and large payloads can be read back."""
        if self._fresh and now != self._fresh_at:
            for entry in self._fresh:
                entry.payload = None
            self._fresh.clear()
        if now != self._fresh_at:
            self.index.begin()
            self.held.begin()
            self._cool()
        self._fresh_at = now

    def payload(self, entry: Open, now: Now) -> bytes | None:
        """The stored payload; a job whose payload is damaged ends, so that it cannot stop all others for ever."""
        if entry.payload is not None:
            return entry.payload
        job_id = entry.job_id
        try:
            kept_at = entry.job.parent_id or job_id
            value = self._rows.get(PAYLOADS, kept_at.encode()) if self._rows is not None else None
        except Corrupt as fault:
            self.fail(entry, "PayloadLost", fault.message, now)
            return None
        if value is None:
            self.fail(entry, "PayloadLost", f"the payload of job {job_id} is gone", now)
        return value

    # ---- moves

    def create(self, job_id: str, task: jobs_pb2.Task, new: NewJob, request_id: str, now: Now) -> Open:
        """A job that is open from now on; `keep` writes it. The index of its task is the caller's business."""
        job = self._making.job(job_id, task, new, request_id, now)
        entry = Open(job)
        self._post.made(job_id)
        self._opened(entry, now)
        self.fill(entry, new.payload)
        return entry

    def fill(self, entry: Open, payload: bytes) -> None:
        """The job's payload from now on; the caller keeps the job."""
        job = entry.job
        entry.payload, job.payload_bytes = payload, len(payload)
        if len(payload) > PAYLOAD_KEPT_MAX:
            self._fresh.append(entry)
            self._post.put_bytes(PAYLOADS, job.job_id.encode(), payload)

    def create_execution(self, parent: Open, job_id: str, avoid: Sequence[str], now: Now) -> Open:
        """One execution of a redundant job: the same work, dispatched over the mesh; the caller keeps it. A payload
        that is not in the job's own row is the parent's."""
        job = execution_of(parent.job, job_id, now)
        job.avoid[:] = avoid
        small = parent.payload is not None and len(parent.payload) <= PAYLOAD_KEPT_MAX
        entry = Open(job, payload=parent.payload if small else None)
        self._opened(entry, now)
        return entry

    def take_over(self, entry: Open, execution: jobs_pb2.Job, price_micro: int, now: Now) -> None:
        """A redundant job ends as this execution of it did, with its result; what all of it cost is `price_micro`. What
        is large of the result becomes objects with it."""
        job = entry.job
        move(job, "complete" if execution.state == COMPLETED else "fail")
        job.result_of, job.host, job.price_micro = execution.job_id, execution.host, price_micro
        job.error, job.error_detail = execution.error, execution.error_detail
        job.result_bytes = execution.result_bytes
        if execution.HasField("result"):
            job.result.CopyFrom(execution.result)
            self.held.release(execution.result)
        self._end(entry, now, EventType.JOB_COMPLETED if not job.error else EventType.JOB_FAILED)

    def award(self, entry: Open, event: str, broker: str, host: str, price_micro: int, now: Now) -> None:
        """The present attempt has a host. `event` is "award", or "start" where that is this node itself.

        An award is written after a moment, if the job has not ended by then. A core that dies before asks its broker
        again, who gives the same answer or none at all; without one the attempt is over.
        """
        job = entry.job
        entry.tries, entry.unfound, entry.doubtful = 0, "", False
        entry.avoided = frozenset()
        self.leave_broker(job)
        move(job, event)
        job.ClearField("waiting")
        job.broker, job.host, job.price_micro = broker, host, price_micro
        job.attempts.add(number=job.attempt, host=host, started_us=now.utc_us)
        if broker:
            self._say_soon(entry, now)
        else:
            self.keep(job, now, EventType.JOB_AWARDED)

    def confirm(self, entry: Open, now: Now) -> None:
        """Its host has said that it runs the present attempt. Nothing hangs on that but what people see, so it is
        said only of what runs for a while."""
        entry.confirmed = True
        if entry.job.state == AWARDED:
            move(entry.job, "start")
            self._say_soon(entry, now)

    def say_awarded(self, now: Now) -> None:
        """Writes which jobs have a host, and which run there, once it has been so for a moment."""
        if self._say_ms is None or now.mono_ms < self._say_ms:
            return
        unsaid, self._unsaid, self._say_ms = self._unsaid, {}, None
        for entry in unsaid.values():
            if entry.job.state in (AWARDED, RUNNING):
                self.keep(entry.job, now, EventType.JOB_AWARDED)

    def tell_trouble(self, entry: Open, trouble: str, now: Now) -> None:
        """The present attempt waits for something that its owner may mend: that is for all who look at the job."""
        entry.trouble = trouble
        entry.job.attempts[-1].outcome = f"waits: {trouble}"[:OUTCOME_CHARS_MAX]
        self.keep(entry.job, now)

    def tell_wait(self, entry: Open, why: str, now: Now) -> None:
        """It is queued, and `why` it has no host yet is for all who look at it; "" once that is over."""
        if entry.job.waiting != why:
            entry.job.waiting = why
            self.keep(entry.job, now, EventType.JOB_DISPATCHED)

    def lose(self, entry: Open, outcome: str, now: Now, end: LeaseEnd = EXCUSED) -> None:
        """Ends the present attempt; the next number is durable with this very batch."""
        job = entry.job
        self._end_attempt(job, outcome, now)
        self.close(job.broker, entry.key, now, end)
        move(job, "lose")
        self._unsaid.pop(entry.job_id, None)
        job.attempt += 1
        if job.parent_id:
            job.avoid[:] = self.avoided(job)
            self.moved_kin.append(job)
        entry.confirmed, entry.arriving, entry.answer_by_ms, entry.doubtful = False, False, None, False
        entry.trouble = ""
        job.host, job.price_micro = "", 0
        self.keep(job, now, EventType.JOB_DISPATCHED)

    def complete(self, entry: Open, result: jobs_pb2.JobResult, added: tuple[ObjectAdded, ...], now: Now) -> None:
        """The one accepted result, whether the work did well or not; what is large becomes objects with it."""
        job = entry.job
        status, size_bytes = result.status, len(result.output) + len(result.log)
        well = status == WELL
        self._end_attempt(job, status, now)
        move(job, "complete" if well else "fail")
        if not well:
            job.error, job.error_detail = "ExecutionFailed", f"exit code {result.exit_code}"
        job.result.CopyFrom(result)
        job.result_bytes = size_bytes
        if size_bytes > RESULT_INLINE_MAX:
            self._post.put(RESULTS, job.job_id.encode(), result)
            job.result.ClearField("output")
            job.result.ClearField("log")
        is_execution = bool(job.parent_id)
        for each in added:
            if is_execution:
                self.held.add(each)
            else:
                self._post.tell("objects", each)
        if not is_execution and result.HasField("receipt"):  # an execution is paid once enough others agree
            cost = CostIncurred(entry.job_id, job.attempt, job.host, job.price_micro, job.kind, entry.is_new)
            self._post.tell("ledger", cost)
        end = EXCUSED if is_execution else SERVED  # of an execution that is said once others are there to compare
        self._end(entry, now, EventType.JOB_COMPLETED if well else EventType.JOB_FAILED, end)

    def fail(self, entry: Open, error: str, detail: str, now: Now, end: LeaseEnd = EXCUSED) -> None:
        self._end_otherwise(entry, "fail", error, detail, now)
        self._end(entry, now, EventType.JOB_FAILED, end)

    def cancel(self, entry: Open, why: str, now: Now) -> None:
        self._end_otherwise(entry, "cancel", "Cancelled", why, now)
        self._end(entry, now, EventType.JOB_CANCELLED)

    def expire(self, entry: Open, why: str, now: Now) -> None:
        """`why`: what it waited for, where that is known."""
        late_ms = (now.utc_us - entry.job.deadline_us) // 1_000
        detail = f"its deadline passed {late_ms} ms ago, before it had ended" + (f": {why}" if why else "")
        self._end_otherwise(entry, "expire", "DeadlinePassed", detail, now)
        self._end(entry, now, EventType.JOB_FAILED)

    def keep(self, job: jobs_pb2.Job, now: Now, *etypes: EventType) -> None:
        """Writes the row, and the events that go with it."""
        job.updated_us = now.utc_us
        job_id, row = job.job_id, job.SerializeToString()
        for etype in etypes:
            self._post.tell_of(self._events.of(etype, job_id, job, row, now))
        entry = self._open.get(job_id)
        if entry is not None and entry.payload is not None and len(entry.payload) <= PAYLOAD_KEPT_MAX:
            row = with_payload(row, entry.payload)
        self._post.put_bytes(JOBS, job_id.encode(), row)

    def close(self, broker: str, key: AttemptKey, now: Now, end: LeaseEnd = EXCUSED) -> None:
        """Tells the broker, soon, that the attempt is over and how it went."""
        if broker:
            self._post.closing.add(broker, key, now.mono_ms, end)

    def leave_broker(self, job: jobs_pb2.Job) -> None:
        """Its order waits neither at its broker nor in line for it: whoever stays there is said to it again, and gets
        that call's time."""
        if self.waiting:
            self.waiting.discard(job.broker, job.job_id)
        if self.pacing:
            self.pacing.discard(job.broker, job.job_id, job.priority)

    # ---- inside

    def _say_soon(self, entry: Open, now: Now) -> None:
        self._unsaid[entry.job_id] = entry
        if self._say_ms is None:
            self._say_ms = now.mono_ms + SAID_MS

    def _cool(self) -> None:
        while len(self._hot) > HOT_MAX:
            self._hot.popitem(last=False)[1].pack()

    def _opened(self, entry: Open, now: Now, *, loaded: bool = False) -> None:
        job, entry.hot = entry.job, self._hot
        job_id = entry.job_id = job.job_id  # the one string for it, in whatever table it stands
        self._open[job_id] = self._hot[job_id] = entry
        self.index.add(job_id, job, loaded=loaded)
        if job.deadline_us:
            self.deadlines.add(job_id, job.deadline_us, now)

    def _end_otherwise(self, entry: Open, event: str, error: str, detail: str, now: Now) -> None:
        """Without a result."""
        self._end_attempt(entry.job, error, now)
        move(entry.job, event)
        entry.job.error, entry.job.error_detail = error, detail[:DETAIL_CHARS_MAX]

    def _end(self, entry: Open, now: Now, etype: EventType, end: LeaseEnd = EXCUSED) -> None:
        job, job_id = entry.job, entry.job_id
        broker, ended = job.broker, Ended.of(job)
        self.close(broker, (job_id, ended.attempt), now, end)
        del self._open[job_id]
        del self._hot[job_id]
        self.index.end(job_id, job)
        self.dependencies.on_end(job_id, ended.state)
        self.timers.cancel(job_id)
        if job.deadline_us:
            self.deadlines.discard(job_id)
        self.leave_broker(job)
        job.ClearField("waiting")
        self.pacing.ended(broker)
        self._unsaid.pop(job_id, None)
        if job.parent_id or job.replicas > 1:
            self.moved_kin.append(job)
        self._ended[job_id] = ended
        if len(self._ended) > ENDED_REMEMBERED:
            self._ended.popitem(last=False)
        if job.payload_bytes > PAYLOAD_KEPT_MAX:
            self._post.delete(PAYLOADS, job_id.encode())
        self.keep(job, now, etype)

    def _end_attempt(self, job: jobs_pb2.Job, outcome: str, now: Now) -> None:
        attempts = job.attempts
        if attempts and (last := attempts[-1]).number == job.attempt:
            last.outcome, last.ended_us = outcome[:OUTCOME_CHARS_MAX], now.utc_us
            if len(attempts) > ATTEMPTS_SHOWN:
                forget_oldest(job)

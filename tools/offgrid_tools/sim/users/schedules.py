"""Who has work done by the clock, and sets that clock: to just before a full minute, today or another one, so that
times come soon, come twice, or are passed over."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault, NotFound
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.monitor.schedules import MINUTE_US
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import JobOwner

CRONS = ("* * * * *", "* * * * *", "*/2 * * * *", "0 * * * *")
JOB_TIMEOUT_MS = 5_000
ROUNDS_MAX, PAUSE_US = 4, (3 * SECOND, 9 * SECOND)
LEAD_US = (100 * MS, 2_500 * MS)  # so long before the minute the clock is set
PATIENT_LEAD_US = (31 * SECOND, 34 * SECOND)  # or so long: by then a node has seen that it was set
PATIENT_CHANCE = 0.5
PATIENT_MAX = 2  # rounds of one person: who never ends cannot be told from one whom nobody serves
LEAPS_MIN = (-120, -2, -1, -1, 0, 0, 1, 60, 60)  # and so many minutes further
SEEN_AFTER_US = 8 * SECOND  # after its due time a job must be there, whatever a disk refuses
PAUSED_CHANCE = 0.2
POLL_US = SECOND


class SchedulingUser(JobOwner):
    """One person at one core with a number of schedules; all are deleted at last."""

    wants = "jobs by the clock"

    def __init__(self, engine: Engine, monitor: Monitor, core: Process, schedules: int, name: str) -> None:
        super().__init__(engine, monitor, core, name)
        self._wanted, self._rounds = schedules, engine.rng.randint(2, ROUNDS_MAX)
        self._patience = PATIENT_MAX
        self._schedules: dict[str, jobs_pb2.Schedule] = {}
        self._paused: set[str] = set()
        self._changing: set[str] = set()
        self._over = False

    @property
    def content(self) -> bool:
        return self._over

    # ---- schedules

    def _begin(self) -> None:
        for number in range(self._wanted):
            self._create(number)

    def _create(self, number: int) -> None:
        rng = self._engine.rng
        payload = self._payload(f"{self._name} {number} {rng.random()}".encode(), 0.0)
        schedule = jobs_pb2.Schedule(
            task_id=self._task,
            cron=rng.choice(CRONS),
            job=jobs_pb2.JobSpec(payload=payload, timeout_ms=JOB_TIMEOUT_MS),
            mode=jobs_pb2.DISPATCH_MODE_AUTO,
            no_overlap=rng.random() < 0.3,
            catch_up=rng.random() < 0.5,
        )
        request = jobs_pb2.CreateScheduleRequest(schedule=schedule, request_id=f"{self._name}-s{number}")
        self._call("JobService/CreateSchedule", request, self._on_created)

    def _on_created(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.CreateScheduleResponse)
        self._schedules[reply.schedule.schedule_id] = reply.schedule
        self._monitor.schedules.on_created(self.node, reply.schedule)
        if len(self._schedules) == self._wanted:
            self._wait(self._set_clock)

    def _wait(self, step: Callable[[], None]) -> None:
        self._engine.after(self._engine.rng.randint(*PAUSE_US), step)

    # ---- the clock

    def _set_clock(self) -> None:
        """A round: the clock, then what came of it."""
        process, rng = self._process, self._engine.rng
        patient = self._patience > 0 and rng.random() < PATIENT_CHANCE
        self._patience -= patient
        lead_us = rng.randint(*(PATIENT_LEAD_US if patient else LEAD_US))
        now_us, minutes = process.utc_us, rng.choice(LEAPS_MIN)
        due_us = (now_us // MINUTE_US + 1 + minutes) * MINUTE_US
        process.step_clock(process.skew_us + due_us - lead_us - now_us)
        self._rounds -= 1
        if rng.random() < PAUSED_CHANCE:
            self._toggle(rng.choice(list(self._schedules)))
        if patient:
            self._engine.after(lead_us + SEEN_AFTER_US, partial(self._look, due_us, process.life))
        else:
            self._wait(self._next)

    def _next(self) -> None:
        if self._rounds:
            self._set_clock()
        else:
            self._delete()

    def _look(self, due_us: int, life: object) -> None:
        """Whoever was up all the time with the same clock has made the job."""
        if self._process.life == life and self._process.up:
            quiet = [name for name in self._schedules if name not in self._paused | self._changing]
            self._monitor.schedules.check_made(self.node, quiet, due_us)
        self._next()

    def _toggle(self, name: str) -> None:
        self._changing.add(name)  # from here on nobody knows when it takes effect
        paused = name not in self._paused
        if not paused:
            self._monitor.schedules.on_resuming(self.node, name)
        request = jobs_pb2.UpdateScheduleRequest(schedule_id=name, paused=paused)
        self._call("JobService/UpdateSchedule", request, lambda reply: self._toggled(name, paused))

    def _toggled(self, name: str, paused: bool) -> None:
        if paused:
            self._paused.add(name)
            self._monitor.schedules.on_stopped(self.node, name)
        else:
            self._paused.discard(name)

    # ---- the end

    def _delete(self) -> None:
        for name in list(self._schedules):
            self._monitor.schedules.on_deleting(self.node, name)
            request = jobs_pb2.DeleteScheduleRequest(schedule_id=name)
            self._call(
                "JobService/DeleteSchedule", request, partial(self._deleted, name), partial(self._gone_before, name)
            )

    def _gone_before(self, name: str, fault: Fault) -> bool:
        """An earlier try got through."""
        if not isinstance(fault, NotFound):
            return False
        self._deleted(name, jobs_pb2.DeleteScheduleResponse())
        return True

    def _deleted(self, name: str, reply: Message) -> None:
        self._monitor.schedules.on_stopped(self.node, name)
        self._schedules.pop(name, None)
        if not self._schedules:
            self._list()

    def _list(self) -> None:
        request = jobs_pb2.ListJobsRequest(task_id=self._task, page_size=1_000)
        self._call("JobService/ListJobs", request, self._on_list)

    def _on_list(self, reply: Message) -> None:
        assert isinstance(reply, jobs_pb2.ListJobsResponse)
        self._over = all(job.state in ENDED for job in reply.jobs)
        if not self._over:
            self._engine.after(POLL_US, self._list)

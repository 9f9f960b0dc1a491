"""Rules of schedules: each due time makes one job, whatever the clock does and whoever restarts; none before its time,
none long after unless its owner wants that, none of a schedule that is paused or gone."""

from __future__ import annotations

from collections.abc import Iterable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.schedules import SCHEDULES
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules

MINUTE_US = 60_000_000
LATE_US, STEP_US = MINUTE_US, 1_000_000  # promised to owners; and what a step may take

Key = tuple[str, str]  # core and schedule


class ScheduleRules(Rules):
    """Told of the rows of jobs that schedules made, and of what their owners said and were answered."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._schedules: dict[Key, jobs_pb2.Schedule] = {}
        self._jobs: dict[tuple[Key, int], str] = {}
        self._stopped: set[Key] = set()
        self._going: set[Key] = set()
        self.made = 0

    # ---- what owners say

    def on_created(self, core: str, schedule: jobs_pb2.Schedule) -> None:
        self._schedules[core, schedule.schedule_id] = schedule

    def on_resuming(self, core: str, name: str) -> None:
        self._stopped.discard((core, name))

    def on_stopped(self, core: str, name: str) -> None:
        """Its owner was told that it is paused or deleted."""
        self._stopped.add((core, name))

    def on_deleting(self, core: str, name: str) -> None:
        self._going.add((core, name))

    # ---- what came of it

    def on_job(self, core: str, job: jobs_pb2.Job) -> None:
        """Any row of a job."""
        if not job.schedule_id:
            return
        schedule = core, job.schedule_id
        made = self._jobs.get((schedule, job.due_us))
        if made is None:
            self._on_made(schedule, job)
        elif made != job.job_id:
            raise Violation(f"schedule {job.schedule_id} made {made} and {job.job_id} for one due time")

    def _on_made(self, schedule: Key, job: jobs_pb2.Job) -> None:
        self._jobs[schedule, job.due_us] = job.job_id
        self.made += 1
        late_us, known = job.created_us - job.due_us, self._schedules.get(schedule)
        if schedule in self._stopped:
            raise Violation(f"schedule {job.schedule_id} is paused or gone, and has made {job.job_id}")
        if late_us < 0 or job.due_us % MINUTE_US:
            raise Violation(f"{job.job_id} was made {-late_us} us before it was due")
        if known is not None and late_us > LATE_US + STEP_US and not known.catch_up:
            raise Violation(f"{job.job_id} was made {late_us} us after it was due, and nobody wants it any more")

    def check_made(self, core: str, names: Iterable[str], due_us: int) -> None:
        """The core was up when this time came, and for a while after: these schedules, in force all along, were due."""
        for name in names:
            schedule = self._schedules[core, name]
            due = schedule.cron == "* * * * *" or (due_us // MINUTE_US % 2 == 0 and schedule.cron.startswith("*/2"))
            if due and not schedule.no_overlap and ((core, name), due_us) not in self._jobs:
                raise Violation(f"schedule {name} was due at {due_us}, and made nothing")

    def check_store(self, core: str) -> None:
        for owner, name in self._schedules:
            if owner != core or (core, name) in self._going:
                continue
            if self._evidence.row(core, SCHEDULES, name.encode()) is None:
                raise Violation(f"schedule {name} was acked and is not in the store")

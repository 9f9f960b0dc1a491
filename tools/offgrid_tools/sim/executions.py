"""What a simulated machine's executors do: work that takes its virtual time, is stopped, or kills its host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.executors.running import executed
from offgrid_node.protocol.effects import Execute, Executed, Stop
from offgrid_node.protocol.jobs.needs import leaves_traces, needs_of
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_tools.sim.engine import MS, Engine
from offgrid_tools.sim.monitor import Monitor, Violation
from offgrid_tools.sim.work import DEADLY_NAME, outcome_of

if TYPE_CHECKING:
    from offgrid_tools.sim.process import Process

WORK_MIN_US, WORK_MAX_US = 2 * MS, 3_000 * MS
QUICK_CHANCE = 0.2  # of work that is over at once

Work = Callable[[jobs_pb2.JobPayload], tuple[int, Outcome]]


class Executions:
    """What is under way in one process; `alive` says whether the life in which something began still lasts."""

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, work: Work | None) -> None:
        """`work` as `Process` has it."""
        self._engine, self._monitor, self._process = engine, monitor, process
        self._work = work or self._usual_work
        self._ends: dict[ClaimKey, Callable[[Executed], None]] = {}

    def __bool__(self) -> bool:
        return bool(self._ends)

    def begin(self) -> None:
        """A new life: nothing is under way."""
        self._ends = {}

    def execute(self, work: Execute, alive: Callable[[], bool]) -> None:
        key = work.core, work.job_id, work.attempt
        self._begin(work, key, alive)
        self._monitor.deadly.on_execute(self._process.node_id, self._process.clock_sets, work.payload)
        if work.payload.input_name == DEADLY_NAME:
            self._engine.after(WORK_MIN_US, lambda: self._kill(work, key) if alive() else None)
            return
        took_us, outcome = self._work(work.payload)
        outcome = self._process.finished(outcome)
        if outcome.error == "JobTimeout":
            took_us = work.timeout_ms * MS
        end, ended = executed(work, outcome, took_us), self._ends[key]
        self._engine.after(took_us, lambda: ended(end))

    def stop(self, work: Stop, alive: Callable[[], bool]) -> None:
        """Killed: that takes a moment, in which it may end by itself."""
        key = work.core, work.job_id, work.attempt
        end = Executed(*key, b"", b"", -1, "Cancelled", "it was stopped", 0, "sim/1")
        killed = self._ends.get(key)
        if killed is not None:
            self._engine.after(WORK_MIN_US, lambda: killed(end) if alive() else None)

    # ---- inside

    def _begin(self, work: Execute, key: ClaimKey, alive: Callable[[], bool]) -> None:
        """Takes a slot, until the first end that is told of it."""
        process, monitor = self._process, self._monitor
        monitor.jobs.on_execute(process.node_id, key[1:], traces=leaves_traces(work.payload))
        monitor.duty.on_execute(process.node_id, process.spec.rules, key, needs_of(work.payload), self._ends)

        def ended(how: Executed) -> None:
            if alive() and self._ends.pop(key, None) is not None:
                process.running.on_executed(how)

        self._ends[key] = ended
        if len(self._ends) > process.spec.slots:
            raise Violation(
                f"{process.spec.name} has {process.spec.slots} slots and does {len(self._ends)} things at once"
            )

    def _kill(self, work: Execute, key: ClaimKey) -> None:
        """By its work, unless that was stopped before; a process that halts does it when it goes on."""
        process = self._process
        if process.frozen:
            process.when_thawed(lambda: self._kill(work, key))
        elif key in self._ends:
            self._monitor.deadly.on_died(process.node_id, process.clock_sets, work.payload)
            process.on_killed()

    def _usual_work(self, payload: jobs_pb2.JobPayload) -> tuple[int, Outcome]:
        draw = self._engine.rng.random()
        if draw < QUICK_CHANCE:
            return 0, outcome_of(payload)
        return WORK_MIN_US + int(draw * draw * (WORK_MAX_US - WORK_MIN_US)), outcome_of(payload)

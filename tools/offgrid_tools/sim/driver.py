"""What drives a simulated node, as `driver.py` does in the world: its turns, and its work at the disk.

A turn has three moments, scheduled apart so that a crash can fall between any two: gather, commit (after the time that
an fsync takes), settle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.protocol.etypes import EventType
from offgrid_node.runtime import Pending
from offgrid_node.services.bulk import Ended
from offgrid_tools.sim.agenda import Agenda
from offgrid_tools.sim.engine import MS, Engine
from offgrid_tools.sim.monitor import Monitor, Violation
from offgrid_tools.sim.power import PowerCut

if TYPE_CHECKING:
    from offgrid_tools.sim.process import Process

FSYNC_MIN_US, FSYNC_MAX_US = 100, 3 * MS
DISK_MIN_US, DISK_MAX_US = 50, 2 * MS
RELOAD_AGAIN_US = 50 * MS
BEFORE_COMMIT, AFTER_COMMIT = "before the commit", "after the commit"

Springs = Callable[[Pending], bool]


def says_of_jobs(pending: Pending) -> bool:
    """A batch that the job road waits for."""
    return any(EventType.MISSION_CREATED <= event.etype <= EventType.JOB_CANCELLED for event in pending.events)


def writes_to(tables: frozenset[str]) -> Springs:
    """A batch that writes a row of these tables."""
    return lambda pending: any(table in tables for table, _ in pending.batch.writes)


class Driver:
    """Of one life of a process."""

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, agenda: Agenda) -> None:
        self._engine, self._monitor, self._process, self._agenda = engine, monitor, process, agenda
        self._turning = False
        self._alarm_us = -1

    def poke(self) -> None:
        if not self._turning:
            self._turning = True
            self._agenda.later(0, self._turn)

    def _turn(self) -> None:
        self._turning = False
        runtime = self._process.running.runtime
        runtime.wake()
        pending = runtime.gather()
        if pending is None:
            if not runtime.machines:
                self._agenda.later(RELOAD_AGAIN_US, self.poke)
            elif not runtime.committing:
                self._arm()
        elif not pending.batch:
            runtime.settle(pending)
            self.poke()
        elif not self._trapped(BEFORE_COMMIT, pending):
            fsync_us = FSYNC_MIN_US + int(self._engine.rng.random() * (FSYNC_MAX_US - FSYNC_MIN_US))
            self._agenda.later(fsync_us, lambda: self._commit(pending))

    def _commit(self, pending: Pending) -> None:
        process = self._process
        runtime, name, store = process.running.runtime, process.spec.name, process.store
        process.power.write()
        try:
            runtime.commit(pending)
        except Fault as fault:
            self._engine.note(f"commit failed {name} {fault.reason}")
            self._monitor.on_commit(process.node_id, pending.batch.writes)
            if process.unreadable_us:
                store.refuse(fault)
                self._agenda.later(process.unreadable_us, lambda: store.refuse(None))
            self._monitor.on_reload(process.node_id)
            runtime.fail(pending, fault)
            self.poke()
            return
        self._engine.note(f"commit {name} {store.journal_seq}", b"".join(pending.batch.events))
        self._monitor.on_commit(process.node_id, pending.batch.writes)
        process.power.write()
        if not self._trapped(AFTER_COMMIT, pending):
            self._agenda.later(0, lambda: self._settle(pending))

    def _settle(self, pending: Pending) -> None:
        node = self._process.running
        node.runtime.settle(pending)
        if self._process.spec.journal_milli and node.runtime.machines and node.journal_newer is not None:
            self._process.on_outdated()
        else:
            self.poke()

    def _arm(self) -> None:
        due_ms = self._process.running.runtime.deadline_ms()
        if due_ms is None:
            return
        delay_us = max(0, (due_ms - self._process.mono_ms) * MS)
        alarm_us = self._engine.now_us + delay_us
        if not self._engine.now_us < self._alarm_us <= alarm_us:
            self._alarm_us = alarm_us
            self._agenda.later(delay_us, self.poke)

    def _trapped(self, moment: str, pending: Pending) -> bool:
        process = self._process
        if process.trap != moment or not process.trap_on(pending):
            return False
        process.on_trapped()
        return True

    # ---- work at the disk

    def carry(self, work: Callable[[], object], ended: Ended, alive: Callable[[], bool]) -> None:
        """What a thread would do: done some time later, told of later still, and a crash may come first."""

        def carry() -> None:
            if alive():
                try:
                    outcome = work()
                except PowerCut:
                    self._process.on_cut()
                    return
                if isinstance(outcome, Internal):
                    raise Violation(outcome.message)
                self._engine.after(self._disk_us(), lambda: ended(outcome) if alive() else None)

        self._engine.after(self._disk_us(), carry)

    def _disk_us(self) -> int:
        return DISK_MIN_US + int(self._engine.rng.random() * (DISK_MAX_US - DISK_MIN_US))

"""Planted bugs of jobs on terms: what goes after others, is taken back or expires, and whether it is paid."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.deadlines import Deadlines
from offgrid_node.protocol.jobs.dependencies import Dependencies
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.releases import Releases
from offgrid_node.protocol.jobs.table import COMPLETED
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never


def _pay_too(sound: Sound) -> Sound:
    def cancel(self: Any, entry: Any, why: Any, now: Any) -> None:
        job = entry.job
        if job.host:
            self._post.tell("ledger", CostIncurred(job.job_id, job.attempt, job.host, job.price_micro, job.kind))
        sound(self, entry, why, now)

    return cancel


def _all(sound: Sound) -> Sound:
    def take_passed(self: Any, now: Any) -> list[str]:
        sound(self, now)
        return list(self._by_utc.take_due(now.utc_us))

    return take_passed


def _in_memory_only(sound: Sound) -> Sound:
    def cancel(self: Any, entry: Any, why: Any, now: Any) -> None:
        put, self._post.put_bytes = (
            self._post.put_bytes,
            lambda table, *rest: None if table == JOBS else put(table, *rest),
        )
        try:
            sound(self, entry, why, now)
        finally:
            del self._post.put_bytes

    return cancel


def _all_completed(sound: Sound) -> Sound:
    def add(self: Any, job_id: str, states: Any) -> None:
        sound(self, job_id, dict.fromkeys(states, COMPLETED))

    return add


MUTANTS: dict[str, Mutant] = {
    "after-ignored": Mutant("a job does not wait for others", (Patch(Dependencies, "add", _all_completed),)),
    "after-forgotten": Mutant("a restarted core forgets who waits", (Patch(Releases, "load", never(None)),)),
    "cancel-ignored": Mutant(
        "a core says that it took a job back, and goes on", (Patch(Core, "take_back", never(None)),)
    ),
    "cancel-not-durable": Mutant(
        "that a job was taken back is not written", (Patch(OpenJobs, "cancel", _in_memory_only),)
    ),
    "cancelled-paid": Mutant("what was taken back is paid", (Patch(OpenJobs, "cancel", _pay_too),)),
    "expires-early": Mutant("a deadline is over before its time", (Patch(Deadlines, "take_passed", _all),)),
}

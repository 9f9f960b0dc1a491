"""Planted bugs that it takes perils to see: hosts that die, of their work or otherwise, signatures that are false, jobs
that change their broker, times that come again after a restart."""

from __future__ import annotations

from typing import Any

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs import broker_answers
from offgrid_node.protocol.jobs.batch import BatchKind
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.quarantine import Quarantine
from offgrid_node.protocol.jobs.schedules import Schedules
from offgrid_node.protocol.jobs.table import QUEUED
from offgrid_node.protocol.jobs.trust import TRUSTED_FROM, Trust
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, after, never
from offgrid_tools.sim.plan import MARKET_MESH


def _leave_them_there(sound: Sound) -> Sound:
    def on_peer_down(self: Any, node_id: str, now: Any, rng: Any) -> None:
        lose, self._losing.lose_host = self._losing.lose_host, lambda *args: None
        try:
            sound(self, node_id, now, rng)
        finally:
            self._losing.lose_host = lose

    return on_peer_down


def _by_anybody(sound: Sound) -> Sound:
    return lambda entry, broker: entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_OFFGRID


def _begin_again(schedules: Any) -> None:
    for schedule in schedules._schedules.values():
        schedule.next_us = schedule.last_due_us or schedule.next_us
    schedules.begins_again = True


def _as_if_new(sound: Sound) -> Sound:
    def made(self: Any, schedule: Any, due_us: int, now: Any, rng: Any) -> Any:
        if not getattr(self, "begins_again", False):
            return sound(self, schedule, due_us, now, rng)
        self.begins_again = False
        known, self._requests.made = self._requests.made, lambda *args: ""
        try:
            return sound(self, schedule, due_us, now, rng)
        finally:
            self._requests.made = known

    return made


def _trust_blindly(sound: Sound) -> Sound:
    return lambda self, host, rng: self.count(host) >= TRUSTED_FROM


MUTANTS: dict[str, Mutant] = {
    "lease-of-the-dead": Mutant(
        "a core leaves its jobs at a host that is dead", (Patch(Core, "on_peer_down", _leave_them_there),), MARKET_MESH
    ),
    "signature-unseen": Mutant(
        "nobody looks at what receipts are signed with", (Patch(BatchKind, "_check_root", never(None)),), MARKET_MESH
    ),
    "quarantine-missing": Mutant(
        "a host takes a payload however often it went down under it",
        (Patch(Quarantine, "refusal", never("")),),
        MARKET_MESH,
    ),
    "quarantine-forgotten": Mutant(
        "a restarted host forgets what it went down under", (Patch(Quarantine, "load", never(None)),), MARKET_MESH
    ),
    "any-broker-believed": Mutant(
        "a core takes an award of a broker that it has not asked",
        (Patch(broker_answers, "_is_asked", _by_anybody),),
        MARKET_MESH,
    ),
    "due-again-after-restart": Mutant(
        "a restarted core makes the job of the last due time again",
        (Patch(Schedules, "load", after(_begin_again)), Patch(Schedules, "_make", _as_if_new)),
        MARKET_MESH,
    ),
    "never-checked": Mutant(
        "a host that is trusted is never compared with others",
        (Patch(Trust, "may_run_alone", _trust_blindly),),
        MARKET_MESH,
    ),
}

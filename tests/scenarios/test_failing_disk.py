"""A host whose disk fails while it works: a failed commit costs its own batch, not what is under way."""

from __future__ import annotations

import pytest
from road_town import Town

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, Unavailable
from offgrid_node.protocol.jobs.table import COMPLETED, RUNNING
from offgrid_node.protocol.mesh.commands import AddressesChanged
from offgrid_tools.sim.engine import MS
from offgrid_tools.sim.process import Process

FULL = Exhausted("the store is full", reason="StoreFull")
BROKEN = Unavailable("the disk refuses", reason="DiskError")


def fail_a_commit(host: Process, fault: Fault) -> None:
    """Makes the host commit something, which fails."""
    host.store.fail_next(fault)
    host.running.runtime.deliver("mesh", AddressesChanged(("192.0.2.7:1",), ()))


@pytest.mark.parametrize(
    ("fault", "unreadable_ms"),
    [(FULL, 0), (BROKEN, 0), (BROKEN, 300), (BROKEN, 1_500)],
    ids=["full", "refusing", "unreadable for a moment", "unreadable when the work ends"],
)
def test_work_outlives_a_failed_commit_of_its_host(fault: Fault, unreadable_ms: int) -> None:
    town = Town()
    town.seconds = 1.0
    job = town.create()
    town.dispatch(job)
    host = next(town[name] for name in ("host-a", "host-b", "host-c") if host_of(town, job) == town[name].node_id)
    host.unreadable_us = unreadable_ms * MS
    failures = host.running.runtime.failures
    fail_a_commit(host, fault)
    town.run_for(0.1)
    assert host.running.runtime.failures > failures
    if unreadable_ms < 1_000:
        town.run_for(0.4)
        assert host.running.jobs.host.slots_busy == 1
    done = town.until(job, COMPLETED)
    assert [attempt.host for attempt in done.attempts] == [host.node_id]
    assert host.running.jobs.host.slots_busy == 0


@pytest.mark.parametrize("room_bytes", [0])
def test_a_core_whose_disk_is_full_for_minutes_completes_the_job_and_blames_nobody(room_bytes: int) -> None:
    town = Town()
    town.seconds = 1.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    core = town["core"]
    limit_bytes, core.store._limit = core.store._limit, core.store._size + room_bytes
    town.run_for(3)
    assert core.running.runtime.failures > 0
    core.store._limit = limit_bytes
    done = town.until(job, COMPLETED)
    assert (done.attempt, done.losses, len(town.runs_of(job))) == (1, 0, 1)


def test_a_host_that_dies_while_its_disk_refuses_is_replaced_as_any_other() -> None:
    town = Town()
    town.seconds = 3.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town["host-a"].store.refuse(BROKEN)
    town["host-a"].crash()
    assert town.cluster.name_of(town.until(job, COMPLETED).host) == "host-b"


def host_of(town: Town, job: jobs_pb2.Job) -> str:
    return town.until(job, RUNNING).attempts[-1].host

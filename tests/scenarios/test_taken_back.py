"""A job is taken back while its host works on it, and whoever was to say so dies: the host stops all the same."""

from __future__ import annotations

import pytest
from road_town import Town

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.heartbeat import LEASE_MS
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_tools.sim.driver import AFTER_COMMIT, writes_to

RUNNING, CANCELLED = jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_CANCELLED
DOWN_S = 0.5
HEALED_S = 4.0  # after the core is back: to be heard of, a second until the next renewal, one for a page said whole
assert HEALED_S < LEASE_MS / 1_000


@pytest.fixture
def town() -> Town:
    town = Town()
    town.seconds = 600.0
    return town


def busy(town: Town, name: str = "host-a") -> int:
    return town[name].running.jobs.host.slots_busy


def taken_back_by_a_core_that_dies(town: Town) -> jobs_pb2.Job:
    """The end is durable, and the core dies before its host, or its owner, hears of it."""
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town.run_for(2)  # the host renews by now
    core = town["core"]
    town.cluster.monitor.jobs.terms.on_cancel(core.node_id, "", [job.job_id])
    core.trap, core.trap_on, core.on_trapped = AFTER_COMMIT, writes_to(frozenset({JOBS})), core.crash
    core.admin("offgrid.v1.JobService/CancelJobs", jobs_pb2.CancelJobsRequest(job_ids=[job.job_id]), lambda _: None)
    town.run_for(DOWN_S)
    assert not core.up
    assert not town.sent_s("core", "host-a", "CancelStarts")
    return job


def test_a_host_whose_core_died_with_the_word_on_its_lips_stops_when_it_renews(town: Town) -> None:
    job = taken_back_by_a_core_that_dies(town)
    assert busy(town) == 1
    town["core"].start()
    town.run_for(HEALED_S)
    assert town.look(job).state == CANCELLED
    assert busy(town) == 0
    assert not town.sent_s("core", "host-a", "CancelStarts"), "the answer to a renewal has said it"


def test_while_its_core_stays_away_it_works_on(town: Town) -> None:
    """Its result may be wanted: nobody has said otherwise."""
    taken_back_by_a_core_that_dies(town)
    town.run_for(20)
    assert busy(town) == 1

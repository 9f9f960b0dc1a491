"""Connections that break: those of a process that is killed while its machine lives, and those of two that live on."""

from __future__ import annotations

import pytest
from road_town import Town

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import COMPLETED, RUNNING
from offgrid_tools.sim.process import Process

SOON_S = 1.5  # one probe, and time to refute what it says; else it waits for its turn


def attempts_after(town: Town, seconds: float) -> int:
    """Of a job that runs when its host is killed."""
    town.seconds = 10.0
    job = town.create()
    town.dispatch(job)
    running = town.until(jobs_pb2.Job(job_id=job.job_id), RUNNING)
    town[town.cluster.name_of(running.host)].crash()
    town.run_for(seconds)
    return town.look(job).attempt


def test_the_jobs_of_a_killed_host_are_awarded_to_others_soon() -> None:
    assert attempts_after(Town(), SOON_S) == 2


def test_a_broken_connection_is_what_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the dead host is found so soon only where a probe happens to meet it: not in every town."""
    monkeypatch.setattr(Process, "on_road_lost", lambda self, node: None)
    assert any(attempts_after(Town(seed=seed), SOON_S) == 1 for seed in range(40))


@pytest.mark.parametrize("other", ["broker", "host-a"])
def test_a_job_comes_to_its_one_end_over_connections_that_break_all_the_time(other: str) -> None:
    town = Town()
    core, peer = town["core"].node_id, town[other].node_id
    engine, network = town.cluster.engine, town.cluster.network

    def again() -> None:
        network.reset(core, peer)
        engine.after(1_000, again)

    job = town.create()
    town.dispatch(job)
    again()
    town.run_for(3)
    network.reset = lambda one, other: None  # type: ignore[method-assign]
    done = town.until(job, COMPLETED)
    assert len(town.runs_of(done)) == 1
    assert town.cluster.monitor.met.counts["calls broken by a reset"] > 1

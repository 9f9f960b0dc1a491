"""A host on a live mesh: work that is taken back is killed, a drain outlives a restart, a rule keeps an owner out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import GIVE_UP_S, eventually

from offgrid.client import Client, OffgridError, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not Path("/bin/sleep").exists(), reason="needs a program to run")]

RULES = [{"name": "not-core2", "owners": ["core2"], "deny": True}, {"name": "all"}]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    nodes, folder = {"core": ["core", "broker"], "core2": ["core"], "host": ["host"]}, tmp_path_factory.mktemp("life")
    commands = {"sleep": "/bin/sleep"}
    with LocalMesh(folder, "life", nodes, host__process__commands=commands, host__rules=RULES) as made:
        made.start()
        made.wait_alive()
        made.wait_offers(1)
        yield made


def sleeping(client: Client, seconds: float) -> str:
    """A job that sleeps on the host, by id."""
    task = client.tasks.create(client.missions.create("life").mission_id, "life", "compute")
    job = client.jobs.create(task.task_id, payloads.command("sleep", [str(seconds)]), timeout_s=600)
    client.jobs.dispatch(job.job_id, "offgrid")
    return job.job_id


def test_work_is_killed_when_taken_back_and_a_drain_outlives_a_restart(mesh: LocalMesh) -> None:
    host = mesh["host"]
    with mesh["core"].client() as client:
        taken_back = sleeping(client, 500)
        with host.client() as owner:
            eventually(lambda: client.jobs.get(taken_back).state == jobs_pb2.JOB_STATE_RUNNING, "it runs")
            assert owner.host.show().slots_busy == 1
            client.jobs.cancel([taken_back])
            eventually(lambda: owner.host.show().slots_busy == 0, "its slot is free")

            waits_for_end = sleeping(client, 2)
            eventually(lambda: client.jobs.get(waits_for_end).state == jobs_pb2.JOB_STATE_RUNNING, "the next runs")
            assert owner.host.toggle("drain").state == "draining"
            assert [state.state for state in owner.host.watch_drain(within_s=GIVE_UP_S)][-1] == "drained"
            assert client.jobs.get(waits_for_end).state == jobs_pb2.JOB_STATE_COMPLETED

        host.stop()
        host.run("run")
        host.wait_ready()
        with host.client() as owner:
            assert owner.host.show().state == "drained"
            with pytest.raises(OffgridError, match="asleep"):
                owner.host.toggle("asleep")
            later = sleeping(client, 0)
            time.sleep(1)
            assert client.jobs.get(later).state == jobs_pb2.JOB_STATE_QUEUED
            owner.host.toggle("on")
            eventually(lambda: client.jobs.get(later).state == jobs_pb2.JOB_STATE_COMPLETED, "it has run")


def test_a_rule_keeps_an_owner_out_and_no_other(mesh: LocalMesh) -> None:
    with mesh["core"].client() as client, mesh["core2"].client() as kept_out:
        mine, theirs = sleeping(client, 0), sleeping(kept_out, 0)
        eventually(lambda: client.jobs.get(mine).state == jobs_pb2.JOB_STATE_COMPLETED, "who may, may")
        eventually(lambda: bool(kept_out.jobs.get(theirs).error), "who may not, hears it")
        assert kept_out.jobs.get(theirs).error == "NoHostsAvailable"

"""A payload that kills its host's daemon, where no sandbox keeps it from that: it is stopped, and other jobs go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from live import offgrid

from offgrid.client import payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

KILLER = "-c", "kill -9 $PPID; sleep 60"
LOSSES_MAX = 2
HOSTS = ("host-a", "host-b", "host-c")


@pytest.fixture
def mesh(make_mesh: Callable[..., LocalMesh]) -> LocalMesh:
    nodes = {"core": ["core", "broker"], **{name: ["host"] for name in HOSTS}}
    commands = {"sh": "/bin/sh"}
    mesh = make_mesh(nodes, host__process__commands=commands, host__process__sandbox="rlimits", host__slots=2)
    mesh.wait_offers(3)
    return mesh


@pytest.fixture
def deaths(mesh: LocalMesh) -> Iterator[list[str]]:
    """Hosts that were found dead and started again, as a service manager does."""
    found: list[str] = []
    stop = threading.Event()

    def look_after(host: LocalNode) -> None:
        while not stop.wait(0.1):
            if not host.alive:
                found.append(host.name)
                host.run("run")

    threads = [threading.Thread(target=look_after, args=(mesh[name],), daemon=True) for name in HOSTS]
    for thread in threads:
        thread.start()
    yield found
    stop.set()
    for thread in threads:
        thread.join()


@pytest.mark.soak
def test_it_ends_after_so_many_hosts_and_other_jobs_go_on(mesh: LocalMesh, deaths: list[str]) -> None:
    core = mesh["core"]
    inputs = [b"%d" % number for number in range(12)]
    with core.client() as client:
        killer = client.jobs.submit(payloads.command("sh", KILLER), losses_max=LOSSES_MAX)
        others = [
            client.jobs.submit(payloads.command("sh", ["-c", "sleep 0.3; cat"], input=b"%d" % n)) for n in range(12)
        ]
        ended = killer.result(60)
        assert (ended.state, ended.error) == (jobs_pb2.JOB_STATE_FAILED, "AttemptsExhausted"), ended
        assert ended.losses == LOSSES_MAX + 1 == len(deaths)
        assert [other.result(60).result.output for other in others] == inputs
    why = offgrid(core, "job", "why", ended.job_id)
    assert why.code == 0, why.said
    assert f"{LOSSES_MAX} are allowed (losses_max)" in " ".join(why.out.split()), why.said

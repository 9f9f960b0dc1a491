"""A core that is killed and starts again under those who wait for its jobs: they wait, say so once, and miss no end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from live import BIN, GIVE_UP_S, eventually
from live import offgrid as command

import offgrid
from offgrid.client import payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh

SCRIPT = "-c", "sleep 6; cat"  # long enough to be killed under it


@pytest.fixture
def mesh(make_mesh: Callable[..., LocalMesh]) -> LocalMesh:
    nodes = {"core": ["core", "broker"], "host": ["host"]}
    mesh = make_mesh(nodes, host__process__commands={"sh": "/bin/sh"}, host__slots=3)
    mesh.wait_offers(1)
    return mesh


@pytest.fixture
def waiting(mesh: LocalMesh, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts commands that are ended at last."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        argv = [BIN / "offgrid", "--node-dir", mesh["core"].folder, *arguments]
        begun.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def test_whoever_waits_gets_each_end_once(
    mesh: LocalMesh, waiting: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    core, text = mesh["core"], tmp_path / "text"
    text.write_text("as it came")
    sent = command(core, "job", "submit", text, "--command", "sh", "--json", "--", *SCRIPT)
    job_id = json.loads(sent.out)["job"]["job_id"]
    ran = waiting("job", "run", text, "--command", "sh", "--output", "-", "--", *SCRIPT)
    said: list[str] = []
    with offgrid.connect(str(core.folder), on_silence=said.append) as client, ThreadPoolExecutor(1) as pool:
        future = client.jobs.submit(payloads.command("sh", SCRIPT, input=b"as it came"))
        watched = waiting("job", "watch", job_id)
        seen = pool.submit(lambda: [job.state for job in client.jobs.watch(job_id)])
        eventually(lambda: running(client) == 3, "all three run")
        assert watched.stdout is not None
        first = watched.stdout.readline()  # it has connected
        core.kill()
        eventually(lambda: said, "the client says that the node is silent")
        core.run("run")
        core.wait_ready()
        done = future.result(60)
        assert (done.result.output, done.attempt) == (b"as it came", 1)
        states = seen.result(60)
    assert states[-1] == jobs_pb2.JOB_STATE_COMPLETED
    assert states.count(jobs_pb2.JOB_STATE_COMPLETED) == 1
    assert len(said) == 1, said
    out, err = ran.communicate(timeout=GIVE_UP_S)
    assert (ran.returncode, out) == (0, "as it came"), err
    assert err.count("is silent") == 1, err
    out, err = watched.communicate(timeout=GIVE_UP_S)
    assert (watched.returncode, (first + out).count("completed")) == (0, 1), first + out + err
    assert err.count("is silent") == 1, err


def running(client: offgrid.Client) -> int:
    return len(list(client.jobs.list(states=["running"])))

"""Inputs and outputs of any size through real nodes, and nothing of them in clear on any host or broker."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import COMPLETED, GIVE_UP_S, eventually, mesh_of, offgrid

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

MARKER = b"og-marker-5b1f0c9e7d"
SMALL, LARGE_BYTES = MARKER + b" in a small input\n", 5_000_000
NODES = {"core": ["core"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
COMMANDS = {"cat": "/bin/cat", "sh": "/bin/sh"}


def large() -> bytes:
    """Random, so that no chunk of it is found by chance; the marker at the start, in the middle and at the end."""
    half = os.urandom(LARGE_BYTES // 2)
    return MARKER + half + MARKER + half + MARKER


def files_of(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def with_marker(*folders: Path) -> list[Path]:
    """Every file that holds the marker, whatever kind of file it is: the store's free pages are bytes of it too."""
    return [path for path in files_of(*folders) if MARKER in path.read_bytes()]


def strangers(mesh: LocalMesh) -> list[Path]:
    """The folders of all nodes that are not the core."""
    return [node.folder for node in mesh.nodes.values() if "core" not in node.roles]


def durable(client: Client, object_id: str) -> objects_pb2.Object:
    return client.objects.wait_durable(object_id, timeout_s=GIVE_UP_S)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    with mesh_of(tmp_path_factory.mktemp("large"), NODES, host__process__commands=COMMANDS) as mesh:
        yield mesh


@pytest.fixture
def mesh(started: LocalMesh) -> LocalMesh:
    """All three hosts are up, also after a test that killed one."""
    dead = [node for node in started.nodes.values() if not node.alive]
    for node in dead:
        node.run("run")
    for node in dead:
        node.wait_ready()
    started.wait_alive()
    started.wait_offers(3)
    return started


def winner_of(mesh: LocalMesh, client: Client, job_id: str) -> LocalNode:
    """The node that runs the job now."""

    def running() -> jobs_pb2.Job | None:
        job = client.jobs.get(job_id)
        return job if job.state == jobs_pb2.JOB_STATE_RUNNING else None

    job = eventually(running, "the job runs")
    assert job is not None
    return mesh.by_id(job.host)


def test_a_marker_in_inputs_and_outputs_is_in_no_file_of_any_host_or_broker(mesh: LocalMesh) -> None:
    core, data = mesh["core"], large()
    with core.client() as client:
        small = client.jobs.run(payloads.command("cat", input=SMALL))
        assert (small.state, client.jobs.output(small)) == (COMPLETED, SMALL), small
        big = client.jobs.run(payloads.command("cat", input=data, input_name="big.bin"))
        assert big.state == COMPLETED, big
        assert big.result.output_bytes == len(data)
        assert client.jobs.output(big) == data
        # Both are objects of the core by now, on their way to their hosts, which hold them sealed.
        named = {made.name: made for made in client.objects.list()}
        assert set(named) == {"big.bin", f"{big.job_id}.output"}
        for made in named.values():
            assert durable(client, made.object_id).acks
        assert with_marker(*strangers(mesh)) == []

        task = client.jobs.get(small.job_id).task_id
        slow = client.jobs.create(task, payloads.command("sh", ["-c", "cat; sleep 5"], input=data))
        client.jobs.dispatch(slow.job_id)
        host = winner_of(mesh, client, slow.job_id)
        host.kill()
        assert with_marker(*strangers(mesh), core.folder / "data" / "chunks") == []
    sealed = [path for path in files_of(*strangers(mesh)) if path.parent.name == "kept"]
    assert sealed, "hosts hold replicas, sealed"


def test_a_result_outlives_the_host_that_made_it_and_the_cores_own_copy(mesh: LocalMesh, tmp_path: Path) -> None:
    core, data = mesh["core"], large()
    source, target = tmp_path / "in.bin", tmp_path / "out.bin"
    source.write_bytes(data)
    done = offgrid(core, "job", "run", source, "--command", "cat", "--output", target)
    assert done.code == 0, done.said
    assert target.read_bytes() == data
    with core.client() as client:
        job = next(client.jobs.list(newest_first=True))
        durable(client, job.result.output_object)

        def only_at_hosts() -> bool:
            made = client.objects.get(job.result.output_object)
            return not made.local and len(made.acks) == 3

        eventually(only_at_hosts, "three hosts have it, and the core's own copy is gone")
        mesh.by_id(job.host).kill()
        assert client.jobs.output(client.jobs.get(job.job_id)) == data


def kept(host: LocalNode) -> set[str]:
    return {path.name for path in files_of(host.folder) if path.parent.name == "kept"}


def test_a_host_keeps_no_blob_once_its_core_has_answered(mesh: LocalMesh) -> None:
    core, before = mesh["core"], {name: kept(node) for name, node in mesh.nodes.items()}
    with core.client() as client:
        # Nobody asks for copies of these: a quorum of nothing is reached at once.
        job = client.jobs.run(payloads.command("sh", ["-c", f"head -c {LARGE_BYTES} /dev/urandom"]))
        assert job.state == COMPLETED, job
        made = durable(client, job.result.output_object)
        holders = {ack.node_id for ack in made.acks}
        host = mesh.by_id(job.host)
        wanted = before[host.name] | ({made.object_id} if host.node_id in holders else set())
        eventually(lambda: kept(host) <= wanted or len(client.objects.get(made.object_id).acks) == 3, "it is dropped")

"""A core that lost its disk comes back from its recovery words and one address, and goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from live import BIN, COMPLETED, GIVE_UP_S, SAY_HI, eventually, mesh_of, offgrid, offgrid_node

from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh, LocalNode

NODES: Mapping[str, list[str]] = {"stays": ["broker", "host"], "owner": ["core"], "host": ["host"]}


@pytest.fixture
def mesh(tmp_path: Path) -> Iterator[LocalMesh]:
    with mesh_of(tmp_path / "mesh", NODES, storage__journal_interval_ms=200) as mesh:
        yield mesh


def all_safe(owner: LocalNode) -> bool:
    with owner.client() as client:
        status = client.mesh.status()
        return status.journal_safe_seq == status.journal_seq


def known_to(owner: LocalNode) -> list[object]:
    """What an owner cares about: missions, jobs, money, objects, quorums."""
    with owner.client() as client:
        return [
            sorted((job.job_id, job.state, job.host, job.price_micro) for job in client.jobs.list()),
            client.ledger.balance().final_micro,
            sorted(mission.title for mission in client.missions.list()),
            sorted((made.object_id, made.name, made.size_bytes, made.state) for made in client.objects.list()),
            sorted((quorum.quorum_id, quorum.epoch, quorum.acked_milli) for quorum in client.quorum.list()),
        ]


def settled(owner: LocalNode) -> bool:
    """It may sign, and all that it signed or owes is final."""
    with owner.client() as client:
        status = client.ledger.status()
        return not (status.muted_why or status.pending or status.owed_micro)


def came_back(owner: LocalNode) -> list[str]:
    with owner.client() as client:
        return [each.object.name for each in client.objects.regained() if each.back]


def pay(owner: LocalNode, request_id: str) -> None:
    sum_of = ("--dst", "host", "--amount", "2")
    done = offgrid(owner, "transfer", *sum_of, "--timeout", "30", "--request-id", request_id)
    assert done.code == 0, done.said


def address_of(mesh: LocalMesh, name: str) -> str:
    with mesh["stays"].client() as client:
        return next(peer.addresses[0] for peer in client.mesh.peers() if peer.member.name == name)


def command_for(owner: LocalNode, address: str, *flags: str) -> list[str]:
    settings = [f"--set={key}={str(value).lower()}" for key, value in owner.settings.items()]
    command = [BIN / "offgrid-node", "restore", "--words", "--via", address, "--dir", owner.folder, "--role", "core"]
    return [*map(str, command), *settings, *flags]


def restore(owner: LocalNode, address: str, words: str, *flags: str) -> subprocess.CompletedProcess[str]:
    command = command_for(owner, address, *flags)
    return subprocess.run(command, check=False, input=words, capture_output=True, text=True, timeout=GIVE_UP_S)


def struck_down(owner: LocalNode, address: str, words: str) -> None:
    """A restore is killed once it has a segment, wherever it is by then; one that has come to its end stays so."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command_for(owner, address), **pipes, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(words)
        process.stdin.close()
        while not (line := process.stdout.readline()).startswith("segment"):
            assert line, "it has ended before it had one"
        process.kill()


def from_backup_that_is_outdated(owner: LocalNode, address: str, words: str, backup: Path) -> None:
    """Nothing that hosts keep is given up unless the operator says so, and nobody asked is no reason."""
    command = ["restore", "--words", "--backup", str(backup), "--dir", str(owner.folder)]

    def said(*flags: str) -> tuple[int, str]:
        argv = [str(BIN / "offgrid-node"), *command, *flags]
        done = subprocess.run(argv, check=False, input=words, capture_output=True, text=True, timeout=GIVE_UP_S)
        return done.returncode, done.stdout + done.stderr

    code, text = said()
    assert (code, "may have it newer than this backup" in text) == (4, True), text
    code, text = said("--via", address)
    assert (code, "events newer than the backup" in text, "host" in text) == (4, True, True), text
    assert not owner.folder.exists()
    for flags in (("--via", address), ()):
        code, text = said(*flags, "--give-up-newer", "--dry-run")
        assert (code, "given up: the journal at" in text) == (0, bool(flags)), text


def test_a_core_without_its_disk_comes_back_by_its_words(mesh: LocalMesh, tmp_path: Path) -> None:
    owner, source, copy = mesh["owner"], tmp_path / "text.bin", tmp_path / "copy.bin"
    source.write_bytes(os.urandom(100_000))
    assert offgrid(owner, "put", source, "--required", "2.0").code == 0
    assert offgrid(owner, "mission", "create", "harvest").code == 0
    assert offgrid(mesh["stays"], "ledger", "open", "--yes").code == 0
    with owner.client() as client:
        eventually(lambda: client.ledger.status().open, "the owner knows of the ledger")
        assert client.jobs.run(payloads.wasm(SAY_HI)).state == COMPLETED
        client.quorum.create("vote", 1_000)
        client.quorum.ack("vote")
    pay(owner, "may")
    eventually(lambda: settled(owner), "what the job cost is paid")
    eventually(lambda: all_safe(owner), "all events lie at hosts")
    assert offgrid(owner, "state", "backup", tmp_path / "early.zip").code == 0
    assert offgrid(owner, "mission", "create", "after the backup").code == 0
    before = known_to(owner)
    assert "harvest" in str(before)
    eventually(lambda: all_safe(owner), "all events lie at hosts")
    words = offgrid_node("words", "--dir", owner.folder).out
    owner.kill()
    shutil.copytree(owner.folder, tmp_path / "backup", ignore=shutil.ignore_patterns("*.sock*"))
    shutil.rmtree(owner.folder)

    address = address_of(mesh, "host")
    told = restore(owner, address, words, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "would come back: owner" in told.stdout
    assert not owner.folder.exists()
    wrong = restore(owner, address, " ".join(reversed(words.split())) + "\n")
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr
    from_backup_that_is_outdated(owner, address, words, tmp_path / "early.zip")
    struck_down(owner, address, words)
    if not (owner.folder / "offgrid.toml").exists():
        done = restore(owner, address, words)
        assert done.returncode == 0, done.stderr
        assert f"restored: owner ({owner.node_id})" in done.stdout

    owner.run("run")
    owner.wait_ready()
    owner.kill()
    owner.run("run")
    owner.wait_ready()
    assert known_to(owner) == before
    assert offgrid(owner, "get", "text.bin", "-o", copy).code == 0
    assert copy.read_bytes() == source.read_bytes()
    assert offgrid(owner, "put", source, "--name", "more.bin", "--required", "2.0").code == 0
    eventually(lambda: settled(owner), "others have told it what it signed")
    pay(owner, "june")
    after = known_to(owner)[1]
    eventually(lambda: all_safe(owner), "what is new lies at hosts, too")

    owner.stop()
    shutil.rmtree(owner.folder)
    shutil.copytree(tmp_path / "backup", owner.folder)
    owner.run("run")
    assert owner.process is not None
    assert owner.process.wait(GIVE_UP_S) == 4, "an old store finds out that it is one"
    assert "is not this node's newest store" in owner.log_tail()
    owner.run("run", "--accept-stale")
    owner.wait_ready()
    eventually(lambda: settled(owner), "it has learnt what it signed in the life of which its store knows nothing")
    assert known_to(owner)[1] == after
    pay(owner, "june")
    assert known_to(owner)[1] == after, "what it paid in that life it does not pay again"
    pay(owner, "july")
    eventually(lambda: all_safe(owner), "it goes on in a life of its own")
    eventually(lambda: "more.bin" in came_back(owner), "what it put in that life comes back from its hosts")
    assert offgrid(owner, "get", "more.bin", "-o", copy).code == 0
    assert copy.read_bytes() == source.read_bytes()
    assert "came back from hosts" in offgrid(owner, "status").said

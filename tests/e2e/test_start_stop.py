"""How a node starts, refuses to start, and stops: in order, in time, and with one sentence when it cannot."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from live import (
    COMPLETED,
    FAILED,
    GIVE_UP_S,
    SAY_HI,
    STOPPED_WITHIN_S,
    Done,
    eventually,
    log_of,
    offgrid,
    offgrid_node,
    promised,
    run,
)

from offgrid.client import Client, OffgridError, connect, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.founding import found
from offgrid_node.local_mesh import LOCAL, LocalNode

RUNNING = jobs_pb2.JOB_STATE_RUNNING
ROOT = sys.platform != "win32" and os.geteuid() == 0
NOBODY = 65534
as_root = pytest.mark.skipif(not ROOT, reason="needs root")


class Alone(LocalNode):
    """A mesh of one, with all three roles and /bin/sh on its list."""


def founded(folder: Path, **settings: object) -> Alone:
    values = {**LOCAL, "host.process.commands": {"sh": "/bin/sh"}}
    values |= {key.replace("__", "."): value for key, value in settings.items()}
    found(folder, "alone", "one", ["core", "broker", "host"], values)
    return Alone("one", ("core", "broker", "host"), folder)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Alone]:
    """Founded, not started."""
    alone = founded(tmp_path / "n")
    yield alone
    if alone.alive:
        alone.kill()
    if alone.log_path.exists():
        log_of(alone)


@pytest.fixture
def running(node: Alone) -> Alone:
    node.run("run")
    node.wait_ready()
    return node


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a node that has jobs in its store and was stopped."""
    node = founded(tmp_path_factory.mktemp("filled") / "n")
    try:
        node.run("run")
        node.wait_ready()
        with node.client() as client:
            task = task_of(client)
            for _ in range(20):
                client.jobs.create(task, payloads.wasm(SAY_HI, input=bytes(10_000)))
        assert node.stop() == 0
    finally:
        node.kill()
    return node.folder


def refused(node: Alone) -> Done:
    """What `run` says when it does not start."""
    done = offgrid_node("run", "--dir", node.folder)
    assert done.code != 0, done.said
    assert len(done.err.strip().splitlines()) <= 3, done.said
    return done


def task_of(client: Client) -> str:
    return client.tasks.create(client.missions.create("m").mission_id, "t", "compute").task_id


class TestStopping:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
    def test_in_the_middle_of_a_job_with_a_watcher(self, running: Alone, number: signal.Signals) -> None:
        assert running.process is not None
        with running.client() as client:
            seen = threading.Event()

            def watch() -> None:
                with suppress(OffgridError, ValueError):  # the node goes, and then the client: that is the point
                    for _ in client.events.watch():
                        seen.set()

            watcher = threading.Thread(target=watch, daemon=True)
            watcher.start()
            sleep = f"sleep 600.{running.process.pid}"  # known from every other process of this machine
            job = client.jobs.create(task_of(client), payloads.command("sh", ["-c", sleep]), timeout_ms=600_000)
            client.jobs.dispatch(job.job_id, "disabled")
            eventually(lambda: client.jobs.get(job.job_id).state == RUNNING, "the job runs")
            assert seen.wait(GIVE_UP_S)
            eventually(lambda: processes_of(sleep), "its process runs")
            within_s = promised(STOPPED_WITHIN_S)
            running.process.send_signal(number)
            assert running.process.wait(within_s) == 0
        assert not (running.folder / "data" / "offgrid.sock").exists()
        assert "Traceback" not in log_of(running)
        eventually(lambda: not processes_of(sleep), "the job's processes have gone too")

    def test_and_starting_again_gives_the_job_back(self, running: Alone) -> None:
        """Nothing acknowledged is lost: what was cut off runs again as a new attempt."""
        with running.client() as client:
            job = client.jobs.create(task_of(client), payloads.command("sh", ["-c", "sleep 1; echo done"]))
            client.jobs.dispatch(job.job_id, "disabled")
            eventually(lambda: client.jobs.get(job.job_id).state == RUNNING, "the job runs")
            client.mesh.stop()  # by a call: it is answered
        assert running.wait_stopped() == 0
        running.run("run")
        running.wait_ready()
        with running.client() as client:
            *_, ended = client.jobs.watch(job.job_id)
        assert (ended.state, ended.result.output, ended.attempt) == (COMPLETED, b"done\n", 2)

    def test_a_second_signal_ends_it_at_once(self, running: Alone) -> None:
        assert running.process is not None
        running.process.send_signal(signal.SIGTERM)
        eventually(lambda: "stopping" in log_of(running), "it has begun to stop")
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(GIVE_UP_S) in (0, -signal.SIGTERM)  # 0: it was quicker
        running.run("run")
        running.wait_ready()


def processes_of(command: str) -> list[str]:
    """Command lines of the processes that run it."""
    listed = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if command in line]


class TestRefusingToStart:
    def test_two_daemons_on_one_folder(self, running: Alone) -> None:
        done = refused(running)
        assert done.code == 4
        assert str(running.folder) in done.err
        assert "another" in done.err, done.said
        with running.client() as client:
            assert client.mesh.status().name == "one"  # the first one is not disturbed

    @pytest.mark.parametrize("key", ["mesh__listen", "mesh__door", "gateway__listen"])
    def test_a_port_that_is_taken(self, tmp_path: Path, key: str) -> None:
        """Nobody is answered before that is known."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            node, answered = founded(tmp_path / "n", **{key: address}), False
            node.run("run")
            assert node.process is not None
            while node.alive:
                answered = answered or (node.folder / "data" / "offgrid.sock").exists()
                time.sleep(0.002)
        assert node.process.returncode == 4
        assert not answered
        log = log_of(node)
        assert f"{address}" in log
        assert "in use" in log
        assert "Traceback" not in log

    def test_a_key_that_others_can_read(self, node: Alone) -> None:
        key = node.folder / "keys" / "node.key"
        key.chmod(0o644)
        done = refused(node)
        assert done.code == 4
        assert str(key) in done.err
        assert "chmod" in done.err, done.said

    def test_a_key_that_is_gone(self, node: Alone) -> None:
        key = node.folder / "keys" / "node.key"
        key.unlink()
        done = refused(node)
        assert str(key) in done.err, done.said
        assert not key.exists()  # a new identity would be another node

    def test_a_folder_without_a_node(self, tmp_path: Path) -> None:
        done = offgrid_node("run", "--dir", tmp_path)
        assert done.code == 2, done.said
        assert "offgrid.toml" in done.err

    def test_a_config_with_mistakes(self, node: Alone) -> None:
        file = node.folder / "offgrid.toml"
        file.write_text(file.read_text() + "\n[jobz]\nx = 1\n")
        done = refused(node)
        assert done.code == 2
        line = len(file.read_text().splitlines()) - 1
        assert f"{file}:{line}:" in done.err
        assert "jobs" in done.err, done.said  # did you mean

    @pytest.mark.parametrize("damage", ["cut", "zeroed", "a byte in each 64", "empty", "no log"])
    def test_a_damaged_store(self, filled: Path, tmp_path: Path, damage: str) -> None:
        shutil.copytree(filled, tmp_path / "n")
        node = Alone("one", ("core",), tmp_path / "n")
        file = node.folder / "data" / "memory.db" / "data.mdb"
        whole = bytearray(file.read_bytes())
        assert len(whole) >= 4 * 4096
        if damage == "cut":
            whole = whole[: len(whole) // 2]
        elif damage == "zeroed":
            whole[2 * 4096 :] = bytes(len(whole) - 2 * 4096)
        elif damage == "a byte in each 64":
            for at in range(2 * 4096, len(whole), 64):
                whole[at + at // 64 % 64] ^= 0x40
        elif damage == "empty":
            whole = bytearray()
        else:
            file.with_name("redo.log").unlink()
        file.write_bytes(whole)
        done = refused(node)
        assert done.code == 4, done.said
        assert str(file.parent) in done.err or "backup" in done.err, done.said

    def test_one_damaged_payload_ends_its_job_and_no_other(self, node: Alone) -> None:
        node.run("run")
        node.wait_ready()
        marks = [os.urandom(3_000), os.urandom(3_000)]
        with node.client() as client:
            task = task_of(client)
            jobs = [client.jobs.create(task, payloads.command("sh", ["-c", "wc -c"], input=mark)) for mark in marks]
        assert node.stop() == 0
        file = node.folder / "data" / "memory.db" / "data.mdb"
        whole = file.read_bytes()
        assert whole.count(marks[0][1_000:1_032]) >= 1
        file.write_bytes(whole.replace(marks[0][1_000:1_032], bytes(32)))
        node.run("run")
        node.wait_ready()
        with node.client() as client:
            for job in jobs:
                client.jobs.dispatch(job.job_id, "disabled")
            lost, well = ([*client.jobs.watch(job.job_id)][-1] for job in jobs)
        assert (lost.state, lost.error) == (FAILED, "PayloadLost"), lost
        assert "checksum" in lost.error_detail
        assert (well.state, well.result.output.split()) == (COMPLETED, [b"3000"])

    @as_root
    @pytest.mark.root
    def test_a_data_folder_that_may_not_be_written(self, node: Alone) -> None:
        """Run as nobody, who owns the folder, while the data in it are another's."""
        with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to others
            Path(place).chmod(0o755)
            folder = Path(shutil.copytree(node.folder, Path(place) / "n"))
            data = folder / "data"
            for path in (folder, *folder.rglob("*")):
                os.chown(path, NOBODY, NOBODY)
            for path in (data, *data.rglob("*")):
                os.chown(path, 0, 0)
                path.chmod(0o755 if path.is_dir() else 0o644)
            as_nobody = ["/usr/bin/setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            probe = [*as_nobody, sys.executable, "-c", "import offgrid_node.serving"]
            if subprocess.run(probe, capture_output=True, check=False).returncode:
                pytest.skip("nobody cannot run this checkout")
            done = run([*as_nobody, sys.executable, "-m", "offgrid_node", "run", "--dir", folder])
            assert done.code == 4, done.said
            assert str(data) in done.err, done.said
            assert "ermission" in done.err or "not permitted" in done.err, done.said


def test_a_setting_that_nothing_uses_yet_is_said_in_status_and_log(tmp_path: Path) -> None:
    node = founded(tmp_path / "n", storage__summary_dir="s")
    try:
        node.run("run")
        node.wait_ready()
        sentence = "storage.summary_dir is set, but this version does not use it yet"
        with node.client() as client:
            assert sentence in client.mesh.status().notices
        assert sentence in node.log_path.read_text()
        assert node.stop() == 0
    finally:
        node.kill()


class TestRunningOutOfRoom:
    """Whatever was acknowledged is there afterwards; what cannot be kept is refused, and the node lives on."""

    def submit_until_refused(self, node: Alone, most: int) -> tuple[list[str], OffgridError]:
        acked: list[str] = []
        with node.client() as client:
            task = task_of(client)
            for number in range(most):
                try:
                    acked.append(client.jobs.create(task, half_a_megabyte(), request_id=f"r{number}").job_id)
                except OffgridError as error:
                    return acked, error
        raise AssertionError(f"{most} jobs of 500 kB fitted")

    def still_there(self, node: Alone, acked: list[str]) -> None:
        with node.client() as client:
            assert {job.job_id for job in client.jobs.list()} >= set(acked)

    def test_of_the_store_s_own_limit(self, tmp_path: Path) -> None:
        node = founded(tmp_path / "n", storage__limit_mb=16)
        try:
            node.run("run")
            node.wait_ready()
            acked, error = self.submit_until_refused(node, 60)
            assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "StoreFull"), error
            assert len(acked) > 10
            self.still_there(node, acked)
            done = offgrid(node, "status")
            assert done.code == 0, done.said
            assert node.stop() == 0
            node.run("run")
            node.wait_ready()
            self.still_there(node, acked)
        finally:
            node.kill()
        log_of(node)

    @as_root
    @pytest.mark.root
    def test_of_the_disk(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["/bin/mount", "-t", "tmpfs", "-o", "size=24m", "offgrid-test", disk], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("no tmpfs may be mounted here")
        node = Alone("one", ("core", "broker", "host"), tmp_path / "n")
        try:
            node = founded(tmp_path / "n", node__data_dir=str(disk / "data"), storage__memory_db=str(disk / "m.db"))
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(8 * 1024 * 1024))
            node.run("run")
            socket_path = f"unix:{disk / 'data' / 'offgrid.sock'}"
            eventually(lambda: (disk / "data" / "offgrid.sock").exists() or not node.alive, "it is up")
            assert node.alive, node.log_tail()
            acked, error = self.submit_until_refused_at(socket_path)
            assert error.code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"), error
            assert acked
            ballast.unlink()
            eventually(lambda: self.takes_more(socket_path), "with room again it takes jobs again")
            self.all_listed(socket_path, acked)
            assert node.stop() == 0
            node.run("run")
            eventually((disk / "data" / "offgrid.sock").exists, "it is up")
            self.all_listed(socket_path, acked)
            assert node.stop() == 0
            log_of(node)
        finally:
            node.kill()
            subprocess.run(["/bin/umount", "-l", disk], check=False)

    def submit_until_refused_at(self, address: str) -> tuple[list[str], OffgridError]:
        acked: list[str] = []
        with connected(address) as client:
            task = task_of(client)
            for _ in range(60):
                try:
                    acked.append(client.jobs.create(task, half_a_megabyte()).job_id)
                except OffgridError as error:
                    return acked, error
        raise AssertionError("more fitted than the disk holds")

    def takes_more(self, address: str) -> bool:
        try:
            with connected(address) as client:
                task_of(client)
        except OffgridError:
            return False
        return True

    def all_listed(self, address: str, acked: list[str]) -> None:
        with connected(address) as client:
            assert {job.job_id for job in client.jobs.list()} >= set(acked)


def half_a_megabyte() -> jobs_pb2.JobPayload:
    """A module, which stays in the store: an input as large would be an object, in a file of its own."""
    return payloads.wasm(SAY_HI + b"\n;; " + os.urandom(250_000).hex().encode())


def connected(address: str) -> Client:
    return connect(address, timeout_s=GIVE_UP_S)

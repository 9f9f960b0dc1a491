"""Those whom jobs are measured beside: what is missing is said, processes come and go, and figures have goals."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from offgrid_node.demo.waiting import until
from offgrid_tools.bench import jobs
from offgrid_tools.bench.figures import Figure, read_goals
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import Pairs, memory_at_hand
from offgrid_tools.bench.jobs_ours import OurMesh
from offgrid_tools.bench.peers import Processes, free_port, lacking, listens
from offgrid_tools.bench.processes import at_rest


def test_what_a_machine_lacks_is_said_in_words() -> None:
    assert lacking(["json"], ["sh"]) == ""
    said = lacking(["json", "no_such_package"], ["no-such-program"])
    assert said == "it needs the Python package no_such_package and the program no-such-program"


def test_a_process_is_waited_for_and_stopped(tmp_path: Path) -> None:
    processes, port = Processes(tmp_path / "peer"), free_port()
    serve = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    processes.start("server", [sys.executable, "-c", serve])
    processes.wait("server", lambda: listens(port))
    if sys.platform != "win32":
        pid = processes.pids["server"]
        assert os.getsid(pid) == pid, "as our nodes are: whoever shares a session shares its processor time"
    processes.stop()
    assert not listens(port)


def test_a_process_that_ends_too_early_is_told_with_what_it_said(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "peer")
    processes.start("server", [sys.executable, "-c", "print('no room'); raise SystemExit(1)"])
    with pytest.raises(RuntimeError, match=r"server did not start:\nno room"):
        processes.wait("server", lambda: False)
    processes.stop()


def test_who_is_at_rest_does_nothing_until_the_end_whatever_happens(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "peer")
    processes.start("server", [sys.executable, "-c", "import time; time.sleep(60)"])
    server = psutil.Process(processes.pids["server"])

    def work() -> None:
        with at_rest(processes.pids.values()):
            until(lambda: server.status() == psutil.STATUS_STOPPED, "a process at rest")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert server.status() != psutil.STATUS_STOPPED
    processes.stop()


def test_who_is_gone_leaves_nobody_stopped(tmp_path: Path) -> None:
    processes = Processes(tmp_path / "peer")
    for name in ("there", "gone"):
        processes.start(name, [sys.executable, "-c", "import time; time.sleep(60)"])
    there, pids = psutil.Process(processes.pids["there"]), list(processes.pids.values())
    processes.kill("gone")
    with pytest.raises(psutil.NoSuchProcess), at_rest(pids):
        pass
    assert there.status() != psutil.STATUS_STOPPED
    processes.stop()


def test_memory_is_taken_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    memory_at_hand(tmp_path, 3_000_000)
    assert not list(tmp_path.iterdir())


def test_every_peers_figures_have_goals() -> None:
    names = [name for peer in jobs.OTHERS for name, _ in jobs.peer_figures(peer.name)]
    assert names == ["inflight64_vs_ray", "inflight64_vs_celery", "inflight64_vs_jetstream", "batch256_vs_jetstream"]
    assert set(names) <= read_goals()["jobs"].keys()


class Absent:
    name = "Absent"

    def __init__(self, folder: Path) -> None:
        raise AssertionError("it is not there")

    @staticmethod
    def missing() -> str:
        return "it needs the program absent"


class There(Absent):
    name = "There"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> There:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @staticmethod
    def missing() -> str:
        return ""


def test_a_peer_that_is_not_there_is_named_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "OTHERS", (Absent, There))
    monkeypatch.setattr(jobs, "rates", lambda *_: Pairs([30.0], [10.0]))
    said: list[str] = []
    figures = [Figure("inflight64_per_s", 1.0, note="7 pairs")]
    found = jobs.beside_others(Plan(tmp_path, True, said.append), OurMesh(tmp_path / "ours"), figures)
    assert [(figure.name, figure.value, figure.peer) for figure in found] == [
        ("inflight64_vs_there", 3.0, "There, jobs/s")
    ]
    assert figures[0].note == "7 pairs; not beside Absent (it needs the program absent)"
    assert said[0] == "jobs: without Absent: it needs the program absent"

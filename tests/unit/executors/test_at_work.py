"""What a process was at work on is known to the next one, however it died."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from test_running import WORK, Gate

from offgrid_node.executors.at_work import PLACES, AtWork
from offgrid_node.executors.running import Running
from offgrid_node.protocol.effects import Executed

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32
KEYS = [("core", f"j-{number}", 1) for number in range(PLACES + 1)]


def test_what_has_begun_and_not_ended_is_left(tmp_path: Path) -> None:
    at_work = AtWork(tmp_path / "at-work")
    assert at_work.take_left() == set()
    at_work.begin(KEYS[0], ONE)
    at_work.begin(KEYS[1], TWO)
    at_work.end(KEYS[0])
    at_work.end(KEYS[0])
    after = AtWork(tmp_path / "at-work")
    assert after.take_left() == {TWO}
    assert after.take_left() == set(), "it is told once"
    assert AtWork(tmp_path / "at-work").take_left() == set()


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    at_work = AtWork(tmp_path / "at-work")
    at_work.begin(KEYS[0], ONE)
    at_work.close()
    assert AtWork(tmp_path / "at-work").take_left() == set()


def test_so_many_places_there_are(tmp_path: Path) -> None:
    at_work = AtWork(tmp_path / "at-work")
    for key in KEYS:
        at_work.begin(key, ONE)
    for key in KEYS:
        at_work.end(key)
    at_work.begin(KEYS[0], TWO)
    assert AtWork(tmp_path / "at-work").take_left() == {TWO}


@pytest.mark.parametrize("size", [1, 31, 33, 10**6])
def test_a_damaged_file_does_no_harm(tmp_path: Path, size: int) -> None:
    (tmp_path / "at-work").write_bytes(os.urandom(size))
    AtWork(tmp_path / "at-work").take_left()
    assert AtWork(tmp_path / "at-work").take_left() == set()


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_it_survives_kill_9(tmp_path: Path) -> None:
    child = """
        import os, signal, sys
        from pathlib import Path
        from offgrid_node.executors.at_work import AtWork
        AtWork(Path(sys.argv[1])).begin(("core", "job", 1), bytes([1]) * 32)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(child), str(tmp_path / "at-work")], check=False)
    assert died.returncode == -signal.SIGKILL
    assert AtWork(tmp_path / "at-work").take_left() == {ONE}


def test_executions_are_noted_while_they_run(tmp_path: Path) -> None:
    async def run() -> None:
        gate, ends, ended = Gate(), list[Executed](), asyncio.Event()
        running = Running(gate, lambda end: (ends.append(end), ended.set()), at_work=AtWork(tmp_path / "at-work"))
        running.start(WORK._replace(payload_digest=ONE))
        running.start(WORK._replace(job_id="other"))
        mapped = (tmp_path / "at-work").read_bytes()
        assert mapped.count(ONE) == 1
        assert len(mapped.replace(bytes([0]), b"")) == 32, "what nobody asked to note is not"
        gate.opened.set()
        await ended.wait()
        await running.close()
        assert AtWork(tmp_path / "at-work").take_left() == set()

    asyncio.run(asyncio.wait_for(run(), 5))

"""What a host that was killed leaves behind: no program, and at its next start no folder."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import confine
from offgrid_node.executors.executor import Outcome, Work
from offgrid_node.executors.process import ProcessExecutor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel ends them")

SH = Path("/bin/sh")
GONE_WITHIN_S = 5.0

# A host of its own: it runs one script in the given work folder, with the wrappers that are left to it.
HOST = """
import asyncio, sys
from pathlib import Path
from offgrid.v1 import jobs_pb2
from offgrid_node.executors import confine
from offgrid_node.executors.executor import Work
from offgrid_node.executors.process import ProcessExecutor
for name in sys.argv[3:]:
    setattr(confine, name, ())
executor = ProcessExecutor({"sh": Path("/bin/sh")}, work_dir=Path(sys.argv[1]))
task = jobs_pb2.ProcessTask(command="sh", args=["-c", sys.argv[2]])
asyncio.run(executor.run(Work(jobs_pb2.JobPayload(process=task, input=b"secret"), 60_000)))
"""


class Host:
    """The process of a host in the middle of a job, and handles of the job's processes."""

    def __init__(self, work_dir: Path, script: str, without: tuple[str, ...], processes: int) -> None:
        said = work_dir.parent / "pids"
        os.mkfifo(said)
        argv = [sys.executable, "-c", HOST, str(work_dir), script.replace("SAID", str(said)), *without]
        self.process = subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        with said.open() as lines:
            self.pids = [int(lines.readline()) for _ in range(processes)]
        self.handles = [os.pidfd_open(pid) for pid in self.pids]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def gone(self, index: int, timeout_s: float = GONE_WITHIN_S) -> bool:
        return bool(select.select([self.handles[index]], [], [], timeout_s)[0])

    def close(self) -> None:
        self.kill()
        for handle in self.handles:
            if not select.select([handle], [], [], 0)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    made: list[Host] = []
    yield made
    for host in made:
        host.close()


WRAPPERS: Mapping[str, tuple[str, ...]] = {
    "setpriv": (),
    "limits.py and prlimit": ("SETPRIV_PATHS",),
    "limits.py alone": ("SETPRIV_PATHS", "PRLIMIT_PATHS"),
}


@pytest.mark.parametrize("without", WRAPPERS.values(), ids=WRAPPERS.keys())
def test_the_program_of_a_killed_host_is_killed(tmp_path: Path, hosts: list[Host], without: tuple[str, ...]) -> None:
    if "SETPRIV_PATHS" not in without and confine.find_setpriv() is None:
        pytest.skip("setpriv is not installed")
    hosts.append(Host(tmp_path / "work", "echo $$ > SAID; exec sleep 60", without, 1))
    assert not hosts[0].gone(0, 0)
    hosts[0].kill()
    assert hosts[0].gone(0)


def test_the_next_start_kills_its_descendants_and_removes_its_folder(tmp_path: Path, hosts: list[Host]) -> None:
    work = tmp_path / "work"
    script = "exec 3> SAID; echo $$ >&3; mkdir d; touch d/f; chmod 0 d; sleep 60 3>&- & echo $! >&3; exec 3>&-; wait"
    hosts.append(Host(work, script, (), 2))
    bystander = tmp_path / "offgrid-job-of-another"
    bystander.mkdir()
    hosts[0].kill()
    assert hosts[0].gone(0)
    files = [path for path in work.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files, "what the program itself wrote is still there"
    assert not any(b"secret" in path.read_bytes() for path in files), "but nothing of its input is"
    ProcessExecutor({}, work_dir=work)
    assert hosts[0].gone(1)
    assert list(work.iterdir()) == []
    assert bystander.exists()


def test_the_work_folder_is_private_and_jobs_are_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    work = tmp_path / "data" / "work"
    executor = ProcessExecutor({"sh": SH}, work_dir=work)
    task = jobs_pb2.ProcessTask(command="sh", args=["-c", "pwd; stat -c %a . .."])
    outcome: Outcome = asyncio.run(executor.run(Work(jobs_pb2.JobPayload(process=task), 10_000)))
    folder, *modes = outcome.output.decode().split()
    assert Path(folder).parent == work
    assert modes == ["700", "700"]
    assert stat.S_IMODE(work.stat().st_mode) == 0o700
    assert list(work.iterdir()) == []


def test_a_setpriv_that_knows_no_death_signal_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busybox = tmp_path / "setpriv"
    busybox.write_text("#!/bin/sh\nexit 1\n")
    busybox.chmod(0o755)
    monkeypatch.setattr(confine, "SETPRIV_PATHS", (busybox,))
    assert confine.find_setpriv() is None

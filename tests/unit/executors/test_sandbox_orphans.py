"""A host that is killed while bubblewrap sets up leaves it behind; the next one in the same folder ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import DEVNULL

import pytest

from offgrid_node.executors import sandbox
from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.workplace import PREFIX, Workplace

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sandbox.find()[0] is None, reason="bubblewrap does not work here"
)

# A host that starts a job as process.py does and is killed before bubblewrap has asked to die with it: the shell
# between them waits for that.
HOST = """
import os, signal, sys
from pathlib import Path
from offgrid_node.executors import confine, sandbox
import subprocess
found, folder = sandbox.find()[0], Path(sys.argv[1])
limits = confine.Limits(cpu_s=60, memory_bytes=2**30, file_bytes=2**20, open_files=64)
writing = os.open(os.devnull, os.O_WRONLY)
argv = found.command(["/bin/sleep", "60"], folder, limits, writing, -1)
waiting = ["/bin/sh", "-c", 'while kill -0 "$0"; do sleep 0.01; done; exec "$@"', str(os.getpid())]
subprocess.Popen([*waiting, *argv], pass_fds=[writing], start_new_session=True, env=confine.environment("/job"))
os.kill(os.getpid(), signal.SIGKILL)
"""
PROCESSES, SETTLED_S = 2, 10.0  # its own and the one inside


def of(folder: Path) -> list[int]:
    """What bubblewrap runs for jobs in this folder still."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = (Path("/proc") / pid / "cmdline").read_bytes()
        except OSError:
            continue
        program, _, arguments = command.partition(b"\0")
        if program.endswith(b"bwrap") and os.fsencode(folder / PREFIX) in arguments.partition(b"--bind\0")[2]:
            found.append(int(pid))
    return sorted(found)


def killed_host(work: Path) -> list[int]:
    """What it leaves, when bubblewrap has set up: its own process and the one inside."""
    job = work / f"{PREFIX}1"
    job.mkdir()
    subprocess.run([sys.executable, "-c", HOST, str(job)], check=False, stdout=DEVNULL, stderr=DEVNULL)
    return until(lambda: of(work) if len(of(work)) >= PROCESSES else [])


def until(found: Callable[[], list[int]]) -> list[int]:
    deadline = time.monotonic() + SETTLED_S
    while not found() and time.monotonic() < deadline:
        time.sleep(0.01)
    return found()


def test_what_a_killed_host_left_of_bubblewrap_is_ended_by_the_next_start(tmp_path: Path) -> None:
    assert killed_host(tmp_path), "nothing was left"
    Workplace(tmp_path, Bounds(2**30, 64))
    assert until(lambda: [1] if not of(tmp_path) else [])
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.mkdir()
    assert killed_host(theirs), "nothing was left"
    Workplace(ours, Bounds(2**30, 64))
    assert of(theirs)  # bubblewrap may still be setting up, so which processes these are may change
    Workplace(theirs, Bounds(2**30, 64))

"""A host that is killed while bubblewrap sets up leaves it behind; the next one in the same folder ends it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL

import pytest

from offgrid_node.executors import sandbox
from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.workplace import PREFIX, Workplace

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or sandbox.find()[0] is None, reason="bubblewrap does not work here"
)

# A host that starts a job as process.py does, and is killed at once: bubblewrap has not asked to die with it yet.
HOST = """
import os, signal, sys
from pathlib import Path
from offgrid_node.executors import confine, sandbox
import subprocess
found, folder = sandbox.find()[0], Path(sys.argv[1])
limits = confine.Limits(cpu_s=60, memory_bytes=2**30, file_bytes=2**20, open_files=64)
writing = os.open(os.devnull, os.O_WRONLY)
argv = found.command(["/bin/sleep", "60"], folder, limits, writing, -1)
subprocess.Popen(argv, pass_fds=[writing], start_new_session=True, env=confine.environment("/job"))
os.kill(os.getpid(), signal.SIGKILL)
"""
ROUNDS, SETTLED_S = 10, 10.0


def of(folder: Path) -> list[int]:
    """What was started for jobs in this folder and runs still."""
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            if os.fsencode(folder / PREFIX) in (Path("/proc") / pid / "cmdline").read_bytes().partition(b"--bind\0")[2]:
                found.append(int(pid))
        except OSError:
            continue
    return found


def killed_host(work: Path, number: int) -> None:
    job = work / f"{PREFIX}{number}"
    job.mkdir()
    subprocess.run([sys.executable, "-c", HOST, str(job)], check=False, stdout=DEVNULL, stderr=DEVNULL)


def test_what_a_killed_host_left_of_bubblewrap_is_ended_by_the_next_start(tmp_path: Path) -> None:
    for number in range(ROUNDS):
        killed_host(tmp_path, number)
        if of(tmp_path):
            break
    time.sleep(0.1)  # until it has set up, if it does
    assert of(tmp_path), "the window was never hit"
    Workplace(tmp_path, Bounds(2**30, 64))
    deadline = time.monotonic() + SETTLED_S
    while of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_is_left_alone(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    theirs.mkdir()
    for number in range(ROUNDS):
        killed_host(theirs, number)
        if of(theirs):
            break
    time.sleep(0.1)
    left = of(theirs)
    assert left, "the window was never hit"
    Workplace(ours, Bounds(2**30, 64))
    assert of(theirs) == left
    Workplace(theirs, Bounds(2**30, 64))

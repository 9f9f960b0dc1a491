"""Ends what a job has left running outside of its process group (Linux; elsewhere nothing here does anything).

Known by the HOME that the job was given, which whatever it starts inherits. With each such process go its children, and
all of its session: a job's first process leads one of its own, so nobody else's are in it. What has cast off its HOME,
its session and its parent as well is not found; its CPU limit ends it. (Where there are control groups only what
puts itself into another one gets that far, see cgroups.py.)

Behind bubblewrap all ends with the process namespace, but for one case: bubblewrap asks to die with its parent only
once it has begun, and does not look whether that still lives (containers/bubblewrap#633, #700). A host that is killed
in these milliseconds leaves its child behind, waiting for ever or at work. Its command line still says which folder it
was to bind, and its end is that of all inside.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
ROUNDS_MAX = 50  # what forks while it is looked for is found in the next one
PAUSE_S = 0.002  # between two: who is killed needs a moment


class Process(NamedTuple):
    pid: int
    parent: int
    session: int
    began: int  # in clock ticks of the machine's: with it, a number is one process's alone


def kill_strays(home: str | Path, *, beginning: bool = False) -> None:
    """Kills every process of ours whose HOME is `home`, or, where that is its `beginning`, begins so or is to be bound
    by a bubblewrap: those of an earlier life."""
    for _ in range(ROUNDS_MAX):
        if not _kill_once(os.fsencode(home), beginning=beginning):
            return
        time.sleep(PAUSE_S)


def _kill_once(home: bytes, *, beginning: bool) -> bool:
    """Whether there were any."""
    if sys.platform != "linux":
        return False
    end = b"" if beginning else b"\0"
    marked = {pid for pid in _pids() if _has(pid, "environ", b"\0HOME=" + home + end)}
    if beginning:
        marked |= {pid for pid in _pids() if _has(pid, "cmdline", b"\0--bind\0" + home)}
    if not marked:
        return False
    processes = [process for process in map(process_of, _pids()) if process is not None]
    strays = {process for process in processes if process.pid in marked}
    sessions = {process.session for process in strays} - {0, 1, os.getsid(0)}
    grown = True
    while grown:
        pids = {process.pid for process in strays}
        new = {p for p in processes if p not in strays and (p.parent in pids or p.session in sessions)}
        strays |= new
        grown = bool(new)
    for process in strays:
        _kill(process)
    return bool(strays)


def _kill(process: Process) -> None:
    """Unless its number is another's by now."""
    if sys.platform == "win32":
        return
    with suppress(OSError):
        try:
            fd = os.pidfd_open(process.pid)
        except OSError as error:
            if error.errno == errno.ENOSYS:  # a kernel before 5.3
                os.kill(process.pid, signal.SIGKILL)
            return
        try:
            now = process_of(process.pid)
            if now is not None and now.began == process.began:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdecimal() and int(name) != os.getpid()]


def process_of(pid: int) -> Process | None:
    """None of one that has ended, be it that nobody has waited for it."""
    try:
        fields = (PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        found = Process(pid, int(fields[1]), int(fields[3]), int(fields[19]))
    except (OSError, ValueError, IndexError):
        return None
    return found if fields[0] not in (b"Z", b"X") else None


def _has(pid: int, name: str, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:  # each job looks into all of them
            return mark in b"\0" + file.read()
    except OSError:  # it has ended meanwhile, or is another user's
        return False

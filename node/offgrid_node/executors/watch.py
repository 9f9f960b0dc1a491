"""Looks after a job's processes while they run (Linux): what all of them take together, which no limit of one holds.

Ten times a second, less often where looking at all that run takes long: how many they are, the memory that they have
touched, and what lies in the job's folder, with files that are deleted and still open. What is too much ends the job.
Where the kernel bounds their control group (cgroups.py), only the folder is left to be looked at.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from offgrid_node.executors import confine
from offgrid_node.executors.cgroups import Group

PROC = Path("/proc")
INTERVAL_S = 0.1
SHARE = 20  # looking at all jobs of a node together takes at most 1/20 of the time
FIRST_S = 0.02  # most jobs are short
ENTRIES_MAX = 10_000  # files and folders of one job
DEPTH_MAX = 64  # folders, one in another: what cannot be looked into cannot be bounded
HIDING = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
TICK_US = 1_000_000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Allowed(msgspec.Struct, frozen=True):
    """Of all processes of a job together. Without a namespace or group to find them by, it is the first one alone."""

    processes: int
    memory_bytes: int
    folder_bytes: int


class Hidden(Exception):
    """Not all of the job's folder can be seen; the message is a sentence for the job's owner."""


class Lookout:
    """What looking may cost one node: all its watches under way have equal parts of 1/SHARE of the time. A job that is
    slow to look at is looked at less often; the others are not."""

    def __init__(self) -> None:
        self._under_way: set[Watch] = set()

    def begin(self, watch: Watch) -> None:
        self._under_way.add(watch)

    def end(self, watch: Watch) -> None:
        self._under_way.discard(watch)

    def pause_s(self, took_s: float) -> float:
        """Until one that was `took_s` at it may look again."""
        return max(INTERVAL_S, SHARE * len(self._under_way) * took_s)


class Watch:
    """Of one job: `over` is called once, with a sentence, when it takes too much. Its processes are those of `group`
    or, with `namespace`, those of the first one's process namespace. `lookout` is its node's."""

    def __init__(
        self,
        allowed: Allowed,
        folder: Path,
        over: Callable[[str], None],
        *,
        namespace: bool = False,
        group: Group | None = None,
        lookout: Lookout,
    ) -> None:
        self._allowed, self._folder, self._over = allowed, folder, over
        self._namespace, self._group, self._lookout = namespace, group, lookout
        self.memory_peak_bytes = self.cpu_us = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, pid: int) -> None:
        """`pid` is the job's first process or, with a namespace, the first one in there. Elsewhere than on Linux
        nothing is looked at."""
        if not confine.LINUX:
            return
        loop = asyncio.get_running_loop()

        def look() -> None:
            began = time.perf_counter()
            problem = self.look(pid)
            if problem:
                self.end()
                self._over(problem)
                return
            self._timer = loop.call_later(self._lookout.pause_s(time.perf_counter() - began), look)

        self._lookout.begin(self)
        self._timer = loop.call_later(FIRST_S, look)

    def end(self) -> None:
        self._lookout.end(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def look(self, pid: int) -> str:
        """What is too much now; empty when nothing is."""
        allowed = self._allowed
        proc, pids, memory_bytes = self.measure(pid)
        if self._group is None or self._group.bounds is None:
            if len(pids) > allowed.processes:
                return f"it ran {len(pids)} processes; at most {allowed.processes} are allowed"
            if memory_bytes > allowed.memory_bytes:
                return f"its processes took {memory_bytes} bytes of memory; at most {allowed.memory_bytes} are allowed"
        deleted_bytes = sum(_deleted(proc, pids, self._folder).values())
        try:
            entries, folder_bytes = _size_of(self._folder)
        except Hidden as hidden:
            return str(hidden)
        if entries > ENTRIES_MAX:
            return f"it made more than {ENTRIES_MAX} files"
        if folder_bytes + deleted_bytes > allowed.folder_bytes:
            size = folder_bytes + deleted_bytes
            return f"its files take {size} bytes; at most {allowed.folder_bytes} are allowed"
        return ""

    def measure(self, pid: int) -> tuple[Path, list[str], int]:
        """Looks at what they have used; who they are, by which /proc, and the memory that they take now."""
        proc, pids = self._processes(pid)
        self.cpu_us = max(self.cpu_us, sum(_cpu_us(proc / name) for name in pids))
        memory_bytes = sum(_resident_bytes(proc / name) for name in pids)
        self.memory_peak_bytes = max(self.memory_peak_bytes, memory_bytes)
        return proc, pids, memory_bytes

    def _processes(self, pid: int) -> tuple[Path, list[str]]:
        """Their names, and the /proc where they have these."""
        if self._group is not None:
            return PROC, self._group.pids()
        if not self._namespace:
            return PROC, [str(pid)]
        proc = PROC / str(pid) / "root/proc"
        return proc, _inside(proc)


def _inside(proc: Path) -> list[str]:
    """The processes of another process namespace, by its own /proc; none while that is still the one of here."""
    try:
        if proc.stat().st_dev == PROC.stat().st_dev:
            return []
        return [name for name in os.listdir(proc) if name.isdecimal()]
    except OSError:  # it has ended
        return []


def _resident_bytes(entry: Path) -> int:
    try:
        return int((entry / "statm").read_bytes().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _cpu_us(entry: Path) -> int:
    """Its own and that of the children that it has waited for, in clock ticks at best (proc(5))."""
    try:
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
        return sum(map(int, fields[11:15])) * TICK_US
    except (OSError, IndexError, ValueError):
        return 0


def _deleted(proc: Path, pids: list[str], folder: Path) -> dict[int, int]:
    """Files that lie on the folder's file system under no name, held open: inode → bytes."""
    found: dict[int, int] = {}
    try:
        device = folder.stat().st_dev
    except OSError:
        return found
    for name in pids:
        try:
            fds = os.listdir(proc / name / "fd")
        except OSError:
            continue
        for fd in fds:
            try:
                about = (proc / name / "fd" / fd).stat()
            except OSError:
                continue
            if about.st_nlink == 0 and about.st_dev == device and stat.S_ISREG(about.st_mode):
                found[about.st_ino] = _taken_bytes(about)
    return found


def _size_of(folder: Path) -> tuple[int, int]:
    """How many entries, up to one more than ENTRIES_MAX, and how many bytes they take; no link is followed. Raises
    Hidden."""
    entries = total = 0
    for about in _below(folder):
        entries += 1
        total += _taken_bytes(about)
        if entries > ENTRIES_MAX:
            break
    return entries, total


def _taken_bytes(about: os.stat_result) -> int:
    """On the disk, whatever the file says of its length."""
    if sys.platform == "win32":
        return about.st_size
    return about.st_blocks * 512


def _below(folder: Path) -> Iterator[os.stat_result]:
    folders = [(os.fspath(folder), 0)]
    while folders:
        path, depth = folders.pop()
        if depth > DEPTH_MAX:
            raise Hidden(f"it made folders more than {DEPTH_MAX} deep")
        try:
            found = os.scandir(path)
        except OSError as error:
            if error.errno in HIDING:
                raise Hidden("it made a folder that its host cannot look into") from error
            continue  # it has gone meanwhile
        with found:
            for entry in found:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((entry.path, depth + 1))
                    yield entry.stat(follow_symlinks=False)
                except OSError:
                    continue

"""Control groups, version 2 (Linux; Documentation/admin-guide/cgroup-v2.rst): one for all that a job runs.

Nothing that a job starts leaves its group by a new session, parent or name. So the group is what is killed
(`cgroup.kill`, Linux 5.14), what is counted (`cpu.stat`), and, where the controllers are this node's to use, what the
kernel bounds: memory, processes, processor time. Without controllers there are groups without bounds: what they would
hold is looked at instead (`watch.py`). A job whose group cannot be made is not run without it. Which groups a node can
have is found out at its start (`cgroup_setup.py`).

Only the sandbox holds a job in its group for certain. What runs without one as the node's own user may write where the
node may: it can put itself into another group, by intent. The node's next start still finds it by its HOME (strays.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

BOUNDING = frozenset({"memory", "pids"})  # what must be there for a job's bounds to be the kernel's
THREADS_EACH = 4  # pids.max counts threads as well
PERIOD_US = 100_000  # of cpu.max: the kernel's own default
GONE_S, PAUSE_S = 2.0, 0.001  # what is killed needs a moment
SH = "/bin/sh"
# Becomes the program once it is inside: "0" is whoever writes.
JOIN = 'echo 0 >"$0" && exec "$@"'


class Files(Protocol):
    """What is needed of the system's file system of groups. All raise OSError."""

    def read(self, path: Path) -> str: ...

    def write(self, path: Path, text: str) -> None: ...

    def make(self, path: Path) -> None: ...

    def remove(self, path: Path) -> None: ...

    def below(self, path: Path) -> list[Path]: ...


class Kernel:
    """The real one."""

    def read(self, path: Path) -> str:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read()

    def write(self, path: Path, text: str) -> None:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)

    def make(self, path: Path) -> None:
        path.mkdir()

    def remove(self, path: Path) -> None:
        path.rmdir()

    def below(self, path: Path) -> list[Path]:
        with os.scandir(path) as found:
            return [Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False)]


class Bounds(msgspec.Struct, frozen=True):
    """Of all that a job runs, together. `cpu_percent` is of one processor; 0: all there are."""

    memory_bytes: int
    processes: int
    cpu_percent: int = 0

    def settings(self) -> dict[str, str]:
        quota = f"{self.cpu_percent * PERIOD_US // 100} {PERIOD_US}" if self.cpu_percent else ""
        return {
            "memory.max": str(self.memory_bytes),
            "memory.oom.group": "1",
            "pids.max": str(self.processes * THREADS_EACH),
            **({"cpu.max": quota} if quota else {}),
        }


class Group(msgspec.Struct, frozen=True):
    """One job's, or one warm process's."""

    folder: Path
    bounds: Bounds | None  # what the kernel holds; None: nothing
    files: Files

    def joining(self, argv: Sequence[str]) -> list[str]:
        """`argv`, in this group from its first instruction."""
        return [SH, "-c", JOIN, str(self.folder / "cgroup.procs"), *argv]

    def pids(self) -> list[str]:
        try:
            return self.files.read(self.folder / "cgroup.procs").split()
        except OSError:
            return []

    def cpu_us(self) -> int:
        """Of all that ever ran in it, those that have ended included; 0: nothing ever did."""
        return self._number("cpu.stat", "usage_usec")

    def memory_peak_bytes(self) -> int:
        """0 where the kernel does not say it (before 5.19, or without the controller)."""
        try:
            return int(self.files.read(self.folder / "memory.peak"))
        except (OSError, ValueError):
            return 0

    def over(self) -> str:
        """What the kernel has ended it for, a sentence; empty: nothing."""
        if self.bounds is None or not self._number("memory.events", "oom_kill"):
            return ""
        return f"its processes took more than the {self.bounds.memory_bytes} bytes of memory that are allowed"

    def kill(self) -> None:
        """Ends all that is in it, and waits for that."""
        deadline = time.monotonic() + GONE_S
        with suppress(OSError):
            self.files.write(self.folder / "cgroup.kill", "1")
            while self._number("cgroup.events", "populated") and time.monotonic() < deadline:
                time.sleep(PAUSE_S)

    def remove(self) -> None:
        """Kills what is left and removes it; what cannot be removed is left to the node's next start."""
        self.kill()
        with suppress(OSError):
            self.files.remove(self.folder)

    def _number(self, name: str, key: str) -> int:
        try:
            return _words(self.files.read(self.folder / name)).get(key, 0)
        except OSError:
            return 0


class Groups:
    """A folder of groups. `bounds` says whether the kernel holds what they are to hold, `holds_cpu` whether processor
    time too."""

    def __init__(self, folder: Path, controllers: frozenset[str], files: Files) -> None:
        self._folder, self._controllers, self._files = folder, controllers, files
        self._made = 0

    @property
    def bounds(self) -> bool:
        return self._controllers >= BOUNDING

    @property
    def holds_cpu(self) -> bool:
        return self.bounds and "cpu" in self._controllers

    def make(self, bounds: Bounds) -> Group:
        """A new one. Raises OSError when it cannot be made as it must be."""
        self._made += 1
        group = Group(self._folder / str(self._made), bounds if self.bounds else None, self._files)
        self._files.make(group.folder)
        try:
            self._files.write(group.folder / "cgroup.max.descendants", "0")  # a job makes none inside
            for name, text in bounds.settings().items() if self.bounds else ():
                self._files.write(group.folder / name, text)
            if self.bounds:
                with suppress(OSError):  # there is none where the kernel does not account for swap
                    self._files.write(group.folder / "memory.swap.max", "0")
        except BaseException:
            group.remove()
            raise
        return group

    def close(self) -> None:
        """Removes the folder, if nothing is left in it."""
        with suppress(OSError):
            self._files.remove(self._folder)


def _words(text: str) -> dict[str, int]:
    """A flat keyed file of the kernel's: a name and a number on each line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

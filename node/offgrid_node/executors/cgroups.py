"""Control groups, version 2 (Linux; Documentation/admin-guide/cgroup-v2.rst): one for all that a job runs.

Nothing that a job starts leaves its group by a new session, parent or name. So the group is what is killed
(`cgroup.kill`, Linux 5.14), what is counted (`cpu.stat`), and, where the controllers are this node's to use, what the
kernel bounds: memory, processes, processor time. On a system that keeps its controllers in version 1 (hybrid) there are
groups without bounds: what they would hold is looked at instead (`watch.py`). Which of the two is found out once, at
the start, and said; a job whose group cannot be made is not run without it.

Only the sandbox holds a job in its group for certain. What runs without one as the node's own user may write where the
node may: it can put itself into another group, by intent. The node's next start still finds it by its HOME (strays.py).

A group that has controllers may hold no process itself, so the node moves into one of its own beside its jobs'. That is
done only where the node is alone in its group, as a service with `Delegate=yes` is; elsewhere the kernel refuses it,
and groups have no bounds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from offgrid_node.executors.strays import process_of

SELF = Path("/proc/self")
NODE_NAME, JOBS_PREFIX = "offgrid-node", "offgrid-jobs-"
CONTROLLERS = ("memory", "pids", "cpu")
BOUNDING = frozenset({"memory", "pids"})  # what must be there for a job's bounds to be the kernel's
THREADS_EACH = 4  # pids.max counts threads as well
PERIOD_US = 100_000  # of cpu.max: the kernel's own default
GONE_S, PAUSE_S = 2.0, 0.001  # what is killed needs a moment
DIGEST_BYTES = 6
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


@dataclass(frozen=True, slots=True)
class Bounds:
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


@dataclass(frozen=True, slots=True)
class Group:
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


def find(data_dir: Path, files: Files | None = None, about: Path = SELF) -> tuple[Groups | None, str]:
    """Groups for the node whose folder this is, tried out; and what is missing of them, in a few words. What an earlier
    life of the node left running in its groups is killed."""
    if sys.platform != "linux":
        return None, "control groups are for Linux only"
    files = files or Kernel()
    try:
        own = own_group((about / "mountinfo").read_text(), (about / "cgroup").read_text())
        if own is None:
            return None, "this system has no control groups of version 2"
        base = own.parent if own.name == NODE_NAME else own
        folder = base / f"{JOBS_PREFIX}{_digest_of(data_dir)}-{Owner.ourselves()}"
        _sweep(files, folder)
        files.make(folder)
    except OSError as error:
        return None, f"no control group can be made: {error.strerror}"
    controllers, missing = _controllers(files, base, folder)
    groups = Groups(folder, controllers, files)
    problem = _try(groups)
    if problem:
        groups.close()
        return None, problem
    return groups, missing


def own_group(mountinfo: str, cgroup: str) -> Path | None:
    """The folder of this process's group of version 2 (proc(5), cgroups(7)); None where it cannot be seen."""
    name = next((line[3:] for line in cgroup.splitlines() if line.startswith("0::/")), "")
    for line in mountinfo.splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] != "cgroup2" or not name or ".." in name:
            continue
        root, mount = (_unescaped(word) for word in fields.split()[3:5])
        if Path(name).is_relative_to(root):
            return Path(mount) / Path(name).relative_to(root)
    return None


def _unescaped(word: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, sign)
    return word


class Owner(NamedTuple):
    """The node's process that a folder of groups belongs to, as the folder's name says it: with the moment that it
    began (clock ticks since the machine did), a number is one process's alone, within its namespace of processes."""

    pid: int
    began: int
    namespace: int

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @classmethod
    def ourselves(cls) -> Owner:
        """Raises OSError where /proc does not say it."""
        found = process_of(os.getpid())
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "there is no /proc")
        return cls(found.pid, found.began, (SELF / "ns/pid").stat().st_ino)

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        words = text.split("-")
        return cls(*map(int, words)) if len(words) == len(cls._fields) and all(map(str.isdecimal, words)) else None

    def has_gone(self) -> bool:
        """Only what can be known from here: another namespace's processes cannot be seen."""
        if self.namespace != Owner.ourselves().namespace:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's; /proc may hide it
            pass
        found = process_of(self.pid)
        return found is not None and found.began != self.began


def _digest_of(data_dir: Path) -> str:
    """The same for the same folder, another for every other one, by whatever path it is reached."""
    found = data_dir.stat()
    return hashlib.blake2b(f"{found.st_dev} {found.st_ino}".encode(), digest_size=DIGEST_BYTES).hexdigest()


def _controllers(files: Files, base: Path, folder: Path) -> tuple[frozenset[str], str]:
    """Those that groups in the folder have, having been asked for; and why not all that are needed."""
    try:
        there = [name for name in CONTROLLERS if name in files.read(base / "cgroup.controllers").split()]
        if not set(there) >= BOUNDING:
            missing = " and ".join(name for name in CONTROLLERS if name in BOUNDING and name not in there)
            return frozenset(), f"its control group has no controller for {missing}"
        asked = " ".join(f"+{name}" for name in there)
        _make_room(files, base, asked)
        files.write(folder / "cgroup.subtree_control", asked)
    except OSError as error:
        return frozenset(), f"the controllers of its control group are not its own: {error.strerror}"
    return frozenset(there), ""


def _make_room(files: Files, base: Path, asked: str) -> None:
    """Hands the controllers down; where this process is in the way, it moves. Raises OSError, with all as it was."""
    try:
        files.write(base / "cgroup.subtree_control", asked)
        return
    except OSError:
        pass
    home, ourselves = base / NODE_NAME, str(os.getpid())
    with suppress(FileExistsError):
        files.make(home)
    files.write(home / "cgroup.procs", ourselves)
    try:
        files.write(base / "cgroup.subtree_control", asked)
    except OSError:
        files.write(base / "cgroup.procs", ourselves)
        with suppress(OSError):
            files.remove(home)
        raise


def _try(groups: Groups) -> str:
    """Makes one as a job's would be; why that does not work, empty when it does."""
    try:
        group = groups.make(Bounds(2**30, 64, 100 if groups.holds_cpu else 0))
    except OSError as error:
        return f"a job's control group cannot be made: {error.strerror}"
    try:
        group.files.write(group.folder / "cgroup.kill", "1")
    except OSError:
        return "its control groups cannot be killed as one: that needs Linux 5.14"
    finally:
        group.remove()
    return ""


def _sweep(files: Files, folder: Path) -> None:
    """Ends what is left of this node's earlier lives, and removes what is empty of nodes that are gone, whose data
    folder may be gone as well. Raises OSError where an earlier life's cannot be ended."""
    ours = folder.name.removeprefix(JOBS_PREFIX).partition("-")[0]
    for path in files.below(folder.parent):
        digest, _, owner = path.name.removeprefix(JOBS_PREFIX).partition("-")
        if not path.name.startswith(JOBS_PREFIX):
            continue
        if digest == ours:
            _remove_all(files, path)
        elif (of := Owner.parse(owner)) is not None and of.has_gone():
            with suppress(OSError):  # something runs there still, or another node was faster
                _remove_empty(files, path)


def _remove_all(files: Files, folder: Path) -> None:
    for path in files.below(folder):
        Group(path, None, files).remove()
    files.remove(folder)


def _remove_empty(files: Files, folder: Path) -> None:
    for path in files.below(folder):
        files.remove(path)
    files.remove(folder)


def _words(text: str) -> dict[str, int]:
    """A flat keyed file of the kernel's: a name and a number on each line."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}

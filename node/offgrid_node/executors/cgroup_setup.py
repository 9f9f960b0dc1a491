"""Which control groups a node can have: looked for, tried out and set up once, at its start, and what is missing said.

A group that has controllers may hold no process itself, so the node moves into one of its own beside its jobs'. That is
done only where the node is alone in its group, as a service with `Delegate=yes` is; elsewhere the kernel refuses it,
and groups have no bounds. So it is where a system keeps its controllers in version 1 (hybrid).

Before that, what an earlier life of the node left running in its groups is ended. A folder of groups says in its name
whose it is: the node's by its data folder, and the process's.
"""

from __future__ import annotations

import errno
import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from offgrid_node.executors.cgroups import BOUNDING, Bounds, Files, Group, Groups, Kernel
from offgrid_node.executors.strays import process_of

SELF = Path("/proc/self")
NODE_NAME, JOBS_PREFIX = "offgrid-node", "offgrid-jobs-"
CONTROLLERS = ("memory", "pids", "cpu")
DIGEST_BYTES = 6


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

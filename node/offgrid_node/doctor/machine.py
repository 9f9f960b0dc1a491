"""What the system under a node grants it: the kind of its file system, open files, memory. As /proc tells on Linux;
elsewhere only what Python itself knows."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from offgrid_node.doctor.findings import Check, Needs, Said, command, fault, not_applicable, warning
from offgrid_node.doctor.subject import Subject

PROC = Path("/proc")
NETWORK = frozenset({"9p", "afs", "ceph", "cifs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3"})
WITHOUT_OWNERS = frozenset({"exfat", "fuseblk", "msdos", "ntfs", "ntfs3", "vfat"})
FILES_LEAST, FILES_NEARLY = 512, 0.8  # each connection takes one, each job some
MEMORY_LITTLE_MB, SWAPPED_MB = 96, 64
MIB_KB = 1024
_OCTAL = re.compile(r"\\([0-7]{3})")


def file_system_of(path: Path, mounts: Iterable[str]) -> tuple[str, str]:
    """Its kind and where it is mounted, by the lines of /proc/self/mountinfo (proc(5)); of two at one place the later
    one is seen."""
    found = ("", "")
    for line in mounts:
        head, _, tail = line.partition(" - ")
        place = _OCTAL.sub(lambda code: chr(int(code[1], 8)), head.split(" ")[4])
        if path.is_relative_to(place) and len(place) >= len(found[1]):
            found = (tail.split(" ")[0], place)
    return found


def _file_system(subject: Subject) -> Iterator[Said]:
    table = PROC / "self" / "mountinfo"
    if not table.exists():
        yield not_applicable("this system does not tell")
        return
    config, mounts = subject.config, table.read_text("utf-8", "surrogateescape").splitlines()
    elsewhere = f"cp -a {command(subject.path.absolute())} /A-LOCAL-DISK/   # with the node stopped; run it there"
    for key, path in (("storage.memory_db", config.storage.memory_db), ("node.data_dir", config.node.data_dir)):
        kind, place = file_system_of(path.absolute(), mounts)
        if kind in NETWORK:
            yield warning(
                f"{key} lies on a network's file system ({kind}, {place}): a store in shared memory can be damaged "
                "there, and its lock may not hold",
                elsewhere,
            )
            return
        if kind in WITHOUT_OWNERS:
            yield warning(
                f"{key} lies on a file system without owners ({kind}, {place}): keys there are everybody's on this "
                "machine, and a power cut can cost whole files",
                elsewhere,
            )
            return


def _descriptors(subject: Subject) -> Iterator[Said]:
    pid = subject.pid if subject.pid is not None else os.getpid()
    found = _open_files(pid)
    if found is None:
        yield not_applicable("this system does not tell")
        return
    used, most = found
    more = f"ulimit -n 4096 && {subject.node('run')}   # in a unit of systemd: LimitNOFILE=4096"
    if subject.pid is not None and used > FILES_NEARLY * most:
        yield fault(f"the node has {used} of {most} files open that it may have: soon nobody can connect", more)
    elif most < FILES_LEAST:
        whose = "the node" if subject.pid is not None else "a node that is started here"
        yield warning(f"{whose} may have only {most} files open at a time (connections are files, too)", more)


def _open_files(pid: int) -> tuple[int, int] | None:
    """How many it has open and how many it may have."""
    with suppress(OSError, ValueError, StopIteration, IndexError):
        limits = (PROC / str(pid) / "limits").read_text("ascii").splitlines()
        soft = next(line for line in limits if line.startswith("Max open files")).split()[3]
        return len(os.listdir(PROC / str(pid) / "fd")), sys.maxsize if soft == "unlimited" else int(soft)
    return None


def _memory(subject: Subject) -> Iterator[Said]:
    if not sys.platform.startswith("linux"):
        yield not_applicable("looked at on Linux only")
        return
    available_kb = _kb(PROC / "meminfo", "MemAvailable")
    if 0 < available_kb < MEMORY_LITTLE_MB * MIB_KB:
        yield warning(f"{available_kb // MIB_KB} MiB of memory are left on this machine", "ps aux --sort -rss | head")
    swapped_mb = _kb(PROC / str(subject.pid) / "status", "VmSwap") // MIB_KB if subject.pid is not None else 0
    if swapped_mb > SWAPPED_MB:
        yield warning(
            f"{swapped_mb} MiB of the node lie in swap: it answers slowly, and members take it for dead",
            "ps aux --sort -rss | head",
        )


def _kb(table: Path, name: str) -> int:
    """One figure of a table of "Name:  12 kB" lines; 0 where it is not there."""
    with suppress(OSError):
        for line in table.read_text("ascii", "replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


CHECKS = (
    Check("file-system", "the store lies on a disk of this machine, with owners", _file_system),
    Check("open-files", "the node may open enough files", _descriptors, Needs.NOTHING),
    Check("memory", "memory is left on this machine", _memory, Needs.NOTHING),
)

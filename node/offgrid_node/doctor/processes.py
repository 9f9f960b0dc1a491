"""Who has a port or a device open, as /proc tells on Linux. Of others' processes only root is told."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
LISTENING = "0A"  # TCP_LISTEN
ACCEPTS = "00010000"  # __SO_ACCEPTCON
CHARS_MAX = 60


def listener_on(port: int) -> str:
    """ "process 12 (nginx …)", or "" where that cannot be known."""
    inodes = {inode for name in ("tcp", "tcp6") for inode in _listening(PROC / "net" / name, port)}
    return _who({f"socket:[{inode}]" for inode in inodes}) if inodes else ""


def holder_of(device: Path, but: int | None = None) -> str:
    """Likewise, of whoever has a device open; without this process and the process `but`."""
    return _who({os.path.realpath(device)}, frozenset({but, os.getpid()}))


def listens_at_a_path(pid: int) -> bool:
    """Whether a process has a unix socket that listens and was given a path, be the file there still or not."""
    with suppress(OSError):
        rows = (line.split() for line in (PROC / "net" / "unix").read_text("utf-8", "replace").splitlines()[1:])
        inodes = {f"socket:[{row[6]}]" for row in rows if len(row) > 7 and row[3] == ACCEPTS and row[7][0] != "@"}
        return any(os.readlink(link) in inodes for link in (PROC / str(pid) / "fd").iterdir())
    return False


def is_stopped(pid: int) -> bool:
    """By a signal (SIGSTOP, SIGTSTP), as proc(5) tells."""
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_bytes().rpartition(b") ")[2][:1] == b"T"
    return False


def _listening(table: Path, port: int) -> Iterator[str]:
    with suppress(OSError):
        for line in table.read_text("ascii").splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                yield words[9]


def _who(targets: set[str], but: frozenset[int | None] = frozenset()) -> str:
    for folder in PROC.glob("[0-9]*"):
        pid = int(folder.name)
        if pid in but:
            continue
        with suppress(OSError):
            for link in (folder / "fd").iterdir():
                with suppress(OSError):
                    if os.readlink(link) in targets:
                        return f"process {pid}{_named(folder)}"
    return ""


def _named(folder: Path) -> str:
    with suppress(OSError):
        words = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        name = program_of(words)
        if name and name.isprintable():
            return f" ({name if len(name) <= CHARS_MAX else name[:CHARS_MAX] + '…'})"
    return ""


def program_of(words: Sequence[str]) -> str:
    """The program of a command line, of Python the script or module, and nothing of what that was given: passwords
    stand there."""
    name = Path(words[0].partition(" ")[0]).name.rstrip(":")  # a title that a process gave itself is one word
    match words[1:]:
        case ["-m", module, *_] if name.startswith("python"):
            return f"{name} -m {module}"
        case [script, *_] if name.startswith("python") and not script.startswith("-"):
            return Path(script).name
    return name

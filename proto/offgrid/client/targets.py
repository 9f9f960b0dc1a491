"""Where downloads go: a file appears whole or not at all; a pipe, a terminal or another device is written as it is."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

Target = str | os.PathLike[str]
MODE_BITS = 0o777  # of an older file that the new one takes; never its setuid
NEW_MODE = 0o666  # less the umask, as for any new file
OPENED = getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
NEW_PART = os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPENED  # what was planted under its name is never followed


@contextmanager
def replaced(target: Target, mode: int = NEW_MODE) -> Iterator[BinaryIO]:
    """A file to write that takes `target`'s place when the block ends well, and leaves nothing when it does not.

    The place is at the end of symbolic links, which stay; the new file has the old one's mode. Whatever is there and
    is no regular file is opened and written to: it cannot be taken back. OSError names `target`, whatever step failed.
    `mode`: of a file that was not there.
    """
    with naming(target):
        old = status(target)
        if old is not None and not stat.S_ISREG(old.st_mode):
            with os.fdopen(os.open(target, os.O_WRONLY | OPENED), "wb") as device:
                yield device
            return
        path = Path(os.path.realpath(target))
        part = _part_of(path)
        try:
            with os.fdopen(os.open(part, NEW_PART, mode if old is None else 0o600), "wb") as file:
                if old is not None:
                    part.chmod(old.st_mode & MODE_BITS)
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def check_target(target: Target) -> None:
    """Raises the OSError that `replaced` would begin with, so that nothing is done and paid for in vain.

    No device is opened: that would wait for whoever reads a pipe. What is there stays as it is.
    """
    with naming(target):
        old = status(target)
        if old is None or stat.S_ISREG(old.st_mode):
            part = _part_of(Path(os.path.realpath(target)))
            os.close(os.open(part, NEW_PART, 0o600))
            part.unlink()
        elif stat.S_ISDIR(old.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        elif not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def status(target: Target) -> os.stat_result | None:
    """None when nothing is there."""
    try:
        return Path(target).stat()
    except FileNotFoundError:
        return None


def _part_of(path: Path) -> Path:
    """In the same folder, for a rename cannot leave a disk; short, for a name may be as long as names can be."""
    return path.with_name(f".offgrid-{os.getpid()}-{secrets.token_hex(4)}.part")


@contextmanager
def naming(target: Target) -> Iterator[None]:
    """Errors of the system name the path that was asked for: a part's is nothing that anybody knows."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = os.fspath(target), None
        raise

"""Removes what a job has left in its folder, whatever that is: any depth, any modes, links to anywhere.

Nothing here calls itself once for each level, follows a link or holds a descriptor for each folder: jobs choose how
deep their folders are and what stands in them. `shutil.rmtree` does the first and, in TemporaryDirectory of Python up
to 3.11.7, changes the modes of what links lead to.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

BY_DESCRIPTOR = sys.platform != "win32" and {os.open, os.unlink, os.rmdir, os.rename, os.stat} <= os.supports_dir_fd
FOLDER_MODE = 0o700
ROUNDS_MAX = 100_000  # folders, one above the other, that are taken apart; what is deeper stays


def remove(folder: Path) -> bool:
    """The folder and all that is in it; whether nothing of it is left. Never raises OSError."""
    empty(folder)
    with suppress(OSError):
        os.rmdir(folder)
    return not os.path.lexists(folder)


def empty(folder: Path) -> bool:
    """All that is in it; whether nothing is left. Never raises OSError."""
    try:
        if not BY_DESCRIPTOR:
            return _empty_by_path(folder)
        top = _open(os.fspath(folder), None)
        try:
            names = _new_names()
            for _ in range(ROUNDS_MAX):
                if not _round(top, names):
                    break
            return not os.listdir(top)
        finally:
            os.close(top)
    except OSError:
        return False


def _round(top: int, names: Iterator[str]) -> bool:
    """Removes the files and empties the folders that lie right in `top`; the folders in those come up beside them, to
    be the next round's. Whether it got any further."""
    moved = False
    for name in os.listdir(top):
        if not _is_folder(name, top):
            with suppress(OSError):
                os.unlink(name, dir_fd=top)
            continue
        try:
            inner = _open(name, top)
        except OSError:
            continue
        try:
            for entry in os.listdir(inner):
                moved |= _take_out(entry, inner, top, names)
        except OSError:
            continue
        finally:
            os.close(inner)
        with suppress(OSError):
            os.rmdir(name, dir_fd=top)
    return moved


def _take_out(entry: str, inner: int, top: int, names: Iterator[str]) -> bool:
    try:
        if _is_folder(entry, inner):
            os.close(_open(entry, inner))  # only what can be written to can be moved
            os.rename(entry, next(names), src_dir_fd=inner, dst_dir_fd=top)
        else:
            os.unlink(entry, dir_fd=inner)
    except OSError:
        return False
    return True


def _new_names() -> Iterator[str]:
    """None that a job could have guessed."""
    return map(f".{secrets.token_hex(8)}-{{}}".format, itertools.count())


def _is_folder(name: str, parent: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _open(name: str, parent: int | None) -> int:
    """A folder, made ours to change first. Raises OSError, for a link as well."""
    if sys.platform == "win32":
        raise OSError("folders have no descriptors here")
    flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError, NotImplementedError):
        if sys.platform == "linux":  # where modes cannot be set without following a link, but by descriptor
            fd = os.open(name, flags | os.O_PATH, dir_fd=parent)
            try:
                if os.fstat(fd).st_mode & FOLDER_MODE != FOLDER_MODE:
                    os.chmod(f"/proc/self/fd/{fd}", FOLDER_MODE)
            finally:
                os.close(fd)
        else:
            os.chmod(name, FOLDER_MODE, dir_fd=parent, follow_symlinks=False)
    return os.open(name, flags | os.O_RDONLY, dir_fd=parent)


def _empty_by_path(folder: Path) -> bool:
    """Windows, where making links needs a right that jobs do not have."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            with suppress(RecursionError):
                shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    return not any(folder.iterdir())

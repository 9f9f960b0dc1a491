"""The folder under a store: who owns it, what its disk can do, and what to say when the disk refuses."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from offgrid_node.protocol.errors import FailedPrecondition, Unavailable

DISK_RETRY_MS = 1_000
LOW_SPACE_BYTES = 1024 * 1024  # less than this free is named as the likely cause

TO_ITS_END = 0  # a length
_SYNC_FILE_RANGE_WRITE = 2
_FSYNC_TRIES = 7
_FSYNC_BYTES = 4096

LOCK_FILE = "owner.lock"
LOCK_S = 0.2  # the doctor has it for a moment, to see whether anybody has
PID_FILE = "owner.pid"


def _find_sync_file_range() -> Callable[[int, int, int, int], object] | None:
    """Python's `os` does not have it."""
    if sys.platform != "linux":
        return None
    try:
        found = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):  # another C library
        return None
    found.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return found


_sync_file_range = _find_sync_file_range()


def make_folder(path: Path) -> None:
    """Makes `path` and its parents, closed to other users, and durable: what is kept inside would be lost with their
    names. Raises `Unavailable` (reason DiskError)."""
    fresh = [folder for folder in path.parents if not folder.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        for folder in (path, *fresh):  # this one even if it is there: whoever made it may have been killed
            with suppress(PermissionError):  # of a folder that others made: they have seen to it
                sync_folder(folder.parent)
    except OSError as error:
        raise disk_fault(path, f"cannot make the folder {path}", error) from error


class FolderOwner:
    """Keeps a folder for one process: the lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Takes the folder at once; raises `FailedPrecondition` (reason AlreadyRunning) when another has it."""
        self._path = path
        self._lock = FileLock(path / LOCK_FILE, timeout=LOCK_S, mode=0o600, thread_local=False)
        try:
            self._lock.acquire(poll_interval=LOCK_S / 10)
        except Timeout:
            raise FailedPrecondition(
                f"{path} is in use by another daemon (process {_holder(path)}): stop it, or choose another folder",
                reason="AlreadyRunning",
                metadata={"path": str(path), "pid": _holder(path)},
            ) from None
        except OSError as error:
            raise disk_fault(path, f"cannot lock {path}", error) from error
        try:
            _write_private(path / PID_FILE, f"{os.getpid()}\n")
        except OSError as error:
            self._lock.release()
            raise disk_fault(path, f"cannot write to {path}", error) from error

    def release(self) -> None:
        """Gives the folder back; a second call does nothing."""
        if self._lock.is_locked:
            (self._path / PID_FILE).unlink(missing_ok=True)
            self._lock.release()


def _holder(path: Path) -> str:
    try:
        return (path / PID_FILE).read_text(encoding="ascii").strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def _write_private(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def write_durably(path: Path, content: bytes) -> None:
    """Writes a small private file so that it is there whole, or not at all, after a power cut."""
    fresh = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
    with open(os.open(fresh, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        sync_file(file.fileno())
    fresh.replace(path)
    sync_folder(path.parent)


def sync_file(fd: int) -> None:
    """fsync as far as the system lets it: macOS needs F_FULLFSYNC to pass the drive's own cache."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def start_writing(fd: int, offset: int, length: int) -> None:
    """Lets the system write these bytes of a file to the disk in its own time, so that a later fsync has less to wait
    for. A wish and no promise: only Linux can (sync_file_range(2)), and what it meets with, that fsync tells."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, length, _SYNC_FILE_RANGE_WRITE)


def sync_folder(path: Path) -> None:
    """Makes new names in a folder durable; Windows journals them by itself and cannot open a folder."""
    if sys.platform == "win32":
        return
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def measure_fsync_ms(path: Path) -> float:
    """The median time of a small write and fsync in the folder `path`, in milliseconds.

    Raises `Unavailable` (reason DiskError) when the folder cannot be written.
    """
    times: list[float] = []
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            for _ in range(_FSYNC_TRIES):
                begun = time.perf_counter()
                file.write(bytes(_FSYNC_BYTES))
                file.flush()
                sync_file(file.fileno())
                times.append((time.perf_counter() - begun) * 1000)
    except OSError as error:
        raise disk_fault(path, f"cannot write to {path}", error) from error
    return statistics.median(times)


def disk_fault(path: Path, doing: str, cause: BaseException) -> Unavailable:
    """The fault of a disk that refused, with the cause in words; names a full disk when little is free."""
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    hint = f"check the disk under {path}"
    free = free_bytes(path)
    if isinstance(cause, PermissionError):
        hint = "the user that runs the node must be able to write there"
    elif free is not None and free < LOW_SPACE_BYTES:
        hint = f"the disk may be full: {free} bytes free at {path}"
    return Unavailable(f"{doing}: {said}; {hint}", reason="DiskError", retry_ms=DISK_RETRY_MS)


def free_bytes(path: Path) -> int | None:
    """What an ordinary user may still write there, or None when the system does not say."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None

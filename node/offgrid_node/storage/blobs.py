"""Bulk data as files: what is still coming in (staged) and what is whole (kept), told apart by folder.

A staged blob grows at its end only, so that a broken transfer goes on where it stopped. It becomes a kept one by fsync,
rename and fsync of both folders: under its name it is there whole and durable, or not at all (Pillai et al., "All File
Systems Are Not Created Equal", OSDI 2014). `memory_blobs.py` is the twin.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec

from offgrid.pieces import Buffer
from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, Fault, Internal, NotFound
from offgrid_node.storage.disk import (
    TO_ITS_END,
    disk_fault,
    free_bytes,
    make_folder,
    start_writing,
    sync_file,
    sync_folder,
)

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){0,126}\Z")
DISK_RESERVE_BYTES = 64 * 1024 * 1024  # never filled with blobs: the store on the same disk must be able to commit
STAGED_AGE_MAX_S = 7 * 24 * 3600  # what nobody went on with for so long is swept at start
RETRY_MS = 60_000  # a full disk does not empty itself at once
WRITING_BYTES = 2 << 20  # that much of a file has come, and the disk begins with it before the fsync
STAGED, KEPT = "staged", "kept"


class Staged(msgspec.Struct, frozen=True):
    """A blob that is still coming in. `age_s`: since its last piece."""

    name: str
    size_bytes: int
    age_s: float


class ReadableBlobs(Protocol):
    """What a `BlobStore` is to those who only read what is kept."""

    def size(self, name: str) -> int | None: ...

    def read(self, name: str, offset: int, length: int) -> bytes: ...


class BlobStore(Protocol):
    """Named blobs. Calls block: they belong into threads. One caller at a time for one name.

    Names are lower-case words of letters, digits, '-' and single dots; anything else is Internal, since no name comes
    from outside unchecked. A disk that refuses raises Unavailable (reason DiskError), a full one Exhausted (reason
    DiskFull); nothing half done is visible afterwards.
    """

    def append(self, staged: str, offset: int, data: Buffer) -> int:
        """Adds a piece at the end of a staged blob, which the first piece (of offset 0) makes; returns its new size.

        What is there already is not written again, so a piece may come twice. Raises FailedPrecondition (reason Gap,
        `offset` in the metadata) when bytes before it are missing.
        """
        ...

    def staged_bytes(self, staged: str) -> int:
        """0 when there is none."""
        ...

    def read_staged(self, staged: str, offset: int, length: int) -> bytes: ...

    def finish(self, staged: str, name: str) -> None:
        """Makes it durable, whole, under its final name. Raises NotFound when nothing is staged.

        When the disk refuses, what was staged is gone, and is not visible under its name either: a second fsync would
        find nothing left to write and succeed (fsyncgate, PostgreSQL 2018).
        """
        ...

    def finish_all(self, names: Mapping[str, str]) -> None:
        """The same for several, staged → final name: all that waits for the disk is waited for together. When it
        refuses one of them, none is there."""
        ...

    def sync(self, name: str) -> None:
        """Before anybody vouches anew for a kept one that he did not finish himself: it is durable when this returns.
        Raises NotFound when it is not kept here."""
        ...

    def discard(self, staged: str) -> None:
        """A missing one is no error."""
        ...

    def all_staged(self) -> list[Staged]: ...

    def size(self, name: str) -> int | None:
        """None when it is not kept here."""
        ...

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly so many bytes. Raises NotFound when it is not kept here, Corrupt when it ends before or when the disk
        has lost them (reason UnreadableBlob)."""
        ...

    def names(self) -> Iterator[str]:
        """Of all that is kept."""
        ...

    def delete(self, name: str) -> None:
        """A missing one is no error."""
        ...

    def free_bytes(self) -> int:
        """What may still be written."""
        ...


class FileBlobs:
    """Blobs in `folder`, one file each."""

    def __init__(self, folder: Path) -> None:
        """Makes the folders. Raises Unavailable (reason DiskError)."""
        self._folder = folder
        for place in (folder, folder / STAGED, folder / KEPT):
            make_folder(place)

    def append(self, staged: str, offset: int, data: Buffer) -> int:
        path = self._path(STAGED, staged)
        size = _size_of(path) or 0
        fresh = fresh_part(staged, size, offset, data)
        if not fresh and (offset or data):
            return size
        if self.free_bytes() < len(fresh):
            raise disk_full(self._folder, len(fresh))
        try:
            _write_at(path, size, fresh)
        except OSError as error:
            raise self._fault(f"cannot write to {path}", error) from error
        return size + len(fresh)

    def staged_bytes(self, staged: str) -> int:
        return _size_of(self._path(STAGED, staged)) or 0

    def read_staged(self, staged: str, offset: int, length: int) -> bytes:
        return self._read(self._path(STAGED, staged), offset, length)

    def finish(self, staged: str, name: str) -> None:
        self.finish_all({staged: name})

    def finish_all(self, names: Mapping[str, str]) -> None:
        moves = [(self._path(STAGED, staged), self._path(KEPT, name)) for staged, name in names.items()]
        visible = [source for source, _ in moves]
        try:
            for source in visible:
                _with_file(source, lambda fd: start_writing(fd, 0, TO_ITS_END))
            for source in visible:
                _with_file(source, sync_file)
            for place, (source, target) in enumerate(moves):
                source.replace(target)
                visible[place] = target
            for folder in (KEPT, STAGED):
                sync_folder(self._folder / folder)
        except FileNotFoundError as error:
            raise NotFound(f"{error.filename} is not there", reason="BlobNotFound") from error
        except OSError as error:
            for path in visible:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            raise self._fault(f"cannot make {', '.join(names.values())} durable", error) from error

    def sync(self, name: str) -> None:
        path = self._path(KEPT, name)
        try:
            _with_file(path, sync_file)
            sync_folder(path.parent)
        except FileNotFoundError as error:
            raise blob_missing(name) from error
        except OSError as error:
            raise self._fault(f"cannot make {path} durable", error) from error

    def discard(self, staged: str) -> None:
        self._unlink(self._path(STAGED, staged))

    def all_staged(self) -> list[Staged]:
        now_s, found = time.time(), []
        for entry in self._entries(STAGED):
            try:
                status = entry.stat()
            except FileNotFoundError:
                continue
            found.append(Staged(entry.name, status.st_size, max(0.0, now_s - status.st_mtime)))
        return found

    def size(self, name: str) -> int | None:
        return _size_of(self._path(KEPT, name))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._read(self._path(KEPT, name), offset, length)

    def names(self) -> Iterator[str]:
        return (entry.name for entry in self._entries(KEPT))

    def delete(self, name: str) -> None:
        self._unlink(self._path(KEPT, name))

    def free_bytes(self) -> int:
        free = free_bytes(self._folder)
        return 0 if free is None else max(0, free - DISK_RESERVE_BYTES)

    # ---- inside

    def _path(self, place: str, name: str) -> Path:
        check_name(name)
        return self._folder / place / name

    def _entries(self, place: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder / place) as entries:
                return sorted((entry for entry in entries if NAME.match(entry.name)), key=lambda entry: entry.name)
        except OSError as error:
            raise self._fault(f"cannot list {self._folder / place}", error) from error

    def _read(self, path: Path, offset: int, length: int) -> bytes:
        try:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                data = file.read(length)
        except FileNotFoundError as error:
            raise blob_missing(path.name) from error
        except OSError as error:
            if error.errno == errno.EIO:
                raise blob_unreadable(path.name) from error
            raise self._fault(f"cannot read {path}", error) from error
        if len(data) != length:
            raise blob_short(path.name, offset + len(data), offset + length)
        return data

    def _unlink(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise self._fault(f"cannot delete {path}", error) from error

    def _fault(self, doing: str, error: OSError) -> Fault:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return disk_full(self._folder, 0)
        return disk_fault(self._folder, doing, error)


def sweep(blobs: BlobStore, known: Callable[[str], bool], lost: Callable[[str], bool] = lambda staged: False) -> int:
    """At start: deletes kept blobs that no row names (those that one does are `known`), which a crash left between the
    file and its row, and staged ones that are `lost` or that nobody went on with. Returns how many."""
    swept = 0
    for name in list(blobs.names()):
        if not known(name):
            blobs.delete(name)
            swept += 1
    for staged in blobs.all_staged():
        if lost(staged.name) or staged.age_s > STAGED_AGE_MAX_S:
            blobs.discard(staged.name)
            swept += 1
    return swept


# ---- what every implementation says in the same words


def check_name(name: str) -> None:
    if not NAME.match(name):
        raise Internal(f"{name!r} is no name for a blob", reason="BadBlobName")


def fresh_part(staged: str, size: int, offset: int, data: Buffer) -> Buffer:
    """What of a piece is not there yet. Raises FailedPrecondition (reason Gap)."""
    if offset > size:
        raise FailedPrecondition(
            f"{staged} has {size} bytes, a piece at {offset} would leave a gap",
            reason="Gap",
            metadata={"offset": str(size)},
        )
    return data[size - offset :]


def disk_full(place: Path | str, wanted_bytes: int) -> Exhausted:
    return Exhausted(
        f"the disk under {place} is full: {wanted_bytes} bytes more would leave less than "
        f"{DISK_RESERVE_BYTES} free; make room there",
        reason="DiskFull",
        retry_ms=RETRY_MS,
    )


def blob_missing(name: str) -> NotFound:
    return NotFound(f"blob {name} is not here", reason="BlobNotFound")


def blob_short(name: str, end: int, wanted: int) -> Corrupt:
    return Corrupt(f"blob {name} ends at {end}, {wanted} bytes were to be read", reason="BlobTruncated")


def blob_unreadable(name: str) -> Corrupt:
    return Corrupt(f"the disk has lost bytes of blob {name}", reason="UnreadableBlob")


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        raise disk_fault(path, f"cannot look at {path}", error) from error


def _with_file(path: Path, work: Callable[[int], None]) -> None:
    with path.open("r+b") as file:
        work(file.fileno())


def _write_at(path: Path, size: int, data: Buffer) -> None:
    """All of it behind `size`, or nothing."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    try:
        os.lseek(fd, size, os.SEEK_SET)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        begun, end = (at - at % WRITING_BYTES for at in (size, size + len(data)))
        if end > begun:
            start_writing(fd, begun, end - begun)
    except OSError:
        os.ftruncate(fd, size)
        raise
    finally:
        os.close(fd)

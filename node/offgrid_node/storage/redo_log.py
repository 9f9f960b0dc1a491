"""The redo log: batches that are durable and not in the store's own file yet, in one file of a fixed length.

A record is a batch with the number of the transaction that it comes after, its place behind it, and a digest over all
that and over the record before. So a record counts only behind the very store that it was written for: once the store
has moved on, all that stands in the file is void, and writing begins at its start again. Records start at blocks of
their own; nothing that is durable is ever written over. (Write-ahead logging as in ARIES, Mohan et al. 1992; blocks
written before they are needed, as by PostgreSQL and etcd: an overwrite changes no size, so it is one flush.)
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

from offgrid_node.storage.disk import sync_file, sync_folder
from offgrid_node.storage.store import Batch

LOG_FILE = "redo.log"
LOG_BYTES = 2 * 1024 * 1024  # 512 small batches
BLOCK_BYTES = 4096  # what a disk writes whole or, cut off, leaves in doubt
RECORD_BYTES_MAX = 256 * 1024  # a larger batch is no dearer in the store's own file

_HEADER = struct.Struct(">4sQIIII")  # magic, transaction, place, bytes of the body, events, rows
_MAGIC = b"OGR1"
_DIGEST_BYTES = 16
_PERSON = b"og.redo.v1"
_LENGTH = struct.Struct(">I")
_ROW = struct.Struct(">BHI")  # bytes of the table's name, of the key, of the value
_DELETED = 0xFFFF_FFFF  # in place of a value's length
_WRITTEN_THROUGH = getattr(os, "O_DSYNC", 0) if sys.platform == "linux" else 0


class RedoLog:
    """The file, and where in it the next record belongs. One thread at a time; methods raise OSError."""

    def __init__(self, folder: Path) -> None:
        """Opens the log in `folder`, making it if need be."""
        path = folder / LOG_FILE
        flags = os.O_RDWR | os.O_CREAT | _WRITTEN_THROUGH | getattr(os, "O_BINARY", 0)
        self._fd = os.open(path, flags, 0o600)
        try:
            size = os.fstat(self._fd).st_size
            if size < LOG_BYTES:
                self._write(bytes(LOG_BYTES - size), size)
                sync_file(self._fd)
                sync_folder(folder)
        except BaseException:
            self.close()
            raise
        self.begin(0, b"")

    def begin(self, txn: int, seal: bytes) -> None:
        """Records from here on come after transaction `txn` of the store whose end `seal` names."""
        self._txn, self._place, self._at = txn, 0, 0
        self._previous = _digest(b"", b"%d" % txn, seal)

    def has_room(self, body: bytes) -> bool:
        return self._at + _blocks(body) <= LOG_BYTES

    def append(self, batch: Batch, body: bytes) -> None:
        """Makes the batch, whose `body_of` is given, durable; there must be room."""
        header = _HEADER.pack(_MAGIC, self._txn, self._place, len(body), len(batch.events), len(batch.writes))
        digest = _digest(self._previous, header, body)
        self._write(header + digest + body, self._at)
        if not _WRITTEN_THROUGH:
            sync_file(self._fd)
        self._went_on(digest, body)

    def read(self) -> Iterator[Batch]:
        """What is there from `begin` on, durable from the first look on; what is appended comes behind it."""
        data = self._read_all()
        found = self._next(data)
        if found is not None:
            sync_file(self._fd)  # a process that was killed may have left it in the system's memory alone
        while found is not None:
            yield found
            found = self._next(data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # ---- inside

    def _went_on(self, digest: bytes, body: bytes) -> None:
        self._previous, self._place, self._at = digest, self._place + 1, self._at + _blocks(body)

    def _next(self, data: bytes) -> Batch | None:
        start = self._at + _HEADER.size + _DIGEST_BYTES
        if start > len(data):
            return None
        header = data[self._at : self._at + _HEADER.size]
        magic, txn, place, size, events, rows = _HEADER.unpack(header)
        if (magic, txn, place) != (_MAGIC, self._txn, self._place) or start + size > len(data):
            return None
        digest, body = data[start - _DIGEST_BYTES : start], data[start : start + size]
        if digest != _digest(self._previous, header, body):
            return None
        self._went_on(digest, body)
        return _batch_of(body, events, rows)

    def _read_all(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        parts: list[bytes] = []
        while part := os.read(self._fd, LOG_BYTES):
            parts.append(part)
        return b"".join(parts)

    def _write(self, data: bytes, at: int) -> None:
        left = memoryview(data)
        while left:
            if sys.platform == "win32":
                os.lseek(self._fd, at, os.SEEK_SET)
                written = os.write(self._fd, left)
            else:
                written = os.pwrite(self._fd, left, at)
            left, at = left[written:], at + written


def body_of(batch: Batch) -> bytes:
    """A batch as a record has it; the store has checked its bounds."""
    parts: list[bytes] = []
    for event in batch.events:
        parts += (_LENGTH.pack(len(event)), event)
    for (table, key), value in batch.writes.items():
        name = table.encode("ascii")
        parts += (_ROW.pack(len(name), len(key), _DELETED if value is None else len(value)), name, key, value or b"")
    return b"".join(parts)


def _batch_of(body: bytes, events: int, rows: int) -> Batch:
    """The digest says that the body is one."""
    batch, at = Batch(), 0
    for _ in range(events):
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(body, at)[0]
        batch.events.append(body[start:at])
    for _ in range(rows):
        name_bytes, key_bytes, value_bytes = _ROW.unpack_from(body, at)
        name_at = at + _ROW.size
        key_at = name_at + name_bytes
        value_at = key_at + key_bytes
        at = value_at + (0 if value_bytes == _DELETED else value_bytes)
        value = None if value_bytes == _DELETED else body[value_at:at]
        batch.writes[body[name_at:key_at].decode("ascii"), body[key_at:value_at]] = value
    return batch


def _blocks(body: bytes) -> int:
    """The bytes that a record takes up."""
    size = _HEADER.size + _DIGEST_BYTES + len(body)
    return size + -size % BLOCK_BYTES


def _digest(*parts: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES, person=_PERSON)
    for part in parts:
        state.update(part)
    return state.digest()

"""The redo log: batches that are durable and not in the store's own file yet, in one file of a fixed length.

    head, one block: magic 4 | id of the log 16 | digest 16
    records, each in blocks of its own: magic 4 | transaction 8 | place 4 | bytes of the body 4 | events 4 | rows 4
        | digest over the record before, this header and the body 16 | check over all before it 8 | body
    mark, in the last block: magic 4 | transaction 8 | records 4 | records before 4 | what they follow 8
        | check over the mark before it 8

Numbers are big-endian; digests are BLAKE2b (RFC 7693) under the log's id as key, so that nobody's data looks like a
record. A record counts only behind the very store that it was written for: once the store has moved on, all that
stands in the file is void, and writing begins at its start again. Nothing that is durable is ever written over.
(Write-ahead logging as in ARIES, Mohan et al. 1992; blocks written before they are needed, as by PostgreSQL and etcd:
an overwrite changes no size, so it is one flush.)

A record is appended only once the one before it is durable. So where the log ends too early, whatever follows of the
same transaction shows it ("Protocol-Aware Recovery", Alagappan et al. 2018). Of the very last record the mark tells:
how many records of which transaction are durable, and how many of the transaction before went into the store with this
one, where they are all that did. It is written once that is so, into the system's memory alone, and costs no flush: of
a process that was killed it is there, so a last record that it tells of and that is not there was damaged; without it,
as a power cut may leave the file, such a one counts as not finished. A store that is one transaction behind the mark
has lost its newest (LMDB begins with the one before where that is torn): the records that went into that make it good,
and where there was more the store is refused. So is one whose end is another than that of the same transaction was.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.disk import sync_file, sync_folder
from offgrid_node.storage.store import Batch

LOG_FILE = "redo.log"
LOG_ID_BYTES = 16
BLOCK_BYTES = 4096  # what a disk writes whole or, cut off, leaves in doubt
RECORDS_BYTES = 2 * 1024 * 1024  # 512 small batches
RECORDS_END = BLOCK_BYTES + RECORDS_BYTES
LOG_BYTES = RECORDS_END + BLOCK_BYTES
RECORD_BYTES_MAX = 256 * 1024  # a larger batch is no dearer in the store's own file

_MARK = struct.Struct(">4sQII8s")  # magic, transaction, records of it, of the one before, the head of a digest
_MARK_MAGIC = b"OGRM"  # in a block of its own: a power cut may leave anything there
_NOT_ALL = 0xFFFF_FFFF  # in place of the records before: the store took more than them
_HEADER = struct.Struct(">4sQIIII")  # magic, transaction, place, bytes of the body, events, rows
_HEAD_MAGIC, _MAGIC = b"OGRL", b"OGR2"
_DIGEST_BYTES, _CHECK_BYTES = 16, 8
_FRAME_BYTES = _HEADER.size + _DIGEST_BYTES + _CHECK_BYTES
_PERSON = b"og.redo.v2"
_LENGTH = struct.Struct(">I")
_ROW = struct.Struct(">BHI")  # bytes of the table's name, of the key, of the value
_DELETED = 0xFFFF_FFFF  # in place of a value's length
_WRITTEN_THROUGH = getattr(os, "O_DSYNC", 0) if sys.platform == "linux" else 0
_FLAGS = os.O_RDWR | _WRITTEN_THROUGH | getattr(os, "O_BINARY", 0)


class _Mark(NamedTuple):
    txn: int
    records: int
    before: int
    follows: bytes


class _End(NamedTuple):
    """Where the next record belongs, and what it follows."""

    previous: bytes
    place: int = 0
    at: int = BLOCK_BYTES


class RedoLog:
    """The file, and where in it the next record belongs. One thread at a time; methods raise OSError."""

    def __init__(self, path: Path, log_id: bytes, fd: int) -> None:
        """Use `make` or `open`."""
        self._path, self._id, self._fd = path, log_id, fd
        self._lazy_fd = -1
        try:
            self._lazy_fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        except BaseException:
            self.close()
            raise
        self.begin(0, b"")

    @classmethod
    def make(cls, folder: Path, log_id: bytes) -> RedoLog:
        """A new and empty log in `folder`, durable under its name; whatever had this name is gone."""
        path = folder / LOG_FILE
        log = cls(path, log_id, os.open(path, _FLAGS | os.O_CREAT | os.O_TRUNC, 0o600))
        try:
            log._write(_head(log_id) + bytes(LOG_BYTES - BLOCK_BYTES), 0, log._fd)
            sync_file(log._fd)
            sync_folder(folder)
        except BaseException:
            log.close()
            raise
        return log

    @classmethod
    def open(cls, folder: Path, log_id: bytes) -> RedoLog:
        """The log that was made in `folder` under this id; raises `Corrupt` (StoreMissing, StoreDamaged)."""
        path = folder / LOG_FILE
        try:
            log = cls(path, log_id, os.open(path, _FLAGS))
        except FileNotFoundError:
            raise _refused(path, "is missing", reason="StoreMissing") from None
        try:
            log._lengthen()
            log._check_head(log._read_all())
        except BaseException:
            log.close()
            raise
        return log

    def begin(self, txn: int, seal: bytes) -> None:
        """Records from here on come after transaction `txn` of the store whose end `seal` names."""
        self._txn, self._before = txn, _NOT_ALL
        self._first = self._end = _End(_digest(self._id, b"%d" % txn, seal))

    def note_moved(self, before: int | None) -> None:
        """After `begin`: that transaction is durable, and took these many records of the one before, all that were
        there, and nothing else; None: others, or more."""
        self._before = _NOT_ALL if before is None else before
        self._write_mark()

    @property
    def records(self) -> int:
        """Since `begin`."""
        return self._end.place

    def has_room(self, body: bytes) -> bool:
        return self._end.at + _blocks(body) <= RECORDS_END

    def append(self, batch: Batch, body: bytes) -> None:
        """Makes the batch, whose `body_of` is given, durable; there must be room.

        After an OSError nobody knows whether it is there: `begin` behind a later transaction before the next one."""
        previous, place, at = self._end
        header = _HEADER.pack(_MAGIC, self._txn, place, len(body), len(batch.events), len(batch.writes))
        digest = _digest(self._id, previous, header, body)
        self._write(header + digest + _check(self._id, header, digest) + body, at, self._fd)
        if not _WRITTEN_THROUGH:
            sync_file(self._fd)
        self._end = _End(digest, place + 1, at + _blocks(body))
        self._write_mark()

    def read(self, former_seal: bytes = b"") -> list[Batch]:
        """What is there from `begin` on; what is appended comes behind it. `former_seal`: what logs that have no mark
        yet knew the same end by; behind such records `begin` comes before `append`. Raises `Corrupt` (StoreDamaged)
        when it shows that there was more, or that the store is older than its log."""
        data = self._read_all()
        batches, self._end = self._walk(data)
        if not batches and former_seal and self._mark(data) is None:
            self._first = _End(_digest(self._id, b"%d" % self._txn, former_seal))
            batches, self._end = self._walk(data)
        self._check_behind(data)
        self._check_mark(data)
        if batches:
            sync_file(self._fd)  # a process that was killed may have left it in the system's memory alone
        return batches

    def check(self) -> None:
        """Raises `Corrupt` unless the file is in its place and holds all that was appended since `begin`; a record that
        the disk refused may stand behind it."""
        try:
            same = os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            same = False
        if not same:
            raise _refused(self._path, "was taken away", reason="StoreMissing")
        data = self._read_all()
        self._check_head(data)
        end = self._walk(data)[1]
        if end.place < self._end.place:
            raise self._damaged(end.place)

    def close(self) -> None:
        for fd in (self._fd, self._lazy_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._lazy_fd = -1

    # ---- inside

    def _lengthen(self) -> None:
        """A log of before had no block for a mark."""
        if os.fstat(self._fd).st_size == RECORDS_END:
            os.ftruncate(self._fd, LOG_BYTES)
            sync_file(self._fd)

    def _check_head(self, data: bytes) -> None:
        if data[:BLOCK_BYTES] != _head(self._id):
            raise _refused(self._path, "is damaged at its head, or another store's")
        if len(data) != LOG_BYTES:
            raise _refused(self._path, f"has {len(data)} of its {LOG_BYTES} bytes")

    def _walk(self, data: bytes) -> tuple[list[Batch], _End]:
        batches: list[Batch] = []
        end = self._first
        while (found := self._next(data, end)) is not None:
            batch, end = found
            batches.append(batch)
        return batches, end

    def _next(self, data: bytes, end: _End) -> tuple[Batch, _End] | None:
        frame = self._frame(data, end.at)
        if frame is None or frame[:2] != (self._txn, end.place):
            return None
        _, place, size, events, rows = frame
        start = end.at + _FRAME_BYTES
        header, body = data[end.at : end.at + _HEADER.size], data[start : start + size]
        digest = _digest(self._id, end.previous, header, body)
        if data[end.at + _HEADER.size :][:_DIGEST_BYTES] != digest:
            return None
        return _batch_of(body, events, rows), _End(digest, place + 1, end.at + _blocks(body))

    def _frame(self, data: bytes, at: int) -> tuple[int, int, int, int, int] | None:
        """Transaction, place, size, events and rows, if a record begins at this block."""
        if data[at : at + len(_MAGIC)] != _MAGIC:
            return None
        header, rest = data[at : at + _HEADER.size], data[at + _HEADER.size : at + _FRAME_BYTES]
        digest, check = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
        if check != _check(self._id, header, digest):
            return None
        _, txn, place, size, events, rows = _HEADER.unpack(header)
        return (txn, place, size, events, rows) if at + _FRAME_BYTES + size <= RECORDS_END else None

    def _check_behind(self, data: bytes) -> None:
        """What an earlier transaction left is void. Of this one at most a last record is there, not finished."""
        for at in range(self._end.at, RECORDS_END, BLOCK_BYTES):
            frame = self._frame(data, at)
            if frame is None or frame[0] < self._txn:
                continue
            if frame[0] > self._txn:
                what = f"follows transaction {frame[0]} of a store that is at {self._txn}: the store's file is older"
                raise _refused(self._path, what)
            if (at, frame[1]) != (self._end.at, self._end.place):
                raise self._damaged(self._end.place)

    def _write_mark(self) -> None:
        """A help only, that no disk needs to take."""
        mark = _MARK.pack(_MARK_MAGIC, self._txn, self._end.place, self._before, self._first.previous)
        with suppress(OSError):
            self._write(mark + _check(self._id, mark, b""), RECORDS_END, self._lazy_fd)

    def _mark(self, data: bytes) -> _Mark | None:
        mark, check = data[RECORDS_END : RECORDS_END + _MARK.size], data[RECORDS_END + _MARK.size :][:_CHECK_BYTES]
        magic, *told = _MARK.unpack(mark)
        return _Mark(*told) if (magic, check) == (_MARK_MAGIC, _check(self._id, mark, b"")) else None

    def _check_mark(self, data: bytes) -> None:
        """A store that has gone on without telling this log knows more than the mark."""
        mark, found = self._mark(data), self._end.place
        if mark is None or mark.txn < self._txn:
            return
        if mark.txn == self._txn and found < mark.records:
            raise _refused(self._path, f"is damaged at its record {found}, which was durable")
        if mark.txn == self._txn and mark.follows != self._first.previous[: len(mark.follows)]:
            raise _refused(self._path, f"knows another end of transaction {mark.txn} than the store has")
        if mark.txn > self._txn and mark[:3] != (self._txn + 1, 0, found):
            what = f"knows of transaction {mark.txn}, and the store is at {self._txn}: the store's file is older"
            raise _refused(self._path, what)

    def _damaged(self, place: int) -> Corrupt:
        return _refused(self._path, f"is damaged at its record {place}, and others follow")

    def _read_all(self) -> bytes:
        os.lseek(self._fd, 0, os.SEEK_SET)
        parts: list[bytes] = []
        while part := os.read(self._fd, LOG_BYTES):
            parts.append(part)
        return b"".join(parts)

    def _write(self, data: bytes, at: int, fd: int) -> None:
        left = memoryview(data)
        while left:
            if sys.platform == "win32":
                os.lseek(fd, at, os.SEEK_SET)
                written = os.write(fd, left)
            else:
                written = os.pwrite(fd, left, at)
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
    size = _FRAME_BYTES + len(body)
    return size + -size % BLOCK_BYTES


def _head(log_id: bytes) -> bytes:
    head = _HEAD_MAGIC + log_id
    return (head + _digest(log_id, head)).ljust(BLOCK_BYTES, b"\0")


def _digest(log_id: bytes, *parts: bytes) -> bytes:
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES, key=log_id, person=_PERSON)
    for part in parts:
        state.update(part)
    return state.digest()


def _check(log_id: bytes, header: bytes, digest: bytes) -> bytes:
    return hashlib.blake2b(header + digest, digest_size=_CHECK_BYTES, key=log_id, person=_PERSON).digest()


def _refused(path: Path, what: str, *, reason: str = "StoreDamaged") -> Corrupt:
    text = f"the store's log {path} {what}: commits would be lost; restore the whole folder from a backup"
    return Corrupt(text, reason=reason)

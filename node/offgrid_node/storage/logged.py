"""The store of a node: small batches go to a redo log and lie over the LMDB store, which takes many of them at once.

LMDB flushes twice for each transaction and copies each page that it touches; a record of the log is one write to
blocks that are there already. What lies above is served from memory, and is written below by a checkpoint: when it
has grown, at the end, and before whatever only LMDB can judge (a new table, a large batch, a store that is nearly
full). A store that was left with records in its log begins with a checkpoint of them.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault
from offgrid_node.protocol.sound import key_in
from offgrid_node.storage.disk import disk_fault
from offgrid_node.storage.lmdb import INITIAL_MAP_BYTES, LmdbStore
from offgrid_node.storage.redo_log import LOG_ID_BYTES, RECORD_BYTES_MAX, RedoLog, body_of
from offgrid_node.storage.rows import KeyRange, check_batch, check_key
from offgrid_node.storage.store import Batch

OVERLAY_BYTES_MAX = 1024 * 1024  # in memory; a checkpoint of it takes some ten milliseconds
OVERLAY_ROWS_MAX = 2_048
# What a checkpoint may need of the file at most: a path of pages copied for each row, and the values; of rows there
# are less than twice OVERLAY_ROWS_MAX. With less left every batch goes to LMDB itself, which says in time that it is
# full.
SPARE_BYTES = 64 * 1024 * 1024

Row = tuple[bytes, bytes]
Writes = Mapping[tuple[str, bytes], bytes | None]


class _Overlay:
    """Batches that lie over the store below, which ends at event `base_seq`; replaced by each checkpoint.

    Only grows, so that a reader in another thread sees each row as it was or as it is."""

    __slots__ = ("_keys", "_sorted", "base_seq", "batch", "size_bytes", "version")

    def __init__(self, base_seq: int) -> None:
        self.base_seq = base_seq
        self.batch = Batch()
        self.size_bytes = self.version = 0
        self._keys: dict[str, list[bytes]] = {}  # of each table, as they came
        self._sorted: dict[str, list[bytes]] = {}  # of the tables that were scanned: the first so many of them in order

    def lay(self, batch: Batch, size_bytes: int) -> None:
        writes = self.batch.writes
        fresh = [name for name in batch.writes if name not in writes]
        writes.update(batch.writes)
        for table, key in fresh:
            self._keys.setdefault(table, []).append(key)
        self.batch.events += batch.events
        self.size_bytes += size_bytes
        self.version += 1

    @property
    def journal_seq(self) -> int:
        return self.base_seq + len(self.batch.events)

    @property
    def is_full(self) -> bool:
        return self.size_bytes >= OVERLAY_BYTES_MAX or len(self.batch.writes) >= OVERLAY_ROWS_MAX

    def keys(self, table: str, span: KeyRange, *, reverse: bool) -> list[bytes]:
        """Those of the table that are in `span`."""
        came, keys = self._keys.get(table, ()), self._sorted.get(table, [])
        if len(keys) < len(came):
            keys = self._sorted[table] = sorted(keys + sorted(came[len(keys) :]))  # two runs: merged, not sorted
        end = len(keys) if span.end is None else bisect_left(keys, span.end)
        found = keys[bisect_left(keys, span.low) : end]
        return found[::-1] if reverse else found


class LoggedStore:
    """A `Store` in a folder of its own. Use `open`; `close` gives the folder back."""

    def __init__(self, path: Path, below: LmdbStore) -> None:
        self._path, self._below = path, below
        self._writer = threading.Lock()
        self._log: RedoLog | None = None
        self._tables: frozenset[str] = frozenset()
        self._txn = 0  # of the store below, as the log and the overlay know it
        self._spacious = self._in_doubt = self._broken = self._closed = False
        self._overlay = _Overlay(below.journal_seq)

    @classmethod
    def open(cls, path: Path, *, limit_bytes: int, initial_map_bytes: int = INITIAL_MAP_BYTES) -> LoggedStore:
        """As `LmdbStore.open`, which also says what is raised for the log: it is part of the store."""
        store = cls(path, LmdbStore.open(path, limit_bytes=limit_bytes, initial_map_bytes=initial_map_bytes))
        try:
            store._open_log()
        except BaseException as error:
            store._drop_log()
            store._below.close()
            if isinstance(error, OSError):
                raise disk_fault(path, f"cannot open the store's log in {path}", error) from error
            raise
        return store

    def _open_log(self) -> None:
        """A killed process knew what this one cannot: of a record or a transaction that the disk refused, the system's
        memory may show what a power cut takes away, or the other way about ("Can Applications Recover from fsync
        Failures?"). So nothing is appended before a transaction has come after whatever was left."""
        log_id = self._below.log_id
        if log_id:
            self._log = RedoLog.open(self._path, log_id)
        else:
            log_id = os.urandom(LOG_ID_BYTES)
            self._log = RedoLog.make(self._path, log_id)
            self._below.move_on(log_id)
        self._begin()
        for batch in self._log.read():
            self._overlay.lay(batch, len(body_of(batch)))
        self._in_doubt = self._spacious or bool(self._overlay.batch)
        self._try_checkpoint()

    # ---- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        check_key(table, key)
        writes = self._settled().batch.writes
        if (table, key) in writes:
            return writes[table, key]
        return self._below.get(table, key)

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[Row]:
        return self._scan(table, KeyRange.of(table, start, prefix, end), reverse)

    def _scan(self, table: str, span: KeyRange, reverse: bool) -> Iterator[Row]:
        """Goes on anew wherever a commit came in between, from the last row that was given."""
        last: bytes | None = None
        while True:
            overlay = self._settled()
            version, above, writes = overlay.version, overlay.keys(table, span, reverse=reverse), overlay.batch.writes
            rows = self._rows_below(table, span, above, writes, reverse)
            if above:
                rows = _merged(above, writes, table, rows, reverse)
            for key, value in rows:
                if key == last:
                    continue
                last = key
                yield key, value
                if self._overlay is not overlay or overlay.version != version:
                    break
            else:
                return
            span = KeyRange(span.low, last) if reverse else KeyRange(last, span.end)

    def _rows_below(
        self, table: str, span: KeyRange, above: list[bytes], writes: Writes, reverse: bool
    ) -> Iterator[Row]:
        """Those that are damaged are left out where one of the keys above, or beside the range a write, stands in their
        place."""
        asked = span
        while True:
            try:
                yield from self._below.span(table, span, reverse=reverse)
            except Corrupt as fault:
                key = key_in(fault, table)
                rest = KeyRange(span.low, key) if reverse else KeyRange(key + b"\0", span.end)
                is_above = key in above if key in asked else (table, key) in writes
                if not is_above or rest == span:
                    raise
                span = rest
                if span.end is not None and span.low >= span.end:
                    return
            else:
                return

    @property
    def tables(self) -> frozenset[str]:
        """What lies above is in tables that the store below has."""
        return self._below.tables

    @property
    def journal_seq(self) -> int:
        with suppress(Fault):  # while nothing can be read it is what it was
            self._settled()
        return self._overlay.journal_seq

    @property
    def journal_floor(self) -> int:
        return self._below.journal_floor

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        return self._events_down(after_seq) if reverse else self._events_up(after_seq)

    def _events_up(self, after_seq: int) -> Iterator[tuple[int, bytes]]:
        seq = after_seq
        while (seq := max(seq, self._below.journal_floor)) < (overlay := self._settled()).base_seq:
            for at, event in self._below.events(seq):
                yield at, event
                seq = at
        above = overlay.batch.events[seq - overlay.base_seq :]
        yield from enumerate(above, seq + 1)

    def _events_down(self, after_seq: int) -> Iterator[tuple[int, bytes]]:
        overlay = self._settled()
        base, above = overlay.base_seq, list(overlay.batch.events)
        for seq in range(base + len(above), max(base, after_seq), -1):
            yield seq, above[seq - base - 1]
        for seq, event in self._below.events(after_seq, reverse=True):
            if seq <= base:
                yield seq, event

    def _settled(self) -> _Overlay:
        """What lies over the store below, now that it is known what the store below holds. Raises as reads do."""
        if self._in_doubt:
            with self._writer:
                self._look_below()
        return self._overlay

    # ---- writing

    def commit(self, batch: Batch) -> int:
        check_batch(batch)
        with self._writer:
            self._mend()
            if not batch:
                self._below.commit(batch)  # says when the store is closed
            elif not self._append(batch):
                self._pass_down(batch)
            return self._overlay.journal_seq

    def _append(self, batch: Batch) -> bool:
        """Whether the batch went to the log; it belongs below otherwise."""
        if self._log is None or not self._spacious or not self._knows_tables(batch):
            return False
        if batch.floor or len(batch.writes) > OVERLAY_ROWS_MAX:
            return False
        body = body_of(batch)
        if len(body) > RECORD_BYTES_MAX:
            return False
        if self._overlay.is_full or not self._log.has_room(body):
            self._checkpoint()
            if not self._spacious:
                return False
        try:
            self._log.append(batch, body)
        except BaseException as error:
            self._broken = True
            with suppress(Fault):
                self._mend()
            if isinstance(error, OSError):
                raise disk_fault(self._path, f"the disk under {self._path} refused a write", error) from error
            raise
        self._overlay.lay(batch, len(body))
        return True

    def _knows_tables(self, batch: Batch) -> bool:
        return all(table in self._tables for table, _ in batch.writes)

    def _look_below(self) -> None:
        """A transaction that failed may be there or not: its number tells, once the store below can be read."""
        if self._in_doubt and self._below.txn != self._txn:
            self._begin()

    def _mend(self) -> None:
        """Nobody knows whether a record that failed is on the disk; once the store below has moved on, it is void.

        So is, whatever it was, a transaction of which the disk may have kept more than it said: should it come back
        after a power cut, records behind the one before it would be void instead. Nothing is written before both are
        settled."""
        self._look_below()
        if self._in_doubt or self._broken:
            self._commit_below(self._overlay.batch)

    def _pass_down(self, batch: Batch) -> None:
        self._checkpoint()
        try:
            self._commit_below(batch)
        except Fault:
            with suppress(Fault):
                self._look_below()  # should it be there after all, nobody is to find half of it
            raise

    def _checkpoint(self) -> None:
        if self._overlay.batch:
            self._commit_below(self._overlay.batch)

    def _try_checkpoint(self) -> None:
        with suppress(Fault):  # the log keeps what cannot be written below now
            self._mend()
            self._checkpoint()

    def _commit_below(self, batch: Batch) -> None:
        """With an empty batch the store below moves on all the same."""
        try:
            if batch:
                self._below.commit(batch)
            else:
                self._below.move_on()
            self._begin()
        except Exhausted:  # nothing was tried
            raise
        except BaseException:
            self._in_doubt = True
            raise

    def _begin(self) -> None:
        """The store below has moved on: all that lay above is in it."""
        txn, tables = self._below.txn, self._below.tables
        spare_bytes = self._below.limit_bytes() - self._below.size_bytes()
        if self._log is not None:
            self._log.begin(txn, self._below.seal)
        self._txn, self._tables, self._spacious = txn, tables, spare_bytes >= SPARE_BYTES
        self._overlay = _Overlay(self._below.journal_seq)
        self._in_doubt = self._broken = False

    # ---- the rest

    def verify(self) -> Sequence[str]:
        """As `Store.verify`, after a checkpoint if the disk takes one; then of the log, which may hold what is not
        below yet, and of the store below."""
        with self._writer:
            self._try_checkpoint()
            return [*self._verify_log(), *self._below.verify()]

    def _verify_log(self) -> Iterator[str]:
        try:
            if self._log is not None:
                self._log.check()
        except Fault as fault:
            yield fault.message
        except OSError as error:
            yield disk_fault(self._path, f"cannot read the store's log in {self._path}", error).message

    def size_bytes(self) -> int:
        return self._below.size_bytes()

    def limit_bytes(self) -> int:
        return self._below.limit_bytes()

    def close(self) -> None:
        """Waits for a running commit, closes the files and gives the folder back; a second call does nothing."""
        with self._writer:
            if self._closed:
                return
            self._try_checkpoint()
            self._closed = True
            self._overlay = _Overlay(self._below.journal_seq)
            self._drop_log()
            self._below.close()

    def _drop_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


def _merged(above: list[bytes], writes: Writes, table: str, below: Iterator[Row], reverse: bool) -> Iterator[Row]:
    """The rows below, with those of the keys above in their place; both in the order of the scan. Raises Corrupt where
    the store below does, with all given that comes before."""
    at = 0
    try:
        for row in below:
            key = row[0]
            while at < len(above) and (above[at] > key if reverse else above[at] < key):
                yield from _written(writes, table, above[at])
                at += 1
            if at < len(above) and above[at] == key:
                yield from _written(writes, table, key)
                at += 1
            else:
                yield row
    except Corrupt as fault:
        damaged = bytes.fromhex(fault.metadata.get("key", ""))
        for key in above[at:]:
            if damaged and (key > damaged if reverse else key < damaged):
                yield from _written(writes, table, key)
        raise
    for key in above[at:]:
        yield from _written(writes, table, key)


def _written(writes: Writes, table: str, key: bytes) -> Iterator[Row]:
    """Unless it was deleted."""
    value = writes[table, key]
    if value is not None:
        yield key, value

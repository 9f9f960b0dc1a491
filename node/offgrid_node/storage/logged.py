"""The store of a node: small batches go to a redo log and lie over the LMDB store, which takes many of them at once.

LMDB flushes twice for each transaction and copies each page that it touches; a record of the log is one write to
blocks that are there already. What lies above is served from memory, and is written below by a checkpoint: when it
has grown, at the end, and before whatever only LMDB can judge (a new table, a large batch, a store that is nearly
full). A store that was left with records in its log begins with a checkpoint of them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from offgrid_node.protocol.errors import Corrupt, Exhausted, Fault, Unavailable
from offgrid_node.protocol.sound import key_in
from offgrid_node.storage.copying import drop_copy
from offgrid_node.storage.disk import disk_fault, sync_folder
from offgrid_node.storage.lmdb import INITIAL_MAP_BYTES, LmdbStore
from offgrid_node.storage.overlay import OVERLAY_ROWS_MAX, Overlay, Remembered, Row, merged
from offgrid_node.storage.redo_log import LOG_ID_BYTES, RECORD_BYTES_MAX, RedoLog, body_of
from offgrid_node.storage.rows import KeyRange, check_batch, check_key
from offgrid_node.storage.store import Batch

# What a checkpoint may need of the file at most: a path of pages copied for each row, and the values; of rows there
# are less than twice OVERLAY_ROWS_MAX. With less left every batch goes to LMDB itself, which says in time that it is
# full.
SPARE_BYTES = 64 * 1024 * 1024

RETRY_MS = 60_000


class LoggedStore:
    """A `Store` in a folder of its own. Use `open`; `close` gives the folder back."""

    def __init__(self, path: Path, below: LmdbStore) -> None:
        self._path, self._below = path, below
        self._writer = threading.Lock()
        self._log: RedoLog | None = None
        self._tables: frozenset[str] = frozenset()
        self._txn = 0  # of the store below, as the log and the overlay know it
        self._spacious = self._in_doubt = self._broken = self._closed = False
        self._overlay = Overlay(below.journal_seq)
        self._remembered: Remembered | None = None

    @classmethod
    def open(cls, path: Path, *, limit_bytes: int, initial_map_bytes: int = INITIAL_MAP_BYTES) -> LoggedStore:
        """As `LmdbStore.open`, which also says what is raised for the log: it is part of the store."""
        store = cls(path, LmdbStore.open(path, limit_bytes=limit_bytes, initial_map_bytes=initial_map_bytes))
        drop_copy(path)  # what a process before this one has left
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
        for batch in self._find_log().read(self._below.former_seal):
            self._overlay.lay(batch, len(body_of(batch)))
        self._in_doubt = self._spacious or bool(self._overlay.batch)
        self._try_checkpoint()

    def _find_log(self) -> RedoLog:
        """The store below knows of none when it is new, or its file another one since; that file is durable under its
        name before what is in the log of before goes."""
        log_id = self._below.log_id
        if log_id:
            log = RedoLog.open(self._path, log_id)
        else:
            log_id = os.urandom(LOG_ID_BYTES)
            sync_folder(self._path)
            log = RedoLog.make(self._path, log_id)
            try:
                self._below.move_on(log_id)
            except BaseException:
                log.close()
                raise
        self._log = log
        self._begin()
        return log

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
            version, above = overlay.rows(table, span, reverse=reverse)
            rows = self._rows_below(table, span, {key for key, _ in above}, overlay.batch.writes, reverse)
            if above:
                rows = merged(above, rows, reverse)
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
        self,
        table: str,
        span: KeyRange,
        above: Collection[bytes],
        writes: Mapping[tuple[str, bytes], bytes | None],
        reverse: bool,
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
    def path(self) -> Path:
        return self._path

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

    def _settled(self) -> Overlay:
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
        if self._log is None and not self._closed:
            try:
                self._find_log()
            except OSError as error:
                raise disk_fault(self._path, f"cannot open the store's log in {self._path}", error) from error

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
        base_seq = self._below.journal_seq
        records = self._log.records if self._log is not None and batch is self._overlay.batch else None
        try:
            if batch:
                self._below.commit(batch)
            else:
                self._below.move_on()
            self._begin()
            if self._log is not None:
                self._log.note_moved(records)
        except Exhausted:  # nothing was tried
            raise
        except BaseException:
            self._in_doubt, self._remembered = True, None
            raise
        if self._remembered is not None:
            self._remembered.add(base_seq, batch)

    def _begin(self) -> None:
        """The store below has moved on: all that lay above is in it."""
        txn, tables = self._below.txn, self._below.tables
        spare_bytes = self._below.limit_bytes() - self._below.size_bytes()
        if self._log is not None:
            self._log.begin(txn, self._below.seal)
        self._txn, self._tables, self._spacious = txn, tables, spare_bytes >= SPARE_BYTES
        self._overlay = Overlay(self._below.journal_seq)
        self._in_doubt = self._broken = False

    # ---- copies (copying.py, compacting.py)

    def checkpoint(self) -> None:
        """All is in the store's own file. Raises as `commit` does."""
        with self._writer:
            self._mend()
            self._checkpoint()

    def remember(self, remembered: Remembered | None) -> None:
        """From a checkpoint on, what goes to the store below goes there too; None: nowhere. Raises as `commit` does."""
        with self._writer:
            if remembered is not None:
                self._mend()
                self._checkpoint()
            self._remembered = remembered

    def take_over(self, bring: Callable[[Remembered], Path]) -> None:
        """Puts another file in the place of this store's: `bring` gives it, with all that was remembered, and no log
        above it. Commits wait meanwhile. Raises Unavailable, and what `bring` raises; then nothing has changed."""
        with self._writer:
            self._mend()
            self._checkpoint()
            remembered, self._remembered = self._remembered, None
            if remembered is None:
                raise Unavailable("a write has failed meanwhile", reason="CompactionBroken", retry_ms=RETRY_MS)
            data = bring(remembered)
            self._drop_log()  # it belongs to the file of before
            try:
                self._below.take_over(data)
            finally:
                self._mend()

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

    def table_bytes(self, table: str) -> int:
        return self._below.table_bytes(table)

    def journal_bytes(self) -> int:
        return self._below.journal_bytes()

    def size_bytes(self) -> int:
        return self._below.size_bytes()

    def used_bytes(self) -> int:
        """Of `size_bytes`; the rest are free pages."""
        return self._below.used_bytes()

    def limit_bytes(self) -> int:
        return self._below.limit_bytes()

    def close(self) -> None:
        """Waits for a running commit, closes the files and gives the folder back; a second call does nothing."""
        with self._writer:
            if self._closed:
                return
            self._try_checkpoint()
            self._closed = True
            self._overlay = Overlay(self._below.journal_seq)
            self._drop_log()
            self._below.close()

    def _drop_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

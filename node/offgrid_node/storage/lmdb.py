"""The store on disk: LMDB, one transaction per batch, fsynced before `commit` returns.

One thread at a time commits (any thread); reads may run beside it on others. A gate is held for each short read and
for whatever replaces the map (growing, reopening), never across an fsync. After a failed write LMDB would go on as if
nothing had happened, so the environment is opened anew first (`lmdb_held.py`). `lmdb_events.py` walks the journal,
`lmdb_tables.py` changes rows.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import lmdb

from offgrid_node.protocol.errors import Corrupt, Exhausted, InvalidRequest
from offgrid_node.storage.disk import FolderOwner, make_folder
from offgrid_node.storage.lmdb_change import Change, change_of
from offgrid_node.storage.lmdb_env import (
    FLOOR_KEY,
    JOURNAL,
    LOG_KEY,
    META,
    SEEN_MAX,
    TABLE,
    TAIL_KEY,
    Opened,
    fault_of,
    log_value,
    open_environment,
    sum_key,
    sum_value,
    tail_value,
)
from offgrid_node.storage.lmdb_events import events_down, events_up
from offgrid_node.storage.lmdb_held import HeldEnvironment
from offgrid_node.storage.lmdb_read import Chunk, Tally, check_above, check_below, check_order, read_down, read_up
from offgrid_node.storage.lmdb_tables import TableWrites
from offgrid_node.storage.lmdb_verify import verify_environment
from offgrid_node.storage.rows import (
    CHUNK_ROWS,
    TABLES_MAX,
    KeyRange,
    RowSeal,
    TableSum,
    check_batch,
    check_key,
    damaged_order,
)
from offgrid_node.storage.store import Batch

INITIAL_MAP_BYTES = 64 * 1024 * 1024
LIMIT_BYTES_MIN = 1024 * 1024
FREEING_RESERVE_BYTES = 1024 * 1024  # deletions copy pages too: without it a full store could not be emptied
STORE_FULL_RETRY_MS = 60_000


class LmdbStore:
    """A `Store` in a folder of its own. Use `open`; `close` gives the folder back."""

    def __init__(self, path: Path, owner: FolderOwner, opened: Opened, map_bytes: int, limit_bytes: int) -> None:
        self._path = path
        self._held = HeldEnvironment(path, owner, opened, map_bytes)
        self._limit_bytes = limit_bytes
        self._writer = threading.Lock()
        self._seals: dict[str, RowSeal] = {}

    @classmethod
    def open(cls, path: Path, *, limit_bytes: int, initial_map_bytes: int = INITIAL_MAP_BYTES) -> LmdbStore:
        """Opens the store in the folder `path`, making it if there is none, and takes the folder for this process.

        The file grows to `limit_bytes` at most. Raises `FailedPrecondition` (AlreadyRunning: another process has the
        folder; WrongFormat), `Corrupt` (StoreMissing, StoreDamaged, Journal…), `Unavailable` (DiskError) or
        `InvalidRequest` (a limit below 1 MiB).
        """
        if limit_bytes < LIMIT_BYTES_MIN:
            raise InvalidRequest.field("limit_bytes", f"is {limit_bytes}, at least {LIMIT_BYTES_MIN} needed")
        make_folder(path)
        owner = FolderOwner(path)
        map_bytes = min(initial_map_bytes, limit_bytes)
        try:
            opened = open_environment(path, map_bytes)
        except BaseException:
            owner.release()
            raise
        return cls(path, owner, opened, map_bytes, limit_bytes)

    # ---- reading

    def get(self, table: str, key: bytes) -> bytes | None:
        check_key(table, key)
        span = KeyRange(key, key + b"\0")
        around = None
        try:
            with self._held.gate:
                opened = self._held.usable()
                db = opened.dbs.get(TABLE + table)
                if db is None:
                    opened.check_absent(table, key)
                    return None
                with opened.env.begin(db=db) as txn:
                    stored = txn.get(key)
                    if stored is None:
                        with txn.cursor() as cursor:
                            around = read_up(cursor, span, None)
                self._saw(opened, 1)
        except (lmdb.Error, OSError) as error:
            raise fault_of(error, "cannot read the store", self._path) from error
        seal = self._seal(table)
        if stored is not None:
            return seal.unwrap(key, stored)
        if around is not None:
            opened.check_absent(table, key)
            try:
                check_order(table, around)
                check_below(table, seal, span, around)
                check_above(table, seal, span, around)
                if around.rows:
                    raise damaged_order(table, key)
            except Corrupt as fault:
                opened.doubt(table, fault)
                raise
        return None

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self.span(table, KeyRange.of(table, start, prefix, end), reverse=reverse)

    def span(self, table: str, span: KeyRange, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """As `scan`, of the keys in `span`. Rows come before what lies beyond them is looked at."""
        with self._held.gate:
            opened = self._held.usable()
            opened.check_trusted(table)
        try:
            yield from self._span(table, span, reverse=reverse)
        except Corrupt as fault:
            opened.doubt(table, fault)
            raise

    def _span(self, table: str, span: KeyRange, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        seal = self._seal(table)
        tally = self._tally(table) if span == KeyRange(b"", None) else None
        last: bytes | None = None
        more = True
        while more:
            if last is not None:
                span = KeyRange(span.low, last) if reverse else KeyRange(last, span.end)
            chunk = self._chunk(TABLE + table, span, None if reverse else last, reverse=reverse)
            check_order(table, chunk, reverse=reverse)
            near, far = (partial(check_above, seen=True), check_below) if reverse else (check_below, check_above)
            near(table, seal, span, chunk)
            for key, stored in chunk.rows:
                if key == last:
                    raise damaged_order(table, key)
                yield key, seal.unwrap(key, stored)
                last = key
            far(table, seal, span, chunk)
            more = chunk.more
            if tally is not None:
                tally.add(chunk)
        if tally is not None:
            tally.check()

    def _tally(self, table: str) -> Tally:
        with self._held.gate:
            opened = self._held.usable()
            return Tally(table, (opened.number, opened.synced_txn), opened.sums.get(table, TableSum()))

    @property
    def journal_seq(self) -> int:
        return self._held.tail.seq

    @property
    def journal_floor(self) -> int:
        return self._held.floor_seq

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        read = partial(self._chunk, JOURNAL)
        if reverse:
            return events_down(read, self._held.tail.seq, lambda: self._held.floor_seq, after_seq)
        return events_up(read, lambda: self._held.tail.seq, lambda: self._held.floor_seq, after_seq)

    def _chunk(
        self, name: str, span: KeyRange, after: bytes | None, *, reverse: bool = False, rows_max: int = CHUNK_ROWS
    ) -> Chunk:
        """One short read transaction, see `read_up` and `read_down`."""
        try:
            with self._held.gate:
                opened = self._held.usable()
                db = opened.dbs.get(name)
                if db is None:
                    return Chunk()
                with opened.env.begin(db=db) as txn, txn.cursor() as cursor:
                    chunk = read_down(cursor, span, rows_max) if reverse else read_up(cursor, span, after, rows_max)
                    chunk.snapshot = (opened.number, txn.id())
                self._saw(opened, len(chunk.rows))
                return chunk
        except (lmdb.Error, OSError) as error:
            raise fault_of(error, "cannot read the store", self._path) from error

    def _saw(self, opened: Opened, count: int) -> None:
        """Rows were read; the gate is held. While somebody writes, the map stays as it is: they will see to it."""
        opened.seen += count
        if opened.seen >= SEEN_MAX and self._writer.acquire(blocking=False):
            try:
                self._held.lay_map(opened)
            finally:
                self._writer.release()

    def _seal(self, table: str) -> RowSeal:
        seal = self._seals.get(table)
        if seal is None:
            seal = RowSeal(table)
            if len(self._seals) < TABLES_MAX:
                self._seals[table] = seal
        return seal

    # ---- writing

    def commit(self, batch: Batch) -> int:
        check_batch(batch)
        with self._writer:
            opened = self._held.now()
            if not batch:
                return self._held.tail.seq
            change = self._change_of(opened, batch)
            ceiling = self._limit_bytes + (FREEING_RESERVE_BYTES if batch.only_frees else 0)
            while not self._write(opened, change):
                self._grow(opened, ceiling)
            if batch.only_frees:
                self._give_back_reserve()
            opened.seen += len(change.packs) + len(batch.writes)
            if opened.seen >= SEEN_MAX:
                with self._held.gate:
                    self._held.lay_map(opened)
            return self._held.tail.seq

    def _change_of(self, opened: Opened, batch: Batch) -> Change:
        try:
            return change_of(opened, batch)
        except (lmdb.Error, OSError) as error:
            raise fault_of(error, "cannot read the journal", self._path) from error

    def _write(self, opened: Opened, change: Change, log_id: bytes = b"") -> bool:
        """One try at the transaction; False when the map is full and nothing was written."""
        number = 0
        tables, tail, drop = TableWrites(opened), change.tail, change.drop
        self._held.floor_seq = drop.floor.seq
        try:
            with opened.env.begin(write=True, buffers=True) as txn:
                number = txn.id()
                journal, meta = opened.dbs[JOURNAL], opened.dbs[META]
                for key in drop.keys:
                    txn.delete(key, db=journal)
                for key, pack in change.packs:
                    if not txn.put(key, pack, append=True, db=journal):
                        raise Corrupt("journal: there are events behind its end", reason="JournalForked")
                for table, rows in change.rows.items():
                    tables.write(txn, table, rows, self._seal(table))
                txn.put(TAIL_KEY, tail_value(tail), db=meta)
                if drop.floor != opened.floor:
                    txn.put(FLOOR_KEY, tail_value(drop.floor, FLOOR_KEY), db=meta)
                if log_id:
                    txn.put(LOG_KEY, log_value(log_id), db=meta)
                for table, total in tables.sums.items():
                    txn.put(sum_key(table), sum_value(table, total), db=meta)
        except lmdb.MapFullError:
            self._held.floor_seq = opened.floor.seq
            return False
        except (lmdb.Error, OSError) as error:
            self._held.recover(number, error)
            return True
        except BaseException:
            with self._held.gate:
                self._held.shut()  # whatever it was: look at the disk again before the next step
            raise
        opened.dbs.update(tables.made)
        opened.sums.update(tables.sums)  # before synced_txn: see Tally
        opened.tail = self._held.tail = tail
        opened.floor = drop.floor
        opened.log_id = log_id or opened.log_id
        info = opened.env.info()
        opened.synced_txn = self._held.synced_txn = info["last_txnid"]
        opened.runway.keep((info["last_pgno"] + 1) * opened.page_bytes, info["map_size"])
        return True

    def _grow(self, opened: Opened, ceiling: int) -> None:
        with self._held.gate:
            size = opened.env.info()["map_size"]
            if size >= ceiling:
                raise Exhausted(
                    f"the store in {self._path} has reached its limit of {self._limit_bytes} bytes: raise "
                    "storage.limit_mb and start the node again",
                    reason="StoreFull",
                    retry_ms=STORE_FULL_RETRY_MS,
                )
            opened.env.set_mapsize(min(size * 2, ceiling))

    def _give_back_reserve(self) -> None:
        """Makes what a full store has freed usable for the next batch.

        LMDB keeps the snapshot before the last whole, so pages freed by one transaction serve from the second after it.
        """
        opened = self._held.now()
        if opened.env.info()["map_size"] < self._limit_bytes:
            return
        self._write(opened, self._change_of(opened, Batch()))
        with self._held.gate:
            self._held.usable().env.set_mapsize(self._limit_bytes)

    # ---- what the log above it asks (logged.py)

    @property
    def txn(self) -> int:
        """The number of the last transaction, which is on the disk; it grows with each commit. Raises as reads do."""
        with self._held.gate:
            return self._held.usable().synced_txn

    @property
    def seal(self) -> bytes:
        """What the store has after this history, and after no other one."""
        with self._held.gate:
            sums = sorted(self._held.usable().sums.items())
        parts = [self._held.tail.digest, *(name.encode() + total.encode() for name, total in sums)]
        return hashlib.blake2b(b"".join(parts), digest_size=16).digest()

    @property
    def former_seal(self) -> bytes:
        """What it was before it told of rows."""
        return self._held.tail.digest

    @property
    def tables(self) -> frozenset[str]:
        with self._held.gate:
            names = list(self._held.usable().dbs)
        return frozenset(name.removeprefix(TABLE) for name in names if name.startswith(TABLE))

    @property
    def log_id(self) -> bytes:
        """Of the log that lies above; empty when there never was one."""
        with self._held.gate:
            return self._held.usable().log_id

    def move_on(self, log_id: bytes = b"") -> None:
        """A transaction that changes nothing but `txn`, and `log_id` if one is given. Raises as `commit` does."""
        with self._writer:
            opened = self._held.now()
            while not self._write(opened, self._change_of(opened, Batch()), log_id):
                self._grow(opened, self._limit_bytes + FREEING_RESERVE_BYTES)

    # ---- a smaller file in place of this one (compacting.py)

    def leave_log(self) -> None:
        """From here on no log lies above. Raises as `commit` does."""
        with self._writer:
            opened = self._held.now()
            try:
                with opened.env.begin(write=True, db=opened.dbs[META]) as txn:
                    txn.delete(LOG_KEY)
            except (lmdb.Error, OSError) as error:
                raise fault_of(error, f"the disk under {self._path} refused a write", self._path) from error
            opened.log_id = b""

    def take_over(self, data: Path) -> None:
        """The file `data`, of a store that has all that this one has and is closed, takes the place of this one's,
        which is gone then; the folder is not yet synced. Raises Unavailable where it could not, and nothing has
        changed."""
        with self._writer:
            self._held.take_over(data)

    # ---- the rest

    def verify(self) -> Sequence[str]:
        """As `Store.verify`. Commits wait meanwhile: about a second per 500,000 rows."""
        with self._writer:
            opened = self._held.now()
            return verify_environment(opened, self._path)

    def table_bytes(self, table: str) -> int:
        with self._held.gate:
            return self._held.usable().bytes_of(TABLE + table)

    def journal_bytes(self) -> int:
        with self._held.gate:
            return self._held.usable().bytes_of(JOURNAL)

    def size_bytes(self) -> int:
        with self._held.gate:
            return self._held.usable().size_bytes()

    def used_bytes(self) -> int:
        """Of `size_bytes` what holds rows and packs; the rest are free pages."""
        with self._held.gate:
            return self._held.usable().used_bytes()

    def limit_bytes(self) -> int:
        return self._limit_bytes

    def close(self) -> None:
        """Waits for a running commit, closes the file and gives the folder back; a second call does nothing."""
        with self._writer:
            self._held.close()

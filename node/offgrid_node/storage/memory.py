"""The store in memory: the twin of `lmdb.py` for the simulator and for tests.

Each commit is durable at once: a node that crashes keeps what it committed and loses what it did not, and the next
incarnation is handed the same object. Faults are injected, not awaited.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from copy import copy

from offgrid_node.protocol.errors import Exhausted, Fault, Internal, Unavailable
from offgrid_node.storage.rows import CHUNK_ROWS, TABLES_MAX, KeyRange, check_batch, check_key, check_table, damaged_row
from offgrid_node.storage.store import Batch

LIMIT_BYTES = 1 << 40
STORE_FULL_RETRY_MS = 60_000


class _Table:
    """Rows, with their keys sorted only when somebody scans: commits are many, scans are few."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._keys: list[bytes] | None = None

    def put(self, key: bytes, value: bytes) -> None:
        if self._keys is not None and key not in self.rows:
            self._keys = None
        self.rows[key] = value

    def delete(self, key: bytes) -> None:
        if self.rows.pop(key, None) is not None:
            self._keys = None

    def keys(self) -> list[bytes]:
        if self._keys is None:
            self._keys = sorted(self.rows)
        return self._keys

    def copy(self) -> _Table:
        twin = _Table()
        twin.rows = self.rows.copy()
        return twin


class MemoryStore:
    """A `Store` that forgets everything with the process. `limit_bytes` bounds keys, values and events together."""

    def __init__(self, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._tables: dict[str, _Table] = {}
        self._events: list[bytes] = []
        self._floor = 0
        self._size = 0
        self._limit = limit_bytes
        self._closed = False
        self._faults: list[tuple[Fault, bool]] = []
        self._damaged: set[tuple[str, bytes]] = set()
        self._refusal: Fault | None = None

    # ---- the Store protocol

    @property
    def tables(self) -> frozenset[str]:
        self._check_open()
        return frozenset(self._tables)

    def get(self, table: str, key: bytes) -> bytes | None:
        check_key(table, key)
        self._check_open()
        if self._damaged and (table, key) in self._damaged:
            raise damaged_row(table, key)
        rows = self._tables.get(table)
        return None if rows is None else rows.rows.get(key)

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._scan(table, KeyRange.of(table, start, prefix, end), reverse)

    def _scan(self, table: str, span: KeyRange, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        while chunk := self._chunk(table, span, reverse):
            for key, value in chunk:
                if (table, key) in self._damaged:
                    raise damaged_row(table, key)
                yield key, value
            last = chunk[-1][0]
            span = KeyRange(span.low, last) if reverse else KeyRange(last + b"\0", span.end)

    def _chunk(self, table: str, span: KeyRange, reverse: bool) -> list[tuple[bytes, bytes]]:
        self._check_open()
        held = self._tables.get(table)
        if held is None:
            return []
        keys = held.keys()
        low = bisect_left(keys, span.low)
        end = len(keys) if span.end is None else bisect_left(keys, span.end)
        chosen = keys[max(low, end - CHUNK_ROWS) : end][::-1] if reverse else keys[low : min(end, low + CHUNK_ROWS)]
        return [(key, held.rows[key]) for key in chosen]

    @property
    def journal_seq(self) -> int:
        return self._floor + len(self._events)

    @property
    def journal_floor(self) -> int:
        return self._floor

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        seq = self.journal_seq if reverse else max(after_seq, self._floor) + 1
        while max(after_seq, self._floor) < seq <= self.journal_seq:
            self._check_open()
            yield seq, self._events[seq - self._floor - 1]
            seq = seq - 1 if reverse else max(seq, self._floor) + 1

    def commit(self, batch: Batch) -> int:
        check_batch(batch)
        self._check_open()
        if not batch:
            return self.journal_seq
        fault, applied = self._faults.pop(0) if self._faults else (None, False)
        if fault is None or applied:
            self._apply(batch)
        if fault is not None:
            raise fault
        return self.journal_seq

    def _apply(self, batch: Batch) -> None:
        for name in {name for name, _ in batch.writes} - self._tables.keys():
            check_table(name)
            if len(self._tables) >= TABLES_MAX:
                raise Internal(f"{name}: a store has at most {TABLES_MAX} tables", reason="TooManyTables")
            self._tables[name] = _Table()
        gone = self._events[: max(0, batch.floor - self._floor)]
        growth = sum(map(len, batch.events)) - sum(map(len, gone))
        for (name, key), value in batch.writes.items():
            old = self._tables[name].rows.get(key)
            growth += (len(key) + len(value) if value is not None else 0) - (
                len(key) + len(old) if old is not None else 0
            )
        if growth > 0 and self._size + growth > self._limit:
            raise Exhausted(
                f"the store in memory has reached its limit of {self._limit} bytes",
                reason="StoreFull",
                retry_ms=STORE_FULL_RETRY_MS,
            )
        for (name, key), value in batch.writes.items():
            if value is None:
                self._tables[name].delete(key)
            else:
                self._tables[name].put(key, value)
        if self._damaged:
            self._damaged.difference_update(batch.writes)
        del self._events[: len(gone)]
        self._floor = max(self._floor, batch.floor)
        self._events += batch.events
        self._size += growth

    def verify(self) -> Sequence[str]:
        self._check_open()
        return [damaged_row(table, key).message for table, key in sorted(self._damaged)]

    def table_bytes(self, table: str) -> int:
        held = self._tables.get(table)
        return sum(len(key) + len(value) for key, value in held.rows.items()) if held is not None else 0

    def journal_bytes(self) -> int:
        return sum(map(len, self._events))

    def size_bytes(self) -> int:
        return self._size

    def limit_bytes(self) -> int:
        return self._limit

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store in memory is closed", reason="StoreClosed")
        if self._refusal is not None:
            raise copy(self._refusal)

    # ---- what only a simulator can do

    def fail_next(self, fault: Fault, *, applied: bool = False) -> None:
        """The next commit raises `fault`; with `applied` the batch is durable nevertheless, as when the disk fails
        after the write and before the confirmation. Several calls queue up."""
        self._faults.append((fault, applied))

    def damage(self, table: str, key: bytes) -> None:
        """From now on reading the row raises `Corrupt`, until it is written or deleted."""
        self._damaged.add((table, key))

    def refuse(self, fault: Fault | None) -> None:
        """From now on reads and commits raise `fault`, as of a disk that cannot be reopened; with None no longer."""
        self._refusal = fault

    def bound(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """From now on no more than this is kept, as of a disk that something else fills."""
        self._limit = limit_bytes

    def crash(self) -> None:
        """The process died: committed data stay, injected faults are forgotten, and the store is open again."""
        self._faults.clear()
        self._refusal = None
        self._closed = False

    def peek(self, table: str, key: bytes) -> bytes | None:
        """What is durable, whatever the disk refuses its node just now."""
        held = self._tables.get(table)
        return None if held is None else held.rows.get(key)

    def dump(self) -> Iterator[bytes]:
        """Every row, key and value together."""
        for table in self._tables.values():
            yield from (key + value for key, value in table.rows.items())

    def copy(self) -> MemoryStore:
        """An independent store with the same contents, as a backup restored elsewhere would be."""
        twin = MemoryStore(limit_bytes=self._limit)
        twin._tables = {name: table.copy() for name, table in self._tables.items()}
        twin._events, twin._floor = self._events.copy(), self._floor
        twin._size = self._size
        twin._damaged = self._damaged.copy()
        return twin

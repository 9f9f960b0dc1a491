"""What lies over a store's own file until a checkpoint (logged.py): in memory, and merged with what is read below."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator

import msgspec

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.rows import KeyRange
from offgrid_node.storage.store import Batch

OVERLAY_BYTES_MAX = 1024 * 1024  # in memory; a checkpoint of it takes some ten milliseconds
OVERLAY_ROWS_MAX = 2_048

Row = tuple[bytes, bytes]
Laid = tuple[bytes, bytes | None]
"""A row that was written since; None: it was deleted."""


class Overlay:
    """Batches that lie over the store below, which ends at event `base_seq`; replaced by each checkpoint.

    Only grows, so that a reader in another thread sees each row as it was or as it is; and whoever has seen one row of
    a batch sees the others."""

    __slots__ = ("_keys", "_laying", "_sorted", "base_seq", "batch", "size_bytes", "version")

    def __init__(self, base_seq: int) -> None:
        self.base_seq = base_seq
        self.batch = Batch()
        self.size_bytes = self.version = 0
        self._laying = threading.Lock()
        self._keys: dict[str, list[bytes]] = {}  # of each table, as they came
        self._sorted: dict[str, list[bytes]] = {}  # of the tables that were scanned: the first so many of them in order

    def lay(self, batch: Batch, size_bytes: int) -> None:
        with self._laying:
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

    def rows(self, table: str, span: KeyRange, *, reverse: bool) -> tuple[int, list[Laid]]:
        """Those of the table whose keys are in `span`, and the version that has them."""
        with self._laying:
            came, keys = self._keys.get(table, ()), self._sorted.get(table, [])
            if len(keys) < len(came):
                keys = self._sorted[table] = sorted(keys + sorted(came[len(keys) :]))  # two runs: merged, not sorted
            end = len(keys) if span.end is None else bisect_left(keys, span.end)
            writes, found = self.batch.writes, keys[bisect_left(keys, span.low) : end]
            laid = [(key, writes[table, key]) for key in found]
            version = self.version
        return version, laid[::-1] if reverse else laid


class Remembered(msgspec.Struct):
    """Batches that went to the store below since a copy of it was begun, in their order, each with the number of the
    event before it. Too many are none: the copy is given up."""

    bytes_max: int
    batches: list[tuple[int, Batch]] = msgspec.field(default_factory=list)
    bytes: int = 0

    @property
    def too_much(self) -> bool:
        return self.bytes > self.bytes_max

    def add(self, base_seq: int, batch: Batch) -> None:
        self.bytes += sum(map(len, batch.events)) + sum(
            len(key) + len(value or b"") for (_, key), value in batch.writes.items()
        )
        if self.too_much:
            self.batches.clear()
        else:
            self.batches.append((base_seq, batch))

    def take(self) -> list[tuple[int, Batch]]:
        taken, self.batches, self.bytes = self.batches, [], 0
        return taken


def merged(above: list[Laid], below: Iterator[Row], reverse: bool) -> Iterator[Row]:
    """The rows below, with those above in their place; both in the order of the scan. Raises Corrupt where the store
    below does, with all given that comes before."""
    at = 0
    try:
        for row in below:
            key = row[0]
            while at < len(above) and (above[at][0] > key if reverse else above[at][0] < key):
                yield from _standing(above[at])
                at += 1
            if at < len(above) and above[at][0] == key:
                yield from _standing(above[at])
                at += 1
            else:
                yield row
    except Corrupt as fault:
        damaged = bytes.fromhex(fault.metadata.get("key", ""))
        for laid in above[at:]:
            if damaged and (laid[0] > damaged if reverse else laid[0] < damaged):
                yield from _standing(laid)
        raise
    for laid in above[at:]:
        yield from _standing(laid)


def _standing(laid: Laid) -> Iterator[Row]:
    key, value = laid
    if value is not None:
        yield key, value

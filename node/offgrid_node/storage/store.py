"""What the one writer needs of a store. Forms: `logged.py` over `lmdb.py` for nodes, `memory.py` for the simulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

JOURNAL_SEQ_FIRST = 1


class Batch(msgspec.Struct):
    """One transaction: journal entries in order (serialised `offgrid.v1.Event`s without seq) and row changes.

    `writes` maps (table, key) to a value, or to None for a deletion; the last change of a key stands. `floor`: the
    journal's events up to that number go, but for those that share a pack with later ones; with one beyond its end the
    journal goes on behind that.
    """

    events: list[bytes] = msgspec.field(default_factory=list)
    writes: dict[tuple[str, bytes], bytes | None] = msgspec.field(default_factory=dict)
    floor: int = 0

    def __bool__(self) -> bool:
        return bool(self.events or self.writes or self.floor)

    @property
    def only_frees(self) -> bool:
        return not self.events and all(value is None for value in self.writes.values())


class Store(Protocol):
    """Rows in named tables and an append-only journal, changed only by whole batches.

    Reads see the last commit. A value or journal record that fails its checksum raises `Corrupt`; it is never
    returned, nor is a row reported missing while damage shows where it would be; so a damaged row may also refuse
    questions about its neighbours. Damage that leaves no trace there is found by `verify` and by scans of a whole
    table (`Corrupt`, reason RowsMissing): run `verify` at start and now and then. Reads raise `Unavailable`
    when the disk refuses. Keys are 1 to 511 bytes, tables plain names of up to 64 characters; anything else is
    `Internal`. One thread at a time commits; reads may run beside it on other threads.
    """

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key has `prefix`, from `start` on (inclusive) and below `end`, ascending; with
        `reverse`, from the last such row down to `start`. The snapshot is held only while a bounded chunk is read,
        never between two chunks."""
        ...

    @property
    def tables(self) -> frozenset[str]:
        """The names of all tables that ever had a row. Raises as reads do."""
        ...

    @property
    def journal_seq(self) -> int:
        """Sequence number of the newest journal event; 0 when there is none."""
        ...

    @property
    def journal_floor(self) -> int:
        """Sequence number of the newest event that is kept no more; 0 when all are."""
        ...

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        """Journal events that are kept, with seq > after_seq, ascending (or all such, descending). Those that go
        while it is read may be left out."""
        ...

    def commit(self, batch: Batch) -> int:
        """Makes the batch durable (fsynced) and returns the new journal_seq.

        Raises `Exhausted` when the store's own limit is reached (reason StoreFull) or the batch is beyond what any
        store takes (EventTooLarge, RowTooLarge, BatchTooLarge), `Unavailable` (reason DiskError) when the disk
        refuses. After either nothing of the batch is visible, and the store has been reopened and is usable for
        reading: discard the machines and load them again. Only if the disk fails so badly that it cannot even be
        reopened do reads raise `Unavailable` too, until it can be; the batch is then there whole or not at all.
        A full store still takes a batch that only deletes rows and has no events.
        """
        ...

    def verify(self) -> Sequence[str]:
        """Checks every checksum and the journal's hash chain; returns what is wrong, one sentence each."""
        ...

    def table_bytes(self, table: str) -> int:
        """What its rows take up, in whole pages where the store has pages, but for what was committed just now."""
        ...

    def journal_bytes(self) -> int:
        """Likewise of the journal's events."""
        ...

    def size_bytes(self) -> int: ...

    def limit_bytes(self) -> int: ...

    def close(self) -> None: ...

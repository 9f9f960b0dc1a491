"""A store that notes which rows have changed since they were last asked for: what the next segment has to tell.

A note goes into the very transaction of the change, so that neither a crash nor a power cut parts the two. Of many
changes of one row only the last counts. When more has changed than is worth a list, noting ends, durably: whoever wants
to know begins anew with all rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.state.tables import (
    CHANGES,
    JOURNAL,
    LEFT_OUT,
    NOTING_KEY,
    number_key,
    number_of,
)
from offgrid_node.storage.store import Batch, Store

KEYS_MAX = 50_000  # rows that a list names, some 10 MB of memory
BYTES_MAX = 32 * 1024 * 1024  # that they had when they were written: a segment is made in memory
_HEAD = struct.Struct(">BH")  # bytes of the table's name, of the key

RowName = tuple[str, bytes]


class NotingStore:
    """A `Store` over another one. Noting is asked about and steered while no commit is under way."""

    def __init__(self, below: Store, *, keys_max: int = KEYS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._below, self._keys_max, self._bytes_max = below, keys_max, bytes_max
        self._keys: dict[RowName, None] = {}
        self._numbers: list[int] = []
        self._last = 0
        self.noting = False
        self.noted_bytes = 0  # of rows as they were written, since `take`

    # ---- what has changed

    def find_notes(self) -> None:
        """Forgets what was taken, and reads what the notes say. Raises as reads do."""
        self.noting = self._below.get(JOURNAL, NOTING_KEY) is not None
        self._keys, self._numbers, self.noted_bytes = {}, [], 0
        for key, value in self._below.scan(CHANGES):
            self._numbers.append(number_of(key))
            self._keys.update(dict.fromkeys(_names(value)))
        self._last = max(self._last, *self._numbers[-1:], 0)

    def begin(self) -> None:
        """From the next commit on changes are noted; the caller puts NOTING_KEY into that one."""
        self.noting = True
        self._numbers = [number_of(key) for key, _ in self._below.scan(CHANGES)]  # of what ended before

    def take(self) -> tuple[list[RowName], list[int]]:
        """The rows that have changed since the last time, and the notes of that: whoever has made use of them deletes
        those, from CHANGES."""
        taken = list(self._keys), self._numbers
        self._keys, self._numbers, self.noted_bytes = {}, [], 0
        return taken

    def _note(self, batch: Batch) -> None:
        names = [name for name in batch.writes if name[0] not in LEFT_OUT]
        if not self.noting or not names:
            return
        self.noted_bytes += sum(len(batch.writes[name] or b"") for name in names)
        self._keys.update(dict.fromkeys(names))
        if len(self._keys) > self._keys_max or self.noted_bytes > self._bytes_max:
            self._end_noting(batch)
            return
        self._last += 1
        self._numbers.append(self._last)
        batch.writes[CHANGES, number_key(self._last)] = b"".join(_packed(*name) for name in names)

    def _end_noting(self, batch: Batch) -> None:
        """The notes that are there stay until noting begins again: there may be too many for one transaction."""
        batch.writes[JOURNAL, NOTING_KEY] = None
        self.noting, self._keys, self._numbers, self.noted_bytes = False, {}, [], 0

    # ---- the Store protocol

    def commit(self, batch: Batch) -> int:
        self._note(batch)
        try:
            return self._below.commit(batch)
        except Exhausted:
            written = {name: value for name, value in batch.writes.items() if name[0] != CHANGES or value is None}
            if batch.events or any(value is not None for value in written.values()):
                raise
            batch.writes = written  # a full store takes deletions, and no notes of them
            self._end_noting(batch)
            return self._below.commit(batch)

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._below.get(table, key)

    def scan(
        self, table: str, start: bytes = b"", *, prefix: bytes = b"", end: bytes = b"", reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        return self._below.scan(table, start, prefix=prefix, end=end, reverse=reverse)

    @property
    def tables(self) -> frozenset[str]:
        return self._below.tables

    @property
    def journal_seq(self) -> int:
        return self._below.journal_seq

    @property
    def journal_floor(self) -> int:
        return self._below.journal_floor

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        return self._below.events(after_seq, reverse=reverse)

    def verify(self) -> Sequence[str]:
        return self._below.verify()

    def table_bytes(self, table: str) -> int:
        return self._below.table_bytes(table)

    def journal_bytes(self) -> int:
        return self._below.journal_bytes()

    def size_bytes(self) -> int:
        return self._below.size_bytes()

    def limit_bytes(self) -> int:
        return self._below.limit_bytes()

    def close(self) -> None:
        self._below.close()


def end_noting(store: Store) -> None:
    """For a node that goes on without noting down what it changes: when that begins again, it begins with all rows."""
    if store.get(JOURNAL, NOTING_KEY) is not None:
        store.commit(Batch(writes={(JOURNAL, NOTING_KEY): None}))


def _packed(table: str, key: bytes) -> bytes:
    name = table.encode("ascii")
    return _HEAD.pack(len(name), len(key)) + name + key


def _names(note: bytes) -> Iterator[RowName]:
    at = 0
    while at < len(note):
        name_bytes, key_bytes = _HEAD.unpack_from(note, at)
        key_at = at + _HEAD.size + name_bytes
        yield note[at + _HEAD.size : key_at].decode("ascii"), note[key_at : key_at + key_bytes]
        at = key_at + key_bytes

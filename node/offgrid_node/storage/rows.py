"""How a row is laid down: its bounds, its checksum, and which keys a scan covers.

A stored value is BLAKE2b-64 over (table, key, value), then the value (RFC 7693). The table and the key are part of it,
so that a value that turns up under another key fails as well. LMDB keeps no checksums of its own: a flipped bit would
be served.
"""

from __future__ import annotations

import hashlib

import msgspec

from offgrid_node.protocol.errors import Corrupt, Exhausted, Internal
from offgrid_node.protocol.sound import row_name
from offgrid_node.storage.store import Batch

KEY_BYTES_MAX = 511  # LMDB 0.9's bound; 1.0 takes more, but a store must open with either
TABLE_CHARS_MAX = 64
TABLES_MAX = 126  # LMDB wants the number of named databases up front: 128 with the store's own two; a node has some 70
VALUE_BYTES_MAX = 16 * 1024 * 1024  # four times the largest message that a node sends
EVENT_BYTES_MAX = 16 * 1024 * 1024
BATCH_BYTES_MAX = 128 * 1024 * 1024  # far below the 512 MiB of dirty pages at which LMDB gives up

CHUNK_ROWS = 256  # a read transaction lasts no longer than this many rows,
CHUNK_BYTES = 1024 * 1024  # or until this many bytes are passed

CHECKSUM_BYTES = 8
_PERSON = b"og.row.v1"


def check_batch(batch: Batch) -> None:
    """Refuses what no store may take: `Internal` for a malformed key, `Exhausted` for too many bytes."""
    total = 0
    for event in batch.events:
        if len(event) > EVENT_BYTES_MAX:
            raise Exhausted(
                f"a journal event of {len(event)} bytes, at most {EVENT_BYTES_MAX} allowed", reason="EventTooLarge"
            )
        total += len(event)
    for (table, key), value in batch.writes.items():
        if not 0 < len(key) <= KEY_BYTES_MAX:
            check_key(table, key)
        if value is not None:
            if len(value) > VALUE_BYTES_MAX:
                raise Exhausted(
                    f"{row_name(table, key)} has {len(value)} bytes, at most {VALUE_BYTES_MAX} allowed",
                    reason="RowTooLarge",
                )
            total += len(value)
    if total > BATCH_BYTES_MAX:
        raise Exhausted(f"a batch of {total} bytes, at most {BATCH_BYTES_MAX} allowed", reason="BatchTooLarge")


def check_key(table: str, key: bytes) -> None:
    """Raises `Internal` unless `key` is 1 to 511 bytes: callers check or hash what users send."""
    if not 0 < len(key) <= KEY_BYTES_MAX:
        raise Internal(f"table {table}: a key of {len(key)} bytes, 1 to {KEY_BYTES_MAX} allowed", reason="BadKey")


def check_table(table: str) -> None:
    """Raises `Internal` unless `table` is a plain name; stores ask once, when a table is made."""
    if not 0 < len(table) <= TABLE_CHARS_MAX or not table.isascii() or not table.isprintable():
        raise Internal(
            f"table name {table[:80]!r} is not 1 to {TABLE_CHARS_MAX} printable characters", reason="BadTable"
        )


class RowSeal:
    """Puts checksums on one table's values and takes them off."""

    def __init__(self, table: str) -> None:
        name = table.encode("utf-8")
        self._table = table
        self._base = hashlib.blake2b(bytes([len(name)]) + name, digest_size=CHECKSUM_BYTES, person=_PERSON)

    def checksum(self, key: bytes, value: bytes) -> bytes:
        state = self._base.copy()
        state.update(len(key).to_bytes(2, "big") + key)
        state.update(value)
        return state.digest()

    def wrap(self, key: bytes, value: bytes) -> bytes:
        """What is stored for `value`."""
        return self.checksum(key, value) + value

    def holds(self, key: bytes, stored: bytes) -> bool:
        return len(stored) >= CHECKSUM_BYTES and stored[:CHECKSUM_BYTES] == self.checksum(key, stored[CHECKSUM_BYTES:])

    def unwrap(self, key: bytes, stored: bytes) -> bytes:
        """The value; raises `Corrupt` (reason ChecksumMismatch) when a byte of it, its key or its sum has changed."""
        value = stored[CHECKSUM_BYTES:]
        if len(stored) < CHECKSUM_BYTES or stored[:CHECKSUM_BYTES] != self.checksum(key, value):
            raise damaged_row(self._table, key)
        return value


def damaged_row(table: str, key: bytes) -> Corrupt:
    """The fault of a row that is not what was written."""
    return Corrupt(
        f"{row_name(table, key)} fails its checksum: restore it from a backup or a replica",
        reason="ChecksumMismatch",
        metadata={"table": table, "key": key.hex()},
    )


def damaged_order(table: str, key: bytes) -> Corrupt:
    """The fault of a table whose keys no longer ascend."""
    return Corrupt(
        f"{row_name(table, key)} is out of order: restore the store from a backup",
        reason="OrderBroken",
        metadata={"table": table, "key": key.hex()},
    )


class KeyRange(msgspec.Struct, frozen=True):
    """The keys of a scan: from `low` (inclusive) to `end` (exclusive; None: to the table's last key)."""

    low: bytes
    end: bytes | None

    @classmethod
    def of(cls, table: str, start: bytes, prefix: bytes, end: bytes = b"") -> KeyRange:
        """Keys with `prefix` that are not below `start`, and below `end` if that is one."""
        for bound in (start, prefix, end):
            if bound:
                check_key(table, bound)
        after = _after_prefix(prefix)
        return cls(max(start, prefix), min(filter(None, (after, end)), default=None))

    def __contains__(self, key: bytes) -> bool:
        return self.low <= key and (self.end is None or key < self.end)


def _after_prefix(prefix: bytes) -> bytes | None:
    """The least key above every key with `prefix`; None when there is no such key."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else None


class TableSum(msgspec.Struct, frozen=True):
    """How many rows a table has and the sum of their checksums modulo 2^64.

    It is kept with every commit, so that `verify` also sees a row that vanished or came back from the past, which
    the row's own checksum cannot show (an incremental multiset hash, as in Bellare and Micciancio 1997; it detects
    accidents, not attackers).
    """

    rows: int = 0
    total: int = 0

    def encode(self) -> bytes:
        return self.rows.to_bytes(8, "big") + self.total.to_bytes(8, "big")

    @classmethod
    def decode(cls, data: bytes) -> TableSum:
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big"))

"""One bounded read over an LMDB cursor.

LMDB trusts its pages: a bit flipped in a key makes a search miss the row, or end a range early, without an error. So
each read also hands back its fences, the rows just outside of what it covered, and the caller checks their checksums:
a damaged key stands beside the place where the search ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import lmdb

from offgrid_node.storage.rows import CHUNK_BYTES, CHUNK_ROWS, KeyRange

Row = tuple[bytes, bytes]


@dataclass(slots=True)
class Chunk:
    """Rows in the order of the read, the fences, and whether a bound (not the range's end) stopped it."""

    rows: list[Row] = field(default_factory=list)
    fences: list[Row] = field(default_factory=list)
    more: bool = False


def read_up(cursor: lmdb.Cursor[bytes], span: KeyRange, after: bytes | None, rows_max: int = CHUNK_ROWS) -> Chunk:
    """Ascending from `span.low`, or from just behind `after`, which the caller has checked."""
    chunk = Chunk()
    low = span.low if after is None else after
    found = cursor.set_range(low) if low else cursor.first()
    if found and after is not None and cursor.key() == after:
        found = cursor.next()
    elif low:
        if cursor.prev() if found else cursor.last():
            chunk.fences.append(cursor.item())
        found = cursor.set_range(low)
    return _gather(cursor, chunk, span, rows_max, reverse=False) if found else chunk


def read_down(cursor: lmdb.Cursor[bytes], span: KeyRange, rows_max: int = CHUNK_ROWS) -> Chunk:
    """Descending from the last row of `span` to its first."""
    chunk = Chunk()
    if span.end is not None and cursor.set_range(span.end):
        chunk.fences.append(cursor.item())
        found = cursor.prev()
    else:
        found = cursor.last()
    return _gather(cursor, chunk, span, rows_max, reverse=True) if found else chunk


def _gather(cursor: lmdb.Cursor[bytes], chunk: Chunk, span: KeyRange, rows_max: int, *, reverse: bool) -> Chunk:
    size = 0
    rows = chunk.rows
    for row in cursor.iterprev() if reverse else cursor.iternext():
        if row[0] not in span:
            chunk.fences.append(row)
            break
        if len(rows) >= rows_max or size >= CHUNK_BYTES:
            chunk.more = True
            break
        rows.append(row)
        size += len(row[1])
    return chunk


def read_one(txn: lmdb.Transaction[bytes], key: bytes) -> tuple[bytes | None, list[Row]]:
    """The value under `key`; when there is none, the rows around its place as fences."""
    value = txn.get(key)
    if value is not None:
        return value, []
    fences: list[Row] = []
    with txn.cursor() as cursor:
        found = cursor.set_range(key)
        if found:
            fences.append(cursor.item())
        if cursor.prev() if found else cursor.last():
            fences.append(cursor.item())
    return None, fences

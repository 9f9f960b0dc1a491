"""One bounded read over an LMDB cursor, with what is needed to tell that nothing was missed.

LMDB trusts its pages: a bit flipped in a key, in a separator or in a pointer makes a search miss a row, or end a range
early, without an error. Such damage shows beside the place where the search ended: a key that fails its checksum, or
keys that do not ascend. So each read also brings its edges, up to two rows on either side of what it covered. A page
that lost rows at its end, or an older page in its place, leaves no such trace: scans of whole tables and `verify` see
it by the table's sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise

import lmdb
import msgspec

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.rows import (
    CHECKSUM_BYTES,
    CHUNK_BYTES,
    CHUNK_ROWS,
    KeyRange,
    RowSeal,
    TableSum,
    damaged_order,
)

Row = tuple[bytes, bytes]
Snapshot = tuple[int, int]
"""Which opening of the file, and the transaction."""
EDGE_ROWS = 2


class Chunk(msgspec.Struct):
    """Rows in the order of the read, the edges (both ascending), and what the read saw of the store.

    `more` says that a bound, not the range's end, stopped it; `snapshot` is the last transaction that it saw.
    """

    rows: list[Row] = msgspec.field(default_factory=list)
    below: list[Row] = msgspec.field(default_factory=list)
    above: list[Row] = msgspec.field(default_factory=list)
    more: bool = False
    snapshot: Snapshot = (-1, -1)


def read_up(cursor: lmdb.Cursor[bytes], span: KeyRange, after: bytes | None, rows_max: int = CHUNK_ROWS) -> Chunk:
    """Ascending from `span.low`, or from just behind `after`, which the caller has seen.

    One search, then single steps: a second search by the same cursor may take a shortcut and hide what the first met.
    """
    chunk = Chunk()
    low = span.low if after is None else after
    found = cursor.set_range(low) if low else cursor.first()
    steps = 0
    if found and after is not None and cursor.key() == after:
        found = cursor.next()
    elif low:
        found, steps = _step_back(cursor, found)
    if found:
        walk = cursor.iternext()
        chunk.below = list(islice(walk, steps))
        _gather(walk, chunk, span, rows_max, chunk.above)
    return chunk


def read_down(cursor: lmdb.Cursor[bytes], span: KeyRange, rows_max: int = CHUNK_ROWS) -> Chunk:
    """Descending from the last row of `span` to its first."""
    chunk = Chunk()
    steps = 0
    if span.end is not None and cursor.set_range(span.end):
        steps = EDGE_ROWS if cursor.next() else 1
    if steps == EDGE_ROWS or cursor.last():
        walk = cursor.iterprev()
        chunk.above = list(islice(walk, steps))[::-1]
        _gather(walk, chunk, span, rows_max, chunk.below)
        chunk.below.reverse()
    return chunk


def _step_back(cursor: lmdb.Cursor[bytes], found: bool) -> tuple[bool, int]:
    """Moves down by an edge from the cursor's place, or from the table's end if it has none; and by how many rows."""
    steps = 0
    if not found:
        if not cursor.last():
            return False, 0
        steps = 1
    while steps < EDGE_ROWS:
        if not cursor.prev():
            return cursor.first(), steps
        steps += 1
    return True, steps


def _gather(walk: Iterator[Row], chunk: Chunk, span: KeyRange, rows_max: int, far_edge: list[Row]) -> None:
    size = 0
    rows = chunk.rows
    for row in walk:
        if row[0] not in span:
            far_edge.extend((row, *islice(walk, EDGE_ROWS - 1)))
            return
        if len(rows) >= rows_max or size >= CHUNK_BYTES:
            chunk.more = True
            return
        rows.append(row)
        size += len(row[1])


def check_order(table: str, chunk: Chunk, *, reverse: bool = False) -> None:
    """Raises `Corrupt` (OrderBroken) when the chunk may lack rows."""
    keys = [key for key, _ in chunk.rows]
    if reverse:
        keys.reverse()
    keys = [*(key for key, _ in chunk.below), *keys, *(key for key, _ in chunk.above)]
    for left, right in pairwise(keys):
        if left >= right:
            raise damaged_order(table, right)


def check_below(table: str, seal: RowSeal, span: KeyRange, chunk: Chunk) -> None:
    """Raises `Corrupt` when the chunk may lack rows at its lower edge: OrderBroken or ChecksumMismatch. Whoever begins
    right behind a row, at its key and a zero byte, has seen that one and knows what it is worth."""
    if chunk.below:
        left, stored = chunk.below[-1]
        if left + b"\0" != span.low:
            seal.unwrap(left, stored)
        if left >= span.low:
            raise damaged_order(table, left)


def check_above(table: str, seal: RowSeal, span: KeyRange, chunk: Chunk, *, seen: bool = False) -> None:
    """As `check_below`, at its upper edge. `seen`: of a row right at the range's end the caller knows what it is worth,
    as whoever comes down from it does."""
    if chunk.above:
        right, stored = chunk.above[0]
        if not seen or right != span.end:
            seal.unwrap(right, stored)
        if right < (span.low if span.end is None else span.end):
            raise damaged_order(table, right)


class Tally:
    """Adds up a scan of a whole table: unless commits came between, the rows must be those that were committed.

    `expected` is the table's sum as of transaction `snapshot`. A commit is visible before its sum is known, and its
    sum before its number; whoever takes both while that happens sees a later snapshot in the chunks, and says nothing.
    """

    def __init__(self, table: str, snapshot: Snapshot, expected: TableSum) -> None:
        self._table = table
        self._snapshot: Snapshot | None = snapshot
        self._expected = expected
        self._rows = self._total = 0

    def add(self, chunk: Chunk) -> None:
        if chunk.snapshot != self._snapshot:
            self._snapshot = None
        self._rows += len(chunk.rows)
        self._total += sum(int.from_bytes(stored[:CHECKSUM_BYTES], "big") for _, stored in chunk.rows)

    def check(self) -> None:
        """Raises `Corrupt` (reason RowsMissing) when the scan was of one snapshot and does not add up."""
        found = TableSum(self._rows, self._total % 2**64)
        if self._snapshot is not None and found != self._expected:
            raise Corrupt(wrong_sum(self._table, found, self._expected), reason="RowsMissing")


def wrong_sum(table: str, found: TableSum, expected: TableSum) -> str:
    """The sentence for a table whose rows are not those that were committed."""
    what = f"{found.rows} rows found, {expected.rows} committed"
    if found.rows == expected.rows:
        what = "a row is not the one that was committed last"
    return f"table {table}: {what}: restore it from a backup"

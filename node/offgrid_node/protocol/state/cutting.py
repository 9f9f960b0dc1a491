"""What a segment has: rows that changed, the next of all rows where a base is in the making, and events.

It only reads; the machine says when one is cut, and what became of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from offgrid.v1 import state_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.sound import DAMAGED
from offgrid_node.protocol.state.tables import LEFT_OUT

SCAN_BYTES, SCAN_ROWS = 1024 * 1024, 8_192  # of all rows, in one segment
EVENTS_BYTES = 1024 * 1024  # in one segment
DAMAGED_MAX = 64  # rows that hosts have as they were; a store with more is one to be restored

RowName = tuple[str, bytes]


class History(Rows, Protocol):
    """Committed rows and events, and which rows have changed (`storage/noting.py`)."""

    noting: bool
    noted_bytes: int

    @property
    def tables(self) -> frozenset[str]: ...

    @property
    def journal_seq(self) -> int: ...

    @property
    def journal_floor(self) -> int: ...

    def events(self, after_seq: int = 0, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]: ...

    def find_notes(self) -> None: ...

    def begin(self) -> None: ...

    def take(self) -> tuple[list[RowName], list[int]]: ...


def segment_of(history: History, row: state_pb2.JournalRow, names: list[RowName]) -> state_pb2.Segment:
    """What is committed now; `row` then says how far this and the scan have come, and which rows are left to what hosts
    have of them behind the base: those that are damaged. Raises Corrupt where there is none, or for too many."""
    segment, tables = state_pb2.Segment(), dict[str, state_pb2.SegmentTable]()

    def of(table: str) -> state_pb2.SegmentTable:
        if table not in tables:
            tables[table] = segment.tables.add(name=table)
        return tables[table]

    names = [*dict.fromkeys((*names, *((each.table, each.key) for each in row.damaged)))]
    del row.damaged[:]
    scanned = _scan(history, row) if row.scan_base else ()
    for table, key in names:
        try:
            of(table).rows.add(key=key, value=history.get(table, key))
        except Corrupt as fault:
            if fault.reason != DAMAGED or not row.base or len(row.damaged) == DAMAGED_MAX:
                raise
            of(table).damaged.append(key)
            row.damaged.add(table=table, key=key)
    for table, key, value in scanned:
        of(table).rows.add(key=key, value=value)
    if row.scan_base:
        row.scan_events = _add_events(history, segment, row.scan_events, row.scan_events_end)
    row.events = _add_events(history, segment, row.events, history.journal_seq)
    segment.floor = history.journal_floor
    if row.scan_base and not row.scan_table and row.scan_events == row.scan_events_end:
        row.base, row.scan_base = row.scan_base, 0
    return segment


def _add_events(history: History, segment: state_pb2.Segment, after: int, end: int) -> int:
    """The events behind `after`, to `end` at most; the number of the last one that came in."""
    part, room = state_pb2.SegmentEvents(), EVENTS_BYTES
    for seq, event in history.events(after) if after < end else ():
        if room <= 0:
            break
        if seq > end:
            after = end
            break
        part.first_seq = part.first_seq or seq
        part.events.append(event)
        after, room = seq, room - len(event)
    else:
        after = max(after, end)  # what lies between is kept no more
    if part.events:
        segment.events.append(part)
    return after


def _scan(history: History, row: state_pb2.JournalRow) -> list[tuple[str, bytes, bytes]]:
    """The next rows of all; `scan_table` is empty once there are no more."""
    found, room = list[tuple[str, bytes, bytes]](), SCAN_BYTES
    if not row.scan_table and row.number > row.scan_base:
        return found  # only events are still to come
    for table in sorted(name for name in history.tables - LEFT_OUT if name >= row.scan_table):
        start = row.scan_key + b"\0" if table == row.scan_table else b""
        for key, value in history.scan(table, start):
            found.append((table, key, value))
            room -= len(key) + len(value)
            if room <= 0 or len(found) >= SCAN_ROWS:
                row.scan_table, row.scan_key = table, key
                return found
    row.scan_table, row.scan_key = "", b""
    return found

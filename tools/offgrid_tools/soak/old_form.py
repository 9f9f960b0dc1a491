"""A form of a store's rows that never was, older than the first: each row of sessions and of their blocks has a word
before it. `grow_old` brings a store into it, MADE_UP leads back to the first. A row that the step meets twice, or not
at all, is no row any more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from offgrid_node.folder import Folder, open_store
from offgrid_node.migrating import Step
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.tables import BLOCKS, SESSIONS
from offgrid_node.storage.format import FORMAT_KEY, STORE, format_row
from offgrid_node.storage.store import Batch, Store

BEFORE = b"of old: "
TABLES = (BLOCKS, SESSIONS)
PORTION = 7  # rows: many portions, so that many can be broken off


def portion(store: Store, place: bytes) -> tuple[Batch, bytes | None]:
    rows = [*islice(_rows(store, place), PORTION)]
    batch = Batch()
    for table, key, value in rows:
        if not value.startswith(BEFORE):
            raise Corrupt(f"row {key!r} of {table} was led on twice", reason="StoreDamaged")
        batch.writes[table, key] = value.removeprefix(BEFORE)
    if len(rows) < PORTION:
        return batch, None
    table, key, _ = rows[-1]
    return batch, table.encode() + b"/" + key + b"\0"


MADE_UP: Mapping[int, Step] = {0: Step("rows of sessions without the word before them", portion)}


def grow_old(folder: Folder) -> int:
    """Of a node that does not run; how many rows."""
    store = open_store(folder.config({}), create=False)
    try:
        batch = Batch(writes={(table, key): BEFORE + value for table, key, value in _rows(store, b"")})
        count = len(batch.writes)
        batch.writes[STORE, FORMAT_KEY] = format_row(0)
        store.commit(batch)
    finally:
        store.close()
    return count


def _rows(store: Store, place: bytes) -> Iterator[tuple[str, bytes, bytes]]:
    """Behind a place, which is a table's name and a key."""
    at, _, start = place.partition(b"/")
    for table in TABLES:
        if table.encode() == at or not at:
            at = b""
            for key, value in store.scan(table, start):
                yield table, key, value
            start = b""

"""Walks a whole LMDB store and says what is wrong with it, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import lmdb

from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.journal import EMPTY, check_follows, decode_pack
from offgrid_node.storage.lmdb_env import JOURNAL, TABLE, Opened, fault_of, read_meta
from offgrid_node.storage.lmdb_read import Chunk, Row
from offgrid_node.storage.rows import CHECKSUM_BYTES, KeyRange, RowSeal, TableSum, damaged_order, damaged_row

FINDINGS_MAX = 1_000


class Reader(Protocol):
    """The store's one bounded read."""

    def __call__(self, name: str, span: KeyRange, after: bytes | None) -> Chunk: ...


def verify_environment(opened: Opened, read: Reader, path: Path) -> list[str]:
    """Every checksum, the order of keys, the journal's chain, and each table's sum. The caller keeps commits away.

    At most FINDINGS_MAX sentences; the last then says that there are more.
    """
    found: list[str] = []
    for finding in _findings(opened, read, path):
        if len(found) == FINDINGS_MAX:
            found.append(f"and more: only the first {FINDINGS_MAX} are listed")
            break
        found.append(finding)
    return found


def _findings(opened: Opened, read: Reader, path: Path) -> Iterator[str]:
    try:
        tail, sums = read_meta(opened)
    except Fault as fault:
        yield fault.message
        tail, sums = opened.tail, opened.sums
    except (lmdb.Error, OSError) as error:
        yield fault_of(error, "cannot read the store's summary", path).message
        tail, sums = opened.tail, opened.sums
    if (tail, sums) != (opened.tail, opened.sums):
        yield "the store's summary on the disk is not what was committed"
    yield from _journal(opened, read)
    tables = {name[len(TABLE) :] for name in opened.dbs if name.startswith(TABLE)}
    for table in sorted(tables | set(sums)):
        yield from _table(table, sums.get(table, TableSum()), read)


def _walk(name: str, read: Reader) -> Iterator[Row]:
    last: bytes | None = None
    more = True
    while more:
        chunk = read(name, KeyRange(b"", None), last)
        yield from chunk.rows
        more = chunk.more
        if chunk.rows:
            if last is not None and chunk.rows[-1][0] <= last:
                raise damaged_order(name, chunk.rows[-1][0])
            last = chunk.rows[-1][0]


def _journal(opened: Opened, read: Reader) -> Iterator[str]:
    tail = EMPTY
    try:
        for key, stored in _walk(JOURNAL, read):
            try:
                pack = decode_pack(key, stored)
            except Fault as fault:
                yield fault.message
                continue
            try:
                check_follows(pack, tail)
            except Fault as fault:
                yield fault.message
            tail = pack.tail
    except Fault as fault:
        yield f"journal: behind event {tail.seq}: {fault.message}"
    if tail != opened.tail:
        yield f"journal: it ends at event {tail.seq}, not at event {opened.tail.seq} as committed"


def _table(table: str, expected: TableSum, read: Reader) -> Iterator[str]:
    seal = RowSeal(table)
    count = total = 0
    last: bytes | None = None
    try:
        for key, stored in _walk(TABLE + table, read):
            if not seal.holds(key, stored):
                yield damaged_row(table, key).message
            if last is not None and key <= last:
                yield damaged_order(table, key).message
            count, last = count + 1, key
            total += int.from_bytes(stored[:CHECKSUM_BYTES], "big")
    except Fault as fault:
        yield f"table {table}: behind row {count}: {fault.message}"
    if (found := TableSum(count, total % 2**64)) != expected:
        detail = f"{found.rows} rows found, {expected.rows} committed"
        if found.rows == expected.rows:
            detail = "a row is not the one that was committed last"
        yield f"table {table}: {detail}: restore it from a backup"

"""Walks a whole LMDB store and says what is wrong with it, one sentence each."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import lmdb

from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.sound import row_name
from offgrid_node.storage.journal import check_follows, decode_pack
from offgrid_node.storage.lmdb_env import JOURNAL, TABLE, Gap, Meta, Opened, fault_of, read_meta
from offgrid_node.storage.lmdb_read import Row, wrong_sum
from offgrid_node.storage.rows import CHECKSUM_BYTES, RowSeal, TableSum, damaged_order, damaged_row

FINDINGS_MAX = 1_000


def verify_environment(opened: Opened, path: Path) -> list[str]:
    """Every checksum, the order of keys, that a search finds each row, the journal's chain, and each table's sum; notes
    which tables are `suspect` from now on.

    The caller keeps commits away. At most FINDINGS_MAX sentences; the last then says that there are more.
    """
    found: list[str] = []
    for finding in _findings(opened, path):
        if len(found) == FINDINGS_MAX:
            found.append(f"and more: only the first {FINDINGS_MAX} are listed")
            opened.suspect |= opened.sums.keys()  # nobody has looked at all of them
            break
        found.append(finding)
    return found


def _findings(opened: Opened, path: Path) -> Iterator[str]:
    summary = found = Meta(opened.tail, opened.floor, opened.sums, opened.log_id)
    try:
        found = read_meta(opened)
    except Fault as fault:
        yield fault.message
    except (lmdb.Error, OSError) as error:
        yield fault_of(error, "cannot read the store's summary", path).message
    if found != summary:
        yield "the store's summary on the disk is not what was committed"
    yield from _guarded("the journal", _journal(opened, found), path)
    tables = {name.removeprefix(TABLE) for name in opened.dbs if name.startswith(TABLE)}
    for table in sorted(tables | set(found.sums)):
        yield from _guarded(f"table {table}", _table(opened, table, found.sums.get(table, TableSum())), path)


def _guarded(what: str, findings: Iterator[str], path: Path) -> Iterator[str]:
    try:
        yield from findings
    except (lmdb.Error, OSError) as error:
        yield fault_of(error, f"cannot read {what} to its end", path).message


def _walk(opened: Opened, name: str, shown: str) -> Iterator[Row | str]:
    """The rows of a database, and sentences about those that are out of order or not found by a search."""
    db = opened.dbs.get(name)
    if db is None:
        return
    last = b""
    with opened.env.begin(db=db) as txn, txn.cursor() as cursor:
        for key, stored in cursor:
            if key <= last:
                yield damaged_order(shown, key).message
            if txn.get(key) != stored:
                yield f"{row_name(shown, key)} is not found by its key: restore the store from a backup"
            last = key
            yield key, stored


def _journal(opened: Opened, expected: Meta) -> Iterator[str]:
    tail = expected.floor
    for row in _walk(opened, JOURNAL, JOURNAL):
        if isinstance(row, str):
            yield row
            continue
        try:
            pack = decode_pack(*row)
        except Fault as fault:
            yield fault.message
            continue
        try:
            check_follows(pack, tail)
        except Fault as fault:
            yield fault.message
        tail = pack.tail
    if tail != expected.tail:
        yield f"journal: it ends at event {tail.seq}, not at event {expected.tail.seq} as committed"


def _table(opened: Opened, table: str, expected: TableSum) -> Iterator[str]:
    """A row that is damaged where it lies is told of by whoever reads it; all else makes the table suspect."""
    suspect = True  # until it has been read to its end
    try:
        suspect = yield from _rows(opened, table, expected)
    finally:
        if suspect:
            opened.suspect.add(table)


def _rows(opened: Opened, table: str, expected: TableSum) -> Generator[str, None, bool]:
    """Returns whether some may be missing, or be another's."""
    seal = RowSeal(table)
    count = total = meant = 0  # `meant`: had no checksum itself been damaged
    suspect = False
    gaps, damaged, low = list[Gap](), list[bytes](), b""
    for row in _walk(opened, TABLE + table, table):
        if isinstance(row, str):
            suspect = True
            yield row
            continue
        key, stored = row
        right = seal.checksum(key, stored[CHECKSUM_BYTES:])
        if stored[:CHECKSUM_BYTES] != right:
            damaged.append(key)
            yield damaged_row(table, key).message
        else:
            gaps += (Gap(low, key, each) for each in damaged)
            damaged.clear()
            low = key
        count += 1
        total += int.from_bytes(stored[:CHECKSUM_BYTES], "big")
        meant += int.from_bytes(right, "big")
    if (found := TableSum(count, total % 2**64)) != expected:
        suspect = suspect or TableSum(count, meant % 2**64) != expected
        yield wrong_sum(table, found, expected)
    opened.gaps[table] = [*gaps, *(Gap(low, None, each) for each in damaged)]
    return suspect

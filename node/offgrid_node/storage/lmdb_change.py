"""What one LMDB transaction does: packs behind the journal's end and away from its beginning, and rows."""

from __future__ import annotations

from typing import NamedTuple

from offgrid_node.storage.journal import Tail, decode_pack, encode_packs, journal_key
from offgrid_node.storage.lmdb_env import JOURNAL, Opened
from offgrid_node.storage.store import Batch


class Drop(NamedTuple):
    """The keys of packs that go. `floor`: the last event that is kept no more, with the digest of its pack; `tail`: the
    journal's end then."""

    keys: list[bytes]
    floor: Tail
    tail: Tail


class Change(NamedTuple):
    """`rows` by their tables; `tail` is the journal's end with `packs`."""

    packs: list[tuple[bytes, bytes]]
    rows: dict[str, list[tuple[bytes, bytes | None]]]
    tail: Tail
    drop: Drop


def change_of(opened: Opened, batch: Batch) -> Change:
    """Raises Corrupt for a floor beneath a pack that is damaged, and lmdb.Error."""
    drop = _drop(opened, batch.floor)
    packs, tail = encode_packs(drop.tail, batch.events)
    rows: dict[str, list[tuple[bytes, bytes | None]]] = {}
    for (table, key), value in batch.writes.items():
        rows.setdefault(table, []).append((key, value))
    return Change(packs, rows, tail, drop)


def _drop(opened: Opened, upto: int) -> Drop:
    """A pack goes whole, or stays. What follows says what went before it, so those that go need not be sound."""
    nothing = Drop([], opened.floor, opened.tail)
    if upto <= opened.floor.seq:
        return nothing
    with opened.env.begin(db=opened.dbs[JOURNAL]) as txn, txn.cursor() as cursor:
        if upto >= opened.tail.seq:
            end = Tail(upto, opened.tail.digest)
            return Drop([bytes(key) for key in cursor.iternext(keys=True, values=False)], end, end)
        keys: list[bytes] = []
        stays, after = b"", journal_key(upto + 2)
        for key in cursor.iternext(keys=True, values=False):
            if key >= after:
                break
            if stays:
                keys.append(stays)
            stays = bytes(key)
        if not keys:
            return nothing
        first = decode_pack(stays, bytes(txn.get(stays) or b""))
    return Drop(keys, Tail(first.first_seq - 1, first.previous), opened.tail)

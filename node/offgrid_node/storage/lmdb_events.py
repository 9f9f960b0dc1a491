"""The journal of an LMDB store, walked in chunks either way: each pack follows the one before, none may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from offgrid_node.storage.journal import Tail, check_follows, decode_pack, gap, journal_key
from offgrid_node.storage.lmdb_read import Chunk
from offgrid_node.storage.rows import CHUNK_ROWS, KeyRange

Event = tuple[int, bytes]


class ReadChunk(Protocol):
    """One short read transaction of the journal."""

    def __call__(
        self, span: KeyRange, after: bytes | None, *, reverse: bool = False, rows_max: int = CHUNK_ROWS
    ) -> Chunk: ...


def events_up(
    read: ReadChunk, newest_seq: Callable[[], int], floor_seq: Callable[[], int], after_seq: int
) -> Iterator[Event]:
    """To the newest of the moment in which the last chunk is read. Raises Corrupt."""
    after_seq = max(after_seq, floor_seq())
    if after_seq >= newest_seq():
        return
    start = read(KeyRange(b"", journal_key(after_seq + 2)), None, reverse=True, rows_max=1)
    span = KeyRange(start.rows[0][0] if start.rows else b"", None)
    tail: Tail | None = None
    last: bytes | None = None
    next_seq = after_seq + 1
    newest = 0
    more = True
    while more:
        newest = newest_seq()
        chunk = read(span, last)
        for key, stored in chunk.rows:
            pack = decode_pack(key, stored)
            if next_seq < pack.first_seq <= floor_seq() + 1:  # those between have gone meanwhile
                tail, next_seq = None, pack.first_seq
            if tail is not None:
                check_follows(pack, tail)
            elif pack.first_seq > next_seq:
                raise gap(next_seq, pack.first_seq - 1)
            tail, last = pack.tail, key
            yield from enumerate(pack.events[next_seq - pack.first_seq :], next_seq)
            next_seq = max(next_seq, pack.last_seq + 1)
        more = chunk.more
    if max(next_seq, floor_seq() + 1) <= newest:
        raise gap(next_seq, newest)


def events_down(read: ReadChunk, newest: int, floor_seq: Callable[[], int], after_seq: int) -> Iterator[Event]:
    """From the newest to the one behind `after_seq`. Raises Corrupt."""
    after_seq = max(after_seq, floor_seq())
    span = KeyRange(b"", None)
    wanted: int | None = None
    more = after_seq < newest
    while more:
        chunk = read(span, None, reverse=True)
        for key, stored in chunk.rows:
            pack = decode_pack(key, stored)
            if wanted is None and pack.last_seq < newest:
                raise gap(pack.last_seq + 1, newest)
            if wanted is not None and pack.last_seq != wanted:
                raise gap(pack.last_seq + 1, wanted)
            for at in range(pack.last_seq, max(after_seq, pack.first_seq - 1), -1):
                yield at, pack.events[at - pack.first_seq]
            wanted = pack.first_seq - 1
            if wanted <= after_seq:
                return
            span = KeyRange(b"", key)
        more = chunk.more
    missing = newest if wanted is None else wanted
    if missing > max(after_seq, floor_seq()):
        raise gap(after_seq + 1, missing)

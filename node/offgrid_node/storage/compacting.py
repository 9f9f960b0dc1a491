"""Makes a store's file small again, while the store serves: a compact copy (copying.py) takes its place.

What is committed while the copy is made is remembered and brought into it, at last with commits held for a moment; then
it takes the place of the file by one rename. Whoever is killed before that finds the old file and its log, and
afterwards the new one, which has all and no log above it: the next start makes one. The log of before is written over
only once the rename is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from offgrid_node.protocol.errors import Corrupt, Unavailable
from offgrid_node.storage.copying import drop_copy
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.lmdb_env import DATA_FILE
from offgrid_node.storage.logged import RETRY_MS, LoggedStore
from offgrid_node.storage.overlay import Remembered
from offgrid_node.storage.store import Batch

REMEMBERED_BYTES_MAX = 32 * 1024 * 1024
LAST_BYTES_MAX = 1024 * 1024  # brought into the copy while commits wait
ROUNDS_MAX = 16


class Compacted(msgspec.Struct, frozen=True):
    before_bytes: int
    after_bytes: int


def compact(
    store: LoggedStore, copied: Callable[[], tuple[Path, Sequence[str]]], *, bytes_max: int = REMEMBERED_BYTES_MAX
) -> Compacted:
    """In a thread beside those that read and commit. `copied` makes the copy and says what is wrong in it.

    Raises Corrupt (StoreDamaged) for a damaged store, which stays as it is, Unavailable (CompactionBroken), and as
    `copy_store` does."""
    before = store.size_bytes()
    remembered = Remembered(bytes_max)
    store.remember(remembered)
    try:
        place, findings = copied()
        if findings:
            text = f"the store is damaged, and stays as it is: {findings[0]}"
            raise Corrupt(text, reason="StoreDamaged")
        copy = LmdbStore.open(place, limit_bytes=store.limit_bytes())
        try:
            for _ in range(ROUNDS_MAX):
                if remembered.bytes <= LAST_BYTES_MAX:
                    break
                _bring(copy, remembered)
            store.checkpoint()  # so that little is left for the moment in which commits wait
            _bring(copy, remembered)

            def bring(last: Remembered) -> Path:
                _bring(copy, last)
                copy.leave_log()
                copy.close()
                return place / DATA_FILE

            store.take_over(bring)
        finally:
            copy.close()
    finally:
        store.remember(None)
        drop_copy(store.path)
    return Compacted(before, store.size_bytes())


def _bring(copy: LmdbStore, remembered: Remembered) -> None:
    """The copy may be of any moment since they are remembered: rows come to the same, events are told by their
    numbers."""
    if remembered.too_much:
        raise Unavailable("too much was written meanwhile", reason="CompactionBroken", retry_ms=RETRY_MS)
    for base_seq, batch in remembered.take():
        new = batch.events[max(0, copy.journal_seq - base_seq) :]
        copy.commit(Batch(new, batch.writes, batch.floor))

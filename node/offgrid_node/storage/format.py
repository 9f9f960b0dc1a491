"""Which form the rows of a store have, written in the store itself: what `offgrid-node migrate` changes.

The file's own layout is another matter (lmdb_env.py), and so is the form of a backup. A store from before this row was
written has the first form.
"""

from __future__ import annotations

from offgrid_node.protocol.errors import Corrupt, FailedPrecondition
from offgrid_node.storage.store import Batch, Store

FORMAT = 1
STORE, FORMAT_KEY, CURSOR_KEY = "store", b"format", b"migrating"
NUMBER_BYTES = 4


def format_of(store: Store) -> int:
    """Raises as reads do, and Corrupt (reason StoreDamaged) for what is no number."""
    row = store.get(STORE, FORMAT_KEY)
    if row is not None and len(row) != NUMBER_BYTES:
        raise Corrupt("the store does not say which form its rows have", reason="StoreDamaged")
    return int.from_bytes(row, "big") if row is not None else 1


def format_row(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def stamp(store: Store, number: int = FORMAT) -> None:
    """For one that is new. Raises as `commit` does."""
    if not store.tables and not store.journal_seq:
        store.commit(Batch(writes={(STORE, FORMAT_KEY): format_row(number)}))


def check_format(store: Store, known: int = FORMAT) -> None:
    """Raises FailedPrecondition: StoreOfBefore, where it is to be migrated; WrongFormat, of one of a newer program."""
    found = format_of(store)
    if found > known:
        text = (
            f"the store's rows have form {found}, and this program knows forms up to {known}: a newer version wrote "
            "it, and there is no way back; run that one, or bring back a backup of before"
        )
        raise FailedPrecondition(text, reason="WrongFormat", metadata={"format": str(found), "known": str(known)})
    if found < known or store.get(STORE, CURSOR_KEY) is not None:
        text = f"the store's rows have form {found}, this version needs {known}: offgrid-node migrate"
        raise FailedPrecondition(text, reason="StoreOfBefore", metadata={"format": str(found), "known": str(known)})

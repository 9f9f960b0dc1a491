"""Sealed bytes of what is small lie in rows, not in files: they come in the very transaction that says that they are
here, and go in the one that says that they are not. So a small put costs its owner and each host one flush and no file.

Each owner's bytes are its own, also where two claim the same object. What is larger, or came in pieces, is a file of
the blob store (`storage/row_blobs.py` shows both as one).
"""

from __future__ import annotations

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.sound import sound

SMALL = "small_blobs"  # name of the blob "/" owner → its sealed bytes
SMALL_BYTES_MAX = 16 * 1024  # beyond, to write it twice (log and store) costs more than a file's flushes


def small_key(name: str, owner: str) -> bytes:
    return f"{name}/{owner}".encode()


def keep(draft: Draft, name: str, owner: str, sealed: bytes) -> None:
    """In the place of what was there, which may be damaged."""
    draft.put_bytes(SMALL, small_key(name, owner), sealed)


def forget(draft: Draft, name: str, owner: str) -> None:
    """What `owner` has here under the name is a file from now on; a row would stand before it, and may be damaged."""
    if _has(draft, key := small_key(name, owner)):
        draft.delete(SMALL, key)


def drop(draft: Draft, name: str, owner: str) -> None:
    """What `owner` has here under the name, as a row or as a file. A file beside a row, at a host that was brought the
    same in pieces once, is swept at the next start."""
    key = small_key(name, owner)
    if _has(draft, key):
        draft.delete(SMALL, key)
    else:
        draft.send(DropBlob(name))


def drop_rows(draft: Draft, object_id: str, owner: str) -> None:
    """All that `owner` has of the object as rows, whatever says so; some of them may be damaged."""
    damaged = list[bytes]()
    rows = sound(draft.committed, SMALL, prefix=object_id.encode(), on_damaged=damaged.append)
    for key in [*(key for key, _ in rows), *damaged]:
        if key.endswith(f"/{owner}".encode()) and _has(draft, key):
            draft.delete(SMALL, key)


def _has(draft: Draft, key: bytes) -> bool:
    """A damaged one is one."""
    try:
        return draft.get(SMALL, key) is not None
    except Corrupt:
        return True

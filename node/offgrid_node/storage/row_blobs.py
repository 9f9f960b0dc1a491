"""What is kept here, whether as files of the blob store or, being small, as rows (`protocol/objects/small.py`):
whoever reads need not know which.

Rows are written and deleted by the machines alone, in their transactions.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.small import SMALL, SMALL_BYTES_MAX, small_key
from offgrid_node.protocol.objects.tables import REPLICAS, replica_prefix
from offgrid_node.protocol.sound import keys
from offgrid_node.storage.blobs import ReadableBlobs, blob_short
from offgrid_node.storage.store import Store

STORE_PERCENT = 50  # of its limit: in a store that is fuller than that nothing more becomes a row


class _Shown:
    """Rows of some owners, and beside them the files `below`."""

    def __init__(self, below: ReadableBlobs, store: Store) -> None:
        self._below, self._store = below, store

    def _owners(self, name: str) -> Iterator[str]:
        """Whose rows may stand for the blob, in this order."""
        raise NotImplementedError

    def size(self, name: str) -> int | None:
        """Raises Corrupt for a damaged row, as `read`."""
        row = self._row(name)
        return len(row) if row is not None else self._below.size(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        row = self._row(name)
        if row is None:
            return self._below.read(name, offset, length)
        if offset + length > len(row):
            raise blob_short(name, len(row), offset + length)
        return row[offset : offset + length]

    def _row(self, name: str) -> bytes | None:
        """The first that is sound; a damaged one counts where there is neither another nor a file."""
        damaged: Corrupt | None = None
        for owner in self._owners(name):
            try:
                row = self._store.get(SMALL, small_key(name, owner))
            except Corrupt as fault:
                damaged = fault
            else:
                if row is not None:
                    return row
        if damaged is not None and self._below.size(name) is None:
            raise damaged
        return None


class OwnerBlobs(_Shown):
    """A `ReadableBlobs` of what is here for one owner: what another has brought of the same bytes goes when that one
    says so, and proves nothing."""

    def __init__(self, below: ReadableBlobs, store: Store, owner: str) -> None:
        super().__init__(below, store)
        self._owner = owner

    def _owners(self, name: str) -> Iterator[str]:
        yield self._owner


class RowBlobs(_Shown):
    """A `ReadableBlobs` of all that is here: the bytes are the same, whoever's they are."""

    def __init__(self, below: ReadableBlobs, store: Store, self_id: str, small_bytes: int = SMALL_BYTES_MAX) -> None:
        """`small_bytes`: what one put is to bring in rows at most; 0 for nothing."""
        super().__init__(below, store)
        self._self_id, self._small_bytes = self_id, small_bytes

    def of(self, owner: str) -> OwnerBlobs:
        return OwnerBlobs(self._below, self._store, owner)

    def takes(self, size_bytes: int) -> bool:
        """Whether so many bytes belong into rows."""
        if size_bytes > self._small_bytes:
            return False
        return self._store.size_bytes() * 100 < self._store.limit_bytes() * STORE_PERCENT

    def own(self, name: str) -> bytes | None:
        """All of it, where it is an object of this node's own and a row. Raises Corrupt for a damaged one."""
        return self._store.get(SMALL, small_key(name, self._self_id))

    def _owners(self, name: str) -> Iterator[str]:
        yield self._self_id
        prefix = replica_prefix(name.partition(".")[0])
        for key in keys(self._store.scan, REPLICAS, prefix=prefix):  # of a damaged row the bytes may be sound
            yield key[len(prefix) :].decode(errors="replace")

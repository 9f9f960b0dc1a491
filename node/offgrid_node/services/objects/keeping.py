"""Which blobs are being vouched for, and which are being deleted: never one of them both.

A blob may be wanted by two at once: what a host keeps of a result until its core has it is, a moment later, the replica
that the core brings back to this very host. So there is one rule for every deletion: nobody vouches for the blob, and
no row knows of it. All of this belongs to the runtime's thread; only the deletion and that last question do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.services.bulk import Bulk
from offgrid_node.storage.blobs import BlobStore


class Keeping:
    """The one place where kept blobs are deleted."""

    def __init__(self, blobs: BlobStore, bulk: Bulk, known: Callable[[str], bool]) -> None:
        """`known`, asked in a thread: whether a row says that a blob is wanted here (`room.is_known`)."""
        self._blobs, self._bulk, self._known = blobs, bulk, known
        self._vouched: Counter[str] = Counter()
        self._dropping: set[str] = set()
        self._due: set[str] = set()  # to be deleted once nobody vouches for it

    @contextmanager
    def vouch(self, name: str) -> Iterator[None]:
        """While inside, the blob is not deleted. Raises FailedPrecondition (reason ReplicaIncomplete) when it just is:
        whoever brought it begins again."""
        if name in self._dropping:
            raise FailedPrecondition(
                f"{name} is being deleted here", reason="ReplicaIncomplete", metadata={"offset": "0"}
            )
        self._vouched[name] += 1
        try:
            yield
        finally:
            self._vouched[name] -= 1
            if not self._vouched[name]:
                del self._vouched[name]
                if name in self._due:
                    self._due.discard(name)
                    self.drop(name)

    def drop(self, name: str) -> None:
        """Deletes it, unless it is known by then; where somebody vouches for it, once he has done. What a disk that
        refuses leaves over, the next start sweeps."""
        if name in self._vouched:
            self._due.add(name)
            return
        if name in self._dropping:
            return
        self._dropping.add(name)

        def work() -> None:
            if not self._known(name):
                self._blobs.delete(name)

        self._bulk.run(work, key=name)(lambda outcome: self._dropping.discard(name))

"""The outbox's own rows: one entry for each object of this node's, open until the quorum has acked, or it is given up.

What is open has an index of its own, so that neither a start nor a list walks over the rest.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, NotFound
from offgrid_node.protocol.objects.tables import (
    JOBS_OPEN,
    LAST_NUMBER,
    META,
    OUTBOX,
    OUTBOX_OPEN,
    number_key,
    number_of,
    outbox_key,
)

PENDING, DELIVERING = objects_pb2.OUTBOX_STATUS_PENDING, objects_pb2.OUTBOX_STATUS_DELIVERING
COMPLETED, CANCELLED = objects_pb2.OUTBOX_STATUS_COMPLETED, objects_pb2.OUTBOX_STATUS_CANCELLED
TROUBLE_CHARS_MAX = 256


class Entries:
    """Reads and writes them. A number is given once."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._last = 0
        self.jobs_open = 0  # open ones that are inputs and results of jobs

    def load(self, rows: Rows) -> Iterator[tuple[int, str]]:
        """Number and object of everything that is open, the oldest first."""
        self._last = number_of(rows.get(META, LAST_NUMBER) or b"")
        self.jobs_open = number_of(rows.get(META, JOBS_OPEN) or b"")
        for key, object_id in rows.scan(OUTBOX_OPEN):
            yield number_of(key), object_id.decode()

    def find(self, number: int) -> objects_pb2.OutboxEntry | None:
        return self._draft.row(OUTBOX, outbox_key(number), objects_pb2.OutboxEntry)

    def get(self, number: int) -> objects_pb2.OutboxEntry:
        """Raises Corrupt."""
        entry = self.find(number)
        if entry is None:
            raise Corrupt(f"outbox entry {number} has no row", reason="RowsMissing")
        return entry

    def add(self, entry: objects_pb2.OutboxEntry) -> int:
        """It gets its number."""
        self._last = entry.id = self._last + 1
        key = self._put(entry)
        self._draft.put_bytes(OUTBOX_OPEN, key, entry.object_id.encode())
        self._draft.put_bytes(META, LAST_NUMBER, key)
        self._count_job(entry, 1)
        return entry.id

    def weigh(self, number: int, acked_milli: int, *, reached: bool, now: Now) -> None:
        """What the acks of an open one weigh; with what is required it is completed."""
        entry = self.get(number)
        entry.acked_milli = acked_milli
        if reached:
            self._end(entry, COMPLETED, "", now)
        else:
            self._put(entry)

    def note(self, number: int, status: objects_pb2.OutboxStatus.ValueType, tries: int, trouble: str) -> None:
        """How delivery of an open one stands; `tries` more than before."""
        entry = self.get(number)
        trouble = trouble[:TROUBLE_CHARS_MAX]
        if (entry.status, entry.trouble) == (status, trouble) and not tries:
            return
        entry.status, entry.trouble, entry.tries = status, trouble, entry.tries + tries
        self._put(entry)

    def cancellable(self, number: int) -> objects_pb2.OutboxEntry:
        """Raises NotFound (EntryNotFound), FailedPrecondition (EntryCompleted)."""
        entry = self.find(number)
        if entry is None:
            raise NotFound(
                f"there is no outbox entry {number}", reason="EntryNotFound", metadata={"outbox_id": str(number)}
            )
        if entry.status == COMPLETED:
            text = (
                f"outbox entry {number} is completed: the hosts of {entry.object_id} have acked, nothing is under way"
            )
            raise FailedPrecondition(text, reason="EntryCompleted")
        return entry

    def cancel(self, entry: objects_pb2.OutboxEntry, trouble: str, now: Now) -> None:
        """One that has ended stays as it is."""
        if entry.status not in (COMPLETED, CANCELLED):
            self._end(entry, CANCELLED, trouble, now)

    def forget(self, number: int) -> None:
        """One that has ended, of what there is much of, and for which nobody asks again."""
        self._draft.delete(OUTBOX, outbox_key(number))

    def _end(
        self, entry: objects_pb2.OutboxEntry, status: objects_pb2.OutboxStatus.ValueType, trouble: str, now: Now
    ) -> None:
        entry.status, entry.completed_us, entry.trouble = status, now.utc_us, trouble
        self._draft.delete(OUTBOX_OPEN, self._put(entry))
        self._count_job(entry, -1)

    def _put(self, entry: objects_pb2.OutboxEntry) -> bytes:
        self._draft.put(OUTBOX, key := outbox_key(entry.id), entry)
        return key

    def _count_job(self, entry: objects_pb2.OutboxEntry, more: int) -> None:
        if entry.for_job:
            self.jobs_open += more
            self._draft.put_bytes(META, JOBS_OPEN, number_key(self.jobs_open))

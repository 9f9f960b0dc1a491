"""Which of this node's objects are verified, in the order of when they were: how many, and which the longest ago, is
asked for without a look at all of them. Segments of the journal do not count: nobody put them.
"""

from __future__ import annotations

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.tables import META, VERIFIED, VERIFIED_COUNT, expiring_key, number_key, number_of


class Verified:
    """The rows of VERIFIED, and how many there are."""

    def __init__(self, draft: Draft) -> None:
        self._draft, self._count = draft, 0

    def load(self, rows: Rows) -> None:
        self._count = count_of(rows)

    def set(self, made: objects_pb2.Object, verified_us: int) -> None:
        """In the object too, whose row the caller writes or deletes; 0: it is not verified, or is no more."""
        before_us, made.verified_us = made.verified_us, verified_us
        if before_us == verified_us or is_segment(made.manifest):
            return
        if before_us:
            self._draft.delete(VERIFIED, expiring_key(before_us, made.object_id))
        if verified_us:
            self._draft.put_bytes(VERIFIED, expiring_key(verified_us, made.object_id), b"")
        if bool(before_us) != bool(verified_us):
            self._count += 1 if verified_us else -1
            self._draft.put_bytes(META, VERIFIED_COUNT, number_key(self._count))


def count_of(rows: Rows) -> int:
    return number_of(rows.get(META, VERIFIED_COUNT) or b"")


def oldest_us(rows: Rows) -> int:
    """When that which was verified the longest ago was; 0 where nothing is."""
    key = next((key for key, _ in rows.scan(VERIFIED)), b"")
    return number_of(key[: len(number_key(0))])

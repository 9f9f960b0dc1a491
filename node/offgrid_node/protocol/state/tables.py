"""The rows of the journal's own replication, and what goes into no segment."""

from __future__ import annotations

import msgspec

from offgrid_node.protocol.objects.small import SMALL
from offgrid_node.protocol.objects.tables import (
    GONE,
    KEPT,
    KEPT_BYTES,
    MOVED,
    REPLICAS,
    REPLICAS_EXPIRING,
    SEGMENTS_KEPT,
)

JOURNAL = "journal"  # one row each, see below
STATE_KEY = b"state"  # → JournalRow
NOTING_KEY = b"noting"  # there while each change is noted down
NEWER_KEY = b"newer"  # → Newer: a host showed what this store knows nothing of; it is an old one
CHANGES = "journal_changes"  # number of a transaction (8 bytes, big-endian) → which rows it changed
SEGMENTS = "journal_segments"  # number (8 bytes, big-endian) → SegmentRow
PAST = "journal_past"  # number (8 bytes, big-endian) → object id of a segment that has gone (newest.py)
OWN_TABLES = frozenset({JOURNAL, CHANGES, SEGMENTS, PAST})
# Whoever lost its disk keeps nothing for others any more; and of two cores that keep each other's segments, each one's
# next would have the other's in it.
OF_REPLICAS = frozenset({REPLICAS, KEPT, KEPT_BYTES, REPLICAS_EXPIRING, SEGMENTS_KEPT, MOVED, SMALL, GONE})
LEFT_OUT = OWN_TABLES | OF_REPLICAS

NUMBER_BYTES = 8


class Newer(msgspec.Struct, frozen=True):
    """The newest life of this node that a host has told of, and the highest number of a segment that was given by then,
    elsewhere or here."""

    life: int
    number: int

    def encode(self) -> bytes:
        return number_key(self.life) + number_key(self.number)

    @classmethod
    def decode(cls, row: bytes) -> Newer:
        return cls(number_of(row[:NUMBER_BYTES]), number_of(row[NUMBER_BYTES:]))


def number_key(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def number_of(key: bytes) -> int:
    """The inverse of `number_key`."""
    return int.from_bytes(key, "big")

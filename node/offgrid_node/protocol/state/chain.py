"""Putting a journal together again: which of the segments that hosts still have give the newest rows, and those rows.

Heads are believed only under their owner's signature, and a segment only if its bytes are its head's object. Several
chains may be there, of a node that was restored before: the one whose end is newest and that is whole counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt, NotFound
from offgrid_node.protocol.objects.segments import SegmentHead
from offgrid_node.protocol.sound import row_name


class Chain(msgspec.Struct, frozen=True):
    """`heads`, the oldest first, give all rows. `beyond` are newer ones that are of no use, since some before them are
    not to be had."""

    heads: tuple[SegmentHead, ...]
    beyond: tuple[SegmentHead, ...]

    @property
    def newest(self) -> SegmentHead:
        return self.heads[-1]


def newest_chain(heads: Mapping[str, SegmentHead], damaged: Collection[str] = ()) -> Chain:
    """Of heads by their object's id; of those `damaged` nobody has the bytes. Raises NotFound (reason NoSegments) where
    there are none, Corrupt (reason SegmentsMissing) where no chain is whole; it says what is lacking."""
    if not heads:
        raise NotFound("nobody who answered keeps a segment of this node's journal", reason="NoSegments")
    sound, beyond = {each: head for each, head in heads.items() if each not in damaged}, list[SegmentHead]()
    for head in sorted(heads.values(), key=lambda head: head.order, reverse=True):
        links = _links(head, sound) if head.object_id in sound else None
        if links is not None:
            return Chain(links, tuple(beyond))
        beyond.append(head)
    numbers = ", ".join(str(head.number) for head in beyond[:8])
    raise Corrupt(
        f"segments {numbers} of the journal are there, and none of them with all that it needs: ask again when more "
        "hosts are up",
        reason="SegmentsMissing",
    )


def _links(head: SegmentHead, heads: Mapping[str, SegmentHead]) -> tuple[SegmentHead, ...] | None:
    """From the head's base on; None where one of them is missing, or the base not whole."""
    found, at = [head], head
    while head.base and at.number > head.base:
        before = heads.get(at.previous)
        if before is None or before.number != at.number - 1 or before.life > at.life:
            return None
        found.append(before)
        at = before
    return tuple(reversed(found)) if head.base else None


class Replay:
    """Events as segments bring them, the old ones of a base beside new ones, in the order of their numbers. Those up to
    `floor` are kept no more."""

    def __init__(self) -> None:
        self.floor = self._last = 0
        self._ahead: dict[int, bytes] = {}

    def add(self, segment: state_pb2.Segment) -> list[bytes]:
        """The events that follow those so far, or the floor if that lies behind them."""
        self.floor = max(self.floor, segment.floor)
        self._last = max(self._last, self.floor)
        for seq in [seq for seq in self._ahead if seq <= self._last]:
            del self._ahead[seq]
        for part in segment.events:
            for seq, event in enumerate(part.events, part.first_seq):
                if seq > self._last:
                    self._ahead[seq] = event
        ready: list[bytes] = []
        while self._last + 1 in self._ahead:
            self._last += 1
            ready.append(self._ahead.pop(self._last))
        return ready

    def check_end(self, events: int) -> None:
        """Raises Corrupt unless all events up to that number came, and no more."""
        if self._ahead or self._last < events:
            raise Corrupt(f"the journal's event {self._last + 1} is in no segment", reason="EventsMissing")


def writes_of(segment: state_pb2.Segment) -> Iterator[tuple[tuple[str, bytes], bytes | None]]:
    """The rows of a segment, by table and key."""
    for table in segment.tables:
        for row in table.rows:
            yield (table.name, row.key), row.value if row.HasField("value") else None


def damaged_rows(segment: state_pb2.Segment) -> list[str]:
    """Rows that the node could not read any more at the segment's moment: what came before says what they were."""
    return [row_name(table.name, key) for table in segment.tables for key in table.damaged]

"""One message on its way to a peer: what of it has to be sent, and what has arrived.

Knows neither time nor frames: it is asked for a piece that fits, and told later whether that arrived or was lost.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

from offgrid_transports.gathering import MESSAGE_BYTES_MAX, MessageTooLarge
from offgrid_transports.messages import Message
from offgrid_transports.records import OFFSET_MAX, part_head, varint, whole_head
from offgrid_transports.transport import Priority

PART_BYTES_MIN = 8  # a piece is not cut shorter than that to fill a frame
_FLAGS_BYTES = 1
_PART_HEAD_BYTES_MAX = 1 + 5 + 4

assert MESSAGE_BYTES_MAX <= OFFSET_MAX


class Span(NamedTuple):
    """What a frame carries of a message. `turn`: how often the message was begun before."""

    start: int
    end: int
    turn: int


class Outgoing:
    """Each byte of it waits, is in one span under way, or has arrived."""

    def __init__(self, *, request: bool, call: int, message: Message, priority: Priority) -> None:
        """Raises MessageTooLarge."""
        self.request, self.call, self.priority = request, call, priority
        self._bytes, self._flags = message.whole, message.flags
        self.size = len(self._bytes)
        if self.size > MESSAGE_BYTES_MAX:
            raise MessageTooLarge(f"a message of {self.size} bytes; {MESSAGE_BYTES_MAX} are taken")
        self.done = False
        """It has arrived, or nobody wants it any more."""
        self._next = 0
        self._lost: list[tuple[int, int]] = []  # a heap
        self._copies: dict[Span, int] = {}  # under way
        self._arrived = self._turn = 0

    @property
    def ready(self) -> bool:
        """Whether something of it waits to be sent."""
        return not self.done and (self._next < self.size or bool(self._lost))

    @property
    def waiting_bytes(self) -> int:
        if self.done:
            return 0
        return self.size - self._next + sum(end - start for start, end in self._lost)

    def whole_fits(self, room: int) -> bool:
        return self.size + len(varint(self.call)) <= room  # the flags are in the record's first byte

    def take(self, room: int) -> tuple[bytes, Span] | None:
        """A record of `room` bytes at most, and its span; None where there is not room enough for one worth it."""
        if not self.ready:
            return None
        start, end = self._first_waiting()
        stop = end
        if not (start == 0 and end == self.size and self.whole_fits(room)):
            stop = min(end, start + room - _PART_HEAD_BYTES_MAX)
            if stop - start < min(PART_BYTES_MIN, end - start):
                return None
        if self._lost:
            heapq.heappop(self._lost)
            if stop < end:
                heapq.heappush(self._lost, (stop, end))
        else:
            self._next = stop
        span = Span(start, stop, self._turn)
        self._copies[span] = 1
        return self._record(span), span

    def under_way(self, span: Span) -> bool:
        """It is neither lost nor has it arrived, as far as one knows, and somebody wants it."""
        return not self.done and span in self._copies

    def copy(self, span: Span) -> bytes | None:
        """Its record once more, while it is under way."""
        if not self.under_way(span):
            return None
        self._copies[span] += 1
        return self._record(span)

    def lost(self, span: Span) -> None:
        """One copy of it did not arrive, as far as one knows."""
        if (copies := self._copies.get(span)) is None:
            return
        if copies > 1:
            self._copies[span] = copies - 1
            return
        del self._copies[span]
        heapq.heappush(self._lost, (span.start, span.end))

    def arrived(self, span: Span) -> None:
        """One copy of it did."""
        if self._copies.pop(span, 0):
            self._arrived += span.end - span.start
            self.done = self.done or self._arrived == self.size

    def again(self) -> None:
        """All of it is to be sent once more."""
        self.done, self._next, self._arrived = False, 0, 0
        self._turn += 1
        self._lost.clear()
        self._copies.clear()

    def _first_waiting(self) -> tuple[int, int]:
        """What was lost before what was never sent; pieces of it that touch are one, and may be cut otherwise."""
        if not self._lost:
            return self._next, self.size
        start, end = heapq.heappop(self._lost)
        while self._lost and self._lost[0][0] == end:
            end = heapq.heappop(self._lost)[1]
        heapq.heappush(self._lost, (start, end))
        return start, end

    def _record(self, span: Span) -> bytes:
        if span.start == 0 and span.end == self.size:
            return whole_head(request=self.request, call=self.call, flags=self._flags) + self._bytes[_FLAGS_BYTES:]
        last = span.end == self.size
        head = part_head(request=self.request, call=self.call, offset=span.start, last=last)
        return head + self._bytes[span.start : span.end]

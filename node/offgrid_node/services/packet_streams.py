"""Streams over packet links, as batches: each stream has a cursor, and its caller asks for one batch after the other.

A request for a batch waits until there is something, half of its caller's patience at most. The last batch is kept
until the next one is asked for, so nothing is lost with a session. A cursor that nobody asks for is closed after a
while; one whose stream has ended also where another one wants its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.runtime import Ticket
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_node.services.stream import Stream
from offgrid_transports.transport import Schedule

NEXT_BATCH = 0x004  # a method of packet links alone; those below it are for long messages
CURSORS_PER_PEER, CURSORS_MAX = 16, 256
BATCH_MESSAGES, BATCH_BYTES = 256, 256 * 1024
IDLE_MS = 120_000
WAIT_MS_MAX = 60_000


class _Cursor(msgspec.Struct):
    """`number` is the last batch's."""

    peer: str
    method: str
    stream: Stream
    asked_ms: float
    number: int = 0
    last: lane_pb2.StreamBatch | None = None
    waiting: Ticket | None = None
    rest: deque[Message] = msgspec.field(default_factory=deque)

    @property
    def has_ended(self) -> bool:
        """Its last batch was sent."""
        return self.last is not None and self.last.ended


class PacketStreams:
    """The cursors of all peers. `now_ms` and `later` are the endpoint's."""

    def __init__(self, now_ms: Callable[[], float], later: Schedule) -> None:
        self._now_ms, self._later = now_ms, later
        self._cursors: dict[int, _Cursor] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._cursors)

    def begin(self, peer: str, method: str, stream: Stream, deadline_ms: float) -> Ticket:
        """Takes the stream over; its first batch. Raises Exhausted, and the stream is cancelled then."""
        if not self._has_room(peer):
            stream.cancel()
            text = f"streams of {peer}, or of all, have {CURSORS_PER_PEER} and {CURSORS_MAX} cursors already"
            raise Exhausted(text, reason="TooManyStreams")
        self._count += 1
        number = self._count & 0xFFFFFFFF
        cursor = self._cursors[number] = _Cursor(peer, method, stream, self._now_ms())
        stream.when_ready(lambda: self._flush(number, cursor, None))
        self._later(IDLE_MS, lambda: self._look(number, cursor))
        return self._wait(number, cursor, deadline_ms)

    def next(self, peer: str, body: bytes, deadline_ms: float, check: Callable[[str], None]) -> Ticket | Message:
        """The batch that is asked for. `check` raises a Fault where that peer may no longer call the method."""
        try:
            asked = lane_pb2.NextBatchRequest.FromString(body)
        except DecodeError as error:
            raise InvalidRequest("no request for a batch", reason="MalformedRequest") from error
        cursor = self._cursors.get(asked.cursor)
        if cursor is None or cursor.peer != peer:
            raise NotFound(f"no stream of yours has the cursor {asked.cursor}; it was closed", reason="NoCursor")
        if asked.cancel:
            self._close(asked.cursor)
            return lane_pb2.StreamBatch(cursor=asked.cursor, ended=True)
        check(cursor.method)
        cursor.asked_ms = self._now_ms()
        if asked.number == cursor.number and cursor.last is not None:
            return cursor.last
        if asked.number != cursor.number + 1:
            raise InvalidRequest.field("number", f"{asked.number}; {cursor.number} and the one after it are here")
        if cursor.has_ended:
            raise NotFound("the stream has ended", reason="NoCursor")
        if cursor.waiting is not None:
            cursor.waiting.resolve(FailedPrecondition("it was asked for again", reason="Superseded"))
        return self._wait(asked.cursor, cursor, deadline_ms)

    # ---- inside

    def _has_room(self, peer: str) -> bool:
        """For one more cursor of that peer; the oldest whose stream has ended goes where there was none."""
        own = [number for number, cursor in self._cursors.items() if cursor.peer == peer]
        if len(own) < CURSORS_PER_PEER and len(self._cursors) < CURSORS_MAX:
            return True
        crowd = own if len(own) >= CURSORS_PER_PEER else list(self._cursors)
        over = next((number for number in crowd if self._cursors[number].has_ended), None)
        if over is not None:
            self._close(over)
        return over is not None

    def _wait(self, number: int, cursor: _Cursor, deadline_ms: float) -> Ticket:
        ticket = cursor.waiting = Ticket()
        patience_ms = min(max(deadline_ms - self._now_ms(), 0) / 2, WAIT_MS_MAX)
        self._flush(number, cursor, None)
        if ticket.outcome is None:
            self._later(int(patience_ms), lambda: self._flush(number, cursor, ticket))
        return ticket

    def _flush(self, number: int, cursor: _Cursor, late: Ticket | None) -> None:
        """Answers who waits, if there is something to say; the one that is `late` in any case."""
        ticket, stream = cursor.waiting, cursor.stream
        if ticket is None or (late is not None and late is not ticket):
            return
        if not cursor.rest:
            cursor.rest.extend(stream.take())
        if not cursor.rest and not stream.ended and late is None:
            return
        batch, room = lane_pb2.StreamBatch(cursor=number, number=cursor.number + 1), BATCH_BYTES
        while cursor.rest and len(batch.messages) < BATCH_MESSAGES and room > 0:
            data = cursor.rest.popleft().SerializeToString()
            room -= len(data)
            batch.messages.append(data)
        if stream.ended and not cursor.rest:
            batch.ended = True
            batch.status = fault_to_bytes(stream.fault) if stream.fault is not None else b""
        cursor.waiting, cursor.number, cursor.last = None, batch.number, batch
        cursor.asked_ms = self._now_ms()
        if batch.ended and batch.number == 1:  # a first batch is not asked for again
            self._close(number)
        ticket.resolve(batch)

    def _look(self, number: int, cursor: _Cursor) -> None:
        if self._cursors.get(number) is not cursor:
            return
        idle_ms = self._now_ms() - cursor.asked_ms
        if cursor.waiting is None and idle_ms >= IDLE_MS:
            self._close(number)
        else:
            self._later(
                int(IDLE_MS - idle_ms) if cursor.waiting is None else IDLE_MS, lambda: self._look(number, cursor)
            )

    def _close(self, number: int) -> None:
        cursor = self._cursors.pop(number)
        cursor.stream.cancel()
        if cursor.waiting is not None:
            cursor.waiting.resolve(NotFound("the stream was closed", reason="NoCursor"))

"""The calling side of a stream over packet links: asks for its batches, one after the other, until it ends.

What befalls a session ends no stream: the batch that did not come is asked for again.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import lane_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.services.packet_methods import METHOD_NUMBERS, priority_of
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.packet_streams import NEXT_BATCH
from offgrid_node.services.router import Method
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.transport import TransportError

POLL_MS = 60_000  # of which the other side waits half for something to say
TRIES_MAX = 8  # for a batch, in a row
RETRY_MS, RETRY_MS_MAX = 500, 30_000

OnMessage = Callable[[Message], object]
OnEnd = Callable[[Fault | None], object]


class PacketWatch:
    """One stream. `on_message` has each message once and in order, `on_end` is called once, with the fault if it was
    one."""

    def __init__(
        self, endpoint: Endpoint, calls: LongCalls, node: str, method: Method, on_message: OnMessage, on_end: OnEnd
    ) -> None:
        self._endpoint, self._calls, self._node, self._method = endpoint, calls, node, method
        self._on_message, self._on_end = on_message, on_end
        self._cursor = self._number = self._tries = 0
        self._ended = False

    def begin(self, request: Message) -> None:
        self._call(METHOD_NUMBERS[self._method.name], request.SerializeToString(), POLL_MS)

    def cancel(self) -> None:
        """Nothing more is told, nor the end."""
        if not self._ended and self._cursor:
            said = lane_pb2.NextBatchRequest(cursor=self._cursor, cancel=True)
            self._call(NEXT_BATCH, said.SerializeToString(), POLL_MS)
        self._ended = True

    # ---- inside

    def _next(self) -> None:
        if not self._ended:
            asked = lane_pb2.NextBatchRequest(cursor=self._cursor, number=self._number + 1)
            self._call(NEXT_BATCH, asked.SerializeToString(), POLL_MS)

    def _call(self, method: int, body: bytes, timeout_ms: int) -> None:
        try:
            priority = priority_of(self._method.name)
            self._calls.call(self._node, method, body, timeout_ms, self._on_reply, priority=priority)
        except TransportError as error:
            refused = Reply(End.REFUSED, detail=str(error))
            self._endpoint.later(0, lambda: self._on_reply(refused))

    def _on_reply(self, reply: Reply) -> None:
        if self._ended:
            return
        if reply.end is End.OK:
            self._on_batch(reply.body)
        elif reply.end is End.ERROR:
            fault = fault_from_bytes(reply.body)
            self._again(fault) if isinstance(fault, Unavailable | Exhausted) else self._end(fault)
        else:
            kind = Unavailable if reply.end is End.REFUSED else OutcomeUnknown
            self._again(kind(f"{self._method.name}: {reply.detail}", reason="NoAnswer"))

    def _on_batch(self, body: bytes) -> None:
        try:
            batch = lane_pb2.StreamBatch.FromString(body)
            messages = [self._method.response.FromString(data) for data in batch.messages]
        except DecodeError:
            self._end(PeerFault(f"{self._method.name}: the answer is no batch of it", reason="MalformedResponse"))
            return
        if batch.number != self._number + 1:
            self._end(
                PeerFault(f"{self._method.name}: batch {batch.number} came for another", reason="MalformedResponse")
            )
            return
        self._cursor, self._number, self._tries = batch.cursor, batch.number, 0
        for message in messages:
            if not self._ended:
                self._on_message(message)
        if batch.ended:
            self._end(fault_from_bytes(batch.status) if batch.status else None)
        else:
            self._next()

    def _again(self, fault: Fault) -> None:
        """Only what has begun: whether it has, is not known of a stream whose first batch did not come."""
        wait_ms = max(min(RETRY_MS << self._tries, RETRY_MS_MAX), fault.retry_ms or 0)
        self._tries += 1
        if not self._cursor or self._tries >= TRIES_MAX:
            self._end(fault)
        else:
            self._endpoint.later(wait_ms, self._next)

    def _end(self, fault: Fault | None) -> None:
        if not self._ended:
            self._ended = True
            self._on_end(fault)

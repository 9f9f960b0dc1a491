"""The packet carrier's calling side: a `services.client.Road` over packet links, whichever lead to a node.

A session proves that the peer is the node that was meant, and hides from all between them what is said.
"""

from __future__ import annotations

from google.protobuf.message import DecodeError, Message

from offgrid.pieces import read_known
from offgrid_node.protocol.errors import (
    NO_ROAD,
    Exhausted,
    Fault,
    InvalidRequest,
    OutcomeUnknown,
    PeerFault,
    Unavailable,
)
from offgrid_node.services.client import Done
from offgrid_node.services.packet_methods import METHOD_NUMBERS, priority_of
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.packet_watch import OnEnd, OnMessage, PacketWatch
from offgrid_node.services.router import METHODS, Method
from offgrid_transports.calls import End, Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.long_messages import LONG_BYTES_MAX
from offgrid_transports.transport import TransportError

RETRY_MS = 1000


class PacketRoad:
    """Calls out over a node's endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._calls = endpoint, LongCalls(endpoint)

    @property
    def name(self) -> str:
        return "links"

    def ready(self, node: str) -> bool:
        return self._endpoint.session_of(node) is not None

    def reaches(self, node: str) -> bool:
        return self._endpoint.reaches(node)

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """As Road has it."""
        try:
            self._send(node, method, request, timeout_ms, done)
        except Fault as fault:
            done(fault)
        except TransportError as error:
            done(Unavailable(f"{method}: {error}", reason="PeerRefused", retry_ms=RETRY_MS))

    def watch(self, node: str, method: str, request: Message, on_message: OnMessage, on_end: OnEnd) -> PacketWatch:
        """A stream, told message by message. Raises InvalidRequest for a method that is none, and Unavailable where no
        link leads to that node."""
        known = METHODS.get(method)
        if known is None or not known.streaming:
            raise InvalidRequest(f"{method} is no stream", reason="UnknownMethod")
        self._check_reach(node)
        stream = PacketWatch(self._endpoint, self._calls, node, known, on_message, on_end)
        stream.begin(request)
        return stream

    def _check_reach(self, node: str) -> None:
        if not self._endpoint.reaches(node):
            raise Unavailable(f"no packet link leads to {node}", reason=NO_ROAD, retry_ms=RETRY_MS)

    def _send(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        known = METHODS.get(method)
        if known is None or known.streaming:
            raise InvalidRequest(f"{method} is no unary method", reason="UnknownMethod")
        self._check_reach(node)
        body = request.SerializeToString()
        if len(body) > LONG_BYTES_MAX:
            said = f"{method}: {len(body)} bytes, packet links take {LONG_BYTES_MAX}"
            raise Exhausted(said, reason="RequestTooLarge")
        number, priority = METHOD_NUMBERS[method], priority_of(method)
        self._calls.call(node, number, body, timeout_ms, lambda reply: done(_outcome(known, reply)), priority=priority)


def _outcome(method: Method, reply: Reply) -> Message | Fault:
    match reply.end:
        case End.ERROR:
            return fault_from_bytes(reply.body)
        case End.REFUSED:
            said = f"{method.name}: {reply.detail}"
            return Unavailable(said, reason="PeerRefused", retry_ms=RETRY_MS)
        case End.UNKNOWN:
            return OutcomeUnknown(f"{method.name}: {reply.detail}", reason="NoAnswer")
        case End.OK:
            pass
    try:
        return read_known(method.response, reply.body)
    except DecodeError:
        what = method.response.DESCRIPTOR.full_name
        return PeerFault(f"{method.name}: the answer is no {what}", reason="MalformedResponse")

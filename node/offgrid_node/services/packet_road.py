"""The packet carrier's calling side: a `services.client.Road` over packet links, whichever lead to a node.

A session proves that the peer is the node that was meant, and hides from all between them what is said.
"""

from __future__ import annotations

from collections.abc import Callable

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
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.client import Done
from offgrid_node.services.link_turns import LinkTurns, NoTurn, Turn
from offgrid_node.services.packet_methods import METHOD_NUMBERS, priority_of
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.packet_watch import OnEnd, OnMessage, PacketWatch
from offgrid_node.services.router import METHODS, Method
from offgrid_transports.calls import CallRefused, End, Reply
from offgrid_transports.endpoint import Endpoint, UnknownPeer
from offgrid_transports.long_calls import LongCalls
from offgrid_transports.long_messages import LONG_BYTES_MAX
from offgrid_transports.path import SHORT_BYTES, Path
from offgrid_transports.shared_frames import SHARED_BYTES_MAX, SHARED_BYTES_MIN
from offgrid_transports.transport import Transport, TransportError, own_link

RETRY_MS = 1000
ANSWER_BYTES = 600  # for which a call waits on a slow link at least; one whose answer is coming goes on


class PacketRoad:
    """Calls out over a node's endpoint."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint, self._calls = endpoint, LongCalls(endpoint)
        self._turns: dict[Transport, LinkTurns] = {}

    @property
    def name(self) -> str:
        return "links"

    @property
    def kin(self) -> str:
        return "links"

    def ready(self, node: str) -> bool:
        return self._endpoint.session_of(node) is not None

    def reaches(self, node: str) -> bool:
        return self._endpoint.reaches(node)

    def pace(self, node: str) -> Pace:
        path = self._endpoint.path_to(node)
        return FREE if path is None else pace_of(path)

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
        timeout_ms += self.pace(node).longer_ms(len(body) + ANSWER_BYTES)

        def begin(ended: Callable[[], None] = lambda: None) -> None:
            def on_reply(reply: Reply) -> None:
                try:
                    ended()
                finally:
                    done(_outcome(known, reply))

            try:
                self._calls.call(node, number, body, timeout_ms, on_reply, priority=priority)
            except (UnknownPeer, CallRefused) as error:  # while it waited
                on_reply(Reply(End.REFUSED, detail=str(error)))

        path = self._endpoint.path_to(node)
        if path is None or not path.shared:
            begin()
            return
        turns = self._turns_on(path.transport)
        busy = Unavailable(f"{method}: the channel to {node} is busy", reason="RoadBusy", retry_ms=RETRY_MS)
        until_ms = self._endpoint.now_ms() + timeout_ms
        alike = (number, body) if SHARED_BYTES_MIN <= len(body) <= SHARED_BYTES_MAX else None
        turn = Turn(
            node,
            priority,
            len(body),
            until_ms,
            lambda: begin(lambda: turns.end(turn)),
            lambda: done(busy),
            alike,
        )
        try:
            turns.ask(turn)
        except NoTurn as error:
            raise Unavailable(f"{method}: {error}", reason="RoadBusy", retry_ms=RETRY_MS) from None

    def _turns_on(self, transport: Transport) -> LinkTurns:
        """Of the radio that is used first, whoever is reached over it."""
        own = own_link(transport)
        if own not in self._turns:
            self._turns[own] = LinkTurns(self._endpoint.now_ms, self._endpoint.later)
        return self._turns[own]


def pace_of(path: Path) -> Pace:
    """What a path takes of its link's time; links that are not limited by their bit rate are free."""
    transport, longest = path.transport, path.frame_bytes
    if not transport.bitrate_bps:
        return FREE
    byte_ms = (transport.airtime_ms(longest) - transport.airtime_ms(SHORT_BYTES)) / (longest - SHORT_BYTES)
    frame_ms = max(0.0, transport.airtime_ms(SHORT_BYTES) - byte_ms * SHORT_BYTES)
    return Pace(int(1_000 * frame_ms), max(1, int(1_000 * byte_ms)), int(transport.access_ms), longest)


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

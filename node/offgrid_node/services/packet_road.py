"""The packet carrier's calling side: a `services.client.Road` over a packet link.

A link's session will prove that the peer at an address is the node that was meant; until then `address_of` must only
name addresses that cannot be forged. Nothing on a link is hidden from whoever hears it: what must be is `closed` first.
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
from offgrid_node.services.client import Done
from offgrid_node.services.packet_link import PacketLink
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.router import METHODS, Method
from offgrid_transports.rpc import CallRefused, End, Reply

RETRY_MS = 1000


class PacketRoad:
    """Calls out over one link."""

    def __init__(
        self, link: PacketLink, address_of: Callable[[str], str | None], closed: Callable[[str, Message], Message]
    ) -> None:
        """`address_of` maps a node id to its address on the link, or None. `closed` makes of a request to a node what
        everybody may hear (`jobs/envelopes.py`)."""
        self._link = link
        self._address_of, self._closed = address_of, closed
        self._waiting: dict[int, tuple[Method, Done]] = {}
        link.on_reply = self._on_reply

    def reaches(self, node: str) -> bool:
        return not self._link.closed and self._address_of(node) is not None

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        """As Road has it."""
        try:
            self._send(node, method, request, timeout_ms, done)
        except Fault as fault:
            done(fault)

    def _send(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        known, address = METHODS.get(method), self._address_of(node)
        if known is None or known.streaming:
            raise InvalidRequest(f"{method} is no unary method", reason="UnknownMethod")
        if address is None or self._link.closed:
            raise Unavailable(f"no packet link leads to {node}", reason=NO_ROAD, retry_ms=RETRY_MS)
        body, room = self._closed(node, request).SerializeToString(), self._link.endpoint.body_bytes_max
        if len(body) > room:
            raise Exhausted(f"{method}: {len(body)} bytes, this link takes {room}", reason="RequestTooLarge")
        try:
            number = self._link.call(address, METHOD_NUMBERS[method], body, timeout_ms)
        except CallRefused as refused:
            raise Unavailable(f"{method} to {node}: {refused}", reason="RoadBusy", retry_ms=RETRY_MS) from refused
        self._waiting[number] = (known, done)

    def _on_reply(self, reply: Reply) -> None:
        known, done = self._waiting.pop(reply.call)
        done(_outcome(known, reply))


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

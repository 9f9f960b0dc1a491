"""Keeps the carriers in step with membership: whom TLS trusts, whose connections end, who is worth another try."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.node import Node
from offgrid_node.protocol.effects import Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.grpc_server import GrpcServer

CHANGES = (EventType.MEMBER_ADMITTED, EventType.MEMBER_REMOVED)


class Members:
    """A tuple of identity certificates, replaced whole when a change of membership is durable.

    gRPC asks for it on threads of its own, so that nothing but reading an attribute may happen there.
    """

    def __init__(self, node: Node, server: GrpcServer, road: GrpcRoad, framed: FramedRoad) -> None:
        self._node, self._server, self._road, self._framed = node, server, road, framed
        self._certificates = tuple(node.directory.certificates())
        node.runtime.watch(self._on_events)

    def certificates(self) -> Sequence[bytes]:
        return self._certificates

    def _on_events(self, events: Sequence[Record]) -> None:
        for event in events:
            if event.etype == EventType.PEER_ALIVE:
                self._road.retry(event.subject)
        changed = [event for event in events if event.etype in CHANGES]
        if not changed:
            return
        before, self._certificates = set(self._certificates), tuple(self._node.directory.certificates())
        self._road.refresh()
        self._framed.refresh()
        for event in changed:
            is_new = self._node.directory.certificate(event.subject) not in before
            if event.etype == EventType.MEMBER_REMOVED or is_new:
                self._server.disconnect(event.subject)  # what is open was opened by a key of before

"""What is known of the roads to a member, whatever carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.services.client import Client, Road
from offgrid_node.services.roads.book import RoadBook

READY, FAILING, DOWN = links_pb2.ROAD_STATE_READY, links_pb2.ROAD_STATE_FAILING, links_pb2.ROAD_STATE_DOWN

Pinged = Callable[["float | Fault"], None]
"""Told the round trip in milliseconds, or why there is none."""


class RoadFacts(msgspec.Struct, frozen=True):
    """One road to a member; `via` and `address` tell it from the others. Times are in milliseconds."""

    via: str
    address: str
    state: links_pb2.RoadState.ValueType
    rtt_ms: float | None = None
    loss: float | None = None
    bytes_per_s: int = 0
    heard_ms: float | None = None
    cost_ms: float | None = None
    hops: tuple[str, ...] = ()


class Chart(Protocol):
    """The roads of one carrier."""

    @property
    def road(self) -> Road: ...

    def roads_to(self, node: str) -> Sequence[RoadFacts]:
        """The one that this carrier would take first."""
        ...

    def ping(self, node: str, road: RoadFacts, timeout_ms: int, done: Pinged) -> None:
        """`done` is called once."""
        ...


class CarrierChart:
    """Of a carrier that is one road to each member: gRPC, the framed lanes."""

    def __init__(self, road: Road, book: RoadBook, client: Client, addresses: Callable[[str], str]) -> None:
        """`addresses` says where a member is, for people."""
        self.road = road
        self._book, self._client, self._addresses = book, client, addresses

    def roads_to(self, node: str) -> Sequence[RoadFacts]:
        if not self.road.reaches(node):
            return ()
        seen = self._book.seen(node, self.road.name)
        heard_ms = None if seen.answered_ms is None else float(self._book.now_ms() - seen.answered_ms)
        state = FAILING if seen.failing else READY
        return (RoadFacts(self.road.name, self._addresses(node), state, seen.rtt_ms, heard_ms=heard_ms),)

    def ping(self, node: str, road: RoadFacts, timeout_ms: int, done: Pinged) -> None:
        began_ms = self._book.now_ms()

        def ended(outcome: Message | Fault) -> None:
            done(outcome if isinstance(outcome, Fault) else float(self._book.now_ms() - began_ms))

        self._client.echo(self.road, node, timeout_ms, ended)

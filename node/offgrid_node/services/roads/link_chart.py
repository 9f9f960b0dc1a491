"""The roads over packet links, and the links themselves, as people ask about them."""

from __future__ import annotations

import math
from collections.abc import Callable

from google.protobuf.message import Message

from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import NO_ROAD, Fault, OutcomeUnknown, Unavailable
from offgrid_node.services.client import ECHO
from offgrid_node.services.packet_links import PacketLinks
from offgrid_node.services.roads.chart import DOWN, FAILING, READY, Pinged, RoadFacts
from offgrid_transports.endpoint import Endpoint, UnknownPeer
from offgrid_transports.path import SHORT_BYTES, Path
from offgrid_transports.relay.switch import RELAYED_FOR
from offgrid_transports.roads import Road
from offgrid_transports.transport import Priority, Transport

URGENCIES = {
    Priority.CONTROL: links_pb2.URGENCY_CONTROL,
    Priority.PAYMENT: links_pb2.URGENCY_PAYMENT,
    Priority.JOB: links_pb2.URGENCY_JOB,
    Priority.BULK: links_pb2.URGENCY_BULK,
}


class LinkChart:
    """A `services.roads.chart.Chart` that knows the links too."""

    def __init__(self, links: PacketLinks, now_ms: Callable[[], float]) -> None:
        self.road = links
        self._now_ms = now_ms

    def links(self, name_of: Callable[[str], str]) -> list[links_pb2.Link]:
        """In the order they were opened; `name_of` a member's id is its name."""
        endpoint = self.road.endpoint
        if endpoint is None:
            return []
        return [self._link(endpoint, transport, text, name_of) for transport, text in self.road.opened.items()]

    def roads_to(self, node: str) -> list[RoadFacts]:
        endpoint = self.road.endpoint
        if endpoint is None:
            return []
        session = endpoint.session_of(node)
        used = session.path if session is not None else None
        return [self._facts(node, road) for road in sorted(endpoint.roads(node), key=lambda each: each.path != used)]

    def ping(self, node: str, road: RoadFacts, timeout_ms: int, done: Pinged) -> None:
        """By an echo in the session, which is begun where there is none."""
        endpoint, path = self.road.endpoint, self._path(node, road)
        if endpoint is None or path is None:
            done(Unavailable(f"{road.via} {road.address} does not lead there any more", reason=NO_ROAD))
        elif endpoint.session_of(node) is not None:
            self._echo(endpoint, node, path, timeout_ms, done)
        else:

            def begun(outcome: Message | Fault) -> None:
                if isinstance(outcome, Fault):
                    done(outcome)
                else:
                    self._echo(endpoint, node, path, timeout_ms, done)

            self.road.call(node, ECHO, links_pb2.EchoRequest(), timeout_ms, begun)

    # ---- inside

    def _echo(self, endpoint: Endpoint, node: str, path: Path, timeout_ms: int, done: Pinged) -> None:
        said = f"no echo by {self.road.via(path.transport)}"

        def told(rtt_ms: float | None) -> None:
            done(OutcomeUnknown(said, reason="NoAnswer") if rtt_ms is None else rtt_ms)

        try:
            endpoint.echo(node, path, told, timeout_ms)
        except UnknownPeer as error:
            done(Unavailable(str(error), reason=NO_ROAD))

    def _path(self, node: str, facts: RoadFacts) -> Path | None:
        paths = [road.path for road in self.road.endpoint.roads(node)] if self.road.endpoint is not None else []
        wanted = (facts.via, facts.address)
        return next((path for path in paths if (self.road.via(path.transport), path.address) == wanted), None)

    def _facts(self, node: str, road: Road) -> RoadFacts:
        path, measured = road.path, road.measured
        rate = measured.rate if measured is not None else math.inf
        return RoadFacts(
            self.road.via(path.transport),
            path.address,
            READY if road.usable else FAILING if path.transport.up else DOWN,
            road.rtt_ms if measured is not None else None,
            measured.loss if measured is not None else None,
            round(1000 * rate) if rate < math.inf else path.transport.bitrate_bps // 8,
            self._now_ms() - road.heard_ms,
            road.cost_ms(SHORT_BYTES, Priority.JOB, 0.0),
            () if path.transport in self.road.opened else tuple(self.road.hops_to(node) or ()),
        )

    def _link(
        self, endpoint: Endpoint, transport: Transport, text: str, name_of: Callable[[str], str]
    ) -> links_pb2.Link:
        figures = transport.figures()
        left = {priority: figures.get(f"left_ms_{priority.name.lower()}") for priority in Priority}
        spent = self.road.spent(transport, self._now_ms())
        return links_pb2.Link(
            link=text,
            up=transport.up,
            shared=transport.shared,
            bitrate_bps=transport.bitrate_bps,
            figures=[links_pb2.LinkFigure(name=name, value=str(value)) for name, value in figures.items()],
            left=[
                links_pb2.AirLeft(urgency=URGENCIES[priority], left_ms=int(left_ms))
                for priority, left_ms in left.items()
                if left_ms is not None
            ],
            used=[
                links_pb2.AirUse(who=who, name=_named(who, name_of), urgency=URGENCIES[priority], air_ms=air_ms)
                for (who, priority), air_ms in sorted(spent.items(), key=lambda each: -each[1])
            ],
        )


def _named(who: str, name_of: Callable[[str], str]) -> str:
    """With a member's name in the place of its id."""
    for_others = who.startswith(RELAYED_FOR)
    return RELAYED_FOR + name_of(who.removeprefix(RELAYED_FOR)) if for_others else name_of(who)

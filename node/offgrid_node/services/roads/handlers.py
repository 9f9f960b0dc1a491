"""LinkService: what people ask about links and roads, and the echo by which roads are measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec.structs import replace

from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.roads.book import RoadBook
from offgrid_node.services.roads.chart import DOWN, READY, Chart, RoadFacts
from offgrid_node.services.roads.peer_checks import PeerChecks

TIMEOUT_MS, TIMEOUT_MS_MAX = 10_000, 600_000
IN_USE = links_pb2.ROAD_STATE_IN_USE


class LinkRoads(Chart, Protocol):
    """The node's packet links."""

    def links(self, name_of: Callable[[str], str]) -> Iterable[links_pb2.Link]: ...


class LinkHandlers:
    """`charts` in the order of preference; `directory` says who is who."""

    def __init__(
        self,
        self_id: str,
        directory: Callable[[], Directory],
        book: RoadBook,
        charts: Sequence[Chart] = (),
        links: LinkRoads | None = None,
        checks: PeerChecks | None = None,
    ) -> None:
        self._self_id, self._directory, self._book = self_id, directory, book
        self._charts, self._links, self._checks = tuple(charts), links, checks

    def echo(self, caller: Caller, request: links_pb2.EchoRequest) -> links_pb2.EchoResponse:
        return links_pb2.EchoResponse()

    def look_back(self, caller: Caller, request: links_pb2.LookBackRequest) -> links_pb2.LookBackResponse:
        return self._checks.look_back(caller) if self._checks is not None else links_pb2.LookBackResponse()

    def check_peers(self, caller: Caller, request: links_pb2.CheckPeersRequest) -> Ticket:
        assert self._checks is not None
        return self._checks.check(request)

    def list_links(self, caller: Caller, request: links_pb2.ListLinksRequest) -> links_pb2.ListLinksResponse:
        links = self._links.links(self._name_of) if self._links is not None else ()
        return links_pb2.ListLinksResponse(links=links)

    def list_roads(self, caller: Caller, request: links_pb2.ListRoadsRequest) -> links_pb2.ListRoadsResponse:
        directory = self._directory()
        nodes = [self._other(request.node)] if request.node else directory.live()
        return links_pb2.ListRoadsResponse(
            peers=[
                links_pb2.PeerRoads(
                    node_id=node,
                    name=self._name_of(node),
                    roads=[self._message(road) for _, road in self._roads(node)],
                )
                for node in nodes
                if node != self._self_id
            ]
        )

    def ping_peer(self, caller: Caller, request: links_pb2.PingPeerRequest) -> Ticket:
        if not request.node:
            raise InvalidRequest.field("node", "say which: a node id, its first 4 characters or more, or a name")
        if request.timeout_ms > TIMEOUT_MS_MAX:
            raise InvalidRequest.field("timeout_ms", f"{request.timeout_ms}; 1 to {TIMEOUT_MS_MAX} are allowed")
        node = self._other(request.node)
        chart, road = self._chosen(node, request.via)
        ticket = Ticket()

        def ended(outcome: float | Fault) -> None:
            if isinstance(outcome, Fault):
                ticket.resolve(outcome)
                return
            told = self._message(replace(road, rtt_ms=outcome))
            name = self._name_of(node)
            ticket.resolve(links_pb2.PingPeerResponse(node_id=node, name=name, road=told, rtt_ms=outcome))

        chart.ping(node, road, request.timeout_ms or TIMEOUT_MS, ended)
        return ticket

    # ---- inside

    def _other(self, said: str) -> str:
        node = self._directory().resolve(said)
        if node == self._self_id:
            raise InvalidRequest.field("node", f"{said!r} is this very node: no road leads to it")
        return node

    def _roads(self, node: str) -> list[tuple[Chart, RoadFacts]]:
        """The one that a call would take first, which is the one in use."""
        by_road = {chart.road.name: chart for chart in self._charts}
        charts = [by_road[road.name] for road in self._book.order(node, [chart.road for chart in self._charts])]
        found = [(chart, road) for chart in charts for road in chart.roads_to(node)]
        found.sort(key=lambda each: each[1].state != READY)
        if found and found[0][1].state != DOWN:
            found[0] = (found[0][0], replace(found[0][1], state=IN_USE))
        return found

    def _chosen(self, node: str, via: str) -> tuple[Chart, RoadFacts]:
        roads = self._roads(node)
        fitting = [each for each in roads if each[1].via.startswith(via)]
        if fitting:
            return fitting[0]
        known = ", ".join(dict.fromkeys(road.via for _, road in roads)) or "none"
        if not via:
            raise NotFound(f"no road to {self._name_of(node)} is known", reason="NoRoad")
        raise InvalidRequest.field("via", f"{via!r}: no such road to {self._name_of(node)}; there are: {known}")

    def _message(self, road: RoadFacts) -> links_pb2.Road:
        return links_pb2.Road(
            via=road.via,
            address=road.address,
            state=road.state,
            rtt_ms=road.rtt_ms,
            loss_milli=None if road.loss is None else round(1000 * road.loss),
            bytes_per_s=road.bytes_per_s,
            heard_ms=None if road.heard_ms is None else max(0, round(road.heard_ms)),
            cost_ms=road.cost_ms,
            hops=[self._name_of(hop) for hop in road.hops],
        )

    def _name_of(self, node: str) -> str:
        member = self._directory().member(node)
        return member.name if member is not None else node

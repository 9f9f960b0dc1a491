"""Members on one radio channel that do not all hear each other: called over those between, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.services.link_turns import URGENT_MAX
from offgrid_node.services.packet_links import PacketLinks
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.roads.link_chart import LinkChart
from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.channel import USUAL_DBM, Channel
from offgrid_tools.emulators.clock import VirtualClock, now_ms
from offgrid_tools.emulators.relay_mesh import SF7
from offgrid_tools.emulators.virtual import virtual_host
from offgrid_transports.answers import Request
from offgrid_transports.endpoint import Endpoint

PING = "offgrid.v1.MeshService/Ping"
KEYS = [NodeKey(bytes([number]) * 32) for number in range(1, 5)]


class Roll:
    mesh_id, revision = "mesh", 1

    def all_ids(self) -> list[str]:
        return [key.node_id for key in KEYS]

    def is_member(self, node_id: str) -> bool:
        return node_id in self.all_ids()

    def current_key(self, node_id: str) -> bytes | None:
        return next((key.public_key for key in KEYS if key.node_id == node_id), None)


class Row:
    """Members in a row on one channel; each hears the next ones."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        channel = Channel(self.clock, Random(1), reach=lambda a, b: USUAL_DBM if abs(int(a) - int(b)) == 1 else None)
        self.links = []
        for at, key in enumerate(KEYS):
            host = virtual_host(self.clock, Random(at))
            links = PacketLinks(key.exchange_secret(), key.node_id, Roll, host)
            endpoint = links.start(lambda: now_ms(self.clock))
            endpoint.on_request = _answering(endpoint)
            links.attach(AirLink(str(at), channel, SF7), f"air:{at}")
            self.links.append(links)

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now_us + round(seconds * 1_000_000))

    def begin(self, client: int, server: int, ends: list[Message | Fault]) -> None:
        self.links[client].call(KEYS[server].node_id, PING, mesh_pb2.PingRequest(), 120_000, ends.append)

    def ping(self, client: int, server: int) -> Message | Fault:
        ends: list[Message | Fault] = []
        self.begin(client, server, ends)
        self.run(121)
        return ends[0]


def _answering(endpoint: Endpoint) -> Callable[[Request], None]:
    def answer(request: Request) -> None:
        assert request.method == METHOD_NUMBERS[PING]
        endpoint.respond(request, mesh_pb2.PingResponse().SerializeToString())

    return answer


def test_the_ends_of_a_row_call_each_other_over_those_between() -> None:
    row = Row()
    row.run(600)
    first = row.links[0]
    assert first.hops_to(KEYS[1].node_id) == [], "a neighbour"
    assert first.hops_to(KEYS[3].node_id) is None, "nobody has asked"
    assert isinstance(row.ping(0, 3), mesh_pb2.PingResponse)
    assert first.hops_to(KEYS[3].node_id) == [KEYS[1].node_id, KEYS[2].node_id]
    assert isinstance(row.ping(3, 0), mesh_pb2.PingResponse)
    road = first.endpoint.roads(KEYS[3].node_id)[0] if first.endpoint is not None else None
    assert road is not None
    assert first.via(road.path.transport) == f"over {KEYS[1].node_id}, {KEYS[2].node_id}"


def test_what_one_says_to_all_is_heard_by_those_in_reach() -> None:
    row, heard = Row(), list[tuple[int, str, bytes]]()
    for at, links in enumerate(row.links):
        links.on_said = lambda node, link, said, at=at: heard.append((at, node, said))  # type: ignore[misc]
    row.run(60)
    [link] = row.links[1].opened
    row.links[1].tell(link, b"something")
    row.run(60)
    assert sorted(heard) == [(0, KEYS[1].node_id, b"something"), (2, KEYS[1].node_id, b"something")]


def test_no_beacons_are_said_on_ways_over_others() -> None:
    row = Row()
    row.run(600)
    first = row.links[0]
    assert isinstance(row.ping(0, 3), mesh_pb2.PingResponse)
    row.links[3].close()
    row.links[2].close()
    ends: list[Message | Fault] = []
    for _ in range(4):
        row.begin(0, 3, ends)
        row.run(400)
    assert first._beaconing is not None
    assert [*first._beaconing._turns] == [*first.opened]


def test_frames_are_taken_while_a_node_loads_what_it_knows() -> None:
    row = Row()
    row.run(600)
    first, roll = row.links[0], row.links[0]._roll

    def loading() -> Roll:
        raise Unavailable("the node is loading what it knows", reason="Reloading")

    first._roll = loading
    assert isinstance(row.ping(1, 0), mesh_pb2.PingResponse)
    row.run(600)
    first._roll = roll
    assert isinstance(row.ping(0, 1), mesh_pb2.PingResponse)


def test_who_is_near_is_called_without_others() -> None:
    row = Row()
    row.run(600)
    assert isinstance(row.ping(1, 2), mesh_pb2.PingResponse)
    endpoint = row.links[1].endpoint
    assert endpoint is not None
    assert [row.links[1].via(road.path.transport) for road in endpoint.roads(KEYS[2].node_id)] == ["air:1"]


def test_calls_over_one_radio_take_turns_whoever_they_go_over() -> None:
    row = Row()
    row.run(600)
    for server in (1, 2, 3):
        row.ping(0, server)
    counts = [0]
    ends: list[Message | Fault] = []
    for server in (3, 3, 2, 2, 1):
        row.begin(0, server, ends)
    assert row.links[0].endpoint is not None
    calls = [session.calls for session in row.links[0].endpoint._sessions]
    while len(ends) < 5:
        row.run(0.1)
        counts.append(sum(map(len, calls)))
    assert max(counts) == URGENT_MAX
    assert all(isinstance(end, mesh_pb2.PingResponse) for end in ends)


def test_who_hands_on_says_for_which_neighbour() -> None:
    row = Row()
    row.run(600)
    row.ping(0, 3)
    row.ping(0, 3)
    links = row.links[1]
    [transport] = links.opened
    spent = {who for who, _ in links.spent(transport, now_ms(row.clock))}
    assert f"relayed for {KEYS[0].node_id}" in spent
    assert f"relayed for {KEYS[2].node_id}" in spent
    [transport] = row.links[0].opened
    assert KEYS[3].node_id in {who for who, _ in row.links[0].spent(transport, now_ms(row.clock))}
    chart = LinkChart(links, lambda: now_ms(row.clock))
    [link] = chart.links(lambda node: f"<{node[:4]}>")
    named = {use.who: use.name for use in link.used}
    assert named[f"relayed for {KEYS[0].node_id}"] == f"relayed for <{KEYS[0].node_id[:4]}>"


def test_the_pace_to_whoever_is_reached_over_others_is_of_all_who_share_the_radio() -> None:
    row = Row()
    row.run(600)
    alone = row.links[0].pace(KEYS[1].node_id).peers
    row.ping(0, 2)
    row.ping(0, 3)
    assert [row.links[0].pace(KEYS[at].node_id).peers for at in (1, 2, 3)] == [alone + 2] * 3

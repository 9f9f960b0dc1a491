"""LinkService: the roads to each member, the one that a call would take first; pings over any of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.message import Message

from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, OutcomeUnknown, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.client import Done
from offgrid_node.services.roads.book import RoadBook
from offgrid_node.services.roads.chart import DOWN, FAILING, READY, Pinged, RoadFacts
from offgrid_node.services.roads.handlers import TIMEOUT_MS, LinkHandlers

ATTIC, BARN, CELLAR = "a" * 32, "b" * 32, "c" * 32
NAMES = {ATTIC: "attic", BARN: "barn", CELLAR: "cellar"}
IN_USE = links_pb2.ROAD_STATE_IN_USE


class Members:
    def live(self) -> list[str]:
        return sorted(NAMES)

    def resolve(self, text: str) -> str:
        for node, name in NAMES.items():
            if text == name or node.startswith(text):
                return node
        raise NotFound("no such node", reason="NoSuchNode")

    def member(self, node: str) -> object:
        return SimpleNamespace(name=NAMES[node]) if node in NAMES else None


class Road:
    def __init__(self, name: str) -> None:
        self.name = name

    def reaches(self, node: str) -> bool:
        return True

    def ready(self, node: str) -> bool:
        return True

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        raise AssertionError("nothing is called")


class Chart:
    def __init__(self, name: str, *roads: RoadFacts, answer: float | Fault = 5.0) -> None:
        self.road = Road(name)
        self.asked: list[tuple[str, str, int]] = []
        self._roads, self._answer = roads, answer

    def roads_to(self, node: str) -> Sequence[RoadFacts]:
        return self._roads if node == BARN else ()

    def ping(self, node: str, road: RoadFacts, timeout_ms: int, done: Pinged) -> None:
        self.asked.append((node, road.via, timeout_ms))
        done(self._answer)


GRPC = Chart("grpc", RoadFacts("grpc", "10.0.0.2:7700", READY, 1.5, heard_ms=20))
LORA = RoadFacts("lora:/dev/ttyACM0", "*", READY, 300.0, loss=0.125, bytes_per_s=600, hops=(CELLAR,))
BLE = RoadFacts("ble:usb:0", "77", FAILING)


def handlers(*charts: Any, book: RoadBook | None = None) -> LinkHandlers:
    return LinkHandlers(ATTIC, lambda: cast("Directory", Members()), book or RoadBook(lambda: 0), charts)


def ping(by: LinkHandlers, **asked: Any) -> Message | Fault | None:
    return by.ping_peer(ADMIN, links_pb2.PingPeerRequest(**asked)).outcome


def test_each_member_with_its_roads_and_the_one_in_use_first() -> None:
    listed = handlers(GRPC, Chart("links", BLE, LORA)).list_roads(ADMIN, links_pb2.ListRoadsRequest())
    assert [(peer.name, [road.via for road in peer.roads]) for peer in listed.peers] == [
        ("barn", ["grpc", "lora:/dev/ttyACM0", "ble:usb:0"]),
        ("cellar", []),
    ]
    grpc, lora, ble = listed.peers[0].roads
    assert [road.state for road in (grpc, lora, ble)] == [IN_USE, READY, FAILING]
    assert (grpc.rtt_ms, grpc.heard_ms, grpc.HasField("loss_milli")) == (1.5, 20, False)
    assert (lora.loss_milli, lora.bytes_per_s, list(lora.hops)) == (125, 600, ["cellar"])


def test_a_carrier_that_fails_comes_behind_one_that_does_not() -> None:
    book = RoadBook(lambda: 0)
    book.ended(BARN, "grpc", Unavailable("gone", reason="NotConnected"))
    listed = handlers(GRPC, Chart("links", LORA), book=book).list_roads(ADMIN, links_pb2.ListRoadsRequest(node="barn"))
    assert [road.via for road in listed.peers[0].roads] == ["lora:/dev/ttyACM0", "grpc"]


def test_none_is_in_use_where_all_are_down() -> None:
    down = RoadFacts("ble:usb:0", "77", DOWN)
    [peer] = handlers(Chart("links", down)).list_roads(ADMIN, links_pb2.ListRoadsRequest(node="barn")).peers
    assert [road.state for road in peer.roads] == [DOWN]


@pytest.mark.parametrize(("via", "taken"), [("", "grpc"), ("lora", "lora:/dev/ttyACM0"), ("grpc", "grpc")])
def test_a_ping_goes_by_the_road_that_was_named(via: str, taken: str) -> None:
    links = Chart("links", LORA, BLE, answer=321.0)
    answer = ping(handlers(GRPC, links), node="barn", via=via)
    assert isinstance(answer, links_pb2.PingPeerResponse)
    assert (answer.node_id, answer.name, answer.road.via) == (BARN, "barn", taken)
    assert answer.rtt_ms == answer.road.rtt_ms == (5.0 if taken == "grpc" else 321.0)


def test_its_timeout_is_the_callers() -> None:
    chart = Chart("links", LORA)
    ping(handlers(chart), node="barn", timeout_ms=70_000)
    ping(handlers(chart), node="barn")
    assert [timeout_ms for _, _, timeout_ms in chart.asked] == [70_000, TIMEOUT_MS]


def test_no_answer_is_a_fault() -> None:
    lost = OutcomeUnknown("no echo", reason="NoAnswer")
    assert ping(handlers(Chart("links", LORA, answer=lost)), node="barn") is lost


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "node: say which"),
        ({"node": "attic"}, "is this very node"),
        ({"node": "barn", "via": "udp"}, "no such road to barn; there are: grpc, lora:/dev/ttyACM0"),
        ({"node": "barn", "timeout_ms": 600_001}, "1 to 600000 are allowed"),
    ],
)
def test_a_wrong_question_is_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ping(handlers(GRPC, Chart("links", LORA)), **asked)
    assert said in str(caught.value)


def test_no_road_at_all_is_said() -> None:
    with pytest.raises(NotFound, match="no road to cellar is known"):
        ping(handlers(GRPC), node="cellar")


def test_without_packet_links_there_are_none_to_list() -> None:
    assert not handlers(GRPC).list_links(ADMIN, links_pb2.ListLinksRequest()).links


def test_no_road_leads_to_this_very_node() -> None:
    with pytest.raises(InvalidRequest, match="is this very node"):
        handlers(GRPC).list_roads(ADMIN, links_pb2.ListRoadsRequest(node="attic"))

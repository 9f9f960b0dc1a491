"""`offgrid peers --roads`, `ping`, `trace` and `link`: what people and scripts read of roads and links."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cli_run import Run
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import links_pb2
from offgrid_node.protocol.errors import InvalidRequest, OutcomeUnknown

LORA = "lora:/dev/ttyACM0?region=EU868"
ROADS = [
    links_pb2.Road(via="grpc", address="10.0.0.2:7700", state=links_pb2.ROAD_STATE_IN_USE, rtt_ms=1.25, heard_ms=900),
    links_pb2.Road(
        via=LORA, address="*", state=links_pb2.ROAD_STATE_READY, rtt_ms=310, loss_milli=125, bytes_per_s=683,
        hops=["cellar"],
    ),
]  # fmt: skip


@pytest.fixture(autouse=True)
def answers(node: SmallNode) -> None:
    def ping(request: links_pb2.PingPeerRequest) -> links_pb2.PingPeerResponse:
        if request.via == "nothing":
            raise InvalidRequest.field("via", "no such road to barn; there are: grpc")
        road = next(road for road in ROADS if road.via.startswith(request.via or "grpc"))
        name = "barn" if request.node in (OTHER_ID, "barn") else request.node
        return links_pb2.PingPeerResponse(node_id=OTHER_ID, name=name, road=road, rtt_ms=road.rtt_ms)

    made: Any = node
    made.on_ListRoads = lambda request: links_pb2.ListRoadsResponse(
        peers=[links_pb2.PeerRoads(node_id=OTHER_ID, name="barn", roads=ROADS if node.with_roads else [])]
    )
    made.on_PingPeer = ping
    made.on_ListLinks = lambda request: links_pb2.ListLinksResponse(links=node.links)
    made.with_roads, made.links = True, []
    node.stop()
    node.start()


def test_peers_with_their_roads(og: Run) -> None:
    code, out, _ = og("peers", "--roads")
    head, grpc, lora = out.splitlines()
    assert (code, head.split()) == (0, ["NAME", "ROAD", "ADDRESS", "STATE", "RTT", "LOSS", "RATE", "HEARD", "OVER"])
    assert grpc.split()[:4] == ["barn", "grpc", "10.0.0.2:7700", "in"]
    assert "1.2 ms" in grpc
    assert "900.0 ms ago" in grpc
    assert lora.split() == [LORA, "*", "ready", "310.0", "ms", "12.5", "%", "683", "bytes/s", "cellar"]


def test_one_to_whom_no_road_leads(og: Run, node: Any) -> None:
    node.with_roads = False
    assert og("peers", "--roads")[1].splitlines()[1].split() == ["barn", "none"]


def test_a_ping_says_each_answer_and_sums_up(og: Run, node: SmallNode) -> None:
    code, out, _ = og("ping", "barn", "--via", "lora", "-c", "2", "--interval", "0", "--timeout", "70")
    assert code == 0
    assert out.splitlines() == [
        f"barn by {LORA} *: 310.0 ms, over cellar",
        f"barn by {LORA} *: 310.0 ms, over cellar",
        "2 of 2 answered, 0 % lost",
        "round trip: 310.0 ms at least, 310.0 ms in the middle, 310.0 ms at most",
    ]
    assert [request.timeout_ms for request in node.calls["PingPeer"]] == [70_000] * 2


def test_answers_that_do_not_come_are_counted_and_none_at_all_is_a_failure(og: Run, node: SmallNode) -> None:
    lost = OutcomeUnknown("no echo by lora", reason="NoAnswer")
    node.stumble("PingPeer", lost)
    code, out, _ = og("ping", "barn", "-c", "2", "--interval", "0")
    assert (code, out.splitlines()[0], out.splitlines()[2]) == (
        0,
        "no answer: no echo by lora",
        "1 of 2 answered, 50 % lost",
    )
    node.stumble("PingPeer", lost, lost)
    assert og("ping", "barn", "-c", "2", "--interval", "0")[0] == exits.FAILED


def test_a_road_that_there_is_not_is_named(og: Run) -> None:
    code, _, err = og("ping", "barn", "--via", "nothing")
    assert (code, "there are: grpc" in err) == (exits.USAGE, True)


def test_a_trace_names_each_step(og: Run, node: Any) -> None:
    ROADS.reverse()
    try:
        code, out, _ = og("trace", "barn")
    finally:
        ROADS.reverse()
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()[1:]] == [["1", "cellar", "grpc"], ["2", "barn", LORA]]


def test_links_and_what_each_says(og: Run, node: Any) -> None:
    assert "has no packet links" in og("link", "list")[1]
    node.links = [
        links_pb2.Link(
            link=LORA, up=True, shared=True, bitrate_bps=5469, figures=[links_pb2.LinkFigure(name="snr_db", value="7")],
            left=[links_pb2.AirLeft(urgency=links_pb2.URGENCY_CONTROL, left_ms=36_000)],
            used=[
                links_pb2.AirUse(who=OTHER_ID, name="barn", urgency=links_pb2.URGENCY_JOB, air_ms=1_500),
                links_pb2.AirUse(who="beacons", urgency=links_pb2.URGENCY_CONTROL, air_ms=90),
            ],
        )
    ]  # fmt: skip
    shown = og("link", "list")[1].splitlines()
    assert [line.split(None, 1)[1] for line in shown] == [LORA, "up", "5469 bit/s one at a time", "7"]
    link, left, _, job, beacons = og("link", "airtime")[1].splitlines()
    assert (link, left) == (LORA, "may still send: control 36.0 s")
    assert (job.split(), beacons.split()) == (["barn", "job", "1.5", "s"], ["beacons", "control", "90.0", "ms"])


def test_for_scripts(og: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert og.json("peers", "--roads")["peers"][0]["roads"][0]["via"] == "grpc"
    assert og.json("link", "list") == og.json("link", "airtime") == {"links": []}
    [step] = og.json("trace", "barn")["steps"]
    assert step == {"node": "barn", "via": "grpc", "address": "10.0.0.2:7700", "rtt_ms": 1.25, "trouble": ""}
    lines = og("--json", "ping", "barn", "-c", "3", "--interval", "0")[1].splitlines()
    assert [json.loads(line)["rtt_ms"] for line in lines] == [1.25] * 3

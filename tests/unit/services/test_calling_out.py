"""The client that calls out: what it says when it cannot look a node up; the next road; what it holds afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, PermissionDenied, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.client import Client, Done
from offgrid_node.services.roads.book import AGAIN_FIRST_MS, RoadBook


class BlindRoad:
    """A road that knows of others what the directory says, while there is none."""

    name = "test"

    def ready(self, node: str) -> bool:
        return True

    def reaches(self, node: str) -> bool:
        raise Unavailable("the node is loading what it knows", reason="Reloading")

    def pace(self, node: str) -> Pace:
        return FREE

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        raise AssertionError("nothing is called")


def no_members() -> Directory:
    raise Unavailable("the node is loading what it knows", reason="Reloading")


def test_a_call_made_while_the_node_loads_ends_with_that_fault_instead_of_failing_whoever_makes_it() -> None:
    client = Client("me", [BlindRoad()], no_members, RoadBook(lambda: 0))
    ends: list[Message | Fault] = []
    client.request("somebody", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest(), 1_000, ends.append)
    assert [end.reason for end in ends if isinstance(end, Fault)] == ["Reloading"]


class Answering:
    """A road whose every call ends at once, in the same way."""

    def __init__(self, outcome: Message | Fault) -> None:
        self._outcome = outcome

    name = "test"

    def ready(self, node: str) -> bool:
        return True

    def reaches(self, node: str) -> bool:
        return True

    def pace(self, node: str) -> Pace:
        return FREE

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        done(self._outcome)


class Ends(list[Message | Fault]):
    """Who waits for a call."""

    def add(self, end: Message | Fault) -> None:
        self.append(end)


def test_the_next_road_is_tried_and_nothing_of_the_call_is_held_when_it_has_ended() -> None:
    """Not even in a cycle, which would keep pieces of large objects until the collector looks."""
    answer = mesh_pb2.PingResponse()
    roads = [Answering(Unavailable("not here", reason="NoRoad")), Answering(answer)]
    client = Client("me", roads, no_members, RoadBook(lambda: 0))
    ends = Ends()
    held = weakref.ref(ends)
    gc.disable()
    try:
        client.request("somebody", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest(), 1_000, ends.add)
        assert ends == [answer]
        del ends
        assert held() is None
    finally:
        gc.enable()


class Recorded:
    """A road that keeps what it is asked for; `outcomes` are how its calls end, in turn, the last one again and
    again. Each takes `took_ms`."""

    def __init__(self, clock: list[int], name: str, *outcomes: Message | Fault, took_ms: int = 0) -> None:
        self.name, self.is_ready, self.paced = name, False, FREE
        self.asked: list[tuple[str, int]] = []
        self.outcomes = list(outcomes)
        self._clock, self._took_ms = clock, took_ms

    def reaches(self, node: str) -> bool:
        return True

    def ready(self, node: str) -> bool:
        return self.is_ready

    def pace(self, node: str) -> Pace:
        return self.paced

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        self.asked.append((method.partition("/")[2], timeout_ms))
        self._clock[0] += min(self._took_ms, timeout_ms)
        done(self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0])


ANSWER = mesh_pb2.PingResponse()
LATE = OutcomeUnknown("late", reason="DeadlineExceeded")
GONE = Unavailable("gone", reason="NotConnected")


class World:
    def __init__(self, first: Message | Fault, second: Message | Fault = ANSWER, *, took_ms: int = 0) -> None:
        self.clock = [0]
        self.first = Recorded(self.clock, "grpc", first, took_ms=took_ms)
        self.second = Recorded(self.clock, "links", second)
        book = RoadBook(lambda: self.clock[0])
        self._client = Client("me", [self.first, self.second], no_members, book)

    def ask(self, timeout_ms: int = 1_000) -> Message | Fault:
        ends: list[Message | Fault] = []
        self._client.request("somebody", "offgrid.v1.MeshService/Ping", mesh_pb2.PingRequest(), timeout_ms, ends.append)
        [end] = ends
        return end


def test_a_road_without_a_connection_gets_half_of_the_time_where_there_is_another() -> None:
    world = World(GONE, took_ms=10_000)
    assert world.ask() == ANSWER
    assert (world.first.asked, world.second.asked) == ([("Ping", 500)], [("Ping", 500)])


def test_one_with_a_connection_gets_all_of_it() -> None:
    world = World(ANSWER)
    world.first.is_ready = True
    world.ask()
    assert (world.first.asked, world.second.asked) == ([("Ping", 1_000)], [])


def test_a_call_whose_outcome_is_unknown_goes_on_over_the_next_road_while_there_is_time() -> None:
    world = World(OutcomeUnknown("the connection was lost", reason="ConnectionLost"), took_ms=300)
    world.first.is_ready = True
    assert world.ask() == ANSWER
    assert world.second.asked == [("Ping", 700)]
    late = World(LATE, took_ms=1_000)
    late.first.is_ready = True
    assert late.ask() is LATE
    assert late.second.asked == []


def test_of_two_ends_the_graver_is_told_and_else_the_first() -> None:
    unknown, other = OutcomeUnknown("cut", reason="ConnectionLost"), Unavailable("no session", reason="PeerRefused")
    assert World(GONE, other).ask() is GONE
    assert World(unknown, other).ask() is unknown
    assert World(GONE, unknown).ask() is unknown


@pytest.mark.parametrize(
    "refused",
    [PermissionDenied("no", reason="AccessDenied"), Unavailable("it loads what it knows", reason="Reloading")],
    ids=str,
)
def test_what_the_node_itself_says_is_asked_of_it_by_no_other_road(refused: Fault) -> None:
    world = World(refused)
    assert world.ask() is refused
    assert world.second.asked == []


def test_after_a_failure_the_other_road_is_asked_first_and_an_echo_finds_out_when_it_leads_there_again() -> None:
    world = World(GONE)
    world.ask()
    world.first.asked.clear()
    world.ask()
    assert world.first.asked == []
    world.clock[0] = AGAIN_FIRST_MS
    world.ask()
    assert [method for method, _ in world.first.asked] == ["Echo"]
    world.first.outcomes = [ANSWER]
    world.clock[0] += 10 * AGAIN_FIRST_MS
    world.ask()
    world.second.asked.clear()
    world.ask()
    assert world.second.asked == []


def test_the_pace_of_a_node_is_that_of_the_road_which_a_call_would_take_now() -> None:
    world = World(GONE)
    world.second.paced = Pace(byte_us=1_500)
    client = world._client
    assert client.pace("node").free, "nothing is known yet, and the first road is free"
    client.request("node", "m/m", mesh_pb2.PingRequest(), 1_000, lambda outcome: None)
    assert client.pace("node") == world.second.paced, "the first one brought nothing"
    world.second.paced = FREE
    assert client.pace("node").free

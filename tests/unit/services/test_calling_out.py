"""The client that calls out: what it says when it cannot look a node up; the next road; what it holds afterwards."""

from __future__ import annotations

import gc
import weakref
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2
from offgrid_node.protocol.errors import (
    CONNECTION_REFUSED,
    Exhausted,
    Fault,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.client import Client, Done
from offgrid_node.services.packet_road import pace_of
from offgrid_node.services.roads.book import AGAIN_FIRST_MS, RoadBook
from offgrid_node.services.roads.choice import LATELY_MS, TOO_SLOW
from offgrid_tools.emulators.air_link import AirLink
from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.path import Path
from offgrid_transports.transport import BROADCAST


class BlindRoad:
    """A road that knows of others what the directory says, while there is none."""

    name = kin = "test"

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

    name = kin = "test"

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
        self.kin = "links" if name == "links" else "ip"
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
SLOW = Pace(frame_us=20_000, byte_us=1_500, wait_ms=100, frame_bytes=230)


def lora(sf: int) -> Pace:
    """A channel of 125 kHz that is quiet."""
    air = AirLink("1", Channel(VirtualClock(), Random(1)), Modulation(869_525_000, 125_000, sf))
    return pace_of(Path(air, BROADCAST))


WRITE, READ = "offgrid.v1.ObjectService/WriteReplica", "offgrid.v1.ObjectService/ReadReplica"
PIECE = objects_pb2.WriteReplicaRequest(data=bytes(100_000))


class World:
    """Two carriers, and a call to somebody over them."""

    def __init__(self, first: Message | Fault, second: Message | Fault = ANSWER, *, took_ms: int = 0) -> None:
        self.clock = [0]
        self.first = Recorded(self.clock, "grpc", first, took_ms=took_ms)
        self.second = Recorded(self.clock, "links", second)
        self.book = RoadBook(lambda: self.clock[0])
        self._client = Client("me", [self.first, self.second], no_members, self.book)

    def ask(
        self,
        timeout_ms: int = 1_000,
        method: str = "offgrid.v1.MeshService/Ping",
        request: Message = mesh_pb2.PingRequest(),  # noqa: B008 - nobody changes it
    ) -> Message | Fault:
        ends: list[Message | Fault] = []
        self._client.request("somebody", method, request, timeout_ms, ends.append)
        [end] = ends
        return end


def test_a_road_without_a_connection_gets_half_of_the_time_where_there_is_another() -> None:
    world = World(GONE, took_ms=10_000)
    assert world.ask() == ANSWER
    assert (world.first.asked, world.second.asked) == ([("Ping", 500)], [("Ping", 500)])


def test_one_with_a_connection_gets_the_most_of_it_and_of_what_a_cut_has_caught_the_other_brings_word() -> None:
    world = World(LATE, took_ms=10_000)
    world.first.is_ready = True
    assert world.ask(3_000) == ANSWER
    assert (world.first.asked, world.second.asked) == ([("Ping", 2_000)], [("Ping", 1_000)])


def test_a_slow_road_behind_it_is_left_little_for_it_gets_more_time_anyway() -> None:
    world = World(LATE, took_ms=10_000)
    world.first.is_ready, world.second.paced = True, SLOW
    assert world.ask(9_000) == ANSWER
    assert (world.first.asked, world.second.asked) == ([("Ping", 8_000)], [("Ping", 1_000)])


def test_probes_tell_how_long_a_round_trip_takes_where_nothing_has_to_be_opened_for_them() -> None:
    world = World(ANSWER, took_ms=7)
    world.ask()
    assert world.book.seen("somebody", "grpc").rtt_ms is None, "it may have opened a connection"
    world.first.is_ready = True
    world.ask(method=READ, request=objects_pb2.ReadReplicaRequest())
    assert world.book.seen("somebody", "grpc").rtt_ms is None, "its answer may be long"
    world.ask()
    assert world.book.seen("somebody", "grpc").rtt_ms == 7


def test_nothing_is_left_for_a_road_that_fails_already_or_with_the_first() -> None:
    for spoil in ("fails", "is its kin"):
        world = World(ANSWER)
        world.first.is_ready = True
        if spoil == "fails":
            world.book.ended("somebody", "links", GONE)
        else:
            world.second.kin = world.first.kin
        world.ask()
        assert (world.first.asked, world.second.asked) == ([("Ping", 1_000)], [])


def test_a_call_whose_outcome_is_unknown_goes_on_over_the_next_road_while_there_is_time() -> None:
    world = World(OutcomeUnknown("the connection was lost", reason="ConnectionLost"), took_ms=300)
    world.first.is_ready = True
    assert world.ask() == ANSWER
    assert world.second.asked == [("Ping", 700)]
    late = World(LATE, took_ms=1_000)
    late.first.is_ready, late.second.kin = True, late.first.kin
    assert late.ask() is LATE
    assert late.second.asked == []


class TestOnASlowRoad:
    """What is long waits for a faster road that was there a moment ago."""

    @staticmethod
    def world(first: Message | Fault = ANSWER) -> World:
        world = World(first)
        world.second.paced = SLOW
        world.ask()  # the first one leads there
        world.first.outcomes = [GONE]
        world.first.asked.clear()
        return world

    def test_a_large_piece_is_not_sent_while_a_faster_one_may_come_back(self) -> None:
        world = self.world()
        end = world.ask(5_000, WRITE, PIECE)
        assert isinstance(end, Unavailable)
        assert world.second.asked == []
        for said in (
            "links",
            "somebody",
            "100",
            f"{SLOW.air_ms(100_605) // 1_000 + 1} s;",
            "60 s are allowed",
            "Write",
        ):
            assert said in end.message

    @pytest.mark.parametrize("fault", [GONE, OutcomeUnknown("cut", reason="ConnectionLost")], ids=str)
    def test_it_ends_as_the_fast_one_did(self, fault: Fault) -> None:
        world = self.world()
        world.first.outcomes = [fault]
        end = world.ask(5_000, WRITE, PIECE)
        assert (type(end), end.reason) == (type(fault), fault.reason)  # type: ignore[union-attr]

    def test_what_the_fast_one_s_node_says_is_told_as_it_is(self) -> None:
        world = self.world()
        world.first.outcomes = [loading := Unavailable("it loads what it knows", reason="Reloading")]
        assert world.ask(5_000, WRITE, PIECE) is loading

    @pytest.mark.parametrize("lately", [True, False], ids=["there lately", "gone for long"])
    @pytest.mark.parametrize("sf", [7, 11, 12])
    def test_what_keeps_jobs_going_goes_at_any_bit_rate(self, sf: int, lately: bool) -> None:
        world = self.world()
        world.second.paced = lora(sf)
        world.clock[0] += 0 if lately else LATELY_MS + 1
        held = [jobs_pb2.LeaseKey(job_id="j" * 26, attempt=1)]
        reports = [jobs_pb2.AttemptReport(error_detail="e" * 500)]
        for method, request in (
            ("RenewLeases", jobs_pb2.RenewLeasesRequest(digest=bytes(8), next_ms=400_000)),
            ("RenewLeases", jobs_pb2.RenewLeasesRequest(digest=bytes(8), next_ms=400_000, held=held)),
            ("CancelStarts", jobs_pb2.CancelStartsRequest(attempts=held)),
            (
                "StartJobs",
                jobs_pb2.StartJobsRequest(root_signature=bytes(64), starts=[jobs_pb2.StartJob(order=bytes(500))]),
            ),
            ("ReportResults", jobs_pb2.ReportResultsRequest(root_signature=bytes(64), reports=reports)),
        ):
            assert world.ask(5_000, f"offgrid.v1.MarketService/{method}", request) == ANSWER

    def test_what_one_frame_asks_goes_on_the_slowest_of_roads(self) -> None:
        world = self.world()
        world.second.paced = Pace(frame_us=2_000_000, byte_us=160_000, frame_bytes=51)
        renew = jobs_pb2.RenewLeasesRequest(digest=bytes(8), next_ms=3_600_000)
        assert world.ask(5_000, "offgrid.v1.MarketService/RenewLeases", renew) == ANSWER
        end = world.ask(5_000, "offgrid.v1.JobService/CreateTask", PIECE)
        assert isinstance(end, Unavailable)

    def test_nor_is_one_asked_for(self) -> None:
        world = self.world()
        end = world.ask(5_000, READ, objects_pb2.ReadReplicaRequest(length=100_000))
        assert (isinstance(end, Unavailable), world.second.asked) == (True, [])

    def test_what_is_short_goes(self) -> None:
        world = self.world()
        assert world.ask(5_000, WRITE, objects_pb2.WriteReplicaRequest(data=bytes(2_000))) == ANSWER

    @pytest.mark.parametrize("method", ["offgrid.v1.MeshService/SyncMembers", "offgrid.v1.LedgerService/PushBlocks"])
    def test_what_is_urgent_goes_however_long_it_is(self, method: str) -> None:
        world = self.world()
        assert world.ask(5_000, method, PIECE) == ANSWER

    def test_who_gives_it_the_time_may_send_it(self) -> None:
        world = self.world()
        assert world.ask(SLOW.longer_ms(200_000), WRITE, PIECE) == ANSWER

    def test_when_no_faster_one_has_answered_for_long_it_goes_but_not_for_hours(self) -> None:
        world = self.world()
        world.clock[0] += LATELY_MS + 1
        assert world.ask(5_000, WRITE, PIECE) == ANSWER
        end = world.ask(5_000, WRITE, objects_pb2.WriteReplicaRequest(data=bytes(1 << 20)))
        assert isinstance(end, Unavailable)
        assert "900 s are allowed at most" in end.message

    def test_where_there_is_no_other_the_reason_is_that_it_is_too_slow(self) -> None:
        clock = [0]
        only = Recorded(clock, "links", ANSWER)
        only.paced = SLOW
        ends: list[Message | Fault] = []
        request = objects_pb2.WriteReplicaRequest(data=bytes(1 << 20))
        Client("me", [only], no_members, RoadBook(lambda: clock[0])).request("node", WRITE, request, 5_000, ends.append)
        [end] = ends
        assert isinstance(end, Unavailable)
        assert (end.reason, only.asked) == (TOO_SLOW, [])
        assert "900 s are allowed at most" in end.message

    def test_the_fast_one_takes_it_when_it_answers(self) -> None:
        world = self.world()
        world.first.outcomes = [ANSWER]
        assert world.ask(5_000, WRITE, PIECE) == ANSWER
        assert [method for method, _ in world.first.asked] == ["WriteReplica"]


def test_of_two_ends_the_graver_is_told_and_else_the_first() -> None:
    unknown, other = OutcomeUnknown("cut", reason="ConnectionLost"), Unavailable("no session", reason="PeerRefused")
    assert World(GONE, other).ask() is GONE
    assert World(unknown, other).ask() is unknown
    assert World(GONE, unknown).ask() is unknown


@pytest.mark.parametrize(
    "fault",
    [Unavailable("it loads what it knows", reason="Reloading"), Exhausted("too many calls", reason="CallsExhausted")],
    ids=str,
)
def test_what_the_next_road_s_node_refuses_may_have_been_carried_out_by_the_first(fault: Fault) -> None:
    unknown = OutcomeUnknown("cut", reason="ConnectionLost")
    assert World(unknown, fault).ask() is unknown
    assert World(GONE, fault).ask() is fault


def test_that_nobody_listens_there_is_said_though_a_slow_road_leaves_it_unknown() -> None:
    refused, late = Unavailable("nobody listens", reason=CONNECTION_REFUSED), OutcomeUnknown("late", reason="NoAnswer")
    for end in (World(refused, late).ask(), World(late, refused).ask()):
        assert isinstance(end, OutcomeUnknown), "it may have been carried out"
        assert end.reason == CONNECTION_REFUSED


def test_a_node_is_asked_quickly_where_its_first_road_has_a_connection_and_is_no_slow_one() -> None:
    world = World(GONE)
    client = world._client
    assert not client.asks_quickly("node")
    world.first.is_ready = True
    assert client.asks_quickly("node")
    world.first.paced = Pace(byte_us=1_500)
    assert not client.asks_quickly("node")
    assert not Client("me", [], no_members, RoadBook(lambda: 0)).asks_quickly("node")


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

"""Lanes: many small calls on one stream, with all that is promised of calls by themselves, on gRPC and framed."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from carrier_world import ALICE, SERVER, STATUS, run, world_in
from google.protobuf.message import Message
from lane_world import (
    OFFER,
    PING,
    PONG,
    FramedStream,
    RawStream,
    deaf_lane,
    heard,
    later,
    on_the_way,
    opened,
    until,
)

from offgrid.v1 import jobs_pb2, lane_pb2, mesh_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, OutcomeUnknown, PermissionDenied, Unavailable
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.grpc_lane import CARRY
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX, LANE_CALLS_MAX, LATE_MAX
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.router import METHODS

AGAIN_MAX = 10


@pytest.fixture(params=[False, True], ids=["grpc", "framed"])
def framed(request: pytest.FixtureRequest) -> bool:
    """Which carrier the lane is on."""
    return bool(request.param)


class TestCalls:
    def test_are_answered_in_whatever_order(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                first, second = alice.start(), alice.start()
                await until(lambda: len(tickets) == 2)
                tickets[1].resolve(mesh_pb2.PingResponse(members_digest=b"2"))
                assert await second == mesh_pb2.PingResponse(members_digest=b"2")
                assert not first.done()
                tickets[0].resolve(mesh_pb2.PingResponse(members_digest=b"1"))
                assert await first == mesh_pb2.PingResponse(members_digest=b"1")

        run(scenario())

    def test_bring_back_a_fault_with_all_that_it_says(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):

                def refuse(caller: Caller, request: Message) -> Message:
                    raise Exhausted("come back", reason="QueueFull", retry_ms=1_234, metadata={"what": "jobs"})

                world.answers[PING] = refuse
                fault = await alice.start()
                assert isinstance(fault, Exhausted)
                assert (fault.reason, fault.retry_ms, fault.metadata) == ("QueueFull", 1_234, {"what": "jobs"})

        run(scenario())

    def test_know_their_caller_and_its_roles(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                callers: list[Caller] = []

                def answer(caller: Caller, request: Message) -> Message:
                    callers.append(caller)
                    return PONG

                world.answers[PING] = answer
                await alice.start()
                assert callers == [Caller(Kind.MEMBER, ALICE.node_id, frozenset({1, 2, 3}))]
                world.members[ALICE.node_id] = Caller(Kind.MEMBER, ALICE.node_id, frozenset())
                fault = await alice.start(OFFER, jobs_pb2.PostOffersRequest())
                assert isinstance(fault, PermissionDenied)
                assert fault.reason == "AccessDenied"

        run(scenario())

    def test_of_a_member_that_was_removed_are_refused_one_by_one_on_an_open_lane(
        self, tmp_path: Path, framed: bool
    ) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                del world.members[ALICE.node_id]
                fault = await alice.start()
                assert isinstance(fault, PermissionDenied)
                assert fault.reason == "NotAMember"

        run(scenario())

    def test_that_are_late_have_an_unknown_outcome_and_disturb_no_other(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                fault = await alice.start(timeout_ms=50)
                assert isinstance(fault, OutcomeUnknown)
                assert fault.reason == "DeadlineExceeded"
                second = alice.start()
                await until(lambda: len(tickets) == 2)
                tickets[0].resolve(mesh_pb2.PingResponse(members_digest=b"too late"))
                tickets[1].resolve(PONG)
                assert await second == PONG

        run(scenario())

    def test_that_are_large_go_by_themselves(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                large = mesh_pb2.PingRequest(members_digest=bytes(LANE_CALL_BYTES_MAX + 1))
                assert await alice.start(request=large) == PONG
                answer = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: answer
                assert await alice.start() == answer, "answers may be as large as ever"

        run(scenario())


class TestAMemberThatDoesNotAnswer:
    def test_takes_no_more_than_a_bounded_number_of_calls_and_the_others_go_singly(
        self, tmp_path: Path, framed: bool
    ) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, Limits(calls_in_flight=10_000), framed=framed) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                ends = [alice.start(timeout_ms=20_000) for _ in range(LANE_CALLS_MAX + 3)]
                await until(lambda: len(tickets) == len(ends))
                assert framed or alice.road.singles == 3
                for ticket in tickets:
                    ticket.resolve(PONG)
                assert {type(await end) for end in ends} == {mesh_pb2.PingResponse}

        run(scenario())

    def test_loses_its_lane_after_a_few_calls_and_is_called_singly(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                world.answers[PING] = later([])
                for _ in range(LATE_MAX):
                    assert isinstance(await alice.start(timeout_ms=50), OutcomeUnknown)
                await until(lambda: not alice.road.lanes)
                world.answers[PING] = lambda caller, request: PONG
                assert await alice.start() == PONG

        run(scenario())

    def test_is_not_sent_what_nobody_waits_for_any_more(self, tmp_path: Path, framed: bool) -> None:
        """Whatever never left may be said to be undone, whether it was late or the lane ended."""

        async def scenario() -> None:
            async with deaf_lane(framed=framed) as lane:
                big = bytes(LANE_CALL_BYTES_MAX)
                late: list[Message | Fault] = []
                for _ in range(100):
                    lane.call(METHODS[f"offgrid.v1.{PING}"], (big, b""), 0.2, late.append)
                open_ended: list[Message | Fault] = []
                lane.call(METHODS[f"offgrid.v1.{PING}"], (big, b""), 60, open_ended.append)
                await until(lambda: len(late) == 100)
                assert Counter(type(end) for end in late)[Unavailable] > 10, "the rest fitted into gRPC's own buffers"
                await until(lambda: open_ended)
                assert isinstance(open_ended[0], Unavailable), "three in a row unheard: the lane was given up"

        run(scenario())


class TestAMemberThatAnswersWrongly:
    @pytest.mark.parametrize(
        "answers",
        [
            [lane_pb2.LaneAnswer(number=77)],
            [lane_pb2.LaneAnswer()],
            [lane_pb2.LaneAnswer(number=1)] * 2_000,
            [lane_pb2.LaneAnswer(number=1)] * 2,
            [],
        ],
        ids=["a call that there was not", "no call", "too many", "more than calls", "nothing"],
    )
    def test_loses_its_lane(
        self, answers: list[lane_pb2.LaneAnswer], framed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario() -> None:
            async with deaf_lane(lane_pb2.CarryResponse(answers=answers).SerializeToString(), framed=framed) as lane:
                ended: list[Message | Fault] = []
                lane.call(METHODS[f"offgrid.v1.{PING}"], (b"", b""), 10, ended.append)
                await until(lambda: ended)
                assert isinstance(ended[0], OutcomeUnknown | mesh_pb2.PingResponse)
                await until(lambda: not lane.is_open)

        run(scenario())
        assert "has lost its place" in caplog.text

    def test_disturbs_no_other_call_by_what_its_caller_makes_of_it(
        self, tmp_path: Path, framed: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (_, alice):
                alice.road.call(SERVER.node_id, f"offgrid.v1.{PING}", mesh_pb2.PingRequest(), 5_000, lambda end: 1 / 0)
                assert await alice.start() == PONG

        run(scenario())
        assert "ZeroDivisionError" in caplog.text


class TestTheEnd:
    def test_of_a_node_that_stops_in_order_waits_for_answers_under_way(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                end = alice.start()
                await until(lambda: tickets)
                closing = asyncio.ensure_future(world.stop(grace_s=60))
                await asyncio.sleep(0.2)
                tickets[0].resolve(PONG)
                assert await end == PONG
                async with asyncio.timeout(30):
                    await closing

        run(scenario())

    def test_of_a_connection_lets_no_call_get_lost(self, tmp_path: Path, framed: bool) -> None:
        """It is closed in a moment, and a call may come before."""

        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (_, alice):
                alice.directory.knows = False
                alice.road.refresh()
                alice.directory.knows = True
                assert await alice.start() == PONG

        run(scenario())

    def test_of_our_membership_of_a_peer_closes_the_lane_to_it(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (_, alice):
                alice.directory.knows = False
                alice.road.refresh()
                await until(lambda: not alice.road.lanes)

        run(scenario())

    def test_of_the_peer_leaves_outcomes_unknown(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                end = alice.start()
                await until(lambda: tickets)
                await world.stop(grace_s=0)
                fault = await end
                assert isinstance(fault, OutcomeUnknown)
                await until(lambda: alice.road.lanes == 0)
                for _ in range(AGAIN_MAX):  # one that was let in by the system just before the end is cut off as well
                    fault = await alice.start(timeout_ms=300)
                    if not isinstance(fault, OutcomeUnknown):
                        break
                assert isinstance(fault, Unavailable), "nobody is there"

        run(scenario())

    def test_of_a_member_closes_its_lane(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                world.server.disconnect(ALICE.node_id)
                await until(lambda: not alice.road.lanes)

        run(scenario())

    def test_is_followed_by_calls_by_themselves_and_then_by_another_lane(
        self, tmp_path: Path, framed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scenario() -> None:
            monkeypatch.setattr("offgrid_node.services.grpc_road.LANE_RETRY_S", 0.0)
            monkeypatch.setattr("offgrid_node.services.framed_road.RETRY_S", 0.0)
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                world.server.disconnect(ALICE.node_id)
                await until(lambda: not alice.road.lanes and not alice.road.grpc.lanes)
                assert await alice.start() == PONG
                await until(lambda: alice.road.lanes)

        run(scenario())

    def test_is_followed_by_another_lane_at_once_where_its_peer_is_heard_of_anew(
        self, tmp_path: Path, framed: bool
    ) -> None:
        """Without one its next death would be noticed by nobody before its turn to be probed."""

        async def scenario() -> None:
            async with on_the_way(tmp_path, framed=framed) as (world, alice):
                world.server.disconnect(ALICE.node_id)
                await until(lambda: not alice.road.grpc.lanes)
                alice.road.grpc.retry(SERVER.node_id)
                assert await alice.start() == PONG
                await until(lambda: alice.road.grpc.lanes)

        run(scenario())


def test_the_owner_may_use_one_as_well(tmp_path: Path, framed: bool) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            stream: RawStream = world.admin().channel.stream_stream(CARRY)(timeout=20)
            if framed:
                stream = await FramedStream.owner(world)
            assert await opened(stream)
            call = lane_pb2.LaneCall(number=7, method=METHOD_NUMBERS[f"offgrid.v1.{STATUS}"])
            await stream.write(lane_pb2.CarryRequest(calls=[call]).SerializeToString())
            [answer] = await heard(stream)
            assert (answer.number, answer.status) == (7, b"")
            stream.cancel()

    run(scenario())

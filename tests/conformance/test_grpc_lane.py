"""Lanes: many small calls on one stream, with all that is promised of calls by themselves."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from carrier_world import ALICE, BOB, SERVER, STATUS, TLS, World, run, world_in
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, lane_pb2, mesh_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, NotFound, OutcomeUnknown, PermissionDenied, Unavailable
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.grpc_calls import RpcHandler
from offgrid_node.services.grpc_gate import Context
from offgrid_node.services.grpc_lane import CARRY, LANE_CALL_BYTES_MAX, LANE_CALLS_MAX, LATE_MAX, Lane
from offgrid_node.services.grpc_lane_server import LANES_MAX
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.router import METHODS

PING, OFFER = "MeshService/Ping", "MarketService/PostOffer"
PONG = mesh_pb2.PingResponse(members_digest=b"pong")
Stream = grpc.aio.StreamStreamCall
MANY_CALLS = lane_pb2.CarryRequest(calls=[lane_pb2.LaneCall()] * 2_000).SerializeToString()


class Directory:
    """Knows SERVER alone."""

    def __init__(self, world: World) -> None:
        self._world = world

        self.knows = True

    def addresses(self, node: str) -> list[str]:
        return [f"127.0.0.1:{self._world.mesh}"] if self.knows else []

    def certificate(self, node: str) -> bytes | None:
        return TLS[SERVER.node_id].identity_der if node == SERVER.node_id and self.knows else None


class Traveller:
    """ALICE's road to SERVER."""

    def __init__(self, world: World) -> None:
        self.directory = Directory(world)
        self.road = GrpcRoad(TLS[ALICE.node_id], lambda: self.directory)

    def start(
        self, method: str = PING, request: Message | None = None, timeout_ms: int = 5_000
    ) -> asyncio.Future[Message | Fault]:
        end: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()
        asked = mesh_pb2.PingRequest() if request is None else request
        self.road.call(SERVER.node_id, f"offgrid.v1.{method}", asked, timeout_ms, end.set_result)
        return end

    async def open_lane(self) -> None:
        await self.start()
        await until(lambda: self.road.lanes)


@asynccontextmanager
async def on_the_way(folder: Path, limits: Limits | None = None) -> AsyncIterator[tuple[World, Traveller]]:
    """With the lane open."""
    async with world_in(folder, limits or Limits()) as world:
        world.answers[PING] = lambda caller, request: PONG
        alice = Traveller(world)
        await alice.open_lane()
        try:
            yield world, alice
        finally:
            await alice.road.close()


@asynccontextmanager
async def deaf_lane(answer: bytes | None = None) -> AsyncIterator[Lane]:
    """An open lane to somebody who reads nothing, or, with an `answer`, one message and gives that."""

    async def carry(_: object, context: Context) -> None:
        await context.write(b"")
        if answer is not None:
            await context.read()
            await context.write(answer)
        await asyncio.sleep(60)

    class Deaf(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> RpcHandler:
            return grpc.stream_stream_rpc_method_handler(carry)

    server = grpc.aio.server(handlers=[Deaf()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    lane = Lane("deaf")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        life = asyncio.ensure_future(lane.run(channel))
        await until(lambda: lane.is_open)
        try:
            yield lane
        finally:
            life.cancel()
            await server.stop(0)


def later(tickets: list[Ticket]) -> Callable[[Caller, Message], Ticket]:
    """An answer that a test gives."""

    def answer(caller: Caller, request: Message) -> Ticket:
        tickets.append(Ticket())
        return tickets[-1]

    return answer


async def heard(stream: Stream[bytes, bytes]) -> list[lane_pb2.LaneAnswer]:
    """The answers of the next message."""
    raw = await stream.read()
    assert isinstance(raw, bytes), "the lane has ended"
    return list(lane_pb2.CarryResponse.FromString(raw).answers)


async def until(question: Callable[[], object]) -> None:
    while not question():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.01)


class TestCalls:
    def test_are_answered_in_whatever_order(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
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

    def test_bring_back_a_fault_with_all_that_it_says(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):

                def refuse(caller: Caller, request: Message) -> Message:
                    raise Exhausted("come back", reason="QueueFull", retry_ms=1_234, metadata={"what": "jobs"})

                world.answers[PING] = refuse
                fault = await alice.start()
                assert isinstance(fault, Exhausted)
                assert (fault.reason, fault.retry_ms, fault.metadata) == ("QueueFull", 1_234, {"what": "jobs"})

        run(scenario())

    def test_know_their_caller_and_its_roles(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                callers: list[Caller] = []

                def answer(caller: Caller, request: Message) -> Message:
                    callers.append(caller)
                    return PONG

                world.answers[PING] = answer
                await alice.start()
                assert callers == [Caller(Kind.MEMBER, ALICE.node_id, frozenset({1, 2, 3}))]
                world.members[ALICE.node_id] = Caller(Kind.MEMBER, ALICE.node_id, frozenset())
                fault = await alice.start(OFFER, jobs_pb2.PostOfferRequest())
                assert isinstance(fault, PermissionDenied)
                assert fault.reason == "AccessDenied"

        run(scenario())

    def test_of_a_member_that_was_removed_are_refused_one_by_one_on_an_open_lane(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                del world.members[ALICE.node_id]
                fault = await alice.start()
                assert isinstance(fault, PermissionDenied)
                assert fault.reason == "NotAMember"

        run(scenario())

    def test_that_are_late_have_an_unknown_outcome_and_disturb_no_other(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
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

    def test_that_are_large_go_by_themselves(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                large = mesh_pb2.PingRequest(members_digest=bytes(LANE_CALL_BYTES_MAX + 1))
                assert await alice.start(request=large) == PONG
                answer = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: answer
                assert await alice.start() == answer, "answers may be as large as ever"

        run(scenario())


class TestAMemberThatDoesNotAnswer:
    def test_takes_no_more_than_a_bounded_number_of_calls_and_the_others_go_singly(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path, Limits(calls_in_flight=10_000)) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                ends = [alice.start(timeout_ms=20_000) for _ in range(LANE_CALLS_MAX + 3)]
                await until(lambda: len(tickets) == len(ends))
                assert alice.road.singles == 3
                for ticket in tickets:
                    ticket.resolve(PONG)
                assert {type(await end) for end in ends} == {mesh_pb2.PingResponse}

        run(scenario())

    def test_loses_its_lane_after_a_few_calls_and_is_called_singly(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                world.answers[PING] = later([])
                for _ in range(LATE_MAX):
                    assert isinstance(await alice.start(timeout_ms=50), OutcomeUnknown)
                await until(lambda: not alice.road.lanes)
                world.answers[PING] = lambda caller, request: PONG
                assert await alice.start() == PONG

        run(scenario())

    def test_is_not_sent_what_nobody_waits_for_any_more(self, tmp_path: Path) -> None:
        """Whatever never left may be said to be undone, whether it was late or the lane ended."""

        async def scenario() -> None:
            async with deaf_lane() as lane:
                big = bytes(LANE_CALL_BYTES_MAX)
                late: list[Message | Fault] = []
                for _ in range(100):
                    lane.call(METHODS[f"offgrid.v1.{PING}"], big, 0.2, late.append)
                open_ended: list[Message | Fault] = []
                lane.call(METHODS[f"offgrid.v1.{PING}"], big, 60, open_ended.append)
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
    def test_loses_its_lane(self, answers: list[lane_pb2.LaneAnswer], caplog: pytest.LogCaptureFixture) -> None:
        async def scenario() -> None:
            async with deaf_lane(lane_pb2.CarryResponse(answers=answers).SerializeToString()) as lane:
                ended: list[Message | Fault] = []
                lane.call(METHODS[f"offgrid.v1.{PING}"], b"", 10, ended.append)
                await until(lambda: ended)
                assert isinstance(ended[0], OutcomeUnknown | mesh_pb2.PingResponse)
                await until(lambda: not lane.is_open)

        run(scenario())
        assert "has lost its place on a lane" in caplog.text

    def test_disturbs_no_other_call_by_what_its_caller_makes_of_it(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (_, alice):
                alice.road.call(SERVER.node_id, f"offgrid.v1.{PING}", mesh_pb2.PingRequest(), 5_000, lambda end: 1 / 0)
                assert await alice.start() == PONG

        run(scenario())
        assert "ZeroDivisionError" in caplog.text


class TestTheEnd:
    def test_of_a_node_that_stops_in_order_waits_for_answers_under_way(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                end = alice.start()
                await until(lambda: tickets)
                closing = asyncio.ensure_future(world.server.close(grace_s=5))
                await asyncio.sleep(0.2)
                tickets[0].resolve(PONG)
                assert await end == PONG
                async with asyncio.timeout(3):
                    await closing

        run(scenario())

    def test_of_a_connection_lets_no_call_get_lost(self, tmp_path: Path) -> None:
        """It is closed in a moment, and a call may come before."""

        async def scenario() -> None:
            async with on_the_way(tmp_path) as (_, alice):
                alice.directory.knows = False
                alice.road.refresh()
                alice.directory.knows = True
                assert await alice.start() == PONG

        run(scenario())

    def test_of_our_membership_of_a_peer_closes_the_lane_to_it(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (_, alice):
                alice.directory.knows = False
                alice.road.refresh()
                await until(lambda: not alice.road.lanes)

        run(scenario())

    def test_of_the_peer_leaves_outcomes_unknown(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                end = alice.start()
                await until(lambda: tickets)
                await world.server.close(grace_s=0)
                fault = await end
                assert isinstance(fault, OutcomeUnknown)
                assert alice.road.lanes == 0
                assert isinstance(await alice.start(timeout_ms=300), Unavailable), "nobody is there"

        run(scenario())

    def test_of_a_member_closes_its_lane(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with on_the_way(tmp_path) as (world, alice):
                world.server.disconnect(ALICE.node_id)
                await until(lambda: not alice.road.lanes)

        run(scenario())

    def test_is_followed_by_calls_by_themselves_and_then_by_another_lane(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def scenario() -> None:
            monkeypatch.setattr("offgrid_node.services.grpc_road.LANE_RETRY_S", 0.0)
            async with on_the_way(tmp_path) as (world, alice):
                world.server.disconnect(ALICE.node_id)
                await until(lambda: not alice.road.lanes)
                assert await alice.start() == PONG
                await until(lambda: alice.road.lanes)

        run(scenario())


class TestBounds:
    """What no honest caller would send."""

    @asynccontextmanager
    async def raw(self, folder: Path, limits: Limits) -> AsyncIterator[tuple[World, Stream[bytes, bytes]]]:
        async with world_in(folder, limits) as world:
            stream: Stream[bytes, bytes] = world.member(BOB).channel.stream_stream(CARRY)(timeout=20)
            assert await stream.read() == b"", "it is open"
            yield world, stream
            stream.cancel()

    async def answers(self, stream: Stream[bytes, bytes], *calls: lane_pb2.LaneCall) -> list[lane_pb2.LaneAnswer]:
        await stream.write(lane_pb2.CarryRequest(calls=calls).SerializeToString())
        found: list[lane_pb2.LaneAnswer] = []
        while len(found) < len(calls):
            found += await heard(stream)
        return sorted(found, key=lambda answer: answer.number)

    def test_calls_are_counted_one_by_one_and_come_back_when_others_have_ended(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(calls_in_flight=3)) as (world, stream):
                tickets: list[Ticket] = []
                world.answers[PING] = later(tickets)
                calls = [lane_pb2.LaneCall(number=n, method=METHOD_NUMBERS[f"offgrid.v1.{PING}"]) for n in range(3)]
                await stream.write(lane_pb2.CarryRequest(calls=calls).SerializeToString())
                [refused] = await heard(stream)
                assert (refused.number, fault_from_bytes(refused.status).reason) == (2, "TooManyCalls")
                for ticket in tickets:
                    ticket.resolve(PONG)
                await stream.read()
                again = asyncio.ensure_future(self.answers(stream, calls[2]))
                await until(lambda: len(tickets) == 3)
                tickets[2].resolve(PONG)
                [answer] = await again
                assert answer.response == PONG.SerializeToString()

        run(scenario())

    def test_the_lane_itself_is_a_call_and_its_opening_is_rated(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(calls_per_s=0.1, burst_calls=2)) as (world, _):
                client = world.member(BOB)
                second: Stream[bytes, bytes] = client.channel.stream_stream(CARRY)(timeout=20)
                assert await second.read() == b""
                third: Stream[bytes, bytes] = client.channel.stream_stream(CARRY)(timeout=20)
                assert await third.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert [fault.reason for fault in world.refused] == ["RateLimited"]

        run(scenario())

    def test_who_asks_too_often_is_told_so_and_not_heard_before_it_may_come_back(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(calls_per_s=2, burst_calls=2)) as (world, stream):
                call = lane_pb2.LaneCall(number=1, method=METHOD_NUMBERS[f"offgrid.v1.{PING}"])
                began = asyncio.get_running_loop().time()
                reasons = []
                for _ in range(4):
                    [answer] = await self.answers(stream, call)
                    reasons.append(fault_from_bytes(answer.status).reason if answer.status else "")
                assert reasons[:2] == ["", "RateLimited"]
                assert asyncio.get_running_loop().time() - began > 0.4
                assert "RateLimited" in [fault.reason for fault in world.refused]

        run(scenario())

    def test_answers_that_are_not_taken_count_as_bytes_in_flight(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(bytes_in_flight=4_000_000)) as (world, stream):
                large = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: large
                request = mesh_pb2.PingRequest(members_digest=bytes(100)).SerializeToString()
                call = lane_pb2.LaneCall(method=METHOD_NUMBERS[f"offgrid.v1.{PING}"], request=request)
                await stream.write(lane_pb2.CarryRequest(calls=[call] * 3).SerializeToString())
                await until(lambda: world.refused)
                assert world.refused[0].reason == "TooManyBytes"

        run(scenario())

    def test_bytes_are_counted_too(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(bytes_in_flight=100_000)) as (world, stream):
                world.answers[PING] = later([])
                number = METHOD_NUMBERS[f"offgrid.v1.{PING}"]
                request = mesh_pb2.PingRequest(members_digest=bytes(60_000)).SerializeToString()
                calls = [lane_pb2.LaneCall(number=n, method=number, request=request) for n in range(2)]
                await stream.write(lane_pb2.CarryRequest(calls=calls).SerializeToString())
                [refused] = await heard(stream)
                assert (refused.number, fault_from_bytes(refused.status).reason) == (1, "TooManyBytes")

        run(scenario())

    @pytest.mark.parametrize(
        ("method", "size_bytes", "fault", "reason"),
        [
            (0x7777, 0, NotFound, "UnknownMethod"),
            (METHOD_NUMBERS["offgrid.v1.StateService/WatchEvents"], 0, PermissionDenied, "AccessDenied"),
            (METHOD_NUMBERS["offgrid.v1.JobService/RunJobs"], 0, PermissionDenied, "AccessDenied"),
            (METHOD_NUMBERS[f"offgrid.v1.{PING}"], LANE_CALL_BYTES_MAX + 1, Exhausted, "RequestTooLarge"),
        ],
        ids=["a method that there is not", "a stream", "the owner's own", "a large request"],
    )
    def test_a_call_that_may_not_be_is_refused_in_words(
        self, tmp_path: Path, method: int, size_bytes: int, fault: type[Fault], reason: str
    ) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits()) as (_, stream):
                [answer] = await self.answers(
                    stream, lane_pb2.LaneCall(number=1, method=method, request=bytes(size_bytes))
                )
                refused = fault_from_bytes(answer.status)
                assert (type(refused), refused.reason) == (fault, reason)

        run(scenario())

    @pytest.mark.parametrize(
        "junk",
        [
            b"\xff\xff",
            lane_pb2.CarryRequest(calls=[lane_pb2.LaneCall()] * 2_000).SerializeToString(),
            b"",
            bytes(2**20),
        ],
        ids=["no message", "too many calls", "no calls", "too large to be taken apart"],
    )
    def test_a_message_that_is_none_ends_the_lane(self, tmp_path: Path, junk: bytes) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits()) as (_, stream):
                await stream.write(junk)
                assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT

        run(scenario())

    def test_for_a_caller_that_reads_no_answers_few_are_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        longest = 0

        class Watched(deque[object]):
            def append(self, item: object) -> None:
                nonlocal longest
                super().append(item)
                longest = max(longest, len(self))

        async def scenario() -> None:
            monkeypatch.setattr("offgrid_node.services.grpc_lane_server.ANSWERS_MAX", 4)
            monkeypatch.setattr("offgrid_node.services.grpc_lane_server.deque", Watched)
            async with self.raw(tmp_path, Limits()) as (world, stream):
                large = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: large
                ping = lane_pb2.LaneCall(method=METHOD_NUMBERS[f"offgrid.v1.{PING}"])
                unknown = lane_pb2.LaneCall(method=0x7777)
                await stream.write(lane_pb2.CarryRequest(calls=[ping] * 4).SerializeToString())
                for _ in range(50):
                    await stream.write(lane_pb2.CarryRequest(calls=[unknown] * 10).SerializeToString())
                await asyncio.sleep(0.2)
                assert 4 < longest <= 4 + 2 * 10

        run(scenario())

    def test_strangers_at_the_door_find_none(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with world_in(tmp_path) as world:
                stream: Stream[bytes, bytes] = world.stranger().channel.stream_stream(CARRY)(timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await stream.read()
                assert ended.value.code() is grpc.StatusCode.UNIMPLEMENTED

        run(scenario())

    def test_a_caller_may_open_only_a_few(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits()) as (world, first):
                client = world.member(BOB)
                others: list[Stream[bytes, bytes]] = [
                    client.channel.stream_stream(CARRY)(timeout=20) for _ in range(LANES_MAX - 1)
                ]
                for stream in others:
                    assert await stream.read() == b""
                one_more: Stream[bytes, bytes] = client.channel.stream_stream(CARRY)(timeout=20)
                assert await one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                first.cancel()
                while True:
                    again: Stream[bytes, bytes] = client.channel.stream_stream(CARRY)(timeout=20)
                    if await again.read() == b"":
                        break

        run(scenario())


def test_the_owner_may_use_one_as_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            stream: Stream[bytes, bytes] = world.admin().channel.stream_stream(CARRY)(timeout=20)
            assert await stream.read() == b""
            call = lane_pb2.LaneCall(number=7, method=METHOD_NUMBERS[f"offgrid.v1.{STATUS}"])
            await stream.write(lane_pb2.CarryRequest(calls=[call]).SerializeToString())
            [answer] = await heard(stream)
            assert (answer.number, answer.status) == (7, b"")

    run(scenario())

"""What a lane lets its caller do, and what no honest caller would."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from carrier_world import BOB, World, run, world_in
from lane_world import (
    PING,
    PONG,
    FramedStream,
    RawStream,
    Stream,
    ended,
    heard,
    later,
    opened,
    until,
)

from offgrid.v1 import lane_pb2, mesh_pb2
from offgrid_node.protocol.errors import Exhausted, Fault, NotFound, PermissionDenied
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.grpc_lane import CARRY
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX
from offgrid_node.services.lane_serving import LANES_MAX
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes


@pytest.fixture(params=[False, True], ids=["grpc", "framed"])
def framed(request: pytest.FixtureRequest) -> bool:
    """Which carrier the lane is on."""
    return bool(request.param)


class TestBounds:
    @asynccontextmanager
    async def raw(self, folder: Path, limits: Limits, *, framed: bool) -> AsyncIterator[tuple[World, RawStream]]:
        async with world_in(folder, limits) as world:
            stream = await self.another(world, framed=framed)
            assert await opened(stream)
            yield world, stream
            stream.cancel()

    async def another(self, world: World, *, framed: bool) -> RawStream:
        if framed:
            return await FramedStream.open(world)
        stream: Stream[bytes, bytes] = world.member(BOB).channel.stream_stream(CARRY)(timeout=20)
        return stream

    async def answers(self, stream: RawStream, *calls: lane_pb2.LaneCall) -> list[lane_pb2.LaneAnswer]:
        await stream.write(lane_pb2.CarryRequest(calls=calls).SerializeToString())
        found: list[lane_pb2.LaneAnswer] = []
        while len(found) < len(calls):
            found += await heard(stream)
        return sorted(found, key=lambda answer: answer.number)

    def test_calls_are_counted_one_by_one_and_come_back_when_others_have_ended(
        self, tmp_path: Path, framed: bool
    ) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(calls_in_flight=3), framed=framed) as (world, stream):
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

    def test_the_lane_itself_is_a_call_and_its_opening_is_rated(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(calls_per_s=0.1, burst_calls=2), framed=framed) as (world, _):
                second = await self.another(world, framed=framed)
                assert await opened(second)
                third = await self.another(world, framed=framed)
                assert await ended(third) is (None if framed else grpc.StatusCode.RESOURCE_EXHAUSTED)
                second.cancel()
                third.cancel()
                assert [fault.reason for fault in world.refused] == ["RateLimited"]

        run(scenario())

    def test_who_asks_too_often_is_told_so_and_not_heard_before_it_may_come_back(
        self, tmp_path: Path, framed: bool
    ) -> None:
        async def scenario() -> None:
            now, limits = asyncio.get_running_loop().time, Limits(calls_per_s=4, burst_calls=2)
            began = now()
            async with self.raw(tmp_path, limits, framed=framed) as (world, stream):
                calls = [lane_pb2.LaneCall(number=n, method=METHOD_NUMBERS[f"offgrid.v1.{PING}"]) for n in range(3)]
                ends = await self.answers(stream, *calls)
                assert "RateLimited" in [fault_from_bytes(end.status).reason for end in ends if end.status]
                while sum(not end.status for end in ends) < 3:
                    ends += await self.answers(stream, calls[0])
                assert now() - began >= (1 + 3 - limits.burst_calls) / limits.calls_per_s  # the lane itself is a call
                assert len(ends) <= 2 * 3 + 1, "whoever was refused is heard again when it may call"
                assert {fault.reason for fault in world.refused} == {"RateLimited"}

        run(scenario())

    def test_answers_that_are_not_taken_count_as_bytes_in_flight(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(bytes_in_flight=4_000_000), framed=framed) as (world, stream):
                large = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: large
                request = mesh_pb2.PingRequest(members_digest=bytes(100)).SerializeToString()
                call = lane_pb2.LaneCall(method=METHOD_NUMBERS[f"offgrid.v1.{PING}"], request=request)
                # The kernel takes some megabytes before anybody has to wait.
                await stream.write(lane_pb2.CarryRequest(calls=[call] * 12).SerializeToString())
                await until(lambda: world.refused)
                assert world.refused[0].reason == "TooManyBytes"

        run(scenario())

    def test_bytes_are_counted_too(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(bytes_in_flight=100_000), framed=framed) as (world, stream):
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
        self, tmp_path: Path, framed: bool, method: int, size_bytes: int, fault: type[Fault], reason: str
    ) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(), framed=framed) as (_, stream):
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
    def test_a_message_that_is_none_ends_the_lane(self, tmp_path: Path, framed: bool, junk: bytes) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(), framed=framed) as (_, stream):
                await stream.write(junk)
                assert await ended(stream) is (None if framed else grpc.StatusCode.INVALID_ARGUMENT)

        run(scenario())

    def test_for_a_caller_that_reads_no_answers_few_are_kept(
        self, tmp_path: Path, framed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        longest = 0

        class Watched(deque[object]):
            def append(self, item: object) -> None:
                nonlocal longest
                super().append(item)
                longest = max(longest, len(self))

        async def scenario() -> None:
            module = "framed_connection" if framed else "grpc_lane_server"
            monkeypatch.setattr(f"offgrid_node.services.{module}.ANSWERS_MAX", 4)
            monkeypatch.setattr(f"offgrid_node.services.{module}.deque", Watched)
            async with self.raw(tmp_path, Limits(), framed=framed) as (world, stream):
                large = mesh_pb2.PingResponse(members_digest=bytes(3_000_000))
                world.answers[PING] = lambda caller, request: large
                ping = lane_pb2.LaneCall(method=METHOD_NUMBERS[f"offgrid.v1.{PING}"])
                unknown = lane_pb2.LaneCall(method=0x7777)
                await stream.write(lane_pb2.CarryRequest(calls=[ping] * 4).SerializeToString())
                for _ in range(50):
                    await stream.write(lane_pb2.CarryRequest(calls=[unknown] * 10).SerializeToString())
                await until(lambda: longest > 4)
                await asyncio.sleep(0.2)
                assert longest <= 4 + 2 * 10

        run(scenario())

    def test_strangers_at_the_door_find_none(self, tmp_path: Path) -> None:
        async def scenario() -> None:
            async with world_in(tmp_path) as world:
                stream: Stream[bytes, bytes] = world.stranger().channel.stream_stream(CARRY)(timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await stream.read()
                assert ended.value.code() is grpc.StatusCode.UNIMPLEMENTED

        run(scenario())

    def test_a_caller_may_open_only_a_few(self, tmp_path: Path, framed: bool) -> None:
        async def scenario() -> None:
            async with self.raw(tmp_path, Limits(), framed=framed) as (world, first):
                others = [await self.another(world, framed=framed) for _ in range(LANES_MAX - 1)]
                for stream in others:
                    assert await opened(stream)
                one_more = await self.another(world, framed=framed)
                assert await ended(one_more) is (None if framed else grpc.StatusCode.RESOURCE_EXHAUSTED)
                assert [fault.reason for fault in world.refused] == ["TooManyLanes"] * framed
                first.cancel()
                again = one_more
                for _ in range(100):
                    again.cancel()
                    again = await self.another(world, framed=framed)
                    with suppress(EOFError):
                        if await opened(again):
                            break
                for stream in (*others, again):
                    stream.cancel()

        run(scenario())

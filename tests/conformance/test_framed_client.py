"""The client library on the framed carrier: calls of many threads, streams, errors, and gRPC where it is not there."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from carrier_world import GET_JOB, POSIX, STATUS, WATCH, World, run, until, world_in
from google.protobuf.message import Message

from offgrid.client import Address, OffgridError
from offgrid.client.calls import Calls
from offgrid.client.framed import CALL_BYTES_MAX
from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.protocol.errors import Exhausted, InvalidRequest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.framed_server import FramedServer
from offgrid_node.services.stream import Stream

pytestmark = POSIX


def calls_to(world: World, timeout_s: float = 5.0) -> Calls:
    return Calls(Address(f"unix:{world.socket}"), timeout_s)


def status(calls: Calls) -> mesh_pb2.GetStatusResponse:
    return calls.unary(STATUS, mesh_pb2.GetStatusRequest(), mesh_pb2.GetStatusResponse)


def job(calls: Calls, name: str = "", **options: bool) -> jobs_pb2.GetJobResponse:
    return calls.unary(GET_JOB, jobs_pb2.GetJobRequest(job_id=name), jobs_pb2.GetJobResponse, **options)


def named(caller: Caller, request: Message) -> jobs_pb2.GetJobResponse:
    assert isinstance(request, jobs_pb2.GetJobRequest)
    return jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id=request.job_id))


def test_calls_of_many_threads_share_one_connection_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[GET_JOB] = named
            calls = calls_to(world)

            def several(thread: int) -> list[str]:
                return [job(calls, f"{thread}-{number}").job.job_id for number in range(40)]

            with ThreadPoolExecutor(8) as pool:
                loop = asyncio.get_running_loop()
                found = await asyncio.gather(*(loop.run_in_executor(pool, several, n) for n in range(8)))
            assert found == [[f"{thread}-{number}" for number in range(40)] for thread in range(8)]
            assert world.framed.connections == 1
            assert calls._grpc is None, "its library was not even loaded"
            calls.close()

    run(scenario())


def test_a_call_without_an_answer_keeps_nobody_else_waiting_and_ends_in_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[GET_JOB] = lambda caller, request: Ticket()
            patient, calls = calls_to(world), calls_to(world, 0.3)
            slow = [asyncio.ensure_future(asyncio.to_thread(job, calls)) for _ in range(3)]
            assert (await asyncio.to_thread(status, calls)) == mesh_pb2.GetStatusResponse()
            for ended in await asyncio.gather(*slow, return_exceptions=True):
                assert isinstance(ended, OffgridError)
                assert (ended.code, ended.reason) == ("DEADLINE_EXCEEDED", "DeadlineExceeded")
            assert (await asyncio.to_thread(status, calls)) == mesh_pb2.GetStatusResponse()
            patient.close()
            calls.close()

    run(scenario())


def test_the_nodes_own_words_arrive_whole(tmp_path: Path) -> None:
    def refuse(caller: Caller, request: Message) -> Message:
        raise InvalidRequest.field("job_id", "too short")

    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[GET_JOB] = refuse
            calls = calls_to(world)
            with pytest.raises(OffgridError) as caught:
                await asyncio.to_thread(job, calls)
            error = caught.value
            assert (error.code, error.reason) == ("INVALID_ARGUMENT", "InvalidRequest")
            assert [(v.field, v.description) for v in error.violations] == [("job_id", "too short")]
            assert calls._grpc is None
            calls.close()

    run(scenario())


def test_a_stream_brings_all_and_ends_as_the_node_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            stream = Stream()
            world.answers[WATCH] = lambda caller, request: stream
            calls = calls_to(world)
            for seq in range(300):
                stream.push(state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=seq)))
            seen: list[int] = []

            def watch() -> None:
                request, kind = state_pb2.WatchEventsRequest(), state_pb2.WatchEventsResponse
                seen.extend(answer.event.seq for answer in calls.stream(WATCH, request, kind))

            watching = asyncio.ensure_future(asyncio.to_thread(watch))
            await until(lambda: world.server.streams)
            stream.end(Exhausted("you are behind", reason="SlowReader"))
            with pytest.raises(OffgridError, match="you are behind") as caught:
                await watching
            assert (caught.value.reason, seen) == ("SlowReader", list(range(300)))
            await until(lambda: not world.server.streams)
            calls.close()

    run(scenario())


def test_a_stream_that_is_cancelled_from_another_thread_ends_on_both_sides(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            stream, closed, started = Stream(), asyncio.Event(), threading.Event()
            stream.when_closed(closed.set)
            world.answers[WATCH] = lambda caller, request: stream
            calls = calls_to(world)
            cancels = []

            def on_start(cancel: object) -> None:
                cancels.append(cancel)
                started.set()

            def watch() -> list[Message]:
                request, kind = state_pb2.WatchEventsRequest(), state_pb2.WatchEventsResponse
                return list(calls.stream(WATCH, request, kind, on_start=on_start))

            watching = asyncio.ensure_future(asyncio.to_thread(watch))
            await until(lambda: world.server.streams)
            assert started.is_set()
            cancels[0]()  # type: ignore[operator]
            with pytest.raises(OffgridError) as caught:
                await watching
            assert caught.value.code == "CANCELLED"
            await closed.wait()
            calls.close()

    run(scenario())


def test_what_is_large_goes_by_grpc(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[GET_JOB] = named
            calls = calls_to(world)
            large = "x" * (CALL_BYTES_MAX + 1)
            assert (await asyncio.to_thread(job, calls, large)).job.job_id == large
            assert calls._grpc is not None
            assert (await asyncio.to_thread(status, calls)) == mesh_pb2.GetStatusResponse()
            calls.close()

    run(scenario())


def test_a_node_that_stops_to_listen_framed_is_called_by_grpc(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[GET_JOB] = named
            calls = calls_to(world)
            assert (await asyncio.to_thread(job, calls, "one")).job.job_id == "one"
            await world.framed.close()
            assert (await asyncio.to_thread(job, calls, "two")).job.job_id == "two", "a lost connection is tried again"
            assert calls._grpc is not None
            calls.close()

    run(scenario())


@pytest.mark.parametrize("knows", [True, False], ids=["with the token", "without"])
def test_on_loopback_the_token_lets_in_and_nothing_else(tmp_path: Path, knows: bool) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            framed: list[str] = []
            server = FramedServer(world.server._router, world.server.running, world.refused.append)
            target = await world.server.listen_admin(
                "127.0.0.1:0",
                token_file=tmp_path / "token",
                beside=lambda gate: framed.append(server.listen_admin("127.0.0.1:0", gate)),
            )
            token = (tmp_path / "token").read_text().strip() if knows else "guessed"
            calls = Calls(Address(target, token, framed[0]), 5.0)
            world.answers[GET_JOB] = named
            if knows:
                assert (await asyncio.to_thread(job, calls, "one")).job.job_id == "one"
                assert (server.connections, calls._grpc) == (1, None)
            else:
                with pytest.raises(OffgridError) as caught:
                    await asyncio.to_thread(job, calls, "one")
                assert caught.value.reason == "Unauthenticated"
                assert {fault.reason for fault in world.refused} == {"Unauthenticated"}
                assert server.connections == 0
            calls.close()
            await server.close()

    run(scenario())

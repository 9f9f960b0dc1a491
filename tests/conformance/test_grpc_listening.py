"""Where the gRPC carrier listens, who may knock at the door, and how it stops."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import grpc
import pytest
from carrier_world import GET_JOB, POSIX, STATUS, WATCH, World, run, until, world_in
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2, mesh_pb2
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.runtime import Ticket
from offgrid_node.services import grpc_server
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_options import (
    DOOR_MESSAGE_BYTES_MAX,
)
from offgrid_node.services.grpc_server import DOOR_LIMITS, MEMBER_LIMITS, GrpcServer
from offgrid_node.services.router import Outcome, Router
from offgrid_node.services.status import fault_of
from offgrid_node.services.stream import Stream

# ---- the door


@POSIX
def test_at_the_door_a_stranger_may_ask_to_join_and_nothing_else(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            stranger = world.stranger()
            assert await stranger.call("JoinService/Join") == b""
            denied = await stranger.fault(STATUS)
            assert (type(denied), denied.reason) == (PermissionDenied, "AccessDenied")
            assert (await stranger.fault("grpc.health.v1.Health/Check")).reason == "UnknownMethod"
            large = mesh_pb2.JoinRequest(sealed=bytes(DOOR_MESSAGE_BYTES_MAX)).SerializeToString()
            refused = await stranger.fault("JoinService/Join", large)
            assert (type(refused), refused.reason) == (Exhausted, "RequestTooLarge")

    run(scenario())


@POSIX
def test_a_stranger_that_knocks_too_often_is_told_when_to_come_back(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            stranger = world.stranger()
            outcomes = [await outcome(stranger.call("JoinService/Join")) for _ in range(20)]
            refused = [fault for fault in outcomes if isinstance(fault, Exhausted)]
            assert refused
            assert all(fault.retry_ms for fault in refused)

    run(scenario())


@POSIX
def test_all_strangers_together_have_a_few_calls_and_the_next_one_is_refused_in_words(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            ticket, knocks = Ticket(), []

            def wait(caller: Caller, request: Message) -> Outcome:
                knocks.append(caller)
                return ticket

            world.answers["JoinService/Join"] = wait
            server = GrpcServer(Router(world._services()), door_limits=replace(DOOR_LIMITS, calls_max=2))
            world.door = await server.listen_door("127.0.0.1:0")
            stranger = world.stranger()
            inside = [asyncio.ensure_future(stranger.call("JoinService/Join")) for _ in range(2)]
            await until(lambda: len(knocks) == 2)
            refused = await stranger.fault("JoinService/Join")
            assert (type(refused), refused.reason) == (Exhausted, "TooManyCalls")
            assert refused.retry_ms
            ticket.resolve(mesh_pb2.JoinResponse())
            assert await asyncio.gather(*inside) == [b"", b""]
            await server.close()

    run(scenario())


async def outcome(work: Coroutine[object, object, bytes]) -> bytes | Fault:
    try:
        return await work
    except Fault as fault:
        return fault


@POSIX
def test_a_stranger_that_never_finishes_its_request_is_sent_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_server, "DOOR_READ_TIMEOUT_S", 0.1)

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def scenario() -> None:
        async with world_in(folder) as world:
            call: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = world.stranger().channel.stream_unary(
                "/offgrid.v1.JoinService/Join"
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(nothing(), timeout=10)
            assert fault_of(caught.value).reason == "SlowWriter"

    run(scenario())


# ---- listening


@POSIX
def test_the_socket_belongs_to_its_owner_alone_and_goes_with_the_server(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder):
            assert sorted(os.listdir(folder)) == ["admin.sock", "admin.sock.framed"]
            for name in os.listdir(folder):
                assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600

    run(scenario())
    assert os.listdir(folder) == []


@POSIX
def test_a_living_daemons_socket_is_left_alone(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            second = GrpcServer(Router(world._services()))
            with pytest.raises(FailedPrecondition, match="another daemon") as caught:
                await second.listen_admin(f"unix:{world.socket}")
            assert caught.value.metadata == {"address": f"unix:{world.socket}"}
            await second.close()
            assert await world.admin().call(STATUS) == b""

    run(scenario())


@POSIX
def test_what_a_dead_daemon_left_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "admin.sock"))

    async def scenario() -> None:
        async with world_in(folder) as world:
            assert await world.admin().call(STATUS) == b""

    run(scenario())


@POSIX
def test_a_file_in_the_sockets_place_is_never_removed(folder: Path) -> None:
    (folder / "admin.sock").write_text("precious")

    async def scenario() -> None:
        world = World(folder, MEMBER_LIMITS)
        with pytest.raises(FailedPrecondition, match="no socket"):
            await world.open()
        await world.close()

    run(scenario())
    assert (folder / "admin.sock").read_text() == "precious"


@POSIX
def test_a_path_that_no_socket_can_have_is_refused_with_the_limit(folder: Path) -> None:
    async def scenario() -> None:
        server = GrpcServer(Router(World(folder, MEMBER_LIMITS)._services()))
        with pytest.raises(FailedPrecondition, match="103 bytes"):
            await server.listen_admin(f"unix:{folder / ('x' * 100)}")

    run(scenario())


@POSIX
def test_two_daemons_cannot_share_a_port(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            second = GrpcServer(Router(world._services()))
            for listen, port in ((second.listen_door, world.door), (second.listen_door, world.mesh)):
                with pytest.raises(FailedPrecondition, match=f"127.0.0.1:{port}.*in use") as caught:
                    await listen(f"127.0.0.1:{port}")
                assert caught.value.reason == "AddressInUse"
            with pytest.raises(FailedPrecondition, match="in use"):
                await world.listen_mesh(second, world.mesh)
            with pytest.raises(FailedPrecondition, match="in use"):
                await second.listen_door(f"localhost:{world.door}")
            with pytest.raises(FailedPrecondition, match="in use"):
                await second.listen_door(f"0.0.0.0:{world.door}")

    run(scenario())


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1:99999", InvalidRequest),
        ("127.0.0.1", InvalidRequest),
        ("127.0.0.1:", InvalidRequest),
        ("127.0.0.1:x", InvalidRequest),
        (":1", InvalidRequest),
        ("192.0.2.1:0", FailedPrecondition),
        ("no.such.host.invalid:0", FailedPrecondition),
    ],
)
def test_an_address_that_is_not_ours_is_refused_by_name(folder: Path, address: str, kind: type[Fault]) -> None:
    async def scenario() -> None:
        server = GrpcServer(Router(World(folder, MEMBER_LIMITS)._services()))
        with pytest.raises(kind, match=address):
            await server.listen_door(address)

    run(scenario())


def test_without_unix_sockets_the_owner_proves_itself_by_the_token_file(folder: Path) -> None:
    async def scenario() -> None:
        token_file = folder / "admin.token"
        world = World(folder, MEMBER_LIMITS)
        address = await world.server.listen_admin("127.0.0.1:0", token_file=token_file)
        client = world._client(grpc.aio.insecure_channel(address))
        try:
            if sys.platform != "win32":
                assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
            assert await client.call(STATUS, token=token_file.read_text().strip()) == b""
            for token in ("", "wrong", "Bearer"):
                refused = await client.fault(STATUS, token=token)
                assert (type(refused), refused.reason) == (PermissionDenied, "Unauthenticated")
            with pytest.raises(InvalidRequest, match=r"127\.0\.0\.1"):
                await world.server.listen_admin("0.0.0.0:0", token_file=token_file)
            with pytest.raises(InvalidRequest, match="token_file"):
                await world.server.listen_admin("127.0.0.1:0")
        finally:
            await world.close()
        assert not token_file.exists()

    run(scenario())


# ---- stopping


@POSIX
def test_stopping_tells_health_ends_streams_and_takes_its_time_and_no_longer(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            stream = Stream()
            world.answers[WATCH] = lambda caller, request: stream
            world.answers[GET_JOB] = lambda caller, request: Ticket()
            client = world.admin()
            watching = client.stream(WATCH)
            health = client.stream("grpc.health.v1.Health/Watch")
            assert await health.read() == health_pb2.HealthCheckResponse(status="SERVING").SerializeToString()
            stuck = asyncio.ensure_future(outcome(client.call(GET_JOB)))
            await until(lambda: world.server.streams == 2)

            await world.server.close(grace_s=0.5)

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in watching:
                    pass
            stopping = fault_of(caught.value)
            assert (type(stopping), stopping.reason) == (Unavailable, "Stopping")
            assert isinstance(await stuck, OutcomeUnknown)
            later = await client.fault(STATUS, timeout_s=10)
            assert isinstance(later, OutcomeUnknown)

    run(scenario())


@POSIX
def test_what_is_under_way_when_the_node_stops_is_still_answered(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            ticket = Ticket()
            world.answers[GET_JOB] = lambda caller, request: ticket
            asked = asyncio.ensure_future(world.admin().call(GET_JOB))
            await until(lambda: bool(ticket._callbacks))
            closing = asyncio.ensure_future(world.server.close())
            await asyncio.sleep(0)
            ticket.resolve(jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id="j-1")))
            assert b"j-1" in await asked
            await closing

    run(scenario())


def test_no_task_of_a_call_is_left_to_the_end_of_the_loop() -> None:
    """gRPC's server has stopped some turns before; a loop that ended under them would print a traceback for each."""

    def of_calls() -> int:
        names = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
        return sum(name in ("_schedule_rpc_coro", "_handle_exceptions") for name in names)

    async def scenario() -> None:
        entered = asyncio.Event()

        async def slow_to_end(_: object, __: object) -> None:
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)

        server = grpc.aio.server()
        handlers = {"Slow": grpc.stream_stream_rpc_method_handler(slow_to_end)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("of.Tests", handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.stream_stream("/of.Tests/Slow")()
            await entered.wait()
            await server.stop(None)
            assert of_calls()
            await grpc_server._calls_end()
            assert not of_calls()
            call.cancel()

    run(scenario())

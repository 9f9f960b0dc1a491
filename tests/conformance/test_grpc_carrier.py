"""The gRPC carrier as clients meet it: real listeners, a real socket, and `buf curl` as a foreigner."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.keys import NodeKey, issue_leaf
from offgrid_node.keys.leaf import pem_of
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    FieldViolation,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.runtime import Ticket
from offgrid_node.services import grpc_server
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.grpc_gate import STREAMS_MAX
from offgrid_node.services.grpc_options import (
    DOOR_MESSAGE_BYTES_MAX,
    HANDSHAKE_TIMEOUT_MS,
    MESSAGE_BYTES_MAX,
    RECEIVE_FACTOR,
)
from offgrid_node.services.grpc_server import DOOR_LIMITS, MEMBER_LIMITS, GrpcServer
from offgrid_node.services.router import METHODS, Outcome, Router, snake
from offgrid_node.services.status import fault_of
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream
from offgrid_node.services.tls import channel_credentials

STATUS, WATCH, GET_JOB = "MeshService/GetStatus", "StateService/WatchEvents", "JobService/GetJob"
SERVER, ALICE, BOB = (NodeKey(bytes([seed]) * 32) for seed in (1, 2, 3))
TLS = {key.node_id: issue_leaf(key) for key in (SERVER, ALICE, BOB)}
BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="unix sockets")

Answer = Callable[[Caller, Message], Outcome]


class World:
    """One server with all its listeners; `answers` are its handlers, by "Service/Method"."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.answers: dict[str, Answer] = {}
        self.members = {key.node_id: Caller(Kind.MEMBER, key.node_id, frozenset({1, 2, 3})) for key in (ALICE, BOB)}
        self.server = GrpcServer(Router(self._services()), limits=limits)
        self.socket = folder / "admin.sock"
        self.mesh = self.door = 0
        self._channels: list[grpc.aio.Channel] = []

    def _services(self) -> dict[str, SimpleNamespace]:
        services: dict[str, SimpleNamespace] = {}
        for name in METHODS:
            service, _, rpc = name.partition("/")
            setattr(services.setdefault(service, SimpleNamespace()), snake(rpc), self._handler(name))
        return services

    def _handler(self, name: str) -> Answer:
        def handle(caller: Caller, request: Message) -> Outcome:
            answer = self.answers.get(name.removeprefix("offgrid.v1."))
            return answer(caller, request) if answer else METHODS[name].response()

        return handle

    async def open(self) -> None:
        await self.server.listen_admin(f"unix:{self.socket}")
        self.mesh = await self.listen_mesh(self.server)
        self.door = await self.server.listen_door("127.0.0.1:0")

    async def listen_mesh(self, server: GrpcServer, port: int = 0) -> int:
        identities = tuple(tls.identity_der for tls in TLS.values())
        return await server.listen_mesh(f"127.0.0.1:{port}", TLS[SERVER.node_id], lambda: identities, self.members.get)

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.server.close()

    def admin(self) -> Client:
        return self._client(grpc.aio.insecure_channel(f"unix:{self.socket}"))

    def stranger(self) -> Client:
        return self._client(grpc.aio.insecure_channel(f"127.0.0.1:{self.door}"))

    def member(self, key: NodeKey) -> Client:
        credentials, options = channel_credentials(
            TLS.get(key.node_id) or issue_leaf(key), TLS[SERVER.node_id].identity_der
        )
        return self._client(grpc.aio.secure_channel(f"127.0.0.1:{self.mesh}", credentials, options))

    def _client(self, channel: grpc.aio.Channel) -> Client:
        self._channels.append(channel)
        return Client(channel)


class Client:
    """Raw calls, so that a test may send what no honest client would."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    async def call(self, method: str, request: bytes = b"", *, timeout_s: float = 10, token: str = "") -> bytes:
        """Raises the Fault that the call ended with."""
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(_path(method))
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            return await call(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise fault_of(error) from error

    def stream(self, method: str, request: bytes = b"") -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(_path(method))
        return call(request, timeout=30)

    async def fault(self, method: str, request: bytes = b"", *, timeout_s: float = 10, token: str = "") -> Fault:
        with pytest.raises(Fault) as caught:
            await self.call(method, request, timeout_s=timeout_s, token=token)
        return caught.value


def _path(method: str) -> str:
    return f"/{method}" if method.startswith("grpc.") else f"/offgrid.v1.{method}"


@pytest.fixture
def folder() -> Iterator[Path]:
    """One whose path leaves room for a socket's name, which may have 103 bytes."""
    made = Path(tempfile.mkdtemp(prefix="og"))
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def world_in(folder: Path, limits: Limits = MEMBER_LIMITS) -> AsyncIterator[World]:
    world = World(folder, limits)
    await world.open()
    try:
        yield world
    finally:
        await world.close()


def run(scenario: Coroutine[object, object, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await scenario

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    """For what another process or gRPC's own threads bring about; the scenario's timeout is the bound."""
    while not condition():  # noqa: ASYNC110 - nothing here could set an event
        await asyncio.sleep(0.005)


# ---- a foreign client


async def buf(*arguments: str) -> tuple[int, str]:
    assert BUF is not None, "the development dependency buf-bin is missing"
    process = await asyncio.create_subprocess_exec(
        BUF, "curl", "--protocol", "grpc", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def over_the_socket(world: World) -> tuple[list[str], str]:
    return ["--http2-prior-knowledge", "--unix-socket", str(world.socket)], "http://localhost"


def over_mutual_tls(world: World) -> tuple[list[str], str]:
    ca, chain, key = (world.folder / name for name in ("ca.pem", "chain.pem", "key.pem"))
    ca.write_bytes(pem_of(TLS[SERVER.node_id].identity_der))
    chain.write_bytes(TLS[ALICE.node_id].chain_pem)
    key.write_bytes(TLS[ALICE.node_id].key_pem)
    names = ["--cacert", str(ca), "--cert", str(chain), "--key", str(key), "--servername", f"{SERVER.node_id}.node"]
    return names, f"https://127.0.0.1:{world.mesh}"


@POSIX
@pytest.mark.parametrize("way", [over_the_socket, over_mutual_tls])
def test_buf_lists_every_service_and_calls_and_watches_and_asks_for_health(
    folder: Path, way: Callable[[World], tuple[list[str], str]]
) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            options, url = way(world)
            code, listed = await buf(*options, "--list-services", url)
            assert code == 0, listed
            services = {name.partition("/")[0] for name in METHODS}
            standard = {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
            assert set(listed.split()) == services | standard

            world.answers[STATUS] = lambda caller, request: mesh_pb2.GetStatusResponse(name="here", journal_seq=7)
            code, answer = await buf(*options, "-d", "{}", f"{url}/offgrid.v1.{STATUS}")
            assert code == 0, answer
            assert json.loads(answer) == {"name": "here", "journalSeq": "7"}

            code, answer = await buf(*options, "-d", '{"service":""}', f"{url}/grpc.health.v1.Health/Check")
            assert (code, json.loads(answer)) == (0, {"status": "SERVING"})

            if way is over_the_socket:
                world.answers[WATCH] = lambda caller, request: two_events()
                code, answer = await buf(*options, "-d", '{"afterSeq": 5}', f"{url}/offgrid.v1.{WATCH}")
                assert code == 0, answer
                assert answer.count('"seq"') == 2

    run(scenario())


def two_events() -> Stream:
    stream = Stream()
    for seq in (6, 7):
        stream.push(state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=seq)))
    stream.end()
    return stream


@POSIX
def test_every_rpc_of_every_service_can_be_called_through_reflection(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            options, url = over_the_socket(world)
            code, listed = await buf(*options, "--list-methods", url)
            assert code == 0, listed
            assert set(METHODS) <= set(listed.split())

    run(scenario())


# ---- answers and errors


@POSIX
def test_a_handlers_fault_arrives_whole(folder: Path) -> None:
    fault = InvalidRequest(
        "two fields are wrong",
        reason="BadJob",
        violations=[FieldViolation("kind", "unknown"), FieldViolation("size_tokens", "negative")],
        retry_ms=700,
        metadata={"job": "j-1"},
    )

    def refuse(caller: Caller, request: Message) -> Outcome:
        raise fault

    async def scenario() -> None:
        async with world_in(folder) as world:
            world.answers[GET_JOB] = refuse
            came = await world.admin().fault(GET_JOB)
            assert (type(came), came.message, came.reason) == (InvalidRequest, fault.message, "BadJob")
            assert (came.violations, came.retry_ms, came.metadata) == (fault.violations, 700, {"job": "j-1"})

    run(scenario())


@POSIX
def test_a_ticket_is_answered_when_it_is_settled_with_a_response_or_a_fault(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            tickets: list[Ticket] = []

            def wait(caller: Caller, request: Message) -> Outcome:
                tickets.append(Ticket())
                return tickets[-1]

            world.answers[GET_JOB] = wait
            client = world.admin()
            good, bad = (asyncio.ensure_future(client.call(GET_JOB)) for _ in range(2))
            await until(lambda: len(tickets) == 2)
            assert not good.done()
            tickets[0].resolve(jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id="j-1")))
            tickets[1].resolve(NotFound("no job j-2"))
            outcomes = await asyncio.gather(good, bad, return_exceptions=True)
            assert jobs_pb2.GetJobResponse(job=jobs_pb2.Job(job_id="j-1")).SerializeToString() in outcomes
            assert any(isinstance(outcome, NotFound) for outcome in outcomes)

    run(scenario())


@POSIX
def test_a_defect_is_told_to_the_log_and_not_to_the_caller(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(caller: Caller, request: Message) -> Outcome:
        raise ZeroDivisionError("a secret of the handler")

    async def scenario() -> None:
        async with world_in(folder) as world:
            world.answers[GET_JOB] = broken
            world.answers[WATCH] = broken
            fault = await world.admin().fault(GET_JOB)
            assert isinstance(fault, Internal)
            assert "secret" not in fault.message
            assert "Traceback" not in fault.message
            assert await world.admin().stream(WATCH).code() is grpc.StatusCode.INTERNAL
            assert await world.admin().call(STATUS) == b""

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert "a secret of the handler" in caplog.text


@POSIX
def test_what_is_no_request_is_refused_by_name(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            client = world.admin()
            unknown_method = await client.fault("MeshService/MakeCoffee")
            assert (type(unknown_method), unknown_method.reason) == (NotFound, "UnknownMethod")
            assert unknown_method.metadata == {"method": "/offgrid.v1.MeshService/MakeCoffee"}
            garbage = await client.fault(GET_JOB, b"\xff\xff\xff")
            assert (type(garbage), garbage.reason) == (InvalidRequest, "MalformedRequest")
            unknown_field = await client.fault(GET_JOB, b"\x98\x06\x01")
            assert [violation.field for violation in unknown_field.violations] == ["GetJobRequest"]

    run(scenario())


@POSIX
def test_messages_are_bounded_both_ways(folder: Path) -> None:
    request = jobs_pb2.GetJobRequest(job_id="x" * (MESSAGE_BYTES_MAX - 5)).SerializeToString()
    assert len(request) == MESSAGE_BYTES_MAX

    async def scenario() -> None:
        async with world_in(folder) as world:
            client = world.admin()
            assert await client.call(GET_JOB, request) == b""
            refused = await client.fault(GET_JOB, request + b"\x00")
            assert (type(refused), refused.reason) == (Exhausted, "RequestTooLarge")
            assert isinstance(await client.fault(GET_JOB, RECEIVE_FACTOR * request + b"\x00"), Exhausted)
            world.answers[GET_JOB] = lambda caller, _: jobs_pb2.GetJobResponse(
                job=jobs_pb2.Job(input_name="x" * MESSAGE_BYTES_MAX)
            )
            too_large = await client.fault(GET_JOB)
            assert (type(too_large), too_large.reason) == (Exhausted, "ResponseTooLarge")

    run(scenario())


# ---- time


@POSIX
def test_the_callers_deadline_ends_the_call_and_gives_its_place_back(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder, Limits(calls_in_flight=1)) as world:
            world.answers[GET_JOB] = lambda caller, request: Ticket()
            client = world.admin()
            began = time.monotonic()
            fault = await client.fault(GET_JOB, timeout_s=0.2)
            assert (type(fault), fault.reason) == (OutcomeUnknown, "DeadlineExceeded")
            assert time.monotonic() - began < 2
            await served_again(client)

    run(scenario())


async def served_again(client: Client) -> None:
    """The server learns of an ended call a moment after its client."""
    while True:
        try:
            await client.call(STATUS)
        except Exhausted:
            continue
        return


@POSIX
def test_a_cancelled_stream_frees_its_watcher(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            stream, closed = Stream(), asyncio.Event()
            stream.when_closed(closed.set)
            world.answers[WATCH] = lambda caller, request: stream
            reading = world.admin().stream(WATCH)
            stream.push(state_pb2.WatchEventsResponse(event=state_pb2.Event(seq=1)))
            assert await reading.read() != grpc.aio.EOF
            assert world.server.streams == 1
            reading.cancel()
            await closed.wait()
            await until(lambda: world.server.streams == 0)

    run(scenario())


@POSIX
def test_a_caller_has_so_many_streams_open_and_no_more(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            streams: list[Stream] = []

            def watch(caller: Caller, request: Message) -> Outcome:
                streams.append(Stream())
                return streams[-1]

            world.answers[WATCH] = watch
            greedy, other = world.admin(), world.member(BOB)
            kept = [greedy.stream(WATCH) for _ in range(STREAMS_MAX)]
            await until(lambda: world.server.streams == STREAMS_MAX)
            for method in (WATCH, "grpc.health.v1.Health/Watch"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await anext(aiter(greedy.stream(method)))
                assert (type(fault_of(caught.value)), fault_of(caught.value).reason) == (Exhausted, "TooManyStreams")
            assert streams[-1].ended, "what nobody reads is not kept"
            assert await greedy.call(STATUS) == b"", "calls are another matter"
            one_more = other.stream("grpc.health.v1.Health/Watch")
            await until(lambda: world.server.streams == STREAMS_MAX + 1)
            for stream in (*kept, one_more):
                stream.cancel()

    run(scenario())


@POSIX
def test_a_slow_reader_is_cut_off_and_told_why(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            stream = Stream()
            world.answers[WATCH] = lambda caller, request: stream
            reading = world.admin().stream(WATCH)
            heavy = state_pb2.WatchEventsResponse(event=state_pb2.Event(subject="x" * 60_000))
            await until(lambda: world.server.streams == 1)
            for _ in range(STREAM_BACKLOG_MAX + 1):
                stream.push(heavy)
            assert stream.ended
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in reading:
                    pass
            assert fault_of(caught.value).reason == "SlowReader"

    run(scenario())


# ---- floods and removal


@POSIX
def test_one_members_flood_leaves_another_served(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder, Limits(calls_per_s=20, burst_calls=50)) as world:
            flooder, other = world.member(ALICE), world.member(BOB)
            flood = asyncio.gather(*(flooder.call(STATUS) for _ in range(1_000)), return_exceptions=True)
            for _ in range(50):
                assert await other.call(STATUS) == b""
            outcomes = await flood
            served = sum(isinstance(outcome, bytes) for outcome in outcomes)
            refused = [outcome for outcome in outcomes if isinstance(outcome, Exhausted)]
            assert 50 <= served < 250
            assert served + len(refused) == 1_000
            assert all(fault.reason == "RateLimited" and fault.retry_ms for fault in refused)

    run(scenario())


@POSIX
def test_a_member_that_was_removed_is_refused_at_once_and_its_streams_end(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            alice, bob = world.member(ALICE), world.member(BOB)
            health: grpc.aio.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, bytes] = (
                alice.channel.unary_stream(
                    "/grpc.health.v1.Health/Watch", request_serializer=lambda request: request.SerializeToString()
                )
            )
            watching = health(health_pb2.HealthCheckRequest())
            assert await watching.read() != grpc.aio.EOF
            assert await alice.call(STATUS) == b""

            del world.members[ALICE.node_id]
            world.server.disconnect(ALICE.node_id)

            refused = await alice.fault(STATUS)
            assert (type(refused), refused.reason) == (PermissionDenied, "NotAMember")
            assert await watching.code() is grpc.StatusCode.PERMISSION_DENIED
            assert await bob.call(STATUS) == b""

    run(scenario())


@POSIX
def test_a_key_that_no_member_holds_gets_no_connection(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            with pytest.raises(Fault) as caught:
                await world.member(NodeKey(b"m" * 32)).call(STATUS, timeout_s=5)
            assert isinstance(caught.value, OutcomeUnknown)

    run(scenario())


@POSIX
def test_connections_that_say_nothing_keep_nobody_waiting_and_are_closed(folder: Path) -> None:
    async def scenario() -> None:
        async with world_in(folder) as world:
            silent = [socket.create_connection(("127.0.0.1", world.mesh)) for _ in range(50)]
            try:
                assert await world.member(ALICE).call(STATUS, timeout_s=2) == b""
                silent[0].setblocking(False)
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000 + 3):
                    assert await asyncio.get_running_loop().sock_recv(silent[0], 1) == b"", "it was sent away"
            finally:
                for connection in silent:
                    connection.close()

    run(scenario())


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
        async with world_in(folder) as world:
            assert stat.S_IMODE(world.socket.stat().st_mode) == 0o600
            assert os.listdir(folder) == ["admin.sock"]

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

            began = time.monotonic()
            await world.server.close(grace_s=0.5)
            assert time.monotonic() - began < 2

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in watching:
                    pass
            stopping = fault_of(caught.value)
            assert (type(stopping), stopping.reason) == (Unavailable, "Stopping")
            assert isinstance(await stuck, OutcomeUnknown)
            later = await client.fault(STATUS, timeout_s=2)
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

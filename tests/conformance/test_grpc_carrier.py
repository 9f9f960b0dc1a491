"""The gRPC carrier as clients meet it: real listeners, a real socket, and `buf curl` as a foreigner."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from carrier_world import (
    ALICE,
    BOB,
    BUF,
    GET_JOB,
    POSIX,
    SERVER,
    STATUS,
    TLS,
    WATCH,
    Client,
    World,
    run,
    until,
    world_in,
)
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.keys.leaf import pem_of
from offgrid_node.protocol.errors import (
    Exhausted,
    Fault,
    FieldViolation,
    Internal,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
)
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_gate import STREAMS_MAX
from offgrid_node.services.grpc_options import (
    HANDSHAKE_TIMEOUT_MS,
    MESSAGE_BYTES_MAX,
    RECEIVE_FACTOR,
)
from offgrid_node.services.router import METHODS, Outcome
from offgrid_node.services.status import fault_of
from offgrid_node.services.stream import STREAM_BACKLOG_MAX, Stream

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
            fault = await client.fault(GET_JOB, timeout_s=0.2)
            assert (type(fault), fault.reason) == (OutcomeUnknown, "DeadlineExceeded")
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
                assert await world.member(ALICE).call(STATUS, timeout_s=10) == b""
                silent[0].setblocking(False)
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000 + 30):
                    assert await asyncio.get_running_loop().sock_recv(silent[0], 1) == b"", "it was sent away"
            finally:
                for connection in silent:
                    connection.close()

    run(scenario())

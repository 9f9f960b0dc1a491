"""The road over gRPC: what it promises of each failure, and that connections follow the directory."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey, issue_leaf
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, NotFound, OutcomeUnknown, Unavailable
from offgrid_node.runtime import Ticket
from offgrid_node.services import grpc_road
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.grpc_options import MESSAGE_BYTES_MAX
from offgrid_node.services.grpc_road import CHANNELS_MAX, GrpcRoad
from offgrid_node.services.grpc_server import GrpcServer
from offgrid_node.services.router import METHODS, Outcome, Router, snake

PING = "offgrid.v1.MeshService/Ping"
HERE, THERE, OTHER = (NodeKey(bytes([seed]) * 32) for seed in (11, 12, 13))
TLS = {key.node_id: issue_leaf(key) for key in (HERE, THERE, OTHER)}
ANSWER = mesh_pb2.PingResponse(members_digest=b"pong")


class Directory:
    """A directory that a test writes."""

    def __init__(self) -> None:
        self.where: dict[str, list[str]] = {}
        self.certificates = {key.node_id: TLS[key.node_id].identity_der for key in (THERE, OTHER)}

    def addresses(self, node: str) -> Sequence[str]:
        return self.where.get(node, [])

    def certificate(self, node: str) -> bytes | None:
        return self.certificates.get(node)


class Node:
    """A peer with a mesh port; `answer` is its Ping."""

    def __init__(self, key: NodeKey) -> None:
        self.key = key
        self.port = 0
        self.calls = 0
        self.called = asyncio.Event()
        self.trusted: tuple[bytes, ...] = (TLS[HERE.node_id].identity_der,)
        self.answer: Callable[[], Outcome] = lambda: ANSWER
        self._server: GrpcServer | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        services: dict[str, SimpleNamespace] = {}
        for name in METHODS:
            service, _, rpc = name.partition("/")
            setattr(services.setdefault(service, SimpleNamespace()), snake(rpc), self._handle)
        self._server = GrpcServer(Router(services))
        self.port = await self._server.listen_mesh(
            self.address, TLS[self.key.node_id], lambda: self.trusted, lambda node: Caller(Kind.MEMBER, node)
        )

    def _handle(self, caller: Caller, request: Message) -> Outcome:
        self.calls += 1
        self.called.set()
        return self.answer()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.close(grace_s=0)
            self._server = None


class Travel:
    """The road under test from HERE, and a peer at its end."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.peer = Node(THERE)
        self.road = GrpcRoad(TLS[HERE.node_id], lambda: self.directory)

    async def call(
        self, node: str = THERE.node_id, *, timeout_ms: int = 5_000, request: Message | None = None, method: str = PING
    ) -> Message | Fault:
        ends: list[Message | Fault] = []
        over = asyncio.Event()

        def done(outcome: Message | Fault) -> None:
            ends.append(outcome)
            over.set()

        self.road.call(node, method, mesh_pb2.PingRequest() if request is None else request, timeout_ms, done)
        await over.wait()
        await asyncio.sleep(0)
        assert len(ends) == 1
        return ends[0]


@asynccontextmanager
async def travel() -> AsyncIterator[Travel]:
    world = Travel()
    await world.peer.start()
    world.directory.where[THERE.node_id] = [world.peer.address]
    try:
        yield world
    finally:
        await world.road.close()
        await world.peer.stop()


def run(scenario: Coroutine[object, object, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(limited())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- ends


def test_a_call_brings_the_answer() -> None:
    async def scenario() -> None:
        async with travel() as world:
            assert world.road.reaches(THERE.node_id)
            assert await world.call() == ANSWER

    run(scenario())


def test_a_peers_own_fault_arrives_as_it_is() -> None:
    def refuse() -> Outcome:
        raise NotFound("no such job", reason="NoSuchJob", metadata={"job": "j-1"})

    async def scenario() -> None:
        async with travel() as world:
            world.peer.answer = refuse
            outcome = await world.call()
            assert isinstance(outcome, NotFound)
            assert (outcome.reason, outcome.metadata) == ("NoSuchJob", {"job": "j-1"})

    run(scenario())


def test_where_nobody_listens_nothing_was_sent_and_the_reason_is_said() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.directory.where[THERE.node_id] = [f"127.0.0.1:{free_port()}"]
            outcome = await world.call()
            assert isinstance(outcome, Unavailable)
            assert "nobody listens there" in outcome.message
            assert outcome.retry_ms

    run(scenario())


def test_where_nobody_answers_nothing_was_sent_and_the_deadline_holds() -> None:
    async def scenario() -> None:
        async with travel() as world:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                world.directory.where[THERE.node_id] = [f"127.0.0.1:{silent.getsockname()[1]}"]
                assert isinstance(await world.call(timeout_ms=300), Unavailable)

    run(scenario())


def test_after_the_request_has_left_a_late_answer_is_an_unknown_outcome() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.peer.answer = Ticket
            assert isinstance(await world.call(timeout_ms=300), OutcomeUnknown)
            assert world.peer.calls == 1

    run(scenario())


def test_a_peer_that_dies_with_the_request_leaves_an_unknown_outcome() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.peer.answer = Ticket
            under_way = asyncio.ensure_future(world.call())
            await world.peer.called.wait()
            await world.peer.stop()
            assert isinstance(await under_way, OutcomeUnknown)

    run(scenario())


def test_another_node_at_the_address_gets_nothing() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.directory.where[OTHER.node_id] = [world.peer.address]
            outcome = await world.call(OTHER.node_id)
            assert isinstance(outcome, Unavailable)
            assert "not the one we know" in outcome.message
            assert world.peer.calls == 0

    run(scenario())


def test_a_peer_that_does_not_know_us_lets_nothing_be_sent() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.peer.trusted = ()
            outcome = await world.call(timeout_ms=2_000)
            assert isinstance(outcome, Unavailable)
            assert "hung up" in outcome.message
            assert world.peer.calls == 0
            assert world.road.closed_to_us == 1
            world.peer.trusted = (TLS[HERE.node_id].identity_der,)
            async with asyncio.timeout(60):
                while isinstance(await world.call(), Fault):
                    pass
            assert world.road.closed_to_us == 0

    run(scenario())


def test_what_could_never_be_sent_is_refused_here() -> None:
    async def scenario() -> None:
        async with travel() as world:
            large = mesh_pb2.PingRequest(members_digest=bytes(MESSAGE_BYTES_MAX))
            assert isinstance(await world.call(request=large), Exhausted)
            assert isinstance(await world.call(method="offgrid.v1.StateService/WatchEvents"), InvalidRequest)
            assert isinstance(await world.call("nobody"), Unavailable)
            assert not world.road.reaches("nobody")
            assert world.peer.calls == 0

    run(scenario())


# ---- addresses and connections


def test_a_dead_address_is_passed_over_and_the_living_one_kept() -> None:
    async def scenario() -> None:
        async with travel() as world:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                dead = [f"127.0.0.1:{free_port()}", f"127.0.0.1:{silent.getsockname()[1]}"]
                world.directory.where[THERE.node_id] = [*dead, world.peer.address]
                began = time.monotonic()
                assert await world.call(timeout_ms=4_000) == ANSWER
                waited_s, again_s = time.monotonic() - began, []
                for _ in range(3):
                    began = time.monotonic()
                    assert await world.call(timeout_ms=4_000) == ANSWER
                    again_s.append(time.monotonic() - began)
                assert min(again_s) < waited_s / 2, "it does not wait for the silent one again"

    run(scenario())


def test_a_peer_that_comes_back_is_reached_again() -> None:
    async def scenario() -> None:
        async with travel() as world:
            assert await world.call() == ANSWER
            await world.peer.stop()
            for _ in range(3):
                assert isinstance(await world.call(timeout_ms=500), Unavailable | OutcomeUnknown)
            await world.peer.start()
            while await world.call(timeout_ms=500) != ANSWER:
                continue

    run(scenario())


def test_a_peer_that_is_heard_of_is_tried_at_once_at_the_address_where_it_was_gone() -> None:
    """gRPC would not look there again before its pause is over, up to two seconds."""

    async def scenario() -> None:
        async with travel() as world:
            await world.call()
            await world.peer.stop()
            for _ in range(20):  # the pause grows
                assert isinstance(await world.call(), Fault)
                await asyncio.sleep(0.05)
            await world.peer.start()
            world.road.retry(THERE.node_id)
            assert await world.call() == ANSWER

    run(scenario())


def test_a_hundred_calls_at_once_share_one_connection() -> None:
    async def scenario() -> None:
        async with travel() as world:
            outcomes = await asyncio.gather(*(world.call() for _ in range(100)))
            assert outcomes == [ANSWER] * 100
            assert len(world.road._links) == 1

    run(scenario())


def test_a_removed_member_is_cut_off_even_in_the_middle_of_a_call() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.peer.answer = Ticket
            under_way = asyncio.ensure_future(world.call())
            await world.peer.called.wait()
            del world.directory.certificates[THERE.node_id]
            world.road.refresh()
            assert isinstance(await under_way, OutcomeUnknown)
            assert not world.road.reaches(THERE.node_id)
            assert isinstance(await world.call(), Unavailable)
            assert world.road._links == {}

    run(scenario())


def test_a_changed_certificate_is_believed_at_the_next_call() -> None:
    async def scenario() -> None:
        async with travel() as world:
            assert await world.call() == ANSWER
            world.directory.certificates[THERE.node_id] = TLS[OTHER.node_id].identity_der
            assert isinstance(await world.call(timeout_ms=2_000), Unavailable)
            world.directory.certificates[THERE.node_id] = TLS[THERE.node_id].identity_der
            assert await world.call() == ANSWER

    run(scenario())


def test_connections_are_bounded_and_the_longest_unused_goes() -> None:
    async def scenario() -> None:
        async with travel() as world:
            assert await world.call() == ANSWER
            certificate = TLS[THERE.node_id].identity_der
            for port in range(CHANNELS_MAX):
                world.road._link("elsewhere", f"127.0.0.1:{port + 1}", certificate)
                assert len(world.road._links) <= CHANNELS_MAX
            assert (THERE.node_id, world.peer.address) not in world.road._links
            assert await world.call() == ANSWER

    run(scenario())


def test_a_peer_that_answers_nothing_keeps_no_call_to_others_from_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may provoke calls, as a broker does whose awards nobody wants: each is told to it that it is over."""
    monkeypatch.setattr(grpc_road, "CALLS_OF_NODE_MAX", 4)

    async def scenario() -> None:
        async with travel() as world:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                world.directory.where[OTHER.node_id] = [f"127.0.0.1:{silent.getsockname()[1]}"]
                waiting = [asyncio.ensure_future(world.call(OTHER.node_id, timeout_ms=300)) for _ in range(4)]
                await asyncio.sleep(0)
                refused = await world.call(OTHER.node_id)
                assert isinstance(refused, Unavailable)
                assert refused.reason == "RoadBusy"
                assert await world.call() == ANSWER
                await asyncio.gather(*waiting)
                again = await world.call(OTHER.node_id, timeout_ms=50)
                assert isinstance(again, Unavailable)
                assert again.reason != "RoadBusy", "what has ended makes room"
            assert not world.road._calls_of

    run(scenario())


def test_closing_ends_every_call_that_is_under_way() -> None:
    async def scenario() -> None:
        async with travel() as world:
            world.peer.answer = Ticket
            with socket.create_server(("127.0.0.1", 0)) as silent:
                world.directory.where[OTHER.node_id] = [f"127.0.0.1:{silent.getsockname()[1]}"]
                sent = asyncio.ensure_future(world.call())
                connecting = asyncio.ensure_future(world.call(OTHER.node_id))
                await world.peer.called.wait()
                await world.road.close()
                assert isinstance(await sent, OutcomeUnknown)
                assert isinstance(await connecting, Unavailable)
            assert isinstance(await world.call(), Unavailable)

    run(scenario())

"""A road with an open lane, its peer, and a peer that keeps silent."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from carrier_world import ALICE, BOB, SERVER, TLS, World, world_in
from google.protobuf.message import Message

from offgrid.frames import HEAD_BYTES, frame
from offgrid.v1 import lane_pb2, mesh_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import Fault
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller
from offgrid_node.services.client import Client
from offgrid_node.services.framed_road import FramedLane, FramedRoad
from offgrid_node.services.framed_server import SUFFIX
from offgrid_node.services.framed_tls import Target
from offgrid_node.services.grpc_calls import RpcHandler
from offgrid_node.services.grpc_gate import Context
from offgrid_node.services.grpc_lane import Lane
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.lane_calls import LaneCalls
from offgrid_node.services.roads.book import RoadBook

PING, OFFER = "MeshService/Ping", "MarketService/PostOffers"
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

    def is_member(self, node_id: str) -> bool:
        return self.certificate(node_id) is not None

    def roles_in_force(self, node_id: str) -> frozenset[int]:
        return frozenset()

    def certificate(self, node: str) -> bytes | None:
        return TLS[SERVER.node_id].identity_der if node == SERVER.node_id and self.knows else None


class Ways:
    """The roads that a node has, as its client takes them; where `framed`, lanes are those of the framed carrier."""

    def __init__(self, directory: Directory, *, framed: bool) -> None:
        self.framed = FramedRoad(TLS[ALICE.node_id], lambda: directory)
        self.grpc = GrpcRoad(TLS[ALICE.node_id], lambda: directory, self.framed.learn if framed else lambda *_: None)
        self._wants_framed = framed
        client = Client(
            ALICE.node_id,
            [self.framed, self.grpc],
            lambda: directory,
            RoadBook(lambda: time.monotonic_ns() // 1_000_000),
        )
        self.call = client.request

    @property
    def lanes(self) -> int:
        return self.framed.lanes if self._wants_framed else self.grpc.lanes

    @property
    def singles(self) -> int:
        return self.grpc.singles

    def refresh(self) -> None:
        self.grpc.refresh()
        self.framed.refresh()

    async def close(self) -> None:
        await asyncio.gather(self.grpc.close(), self.framed.close())


class Traveller:
    """ALICE's road to SERVER."""

    def __init__(self, world: World, *, framed: bool = False) -> None:
        self.directory = Directory(world)
        self.road = Ways(self.directory, framed=framed)

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
async def on_the_way(
    folder: Path, limits: Limits | None = None, *, framed: bool = False
) -> AsyncIterator[tuple[World, Traveller]]:
    """With the lane open."""
    async with world_in(folder, limits or Limits()) as world:
        world.answers[PING] = lambda caller, request: PONG
        alice = Traveller(world, framed=framed)
        await alice.open_lane()
        try:
            yield world, alice
        finally:
            await alice.road.close()


@asynccontextmanager
async def deaf_lane(answer: bytes | None = None, *, framed: bool = False) -> AsyncIterator[LaneCalls]:
    """An open lane to somebody who reads nothing, or, with an `answer`, one message and gives that."""
    if framed:
        async with deaf_framed_lane(answer) as calls:
            yield calls
        return

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


@asynccontextmanager
async def deaf_framed_lane(answer: bytes | None) -> AsyncIterator[LaneCalls]:
    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(b""))
        try:
            if answer is not None:
                await reader.readexactly(4)
                writer.write(frame(answer))
            await asyncio.sleep(60)
        finally:
            writer.transport.abort()

    class AnyTarget(Target):
        def __init__(self) -> None:
            """Trusts whoever is there."""

        def is_at(self, end: ssl.SSLObject | None) -> bool:
            return True

    server = await asyncio.start_server(carry, "127.0.0.1", 0, limit=64)
    port = server.sockets[0].getsockname()[1]
    lane = FramedLane("deaf", AnyTarget(), lambda: None)
    await asyncio.get_running_loop().create_connection(lambda: lane, "127.0.0.1", port)
    await until(lambda: lane.calls.is_open)
    try:
        yield lane.calls
    finally:
        lane.abort()
        server.close()


def later(tickets: list[Ticket]) -> Callable[[Caller, Message], Ticket]:
    """An answer that a test gives."""

    def answer(caller: Caller, request: Message) -> Ticket:
        tickets.append(Ticket())
        return tickets[-1]

    return answer


RECEIVE_BYTES = 64 * 1024  # else a kernel may take 32 MiB that nobody has read


class FramedStream:
    """A connection of BOB's as a raw stream of messages, in the words of gRPC's."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, world: World, key: NodeKey = BOB) -> FramedStream:
        target = Target(TLS[key.node_id], TLS[SERVER.node_id].identity_der)
        end = socket.create_connection(("127.0.0.1", world.server.framed_port))
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        end.setblocking(False)
        return cls(*await asyncio.open_connection(sock=end, ssl=target.context, server_hostname=target.name))

    @classmethod
    async def owner(cls, world: World) -> FramedStream:
        return cls(*await asyncio.open_unix_connection(f"{world.socket}{SUFFIX}"))

    async def write(self, message: bytes) -> None:
        self._writer.write(frame(message))
        await self._writer.drain()

    async def read(self) -> bytes:
        """Raises EOFError at the end."""
        try:
            head = await self._reader.readexactly(HEAD_BYTES)
            return await self._reader.readexactly(int.from_bytes(head, "big"))
        except OSError as error:
            raise EOFError from error

    def cancel(self) -> None:
        self._writer.transport.abort()


RawStream = Stream[bytes, bytes] | FramedStream


async def opened(stream: RawStream) -> bool:
    """By the first message, which has no answers."""
    raw = await stream.read()
    return isinstance(raw, bytes) and not lane_pb2.CarryResponse.FromString(raw).answers


async def ended(stream: RawStream) -> grpc.StatusCode | None:
    """As gRPC says; None where there is no word for it."""
    if isinstance(stream, FramedStream):
        try:
            while True:
                await stream.read()
        except EOFError:
            return None
    return await stream.code()


async def heard(stream: RawStream) -> list[lane_pb2.LaneAnswer]:
    """The answers of the next message."""
    raw = await stream.read()
    assert isinstance(raw, bytes), "the lane has ended"
    return list(lane_pb2.CarryResponse.FromString(raw).answers)


async def until(question: Callable[[], object]) -> None:
    while not question():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.01)

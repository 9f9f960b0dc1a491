"""A road with an open lane, its peer, and a peer that keeps silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from carrier_world import ALICE, SERVER, TLS, World, world_in
from google.protobuf.message import Message

from offgrid.v1 import lane_pb2, mesh_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.runtime import Ticket
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller
from offgrid_node.services.grpc_calls import RpcHandler
from offgrid_node.services.grpc_gate import Context
from offgrid_node.services.grpc_lane import Lane
from offgrid_node.services.grpc_road import GrpcRoad

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

"""A gRPC server with listeners of every kind over handlers that a test chooses, and clients of it."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.protobuf.message import Message

from offgrid_node.keys import NodeKey, issue_leaf
from offgrid_node.protocol.errors import (
    Fault,
)
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.framed_server import FramedServer
from offgrid_node.services.grpc_gate import Gate
from offgrid_node.services.grpc_server import MEMBER_LIMITS, GrpcServer
from offgrid_node.services.router import METHODS, Outcome, Router, snake
from offgrid_node.services.status import fault_of
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
        self.refused: list[Fault] = []
        router = Router(self._services())
        self.server = GrpcServer(router, limits=limits, on_refused=self.refused.append)
        self.framed = FramedServer(router, self.server.running, self.refused.append)
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
        await self.server.listen_admin(
            f"unix:{self.socket}", beside=lambda gate: self.framed.listen_admin(f"unix:{self.socket}", gate)
        )
        self.mesh = await self.listen_mesh(self.server)
        self.door = await self.server.listen_door("127.0.0.1:0")

    async def listen_mesh(self, server: GrpcServer, port: int = 0) -> int:
        identities, tls = tuple(tls.identity_der for tls in TLS.values()), TLS[SERVER.node_id]

        def beside(gate: Gate) -> None:
            server.framed_port = self.framed.listen_mesh("127.0.0.1:0", gate, tls, lambda: identities)

        return await server.listen_mesh(
            f"127.0.0.1:{port}", tls, lambda: identities, self.members.get, beside if server is self.server else ignore
        )

    async def close(self) -> None:
        for channel in self._channels:
            await channel.close()
        await self.stop()

    async def stop(self, grace_s: float = 2.0) -> None:
        await asyncio.gather(self.server.close(grace_s), self.framed.close(grace_s))

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


def ignore(gate: Gate) -> None:
    """Nothing listens beside."""


def _path(method: str) -> str:
    return f"/{method}" if method.startswith("grpc.") else f"/offgrid.v1.{method}"


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
        async with asyncio.timeout(60):
            await scenario

    asyncio.run(limited())


async def until(condition: Callable[[], bool]) -> None:
    """For what another process or gRPC's own threads bring about; the scenario's timeout is the bound."""
    while not condition():  # noqa: ASYNC110 - nothing here could set an event
        await asyncio.sleep(0.005)

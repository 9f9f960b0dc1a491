"""Pieces of objects from one process to another, over each carrier that brings them: the nodes' own listener and road.

Mutual TLS, the gate, the access table and the router are there; nothing is done with what comes. Processor time is that
of both processes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection

import msgspec
from google.protobuf.message import Message

from offgrid.lanes import PIECE_BYTES_MAX
from offgrid.pieces import Piece
from offgrid.v1 import objects_pb2
from offgrid_node.keys.leaf import NodeTls, issue_leaf
from offgrid_node.keys.store import SEED_BYTES, NodeKey
from offgrid_node.protocol.errors import Fault
from offgrid_node.services.access import ALL_ROLES
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.client import Road
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.framed_server import FramedServer
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.grpc_server import GrpcServer
from offgrid_node.services.router import SERVICES, Router
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.processes import Meter

MB = 1_000_000
METHOD = "offgrid.v1.ObjectService/WriteReplica"
WINDOW = 3  # pieces under way, as in shipping
TIMEOUT_MS = 60_000
READY_S = 0.01
PIECES, PIECES_QUICK = 100, 10  # a round
ROUNDS, ROUNDS_QUICK = 5, 1
FRAMED, GRPC = "framed", "grpc"


class Spent(msgspec.Struct, frozen=True):
    """What some work took."""

    seconds: float
    cpu_s: float


def measure_carriers(pieces: int, rounds: int) -> list[Figure]:
    """Each carrier's best round, turn about."""
    data = [os.urandom(PIECE_BYTES_MAX)] * pieces
    spent: dict[str, list[float]] = {FRAMED: [], GRPC: []}
    for _ in range(rounds):
        for carrier, values in spent.items():
            values.append(1000 * transfer(data, carrier).cpu_s * MB / (pieces * PIECE_BYTES_MAX))
    best = {carrier: min(values) for carrier, values in spent.items()}
    return [Figure("carrier_cpu_ms_per_mb", best[FRAMED], "gRPC, ms", best[GRPC], "both sides, a MB carried")]


def transfer(pieces: Sequence[bytes], carrier: str = FRAMED) -> Spent:
    """All of them to another process."""
    context = get_context("spawn")
    here, there = context.Pipe()
    sender = NodeKey(os.urandom(SEED_BYTES))
    taker = context.Process(target=take, args=(there, issue_leaf(sender).identity_der, sender.node_id), daemon=True)
    taker.start()
    try:
        target = Target(*here.recv())
        return asyncio.run(_send(issue_leaf(sender), target, pieces, carrier, taker.pid or 0))
    finally:
        taker.terminate()
        taker.join()


# ---- the process that sends


class Target(msgspec.Struct, frozen=True):
    """Implements DirectoryView for the one node that there is."""

    node: str
    identity_der: bytes
    port: int
    framed_port: int

    def addresses(self, node: str) -> Sequence[str]:
        return [f"127.0.0.1:{self.port}"] if node == self.node else []

    def certificate(self, node: str) -> bytes | None:
        return self.identity_der if node == self.node else None


async def _send(tls: NodeTls, target: Target, pieces: Sequence[bytes], carrier: str, pid: int) -> Spent:
    if carrier == GRPC:
        grpc_road = GrpcRoad(tls, lambda: target)
        await _call(grpc_road, target.node, pieces[0])
        carried = await _bring(grpc_road, target.node, pieces, pid)
        await grpc_road.close()
        return carried
    road = FramedRoad(tls, lambda: target)
    road.learn(target.node, "127.0.0.1", target.framed_port)
    await _until(lambda: road.reaches(target.node))
    await _call(road, target.node, pieces[0])
    await _until(lambda: road.connections == 2)
    carried = await _bring(road, target.node, pieces, pid)
    await road.close()
    return carried


async def _bring(road: Road, node: str, pieces: Sequence[bytes], pid: int) -> Spent:
    left, meter = iter(pieces), Meter({"taker": pid})
    began_s, began_cpu_s = time.perf_counter(), time.process_time()

    async def carry() -> None:
        for piece in left:
            await _call(road, node, piece)

    await asyncio.gather(*(carry() for _ in range(WINDOW)))
    cpu_s = time.process_time() - began_cpu_s
    return Spent(time.perf_counter() - began_s, cpu_s + meter.read()["taker"])


async def _call(road: Road, node: str, data: bytes) -> None:
    """Raises the Fault that it ended with."""
    end: asyncio.Future[Message | Fault] = asyncio.get_running_loop().create_future()
    road.call(node, METHOD, Piece(objects_pb2.WriteReplicaRequest(object_id="o"), data), TIMEOUT_MS, end.set_result)
    if isinstance(outcome := await end, Fault):
        raise outcome


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing here could set an event
        await asyncio.sleep(READY_S)


# ---- the process that takes


class Taking:
    """Every service there is; WriteReplica alone is called."""

    def __getattr__(self, name: str) -> Callable[[Caller, Message], Message]:
        def answer(caller: Caller, request: Message) -> Message:
            return objects_pb2.WriteReplicaResponse(offset=len(request.data))  # type: ignore[attr-defined]

        return answer


def take(pipe: Connection, trusted: bytes, sender: str) -> None:
    """Takes pieces until it is ended."""
    asyncio.run(_take(pipe, trusted, sender))


async def _take(pipe: Connection, trusted: bytes, sender: str) -> None:
    key = NodeKey(os.urandom(SEED_BYTES))
    tls, handlers = issue_leaf(key), {service.full_name: Taking() for service in SERVICES}
    router = Router(handlers)
    server = GrpcServer(router)
    framed, ports = FramedServer(router, server.running), list[int]()
    port = await server.listen_mesh(
        "127.0.0.1:0",
        tls,
        lambda: [trusted],
        lambda fingerprint: Caller(Kind.MEMBER, sender, frozenset(ALL_ROLES)),
        beside=lambda gate: ports.append(framed.listen_mesh("127.0.0.1:0", gate, tls, lambda: [trusted])),
    )
    pipe.send((key.node_id, tls.identity_der, port, ports[0]))
    await asyncio.Event().wait()

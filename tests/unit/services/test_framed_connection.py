"""One framed connection and a network that takes no more: what its caller is charged with meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offgrid.frames import HEAD_BYTES, frame
from offgrid.v1 import lane_pb2, mesh_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.services import framed_connection
from offgrid_node.services.budget import Limits
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.framed_connection import TURN_S, Connection
from offgrid_node.services.grpc_gate import Gate, Running
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.router import Router

PING = METHOD_NUMBERS["offgrid.v1.MeshService/Ping"]
BUDGET_BYTES = 10_000
ANSWER = mesh_pb2.PingResponse(members_digest=bytes(9_000))


class Network(asyncio.Transport):
    """Takes what is written; while it is `full` it says so at each write."""

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.written, self.full = bytearray(), False
        self.closed = 0

    def write(self, data: Any) -> None:
        self.written += data
        if self.full:
            self.connection.pause_writing()

    def hear(self, data: bytes) -> None:
        room = self.connection.get_buffer(len(data))
        room[: len(data)] = data
        self.connection.buffer_updated(len(data))

    def drain(self) -> None:
        self.full = False
        self.connection.resume_writing()

    def is_closing(self) -> bool:
        return self.closed > 0

    def close(self) -> None:
        self.closed += 1

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Full is what the test says."""

    def pause_reading(self) -> None:
        """A test writes no more than is read."""

    def resume_reading(self) -> None:
        """As above."""

    def ends(self) -> list[tuple[int, str]]:
        """The answers that were written since the last time: their numbers, and why they were refused."""
        found = list[tuple[int, str]]()
        while self.written:
            end = HEAD_BYTES + int.from_bytes(self.written[:HEAD_BYTES], "big")
            if len(self.written) < end:
                break
            raw, self.written = bytes(self.written[HEAD_BYTES:end]), self.written[end:]
            for answer in lane_pb2.CarryResponse.FromString(raw).answers:
                found.append((answer.number, fault_from_bytes(answer.status).reason if answer.status else ""))
        return found


class Answering:
    """Of a router only this is asked; what it takes is told to `clock`."""

    def __init__(self, clock: list[float] | None = None) -> None:
        self.clock = clock

    def dispatch(self, caller: Caller, method: str, request: object) -> mesh_pb2.PingResponse:
        if self.clock is not None:
            self.clock.append(self.clock[-1] + TURN_S * 0.6)
        return ANSWER


def connected(clock: list[float] | None = None) -> tuple[Network, Gate]:
    network = Network()
    gate = Gate(lambda _: lambda: Caller(Kind.MEMBER, "alice"), Limits(bytes_in_flight=BUDGET_BYTES))
    router = cast("Router", Answering(clock))
    network.connection = Connection(gate, router, Running(), lambda _: nullcontext(), None, {})
    network.connection.connection_made(network)
    return network, gate


async def call(network: Network, number: int) -> None:
    """And the turns of the loop in which it is answered."""
    request = mesh_pb2.PingRequest(members_digest=bytes(2_000)).SerializeToString()
    calls = [lane_pb2.LaneCall(number=number, method=PING, request=request)]
    network.hear(frame(lane_pb2.CarryRequest(calls=calls).SerializeToString()))
    await turns()


async def turns() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def test_an_answer_that_has_left_is_charged_no_longer() -> None:
    async def scenario() -> None:
        network, _ = connected()
        for number in (1, 2, 3):
            await call(network, number)
        assert network.ends() == [(1, ""), (2, ""), (3, "")]

    asyncio.run(scenario())


def test_an_answer_is_charged_until_the_network_has_taken_it() -> None:
    async def scenario() -> None:
        network, _ = connected()
        network.full = True
        await call(network, 1)
        assert network.ends() == [(1, "")], "it was written, and is not gone"
        await call(network, 2)
        assert network.ends() == [], "to a network that is full nothing is written"
        network.drain()
        await turns()
        assert network.ends() == [(2, "TooManyBytes")]
        await asyncio.sleep(0.15)  # nobody is refused faster than it may come back
        await call(network, 3)
        assert network.ends() == [(3, "")]

    asyncio.run(scenario())


@pytest.mark.parametrize("written", [True, False])
def test_a_connection_that_is_lost_owes_nothing(written: bool) -> None:
    async def scenario() -> None:
        network, gate = connected()
        network.full = True
        if not written:
            network.connection.pause_writing()
        await call(network, 1)
        assert network.ends() == ([(1, "")] if written else [])
        network.connection.connection_lost(None)
        visits = [gate.admit(Caller(Kind.MEMBER, "alice"), network.connection, BUDGET_BYTES)]
        visits[0].leave()
        assert gate._budget._busy == {}

    asyncio.run(scenario())


def test_a_connection_at_its_end_is_closed_once_whatever_comes_then() -> None:
    """asyncio's TLS forgets its connection when it is closed twice, and an abort after that does nothing, or raises."""

    async def scenario() -> None:
        network, _ = connected()
        network.connection.end(Unavailable("the node is stopping", reason="Stopping"))
        await turns()
        assert network.closed == 1
        network.connection.pause_writing()
        network.connection.resume_writing()
        await turns()
        assert network.closed == 1

    asyncio.run(scenario())


def test_calls_that_take_long_give_the_loop_back_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many come in one message, and others wait for the same loop."""
    clock = [0.0]
    monkeypatch.setattr(framed_connection, "time", SimpleNamespace(thread_time=lambda: clock[-1]))

    async def scenario() -> list[int]:
        network, _ = connected(clock)
        request = mesh_pb2.PingRequest().SerializeToString()
        calls = [lane_pb2.LaneCall(number=number, method=PING, request=request) for number in range(1, 6)]
        network.hear(frame(lane_pb2.CarryRequest(calls=calls).SerializeToString()))
        served = [len(clock) - 1]
        for _ in range(3):
            await asyncio.sleep(0)
            served.append(len(clock) - 1)
        return served

    assert asyncio.run(scenario()) == [2, 4, 5, 5]

"""Pieces of objects between members: on a connection of their own, whole, and never before a small call."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest
from carrier_world import SERVER, run, until
from google.protobuf.message import Message
from lane_world import PING, PONG, Traveller, later, on_the_way

from offgrid.lanes import PIECE_BYTES_MAX, PIECE_CALL_BYTES_MAX
from offgrid.pieces import Piece
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import FailedPrecondition, Fault, Unavailable
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller

WRITE, READ = "ObjectService/WriteReplica", "ObjectService/ReadReplica"
DATA = bytes(range(256)) * (PIECE_BYTES_MAX // 256)


def piece(data: bytes = DATA) -> Message:
    return Piece(objects_pb2.WriteReplicaRequest(object_id="o-1", shard=2, offset=3), data)


def takes(came: list[Message]) -> object:
    def answer(caller: Caller, request: Message) -> Message:
        came.append(request)
        return objects_pb2.WriteReplicaResponse(offset=len(request.data))

    return answer


async def with_pieces_open(alice: Traveller) -> None:
    """The first of them shares the connection of small calls, while the other is dialled."""
    assert await alice.start(WRITE, piece(b"first")) == objects_pb2.WriteReplicaResponse(offset=5)
    await until(lambda: alice.road.framed.connections == 2)


def test_a_mebibyte_goes_and_comes_over_a_connection_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=True) as (world, alice):
            came = list[Message]()
            world.answers[WRITE] = takes(came)
            world.answers[READ] = lambda caller, request: Piece(objects_pb2.ReadReplicaResponse(size_bytes=9), DATA)
            assert world.framed.connections == 1
            await with_pieces_open(alice)
            assert world.framed.connections == 2
            singles = world.refused.copy()
            assert await alice.start(WRITE, piece()) == objects_pb2.WriteReplicaResponse(offset=len(DATA))
            request = came[-1]
            assert isinstance(request, Piece)
            assert (request.object_id, request.shard, request.offset, bytes(request.data)) == ("o-1", 2, 3, DATA)
            read = await alice.start(READ, objects_pb2.ReadReplicaRequest(object_id="o-1", length=len(DATA)))
            assert isinstance(read, Piece)
            assert (read.size_bytes, bytes(read.data)) == (9, DATA)
            assert world.framed.connections == 2
            assert world.refused == singles == []

    run(scenario())


def test_small_calls_do_not_wait_for_pieces(tmp_path: Path) -> None:
    """However many are on their way, and however slowly they are taken."""

    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=True) as (world, alice):
            world.answers[WRITE] = takes([])
            await with_pieces_open(alice)
            tickets = list[Ticket]()
            world.answers[WRITE] = later(tickets)
            ends = [alice.start(WRITE, piece()) for _ in range(3)]
            await until(lambda: len(tickets) == 3)
            assert await alice.start(PING) == PONG
            assert not any(end.done() for end in ends)
            for ticket in tickets:
                ticket.resolve(objects_pb2.WriteReplicaResponse(offset=1))
            assert len(await asyncio.gather(*ends)) == 3

    run(scenario())


def test_what_is_too_large_for_a_piece_goes_by_grpc(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=True) as (world, alice):
            came = list[Message]()
            world.answers[WRITE] = takes(came)
            await with_pieces_open(alice)
            large = piece(bytes(PIECE_CALL_BYTES_MAX + 1))
            ends = list[Message | Fault]()
            alice.road.framed.call(SERVER.node_id, f"offgrid.v1.{WRITE}", large, 1_000, ends.append)
            assert isinstance(ends[0], Unavailable)
            answer = objects_pb2.WriteReplicaResponse(offset=PIECE_CALL_BYTES_MAX + 1)
            assert await alice.start(WRITE, large) == answer
            assert came[-1].offset == 3

    run(scenario())


@pytest.mark.parametrize("framed", [False, True], ids=["grpc", "framed"])
def test_a_piece_is_the_same_on_every_carrier(framed: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=framed) as (world, alice):
            came = list[Message]()
            world.answers[WRITE] = takes(came)
            world.answers[READ] = lambda caller, request: Piece(objects_pb2.ReadReplicaResponse(size_bytes=9), b"data")
            for data in (b"", b"few", DATA):
                await alice.start(WRITE, piece(data))
                assert bytes(came[-1].data) == data
            read = await alice.start(READ, objects_pb2.ReadReplicaRequest(object_id="o-1", length=4))
            assert (read.size_bytes, bytes(read.data)) == (9, b"data")

    run(scenario())


def test_the_pieces_of_a_connection_that_is_lost_go_on_over_the_other_carrier_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("offgrid_node.services.framed_road.RETRY_S", 0.0)
        async with on_the_way(tmp_path, framed=True) as (world, alice):
            world.answers[WRITE] = takes([])
            await with_pieces_open(alice)
            place, tickets = alice.road.framed._places[SERVER.node_id], list[Ticket]()
            world.answers[WRITE] = later(tickets)
            end = alice.start(WRITE, piece())
            await until(lambda: len(tickets) == 1)
            assert place.pieces.lane is not None
            place.pieces.lane.abort()
            await until(lambda: len(tickets) == 2)
            tickets[1].resolve(objects_pb2.WriteReplicaResponse(offset=1))
            assert await end == objects_pb2.WriteReplicaResponse(offset=1)
            world.answers[WRITE] = takes([])
            assert await alice.start(WRITE, piece()) == objects_pb2.WriteReplicaResponse(offset=len(DATA))
            assert alice.road.framed.lanes == 1
            await until(lambda: alice.road.framed.connections == 2)

    run(scenario())


@pytest.mark.parametrize("framed", [False, True], ids=["grpc", "framed"])
def test_of_a_piece_that_is_refused_nothing_stays(framed: bool, tmp_path: Path) -> None:
    """Not even until Python's collector of cycles looks: by then a peer has brought a hundred more."""

    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=framed) as (world, alice):
            came = list[weakref.ref[memoryview]]()

            def refuse(caller: Caller, request: Message) -> Message:
                came.append(weakref.ref(request.data))
                raise FailedPrecondition("it is not open", reason="NotOpened")

            world.answers[WRITE] = refuse
            gc.disable()
            try:
                end = await alice.start(WRITE, piece())
                assert isinstance(end, FailedPrecondition)
                await until(lambda: came[0]() is None)
            finally:
                gc.enable()

    run(scenario())

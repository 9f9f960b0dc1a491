"""The road over the framed carrier: whom it dials, when again, whom it gives up, and what strangers may cost."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from carrier_world import ALICE, SERVER, TLS, run, until, world_in
from lane_world import PING, PONG, Directory, FramedStream, Traveller, on_the_way, opened

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import issue_leaf
from offgrid_node.keys.store import NodeKey
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.grpc_options import HANDSHAKE_TIMEOUT_MS
from offgrid_node.services.lane_calls import LANE_CALL_BYTES_MAX


@pytest.mark.parametrize("port", [0, 1], ids=["no port", "nobody there"])
def test_without_a_framed_listener_in_reach_all_stays_on_grpc(tmp_path: Path, port: int) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            world.answers[PING] = lambda caller, request: PONG
            world.server.framed_port = port
            alice = Traveller(world, framed=True)
            assert await alice.start() == PONG
            await until(lambda: alice.road.grpc.lanes)
            assert await alice.start() == PONG
            assert alice.road.framed.lanes == 0
            await alice.road.close()

    run(scenario())


def test_somebody_else_at_that_port_is_told_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        heard: list[bytes] = []

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.append(await reader.read(3))
            writer.close()

        impostor = await asyncio.start_server(listen, "127.0.0.1", 0)
        async with world_in(tmp_path) as world:
            directory = Directory(world)
            road = FramedRoad(TLS[ALICE.node_id], lambda: directory)
            road.learn(SERVER.node_id, "127.0.0.1", impostor.sockets[0].getsockname()[1])
            await until(lambda: bool(heard))
            await asyncio.sleep(0.05)
            assert heard == [b"\x16\x03\x01"], "a TLS handshake, and nothing else"
            assert not road.reaches(SERVER.node_id)
            await road.close()
        impostor.close()

    run(scenario())


def test_a_member_that_speaks_another_protocol_is_not_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            directory = Directory(world)
            road = FramedRoad(TLS[ALICE.node_id], lambda: directory)
            monkeypatch.setattr("offgrid_node.services.framed_tls.PROTOCOL", "h2")
            road.learn(SERVER.node_id, "127.0.0.1", world.server.framed_port)
            place = road._places[SERVER.node_id]
            await until(lambda: place.small.dialling is None)
            await asyncio.sleep(0.05)
            assert not road.reaches(SERVER.node_id)
            assert [fault.reason for fault in world.refused] == ["Unauthenticated"]
            await road.close()

    run(scenario())


def test_a_lost_connection_is_dialled_again_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("offgrid_node.services.framed_road.RETRY_S", 0.0)
        async with on_the_way(tmp_path, framed=True) as (world, alice):
            for connection in list(world.framed._connections):
                connection.abort()
            await until(lambda: not alice.road.framed.lanes)
            assert await alice.start() == PONG, "by gRPC meanwhile"
            await until(lambda: alice.road.framed.lanes == 1)

    run(scenario())


def test_what_is_large_and_what_there_is_no_room_for_goes_on_to_the_next_road(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with on_the_way(tmp_path, framed=True) as (_, alice):
            ends: list[object] = []
            large = mesh_pb2.PingRequest(members_digest=bytes(LANE_CALL_BYTES_MAX + 1))
            alice.road.framed.call(SERVER.node_id, f"offgrid.v1.{PING}", large, 1_000, ends.append)
            alice.road.framed.call("nobody", f"offgrid.v1.{PING}", mesh_pb2.PingRequest(), 1_000, ends.append)
            assert [type(end) for end in ends] == [Unavailable, Unavailable]
            assert await alice.start(request=large) == PONG

    run(scenario())


def test_beyond_its_bound_the_longest_unused_place_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("offgrid_node.services.framed_road.PEERS_MAX", 2)
        async with world_in(tmp_path) as world:

            class Everybody(Directory):
                def certificate(self, node: str) -> bytes | None:
                    return TLS[SERVER.node_id].identity_der

            directory = Everybody(world)
            road = FramedRoad(TLS[ALICE.node_id], lambda: directory)
            for node in ("a", "b", "c"):
                road.learn(node, "127.0.0.1", world.server.framed_port)
                await until(lambda node=node: road.reaches(node))  # type: ignore[misc]
            assert [road.reaches(node) for node in ("a", "b", "c")] == [False, True, True]
            await until(lambda: world.framed.connections == 2)
            await road.close()

    run(scenario())


def test_strangers_that_say_nothing_are_few_and_are_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        monkeypatch.setattr("offgrid_node.services.framed_server.ENTERING_MAX", 4)
        async with world_in(tmp_path) as world:
            where = ("127.0.0.1", world.server.framed_port)
            silent = [socket.create_connection(where) for _ in range(10)]
            try:
                for connection in silent:
                    connection.setblocking(False)
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000 + 30):
                    for connection in silent:
                        assert await asyncio.get_running_loop().sock_recv(connection, 1) == b""
                stream = await FramedStream.open(world)
                assert await opened(stream), "members find room again"
                stream.cancel()
            finally:
                for connection in silent:
                    connection.close()

    run(scenario())


def test_a_key_that_no_member_holds_hears_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            mallory = NodeKey(b"m" * 32)
            TLS[mallory.node_id] = issue_leaf(mallory)
            try:
                stream = await FramedStream.open(world, mallory)  # TLS 1.3: it believes to be in
                with pytest.raises(EOFError):
                    await stream.read()
                stream.cancel()
            finally:
                del TLS[mallory.node_id]
            assert world.framed.connections == 0

    run(scenario())


def test_a_member_removed_between_handshake_and_first_word_is_not_let_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_in(tmp_path) as world:
            del world.members[ALICE.node_id]  # TLS still trusts its identity
            stream = await FramedStream.open(world, ALICE)
            with pytest.raises(EOFError):
                await stream.read()
            stream.cancel()
            assert [fault.reason for fault in world.refused] == ["NotAMember"]
            assert isinstance(world.refused[0], Fault)

    run(scenario())

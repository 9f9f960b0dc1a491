"""Packet links of nodes: members find each other by beacons on real UDP, and call each other there."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.services.packet_links import PacketLinks, exchange_key, secret_of
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_transports import udp
from offgrid_transports.answers import Request
from offgrid_transports.beacons import Beacon, read_beacon, tag_of, write_beacon
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BadSpec, LinkHost

PING = "offgrid.v1.MeshService/Ping"
REGISTRY = TransportRegistry({"udp": udp.open_transport})
A, B, C, OTHER = (NodeKey(bytes([number]) * 32) for number in (1, 2, 4, 3))


class Roll:
    """A mesh whose members may change."""

    mesh_id, mesh_tag = "mesh", b"mesh tag"

    def __init__(self, *members: NodeKey) -> None:
        self.members = {key.node_id: key.public_key for key in members}
        self.revision = 1

    def all_ids(self) -> list[str]:
        return [*self.members]

    def is_member(self, node_id: str) -> bool:
        return node_id in self.members

    def current_key(self, node_id: str) -> bytes | None:
        return self.members.get(node_id)


class World:
    """Nodes with links, in this process and in real time."""

    def __init__(self) -> None:
        loop, stamps = asyncio.get_running_loop(), itertools.count(1)
        self.links: list[PacketLinks] = []
        self.host = LinkHost(
            Random(1),
            lambda delay_ms, callback: loop.call_later(delay_ms / 1000, callback) and None,
            lambda: time.monotonic_ns() // 1_000_000,
        )
        self.stamp: Callable[[], int] = lambda: next(stamps)

    def node(self, key: NodeKey, roll: Roll, *descriptions: str, relays: bool = True) -> tuple[PacketLinks, Endpoint]:
        """It answers a ping with nothing."""
        links = PacketLinks(key.exchange_secret(), key.node_id, lambda: roll, self.host, relays=relays)
        endpoint = links.start(self.stamp)
        self.links.append(links)

        def answer(request: Request) -> None:
            assert request.method == METHOD_NUMBERS[PING]
            endpoint.respond(request, mesh_pb2.PingResponse().SerializeToString())

        endpoint.on_request = answer
        links.open(descriptions, REGISTRY)
        return links, endpoint

    async def ping(self, links: PacketLinks, node: str, timeout_ms: int = 5_000) -> Message | Fault:
        ends = asyncio.get_running_loop().create_future()
        links.call(node, PING, mesh_pb2.PingRequest(), timeout_ms, ends.set_result)
        return await asyncio.wait_for(ends, 10)

    async def until(self, seen: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not seen():  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)


@contextmanager
def world() -> Iterator[World]:
    made = World()
    try:
        yield made
    finally:
        for links in made.links:
            links.close()


def port(links: PacketLinks) -> str:
    [link, *_] = links.opened
    return str(link.figures()["listens"]).rpartition(":")[2]


def test_members_find_each_other_and_call() -> None:
    async def run() -> None:
        with world() as nodes:
            roll = Roll(A, B)
            first, _ = nodes.node(A, roll, "udp:127.0.0.1:0")
            assert not first.reaches(B.node_id)
            second, endpoint = nodes.node(B, roll, f"udp:127.0.0.1:0?peer=127.0.0.1:{port(first)}")
            await nodes.until(lambda: first.reaches(B.node_id))
            assert isinstance(await nodes.ping(first, B.node_id), mesh_pb2.PingResponse)
            assert endpoint.session_of(A.node_id) is not None, "and who was called knows who called"
            assert isinstance(await nodes.ping(second, A.node_id), mesh_pb2.PingResponse)

    asyncio.run(run())


def test_what_is_said_to_all_is_not_listened_to_where_each_can_be_asked() -> None:
    async def run() -> None:
        with world() as nodes:
            roll, heard = Roll(A, B), list[bytes]()
            first, _ = nodes.node(A, roll, "udp:127.0.0.1:0")
            second, _ = nodes.node(B, roll, f"udp:127.0.0.1:0?peer=127.0.0.1:{port(first)}")
            first.on_said = lambda node, link, said: heard.append(said)
            await nodes.until(lambda: first.reaches(B.node_id))
            assert isinstance(await nodes.ping(first, B.node_id), mesh_pb2.PingResponse)
            [link] = second.opened
            second.tell(link, b"something")
            assert isinstance(await nodes.ping(second, A.node_id), mesh_pb2.PingResponse)
            assert heard == []

    asyncio.run(run())


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.parametrize("relays", [True, False])
def test_a_member_whom_only_another_one_hears_is_called_over_that_one_where_it_relays(relays: bool) -> None:
    async def run() -> None:
        with world() as nodes:
            roll, (one, middle, other) = Roll(A, B, C), free_ports(3)
            first, _ = nodes.node(A, roll, f"udp:127.0.0.1:{one}?peer=127.0.0.1:{middle}")
            nodes.node(C, roll, f"udp:127.0.0.1:{other}?peer=127.0.0.1:{middle}")
            nodes.node(B, roll, f"udp:127.0.0.1:{middle}?peer=127.0.0.1:{one},127.0.0.1:{other}", relays=relays)
            await nodes.until(lambda: first.reaches(B.node_id))
            assert first.reaches(C.node_id), "perhaps: others may lead there"
            assert first.hops_to(C.node_id) is None
            if relays:
                assert isinstance(await nodes.ping(first, C.node_id), mesh_pb2.PingResponse)
                assert first.hops_to(C.node_id) == [B.node_id]
            else:
                assert isinstance(await nodes.ping(first, C.node_id, 500), Fault)

    asyncio.run(run())


def test_who_is_no_member_is_not_found_until_it_is_one() -> None:
    async def run() -> None:
        with world() as nodes:
            roll = Roll(A)
            first, endpoint = nodes.node(A, roll, "udp:127.0.0.1:0")
            beacons: list[bytes] = []
            on_beacon = endpoint.on_beacon

            def hear(path: object, frame: bytes) -> None:
                beacons.append(frame)
                on_beacon(path, frame)  # type: ignore[arg-type]

            endpoint.on_beacon = hear
            other, _ = nodes.node(OTHER, Roll(OTHER, A), f"udp:127.0.0.1:0?peer=127.0.0.1:{port(first)}")
            await nodes.until(lambda: bool(beacons))
            assert not first.reaches(OTHER.node_id)
            roll.members[OTHER.node_id], roll.revision = OTHER.public_key, 2
            assert other._beaconing is not None
            other._beaconing.say(other._transports[0])
            await nodes.until(lambda: first.reaches(OTHER.node_id))

    asyncio.run(run())


def test_a_link_that_is_none_is_named_and_nobody_is_reached_before_the_start() -> None:
    async def run() -> None:
        with world() as nodes:
            with pytest.raises(BadSpec, match="did you mean 'udp'"):
                nodes.node(A, Roll(A), "upd:127.0.0.1:0")
            still = PacketLinks(B.exchange_secret(), B.node_id, lambda: Roll(A, B), nodes.host)
            assert not still.reaches(A.node_id)
            assert isinstance(await nodes.ping(still, A.node_id), Unavailable)

    asyncio.run(run())


def test_a_beacon_is_of_one_mesh_and_says_which_node() -> None:
    psk, public = secret_of("mesh"), exchange_key(A.public_key)
    assert public is not None
    beacon = Beacon(tag_of(public), 1_790_000_000_000, 35, b"ten bytes.")
    frame = write_beacon(psk, beacon)
    assert (read_beacon(psk, frame), len(frame)) == (beacon, 35)
    assert read_beacon(secret_of("another"), frame) is None
    for place in range(len(frame)):
        assert read_beacon(psk, frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]) is None
    assert read_beacon(psk, frame[:-1]) is None
    assert read_beacon(psk, b"") is None
    assert exchange_key(os.urandom(31)) is None

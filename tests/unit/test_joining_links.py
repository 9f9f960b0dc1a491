"""Joining over a link: what gets no answer is tried anew while there is time; what the door refuses is not."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node import joining_links
from offgrid_node.joining_links import JOIN, LinkJoiner
from offgrid_node.keys import NodeKey, seal
from offgrid_node.protocol.errors import Exhausted, Fault, PermissionDenied, Unavailable
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.services.knocking import Door
from offgrid_node.services.packet_links import secret_of, static_of
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_transports import udp
from offgrid_transports.answers import Request
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import LinkHost, Transport

TOKEN = InviteToken(b"mesh tag", b"sixteen bytes...")
MESH_ID, KEY = base32(bytes(range(20))), NodeKey(bytes(32))
GRANTED = mesh_pb2.JoinResponse(sealed=b"welcome")
LATER = Unavailable("the node is loading what it knows", reason="Reloading")
Answers = list[Message | Fault | None]  # None: it says nothing


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KNOCK_MS": 50, "CALL_MS": 1_500, "LAST_WORD_S": 0.05, "GIVE_BACK_S": 0.0}.items():
        monkeypatch.setattr(joining_links, name, value)
    monkeypatch.setattr("offgrid_node.services.knocking.APART_MS", 10)
    monkeypatch.setattr("offgrid_node.services.knocking.APART_MS_MAX", 20)


class Inviter:
    """It answers each Join in turn as `answers` say, the last one again and again."""

    def __init__(self, answers: Answers, guest: int) -> None:
        loop, stamps = asyncio.get_running_loop(), itertools.count(1)
        self.asked = 0

        def later(delay_ms: int, callback: Callable[[], object]) -> None:
            loop.call_later(delay_ms / 1000, callback)

        host = LinkHost(Random(1), later, lambda: time.monotonic_ns() // 1_000_000)
        static = static_of(KEY.exchange_secret())
        own = Own(static, secret_of(MESH_ID))
        self.endpoint = Endpoint(own, lambda public: None, host.now_ms, host.schedule, host.rng, lambda: next(stamps))
        self.link: Transport = TransportRegistry({"udp": udp.open_transport}).open(
            f"udp:127.0.0.1:0?peer=127.0.0.1:{guest}", host
        )
        self.endpoint.attach(self.link)
        public = static.public_key().public_bytes_raw()
        Door(self.endpoint, lambda: MESH_ID, public, {TOKEN.invite_id: TOKEN.secret}.get, seal)

        def answer(request: Request) -> None:
            assert request.method == METHOD_NUMBERS[JOIN]
            said = answers[min(self.asked, len(answers) - 1)]
            self.asked += 1
            if isinstance(said, Fault):
                self.endpoint.respond(request, fault_to_bytes(said), error=True)
            elif said is not None:
                self.endpoint.respond(request, said.SerializeToString())

        self.endpoint.on_request = answer

    @property
    def port(self) -> str:
        return str(self.link.figures()["listens"]).rpartition(":")[2]


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def join(folder: Path, answers: Answers, within_s: float = 8) -> tuple[Message | Fault | None, int, Fault | None]:
    """What it comes to, None for nothing in that time; how often it asked; and how the last try ended."""

    async def run() -> tuple[Message | Fault | None, int, Fault | None]:
        guest = free_port()
        inviter = Inviter(answers, guest)
        link = f"udp:127.0.0.1:{guest}?peer=127.0.0.1:{inviter.port}"
        try:
            async with LinkJoiner(TOKEN, NodeKey(b"j" * 32), [link], folder) as joiner:
                try:
                    end: Message | Fault | None = await asyncio.wait_for(joiner.ask(mesh_pb2.JoinRequest()), within_s)
                except TimeoutError:
                    end = None
                except Fault as fault:
                    end = fault
                return end, inviter.asked, joiner.last
        finally:
            inviter.endpoint.close()

    return asyncio.run(run())


def test_one_who_is_let_in_asks_once(tmp_path: Path) -> None:
    assert join(tmp_path, [GRANTED]) == (GRANTED, 1, None)


def test_it_knocks_as_soon_as_the_link_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()
    monkeypatch.setattr(udp.UdpTransport, "up", property(lambda link: next(looks) > 5))
    monkeypatch.setattr(joining_links, "KNOCK_MS", 60_000)
    assert join(tmp_path, [GRANTED])[0] == GRANTED


def test_what_gets_no_answer_or_comes_at_a_bad_time_is_tried_anew(tmp_path: Path) -> None:
    end, asked, _ = join(tmp_path, [LATER, None, Exhausted("crowded", retry_ms=100), GRANTED])
    assert (end, asked) == (GRANTED, 4)


def test_what_the_door_refuses_is_not(tmp_path: Path) -> None:
    end, asked, _ = join(tmp_path, [PermissionDenied("the invite is used", reason="InviteUsed")])
    assert (isinstance(end, PermissionDenied), asked) == (True, 1)


def test_the_time_may_be_over_while_a_call_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_links, "CALL_MS", 8_000)
    assert join(tmp_path, [None], within_s=1) == (None, 1, None)


def test_where_the_time_is_over_the_last_try_is_told(tmp_path: Path) -> None:
    end, asked, last = join(tmp_path, [LATER], within_s=1)
    assert end is None
    assert asked > 1
    assert last is not None
    assert last.reason == "Reloading"

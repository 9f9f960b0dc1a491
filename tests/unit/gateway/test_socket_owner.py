"""Whose program asks: the rows of Linux's tables, and real programs of two users."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipv6 import needs_six
from serving_app import app_of, serving
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from offgrid_node.gateway import socket_owner
from offgrid_node.gateway.access import policy_of
from offgrid_node.gateway.binding import bind
from offgrid_node.gateway.socket_diag import uid_in
from offgrid_node.gateway.socket_owner import ROWS_MAX, TABLES, SocketOwner, trusted_uids, uid_among

HEAD = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
REST = b" 01 00000000:00000000 00:00000000 00000000 %5d        0 %d 1 0000000000000000 20 4 30 10 -1\n"
CLIENT, SERVER = ("127.0.0.1", 0x9C40), ("127.0.0.1", 0x1F41)
NARROW = b"   3: 0100007F:9C40 0100007F:1F41"
MAPPED = b"   3: 0000000000000000FFFF00000100007F:9C40 0000000000000000FFFF00000100007F:1F41"
SIX = b"   3: 00000000000000000000000001000000:9C40 00000000000000000000000001000000:1F41"
SIX_CLIENT, SIX_SERVER = ("::1", 0x9C40), ("::1", 0x1F41)
ASK_AS = """
import encodings.idna, http.client, os, sys
uid, port, method, path, body = sys.argv[1:]
os.setuid(int(uid))
connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=20)
connection.request(method, path, body)
answer = connection.getresponse()
print(answer.status, answer.headers["WWW-Authenticate"], answer.read().decode().strip())
"""
little = pytest.mark.skipif(sys.byteorder != "little", reason="the rows are a little-endian machine's")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells whose a socket is")


def row(start: bytes, uid: int, inode: int = 77) -> bytes:
    return start + REST % (uid, inode)


def answer(ports: tuple[int, int], uid: int, inode: int = 77, kind: int = 20) -> bytes:
    """inet_diag_msg behind its head."""
    told = struct.pack("=BBBB", 2, 1, 0, 0) + struct.pack(">HH", *ports) + bytes(44) + bytes(12)
    return struct.pack("=IHHII", 88, kind, 0, 1, 0) + told + struct.pack("=II", uid, inode)


@pytest.mark.parametrize(
    ("said", "uid"),
    [
        (answer((CLIENT[1], SERVER[1]), 1000), 1000),
        (answer((CLIENT[1], SERVER[1]), 0, inode=0), None),  # its process has closed it
        (answer((CLIENT[1], 0), 1000), None),  # who listens there now
        (answer((SERVER[1], CLIENT[1]), 1000), None),
        (answer((CLIENT[1], SERVER[1]), 1000, kind=2), None),  # an error
        (answer((CLIENT[1], SERVER[1]), 1000)[:-1], None),
        (b"", None),
    ],
)
def test_the_system_s_answer_counts_for_that_very_socket(said: bytes, uid: int | None) -> None:
    assert uid_in(said, CLIENT, SERVER) == uid


@little
@pytest.mark.parametrize(
    ("rows", "uid"),
    [
        ([row(NARROW, 1000)], 1000),
        ([row(MAPPED, 1000)], 1000),
        ([row(NARROW, 1000), row(NARROW, 1000)], 1000),  # a table that changed while it was read
        ([row(NARROW, 0, inode=0)], None),  # its process has closed it
        ([row(NARROW, 0, inode=0), row(NARROW, 1000)], 1000),
        ([row(b"   3: 0100007F:1F41 0100007F:9C40", 0)], None),  # this end's own
        ([row(b"   3: 0100007F:9C40 0100007F:1F42", 0)], None),
        ([row(b"   3: 0200007F:9C40 0100007F:1F41", 0)], None),
        ([NARROW + b" 01\n"], None),
        ([], None),
    ],
)
def test_it_is_the_user_of_the_socket_at_the_far_end(rows: list[bytes], uid: int | None) -> None:
    assert uid_among([HEAD, *rows], CLIENT, SERVER) == uid


@little
def test_addresses_of_ipv6() -> None:
    assert uid_among([HEAD, row(SIX, 1000)], SIX_CLIENT, SIX_SERVER) == 1000
    assert uid_among([row(SIX, 1000)], CLIENT, SERVER) is None
    assert uid_among([row(NARROW, 1000)], ("::ffff:127.0.0.1", 0x9C40), SERVER) == 1000


@little
@given(
    before=st.lists(st.binary(max_size=200)),
    after=st.lists(st.binary(max_size=200)),
    uid=st.integers(0, 2**32 - 2),
    inode=st.integers(1, 2**63),
)
def test_whatever_stands_around_it_only_its_own_row_counts(
    before: list[bytes], after: list[bytes], uid: int, inode: int
) -> None:
    assert uid_among([*before, row(NARROW, uid, inode), *after], CLIENT, SERVER) == uid
    assert uid_among([*before, *after], CLIENT, SERVER) is None


@pytest.fixture(params=["asked", "listed"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one socket is asked for; or that is not possible, and the tables are read."""
    if request.param == "listed":
        monkeypatch.setattr(socket_owner, "ask", lambda client, server: None)
    else:
        monkeypatch.setattr(socket_owner, "TABLES", ())


@on_linux
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("at", "to"),
    [
        ("127.0.0.1", "127.0.0.1"),
        pytest.param("127.0.0.1", "::ffff:127.0.0.1", marks=needs_six),
        pytest.param("::1", "::1", marks=needs_six),
    ],
)
def test_this_process_finds_itself(at: str, to: str) -> None:
    (listening,) = bind(f"[{at}]:0" if ":" in at else f"{at}:0")
    with listening, socket.create_connection((to, listening.getsockname()[1])):
        listening.setblocking(True)
        taken, client = listening.accept()
        with taken:
            owner = SocketOwner(client[:2], taken.getsockname()[:2])
            assert asyncio.run(owner.uid()) == os.geteuid()
    assert asyncio.run(SocketOwner(client[:2], ("127.0.0.1", 1)).uid()) is None
    assert asyncio.run(SocketOwner(None, None).uid()) is None


def taken_while(talk: Callable[[int], Awaitable[None]]) -> list[str]:
    """The bodies that got as far as a handler."""
    taken: list[str] = []

    async def take(asked: Request) -> Response:
        taken.append((await asked.body()).decode())
        return PlainTextResponse("taken\n")

    routes = [Route("/take", take, methods=["POST"]), Route("/v1/about", lambda asked: PlainTextResponse("open"))]
    serving(app_of(routes, policy_of((), uids=trusted_uids())), talk)
    return taken


@on_linux
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root, to be another user")
def test_another_user_is_told_whose_node_it_is_and_may_read_what_is_open() -> None:
    async def by(uid: int, port: int, *asked: str) -> str:
        argv = [sys.executable, "-c", ASK_AS, str(uid), str(port), *asked]
        return (await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)).stdout

    async def talk(port: int) -> None:
        refused = await by(65534, port, "POST", "/take", "theirs")
        assert refused.startswith("401 Bearer ")
        assert "belongs to another user of this machine than yours (uid 65534)" in refused
        assert "gateway.token" in refused
        assert await by(65534, port, "GET", "/v1/about", "") == "200 None open\n"
        assert await by(0, port, "POST", "/take", "ours") == "200 None taken\n"

    assert taken_while(talk) == ["ours"]


@on_linux
@pytest.mark.usefixtures("way")
def test_who_has_let_go_of_the_socket_is_nobody() -> None:
    """The system lists it as root's by then."""
    (listening,) = bind("127.0.0.1:0")
    listening.setblocking(True)
    with listening:
        with socket.create_connection(listening.getsockname()) as theirs:
            taken, client = listening.accept()
            theirs.shutdown(socket.SHUT_WR)
            assert asyncio.run(SocketOwner(client, taken.getsockname()).uid()) == os.geteuid()
        with taken:
            assert asyncio.run(SocketOwner(client, taken.getsockname()).uid()) is None


def test_the_tables_are_read_as_far_as_they_are_large() -> None:
    assert ROWS_MAX >= 2 * 65_535  # more than one client can have connections to one port
    assert [path.name for path in TABLES] == ["tcp", "tcp6"]

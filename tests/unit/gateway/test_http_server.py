"""The gateway's HTTP: one page in memory, and what is refused before any page is looked at."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving_app import app_of, ask, request, serving
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from offgrid_node.gateway import bodies, connection
from offgrid_node.gateway import server as server_module
from offgrid_node.gateway.access import policy_of
from offgrid_node.gateway.app import application
from offgrid_node.gateway.binding import address_of, bind, bind_first
from offgrid_node.gateway.connection import HEAD_BYTES_MAX
from offgrid_node.gateway.server import HttpServer
from offgrid_node.meters.http import HttpMeters
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition

BODY = b"a page\n"
GET = "GET /metrics HTTP/1.1"


MUCH = 8_000_000
POURED: list[str] = []


async def read_it(asked: Request) -> Response:
    return PlainTextResponse(str(len(await asked.body())))


async def pour(asked: Request) -> Response:
    """Without end, as fast as it is read."""

    async def parts() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(65_536)
                await asyncio.sleep(0)
        finally:
            POURED.append("ended")

    return StreamingResponse(parts())


async def wait(asked: Request) -> Response:
    """A word, and no more until the client goes."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"a word\n"
        while not await asked.is_disconnected():  # noqa: ASYNC110 - Starlette has no event for it
            await asyncio.sleep(0.01)

    return StreamingResponse(parts())


async def page(asked: Request) -> Response:
    if asked.headers.get("accept") == "broken":
        raise RuntimeError("a secret of ours")
    return PlainTextResponse(BODY)


async def much(asked: Request) -> Response:
    return Response(bytes(MUCH))


async def refuse(asked: Request) -> Response:
    """After the first piece of its body."""
    await anext(aiter(asked.stream()))
    raise Exhausted("the disk is full", reason="DiskFull")


ROUTES = [
    Route("/much", much),
    Route("/v1/objects/full", refuse, methods=["PUT"]),
    Route("/metrics", page, methods=["GET"]),
    Route("/read", read_it, methods=["POST"]),
    Route("/v1/objects/{name}", read_it, methods=["PUT"]),
    Route("/pour", pour),
    Route("/wait", wait),
]
POST = "POST /read HTTP/1.1"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")


def talking(talk: Callable[[int], Awaitable[None]], hosts: tuple[str, ...] = ()) -> None:
    serving(app_of(ROUTES, policy_of(hosts)), talk)


def test_get_answers_with_the_page_and_head_without_it() -> None:
    async def talk(port: int) -> None:
        status, fields, body = await ask(port, request("GET /metrics?x=1 HTTP/1.1"))
        assert (status, body, fields["cache-control"]) == (200, BODY, "no-store")
        assert "server" not in fields
        status, fields, body = await ask(port, request("HEAD /metrics HTTP/1.0"))
        assert (status, body, fields["content-length"]) == (200, b"", str(len(BODY)))

    talking(talk)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("GET / HTTP/1.1"), 404),
        (request("POST / HTTP/1.1", "Content-Length: 0"), 404),
        (request("POST /metrics HTTP/1.1", "Content-Length: 3", body=b"abc"), 405),
        (request("GET /metrics HTTP/2.0"), 505),
        (request("GET  /metrics HTTP/1.1"), 400),
        (request("GET /metrics"), 400),
        (request(GET, "no colon"), 400),
        (request(GET, "Space : x"), 400),
        (request(GET, "A: x\x00y"), 400),
        (request(GET, "A: x", " y"), 400),
        (request(GET, "A: x", "\ty").replace(b"\r\n", b"\n"), 400),
        (request(GET, "Host: 127.0.0.1"), 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (request(GET, f"A: {'x' * HEAD_BYTES_MAX}"), 431),
        (request(GET, "Accept: broken"), 500),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_gets_its_status_and_a_sentence(raw: bytes, status: int) -> None:
    async def talk(port: int) -> None:
        answered, _, body = await ask(port, raw)
        assert answered == status
        assert body.startswith(b'{"error": {"code": %d, ' % status)
        assert b"secret" not in body
        assert (await ask(port, request(GET)))[0] == 200  # and the next one is served

    talking(talk)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9464", 200),
        ("192.0.2.7", 200),
        ("[::1]:80", 200),
        ("localhost", 200),
        ("LocalHost.:1", 200),
        ("attic.local", 200),
        ("Attic.Local:99", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("[evil.example]", 403),
        ("127.0.0.1@evil.example", 403),
        ("127.1", 403),
        ("127.0.0.1:x", 403),
        ("", 403),
    ],
)
def test_a_name_that_the_owner_did_not_give_is_no_way_in(host: str, status: int) -> None:
    async def talk(port: int) -> None:
        assert (await ask(port, request(GET, host=host)))[0] == status

    talking(talk, hosts=("attic.local",))


def test_who_never_finishes_the_request_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_S", 0.05)

    async def talk(port: int) -> None:
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\nHost"))[0] == 408
        assert (await ask(port, b""))[0] == 408

    talking(talk)


def test_a_body_that_comes_too_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:

    async def trickled(port: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(POST, "Content-Length: 1000"))
        trickle = asyncio.create_task(trickling(writer))
        answer = await reader.readuntil(b"\r\n")
        trickle.cancel()
        writer.close()
        return int(answer.split(b" ")[1])

    async def trickling(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async def talk(port: int) -> None:
        monkeypatch.setattr(bodies, "STALL_S", 0.1)
        assert (await ask(port, request(POST, "Content-Length: 3", body=b"ab")))[0] == 408
        monkeypatch.setattr(bodies, "STALL_S", 1.0)
        monkeypatch.setattr(bodies, "BODY_S", 0.2)
        assert await trickled(port) == 408

    talking(talk)


@pytest.mark.parametrize("after", ["close", "keep-alive"])
@pytest.mark.parametrize("framing", [("Content-Length: 1000000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")])
def test_who_goes_on_sending_what_was_answered_is_cut_off(
    framing: tuple[str, bytes], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a byte a second would hold the connection for ever."""
    monkeypatch.setattr(connection, "CLOSING_S", 0.2)
    field, piece = framing

    async def pour_on(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: {after}\r\n{field}\r\n\r\n".encode())
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404 ")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(pour_on(writer), 10)

    talking(talk)


def test_a_body_whose_lines_begin_with_blanks_is_no_folded_field() -> None:
    async def talk(port: int) -> None:
        body = b"a\r\n b\n\tc"
        status, _, said = await ask(port, request(POST, f"Content-Length: {len(body)}", body=body))
        assert (status, said) == (200, str(len(body)).encode())

    talking(talk)


def test_who_sends_a_body_that_nobody_reads_may_ask_again() -> None:
    async def talk(port: int) -> None:
        body = request("GET /nothing HTTP/1.1", "Content-Length: 3").replace(b"Connection: close\r\n", b"")
        status, _, rest = await ask(port, body + b"abc" + request(GET))
        assert (status, rest.endswith(BODY)) == (404, True)

    talking(talk)


def test_what_all_send_at_once_is_bounded_and_files_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "HELD_BYTES_MAX", 1_000)

    async def talk(port: int) -> None:
        status, fields, _ = await ask(port, request(POST, "Content-Length: 1001", body=bytes(1001)))
        assert (status, fields["retry-after"]) == (503, "1")
        assert (await ask(port, request(POST, "Content-Length: 1000", body=bytes(1000))))[::2] == (200, b"1000")
        size = bodies.BODY_BYTES_MAX + 1
        put = request("PUT /v1/objects/x HTTP/1.1", f"Content-Length: {size}", body=bytes(size))
        assert (await ask(port, put))[::2] == (200, str(size).encode())

    talking(talk)


@pytest.mark.parametrize("more", [b"", b"GET /"])
def test_who_reads_nothing_is_cut_off(more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_S", 0.1)
    POURED.clear()

    async def talk(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as stalled:
            stalled.sendall(b"GET /pour HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await asyncio.sleep(0.05)
            stalled.sendall(more)  # is no sign that anything was read
            while not POURED:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.01)

    talking(talk)


@pytest.mark.parametrize("field", ["Connection: close", "Connection: keep-alive"])
def test_who_reads_slowly_has_all_of_it(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow link more than STALL_S and CLOSING_S lie between the node's last word and its arrival."""
    monkeypatch.setattr(connection, "STALL_S", 1.0)  # in which a reader has its turn on a busy machine, too
    monkeypatch.setattr(connection, "CLOSING_S", 1.0)

    def read(port: int) -> int:
        size = 0
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            slow.connect(("127.0.0.1", port))
            slow.sendall(f"GET /much HTTP/1.1\r\nHost: 127.0.0.1\r\n{field}\r\n\r\n".encode())
            while size < MUCH and (part := slow.recv(65_536)):
                size += len(part)
                time.sleep(0.015)
        return size

    async def talk(port: int) -> None:
        assert await asyncio.to_thread(read, port) >= MUCH

    talking(talk)


def test_a_stream_ends_whole_and_soon_when_the_node_stops() -> None:
    async def whole() -> None:
        stopping = asyncio.Event()
        sockets, server = (
            bind("127.0.0.1:0"),
            HttpServer(application(ROUTES, policy_of(()), lambda: 0, stopping, HttpMeters())),
        )
        await server.serve(sockets)
        reader, writer = await asyncio.open_connection(*sockets[0].getsockname())
        writer.write(request("GET /wait HTTP/1.1"))
        assert await reader.readuntil(b"a word\n\r\n")
        began = asyncio.get_running_loop().time()
        stopping.set()
        await server.close()
        assert await reader.read() == b"0\r\n\r\n"
        assert asyncio.get_running_loop().time() - began < server_module.STOP_S
        writer.close()

    asyncio.run(whole())


@pytest.mark.parametrize("raw", [request("GET /work HTTP/1.1"), request(POST, "Content-Length: 9", body=b"half")])
def test_what_is_not_answered_when_the_node_stops_is_told_so(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STOP_S", 0.05)

    async def whole() -> None:
        stopping, begun = asyncio.Event(), asyncio.Event()

        async def work(asked: Request) -> Response:
            begun.set()
            await asyncio.sleep(60)
            raise AssertionError

        async def read(asked: Request) -> Response:
            begun.set()
            return await read_it(asked)

        routes = [Route("/work", work), Route("/read", read, methods=["POST"])]
        sockets, server = (
            bind("127.0.0.1:0"),
            HttpServer(application(routes, policy_of(()), lambda: 0, stopping, HttpMeters())),
        )
        await server.serve(sockets)
        asked = asyncio.create_task(ask(sockets[0].getsockname()[1], raw))
        await begun.wait()
        stopping.set()
        await server.close()
        status, fields, body = await asked
        assert (status, fields["retry-after"]) == (503, "1")
        assert b'"Stopping"' in body

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (request("GET /pour/../metrics HTTP/1.1"), 400, "BadTarget"),
        (request("GET /%2e%2e/metrics HTTP/1.1"), 400, "BadTarget"),
        (request("GET /..%5cmetrics HTTP/1.1"), 400, "BadTarget"),
        (request("GET /metrics%00 HTTP/1.1"), 400, "BadTarget"),
        (request("GET http://127.0.0.1/metrics HTTP/1.1"), 400, "BadTarget"),
        (request(POST, "Content-Length: 3", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400, "TwoLengths"),
        (request(POST, "Content-Encoding: gzip", "Content-Length: 3", body=b"abc"), 415, "EncodedBody"),
        (request(POST, f"Content-Length: {bodies.BODY_BYTES_MAX + 1}"), 413, "RequestTooLarge"),
    ],
)
def test_some_requests_reach_no_route(raw: bytes, status: int, reason: str) -> None:
    async def talk(port: int) -> None:
        answered, _, body = await ask(port, raw)
        assert answered == status
        assert reason.encode() in body

    talking(talk)


def test_who_opens_no_websocket_leaves_no_traceback_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def talk(port: int) -> None:
        for method in ("POST", "GET"):
            status, _, body = await ask(port, request(f"{method} /wait HTTP/1.1", *UPGRADE))
            assert (400 <= status < 500, b"opens no WebSocket" in body) == (True, True)

    talking(talk)
    assert not [each for each in caplog.records if each.exc_info or each.name.startswith("websockets")]


def test_the_answer_to_a_refused_request_arrives_though_more_is_sent() -> None:
    def sent_on(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"NONSENSE\r\n\r\n")
            for _ in range(5):
                time.sleep(0.02)
                connection.sendall(bytes(1_000))
            return connection.recv(65_536)

    async def talk(port: int) -> None:
        assert (await asyncio.to_thread(sent_on, port)).startswith(b"HTTP/1.1 400 ")

    talking(talk)


@pytest.mark.parametrize("bound", ["CONNECTIONS_MAX", "CONNECTIONS_EACH_MAX"])
def test_a_crowd_is_told_to_come_back_and_room_returns(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(connection, bound, 8)
    monkeypatch.setattr(connection, "is_loopback", lambda host: False)

    async def talk(port: int) -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]
        status, fields, _ = await ask(port, request(GET))
        assert (status, fields["retry-after"]) == (503, "1")
        for _, writer in crowd:
            writer.close()
        while (await ask(port, request(GET)))[0] != 200:
            pass

    talking(talk)


@pytest.mark.parametrize("field", ["Connection: close", "Connection: keep-alive"])
@pytest.mark.parametrize(("path", "status"), [("/v1/objects/full", 429), ("/read", 413), ("/v1/objects/x", 403)])
def test_who_sends_all_before_he_reads_is_told_why_he_is_refused(path: str, status: int, field: str) -> None:
    """Closing at once would take the answer back, unread (RFC 9112, 9.6)."""
    host, size = "evil.example" if status == 403 else "127.0.0.1", 20_000_000

    async def talk(port: int) -> None:
        head = f"PUT {path} HTTP/1.1\r\nHost: {host}\r\n{field}\r\nContent-Length: {size}\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.set_write_buffer_limits(0)
        writer.write(head.encode())
        for _ in range(20):
            writer.write(bytes(size // 20))
            await writer.drain()
            await asyncio.sleep(0.005)
        assert (await reader.readuntil(b"\r\n")).split()[1] == str(status).encode()
        writer.close()

    talking(talk)


def test_curl_is_told_why_its_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(bytes(20_000_000))

    async def talk(port: int) -> None:
        asked = [
            "-sS",
            "-H",
            "Connection: close",
            "-H",
            "Expect:",
            "-T",
            file,
            f"http://127.0.0.1:{port}/v1/objects/full",
        ]
        curl = await asyncio.create_subprocess_exec("curl", *asked, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said, _ = await curl.communicate()
        assert (curl.returncode, b"the disk is full" in said) == (0, True), said

    talking(talk)


def test_this_machine_has_room_that_others_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "CONNECTIONS_MAX", 4)
    monkeypatch.setattr(connection, "CONNECTIONS_EACH_MAX", 1)

    async def talk(port: int) -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(7)]
        assert (await ask(port, request(GET)))[0] == 200
        crowd.append(await asyncio.open_connection("127.0.0.1", port))
        assert (await ask(port, request(GET)))[0] == 503
        for _, writer in crowd:
            writer.close()

    talking(talk)


def test_an_address_in_use_is_named_and_auto_takes_the_next_free_port() -> None:
    sockets = bind("127.0.0.1:0")
    address = address_of(sockets)
    port = sockets[0].getsockname()[1]
    with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}"):
        bind(address)
    more = bind_first(range(port, port + 20))
    assert port < more[0].getsockname()[1] < port + 20
    with pytest.raises(FailedPrecondition, match=r'all in use.*gateway\.listen, or "off"'):
        bind_first(range(port, port + 1))
    for each in (*sockets, *more):
        each.close()


@settings(max_examples=15)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_no_bytes_break_a_connection(junk: list[bytes]) -> None:
    async def talk(port: int) -> None:
        for each in junk:
            head = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" if each[:1] > b"\x80" else b""
            assert (await ask(port, head + each + b"\r\n\r\n"))[0] in (0, 400, 403)

    talking(talk)

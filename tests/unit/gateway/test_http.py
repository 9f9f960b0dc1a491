"""The HTTP listener: a page for whoever asks properly, a clear refusal for everyone else, and bounds on all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.gateway import http
from offgrid_node.gateway.http import CONNECTIONS_MAX, HEAD_BYTES_MAX, HttpServer, Refused, parse_head
from offgrid_node.protocol.errors import FailedPrecondition

BODY = b"pages\n" * 10


def page(accept: str) -> tuple[str, bytes]:
    if accept == "broken":
        raise ZeroDivisionError("planted")
    return f"text/x-{accept or 'any'}", BODY


async def ask(port: int, raw: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields and body of what comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(status.split(" ")[1]) if status else 0, fields, body


def serving(talk: Callable[[int], Awaitable[None]], hosts: tuple[str, ...] = ()) -> None:
    async def whole() -> None:
        server = HttpServer({"/metrics": page}, hosts)
        address = await server.listen("127.0.0.1:0")
        try:
            await talk(int(address.rpartition(":")[2]))
        finally:
            await server.close()

    asyncio.run(whole())


def request(line: str = "GET /metrics HTTP/1.1", *fields: str, host: str = "127.0.0.1") -> bytes:
    return "\r\n".join((line, f"Host: {host}", *fields, "", "")).encode("latin-1")


def test_get_answers_with_the_page_and_head_without_it() -> None:
    async def talk(port: int) -> None:
        status, fields, body = await ask(port, request("GET /metrics?x=1 HTTP/1.1", "Accept: plain"))
        assert (status, body, fields["Content-Type"]) == (200, BODY, "text/x-plain")
        assert fields["Connection"] == "close"
        status, fields, body = await ask(port, request("HEAD /metrics HTTP/1.0"))
        assert (status, body, fields["Content-Length"]) == (200, b"", str(len(BODY)))

    serving(talk)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("GET / HTTP/1.1"), 404),
        (request("POST / HTTP/1.1"), 404),
        (request("POST /metrics HTTP/1.1", "Content-Length: 3") + b"abc", 405),
        (request("GET /metrics HTTP/2.0"), 505),
        (request("GET  /metrics HTTP/1.1"), 400),
        (request("GET metrics HTTP/1.1"), 400),
        (request("GET /metrics"), 400),
        (request("GET /metrics HTTP/1.1", "no colon"), 400),
        (request("GET /metrics HTTP/1.1", "Space : x"), 400),
        (request("GET /metrics HTTP/1.1", " folded: x"), 400),
        (request("GET /metrics HTTP/1.1", "A: x\x00y"), 400),
        (request("GET /metrics HTTP/1.1", "Host: 127.0.0.1"), 400),
        (b"GET /metrics HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (request("GET /metrics HTTP/1.1", f"A: {'x' * HEAD_BYTES_MAX}"), 431),
        (request("GET /metrics HTTP/1.1", f"A: {'x' * 20 * HEAD_BYTES_MAX}"), 431),
        (request("GET /metrics HTTP/1.1", "Accept: broken"), 500),
    ],
)  # fmt: skip
def test_what_is_no_proper_request_gets_its_status_and_a_sentence(raw: bytes, status: int) -> None:
    async def talk(port: int) -> None:
        answered, _, body = await ask(port, raw)
        assert answered == status
        assert body.endswith(b"\n")
        assert (await ask(port, request()))[0] == 200  # and the next one is served

    serving(talk)


def test_a_refused_method_is_told_which_are_allowed() -> None:
    async def talk(port: int) -> None:
        _, fields, _ = await ask(port, request("DELETE /metrics HTTP/1.1"))
        assert fields["Allow"] == "GET, HEAD"

    serving(talk)


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
        ("", 403),
    ],
)
def test_a_name_that_the_owner_did_not_give_is_no_way_in(host: str, status: int) -> None:
    async def talk(port: int) -> None:
        assert (await ask(port, request(host=host)))[0] == status
        absolute = f"GET http://{host}/metrics HTTP/1.1"
        assert (await ask(port, request(absolute, host="127.0.0.1")))[0] == status

    serving(talk, hosts=("attic.local",))


def test_who_never_finishes_the_request_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT_S", 0.05)

    async def talk(port: int) -> None:
        assert (await ask(port, b"GET /metrics HTTP/1.1\r\nHost"))[0] == 408

    serving(talk)


def test_a_crowd_is_told_to_come_back_and_room_returns() -> None:
    async def talk(port: int) -> None:
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS_MAX)]
        while (answer := await ask(port, request()))[0] != 503:
            pass  # the server has not taken all of them yet
        assert answer[1]["Retry-After"] == "1"
        for _, writer in crowd:
            writer.close()
        while (await ask(port, request()))[0] != 200:
            pass

    serving(talk)


def test_an_address_in_use_is_named() -> None:
    async def whole() -> None:
        server = HttpServer({"/metrics": page})
        address = await server.listen("127.0.0.1:0")
        with pytest.raises(FailedPrecondition, match=f"cannot listen on {address}"):
            await HttpServer({"/metrics": page}).listen(address)
        await server.close()

    asyncio.run(whole())


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(junk: bytes) -> None:
    head = (b"GET /metrics HTTP/1.1\r\nHost: x\r\n" if junk[:1] > b"\x80" else b"") + junk + b"\r\n\r\n"
    try:
        method, target, fields = parse_head(head)
    except Refused as refused:
        status = refused.answer.status
    else:
        status = 200
        assert method.isalpha()
        assert target.startswith(("/", "http://"))
        assert "host" in fields
    assert status in (200, 400, 505)

"""What the gateway counts of its requests: by routes, never by paths, whoever asks for what."""

from __future__ import annotations

import asyncio

import pytest
from serving_app import app_of, ask, request, serving
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from offgrid_node.daemon import SystemClock
from offgrid_node.gateway.access import policy_of
from offgrid_node.gateway.login import login_routes
from offgrid_node.gateway.metered import route_of
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.gateway.templates import Template
from offgrid_node.gateway.transcoding import Fields, Paths
from offgrid_node.meters.http import NO_ROUTE, HttpMeters

UPGRADE = (
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
)


async def hello(request: Request) -> Response:
    return Response("hello")


async def broken(request: Request) -> Response:
    raise ValueError("a defect")


async def job(request: Request, fields: Fields) -> Response:
    return Response(fields["job_id"])


def table() -> BaseRoute:
    template = Template.parse("/v1/jobs/{job_id}")
    return Paths([("GET", template, job)])


def counted(lines: list[bytes], *routes: BaseRoute) -> HttpMeters:
    meters = HttpMeters()

    async def talk(port: int) -> None:
        for line in lines:
            await ask(port, line)

    serving(app_of(routes, meters=meters), talk)
    return meters


def test_requests_count_by_method_route_and_class_of_status() -> None:
    lines = [request("GET /hello/1 HTTP/1.1"), request("GET /hello/2 HTTP/1.1"), request("PUT /hello/2 HTTP/1.1")]
    meters = counted([*lines, request("GET /broken HTTP/1.1")], Route("/hello/{who}", hello), Route("/broken", broken))
    assert dict(meters.requests.samples()) == {
        ("GET", "/hello/{who}", "2xx"): 2,
        ("PUT", "/hello/{who}", "4xx"): 1,
        ("GET", "/broken", "5xx"): 1,
    }
    assert {labels for labels, _ in meters.answer_time.samples()} == {
        ("GET", "/hello/{who}"),
        ("PUT", "/hello/{who}"),
        ("GET", "/broken"),
    }


def test_an_rpc_counts_by_its_template_and_what_is_not_there_by_none() -> None:
    lines = [request(f"GET {path} HTTP/1.1") for path in ("/v1/jobs/j-1", "/v1/jobs/j-2", "/v1/nothing", "/nowhere")]
    meters = counted([*lines, request("BREW /v1/jobs/j-1 HTTP/1.1")], table())
    assert dict(meters.requests.samples()) == {
        ("GET", "/v1/jobs/{job_id}", "2xx"): 2,
        ("GET", NO_ROUTE, "4xx"): 2,
        ("other", NO_ROUTE, "4xx"): 1,
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (request("GET /hello/1 HTTP/1.1"), "TokenMissing"),
        (request("GET /hello/1 HTTP/1.1", "Authorization: Bearer wrong"), "TokenWrong"),
        (request("GET /hello/1 HTTP/1.1", host="evil.example"), "UnknownHost"),
        (request("GET /hello/1 HTTP/1.1", "Origin: http://evil.example"), "CrossSite"),
        (request("POST /v1/login HTTP/1.1", "Content-Length: 17", body=b'{"token":"wrong"}'), "TokenWrong"),
        (b"nonsense\r\n\r\n", "BadRequest"),
    ],
)
def test_who_is_not_let_in_counts_by_the_reason(line: bytes, reason: str) -> None:
    meters = HttpMeters()

    async def talk(port: int) -> None:
        await ask(port, line)

    signs = SignIns("right", "cookie")
    routes = [*login_routes(signs, SystemClock()), Route("/hello/{who}", hello)]
    serving(app_of(routes, policy_of((), signs), meters), talk, meters.refused.add)
    assert {labels: count for labels, count in meters.refused.samples() if count} == {(reason,): 1}


def test_streams_and_websockets_count_as_open_while_they_are() -> None:
    meters, seen, go = HttpMeters(), list[dict[str, int]](), asyncio.Event()

    async def stream(request: Request) -> Response:
        async def parts() -> object:
            yield b"one"
            await go.wait()

        return StreamingResponse(parts())  # type: ignore[arg-type]

    async def socket(socket: WebSocket) -> None:
        await socket.accept()
        await socket.receive()

    async def talk(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request("GET /stream HTTP/1.1"))
        await reader.readuntil(b"one")
        feed, mouth = await asyncio.open_connection("127.0.0.1", port)
        head = ("GET /feed HTTP/1.1", "Host: 127.0.0.1", "Connection: Upgrade", *UPGRADE, "", "")
        mouth.write("\r\n".join(head).encode())
        await feed.readuntil(b"\r\n\r\n")
        seen.append(dict(meters.open_now()))
        go.set()
        await reader.read()
        mouth.close()
        writer.close()
        for _ in range(100):
            if not any(dict(meters.open_now()).values()):
                return
            await asyncio.sleep(0.01)

    serving(app_of([Route("/stream", stream), WebSocketRoute("/feed", socket)], meters=meters), talk)
    assert seen == [{"request": 0, "stream": 1, "websocket": 1}]
    assert dict(meters.open_now()) == {"request": 0, "stream": 0, "websocket": 0}
    assert dict(meters.requests.samples()) == {("GET", "/stream", "2xx"): 1, ("GET", "/feed", "1xx"): 1}


def test_files_of_the_page_are_one_route_whatever_their_hash() -> None:
    assert route_of({"route": Route("/page/0123/{path:path}", hello)}) == "/page/{path}"

"""A small HTTP/1.1 listener (RFC 9110, 9112) for pages that are made in memory: GET and HEAD, one request a connection.

Reading is bounded in bytes, time and connections. The Host header must be an IP address, localhost or a name that the
owner gave: a web page whose own name is made to point here (DNS rebinding) reads nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

from offgrid_node.config import split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.protocol.errors import FailedPrecondition

HEAD_BYTES_MAX = 8_192  # of the request line and all header fields
CONNECTIONS_MAX = 32
READ_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 10.0
LINGER_S, LINGER_BYTES_MAX = 0.5, 65_536  # what is read and thrown away after an answer, so that it arrives
METHODS = ("GET", "HEAD")

Page = Callable[[str], tuple[str, bytes]]
"""From an Accept header to content type and body."""

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """What goes back. `headers` are beyond those that every answer has."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: tuple[str, ...] = ()


class Refused(Exception):
    """The request is answered with this status and sentence."""

    def __init__(self, status: HTTPStatus, text: str, *headers: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


class HttpServer:
    """Serves `pages` by path. Make it and use it in the loop's thread."""

    def __init__(self, pages: Mapping[str, Page], hosts: Collection[str] = ()) -> None:
        """`hosts` are the names, beyond localhost, by which this node may be addressed."""
        self._pages = pages
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def listen(self, address: str) -> str:
        """Listens on "host:port" (0: any) and returns the address in use. Raises FailedPrecondition naming it."""
        host, port = split_address(address, port_min=0)
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=HEAD_BYTES_MAX)
        except OSError as error:
            raise FailedPrecondition(
                f"cannot listen on {address}: {error.strerror or error}",
                reason="AddressUnusable",
                metadata={"address": address},
            ) from error
        return join_address(host, self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stops listening and ends every connection."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        crowded = len(self._open) >= CONNECTIONS_MAX
        self._open.add(task)
        try:
            with suppress(OSError, TimeoutError, asyncio.IncompleteReadError):  # the other side went, or is too slow
                await self._converse(reader, writer, crowded=crowded)
        finally:
            self._open.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, crowded: bool) -> None:
        method = ""
        try:
            if crowded:
                raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open here", "Retry-After: 1")
            method, target, headers = parse_head(await _read_head(reader))
            answer = self._answer(method, target, headers)
        except Refused as refused:
            answer = refused.answer
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            writer.write(_encode(answer, with_body=method != "HEAD"))
            await writer.drain()
            writer.write_eof()
        await _linger(reader)

    def _answer(self, method: str, target: str, headers: Mapping[str, str]) -> Answer:
        host, path = headers.get("host", ""), target
        if not target.startswith("/"):  # absolute form, as for a proxy: its host counts (RFC 9112, 3.2.2)
            host, _, rest = target.removeprefix("http://").partition("/")
            path = f"/{rest}"
        if not self._is_ours(host):
            text = f"this node is not called {host!r}; use its address, localhost, or a name of metrics.hosts"
            raise Refused(HTTPStatus.FORBIDDEN, text)
        page = self._pages.get(path.partition("?")[0])
        if page is None:
            raise Refused(HTTPStatus.NOT_FOUND, f"there is {', '.join(sorted(self._pages))} and nothing else")
        if method not in METHODS:
            raise Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"use {' or '.join(METHODS)}", f"Allow: {', '.join(METHODS)}")
        try:
            return Answer(HTTPStatus.OK, *page(headers.get("accept", "")))
        except Exception:  # noqa: BLE001 - at the edge: whatever it was, the reader gets an answer
            _log.exception("%s failed", path)
            raise Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "a defect of this node, its log says more") from None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names an address, localhost, or a name that the owner gave; with any port."""
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name == "localhost" or name in self._hosts


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        text = f"the request's head has more than {HEAD_BYTES_MAX} bytes"
        raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text) from None
    except TimeoutError:
        raise Refused(HTTPStatus.REQUEST_TIMEOUT, f"no whole request came within {READ_TIMEOUT_S:g} s") from None


def parse_head(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Method, target and header fields (names in lower case) of a request's head. Raises Refused (400, 505).

    Strict where leniency has cost others: no folded lines, no space before a colon, one Host and no more.
    """
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not all(parts) or not parts[0].isalpha():
        raise Refused(HTTPStatus.BAD_REQUEST, "the request line is none")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this node speaks HTTP/1.1")
    if not target.startswith(("/", "http://")) or not target.isprintable() or not target.isascii():
        raise Refused(HTTPStatus.BAD_REQUEST, "the request's target is none")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
            raise Refused(HTTPStatus.BAD_REQUEST, "a header field is none")
        name, value = name.lower(), value.strip(" \t")
        if any(char < " " and char != "\t" for char in value):
            raise Refused(HTTPStatus.BAD_REQUEST, f"the header field {name} holds control characters")
        if name == "host" and "host" in fields:
            raise Refused(HTTPStatus.BAD_REQUEST, "more than one Host")
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    if "host" not in fields:
        raise Refused(HTTPStatus.BAD_REQUEST, "the request names no Host")
    return method, target, fields


def _encode(answer: Answer, *, with_body: bool) -> bytes:
    lines = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        f"Date: {formatdate(usegmt=True)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
        *answer.headers,
    )
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + answer.body if with_body else head


async def _linger(reader: asyncio.StreamReader) -> None:
    """Reads what still comes, within bounds: closing with unread bytes would take the answer back (RFC 9112, 9.6)."""
    left = LINGER_BYTES_MAX
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while left > 0 and (data := await reader.read(left)):
                left -= len(data)

"""What every request passes before any route: whether it is let in (`access.py`), how its body comes (`bodies.py`), and
how its answer leaves when something fails or the node stops. ASGI in, ASGI out.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offgrid_node.gateway.access import Asked, Policy, Proof, admit, asks_for_uid, session_of
from offgrid_node.gateway.bodies import Body, Held
from offgrid_node.gateway.connection import HEAD_BYTES_MAX, OWNER
from offgrid_node.gateway.faults import DEFECT, Refusal
from offgrid_node.gateway.metered import REFUSED
from offgrid_node.gateway.signed_out import SIGNED_OUT
from offgrid_node.logs import fields

PROVED = "offgrid.proved"
"""In a request's scope: True when it has shown the token, False when it was let in only as far as to where its
signature is checked. Missing: nothing was asked for."""
_CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    b"base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", _CSP),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""With every answer, whoever makes it."""

CLOSE = (("Connection", "close"),)
OTHER_VERSION = Refusal(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "UnknownVersion", "this node speaks HTTP/1.1", CLOSE)
LARGE_HEAD = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "LargeHead",
    f"the request's head has more than {HEAD_BYTES_MAX} bytes",
    CLOSE,
)
BAD_TARGET = Refusal(
    HTTPStatus.BAD_REQUEST,
    "BadTarget",
    "a request names a path that begins with '/', without '..' and control characters; this node is no proxy",
    CLOSE,
)
TWO_LENGTHS = Refusal(
    HTTPStatus.BAD_REQUEST,
    "TwoLengths",
    "a request has a Content-Length or, in HTTP/1.1, a Transfer-Encoding, never both",
    CLOSE,
)
STOPPING = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Stopping",
    "the node is stopping; what was asked for may have been done, or not",
    (("Retry-After", "1"), *CLOSE),
)

_log = logging.getLogger(__name__)


class Edge:
    """Wraps one application."""

    def __init__(self, app: ASGIApp, policy: Policy, now_ms: Callable[[], int], stopping: asyncio.Event) -> None:
        self._app, self._policy, self._now_ms, self._stopping = app, policy, now_ms, stopping
        self._held = Held()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or lets in; what fails in there is logged, and never shown."""
        method = scope["method"] if scope["type"] == "http" else "GET"
        uid = await scope["state"][OWNER].uid() if asks_for_uid(method, scope["path"], self._policy) else None
        asked = Asked(method, scope["path"], scope["headers"], (scope.get("client") or ("", 0))[0], uid)
        now_ms = self._now_ms()
        passed = _malformed(scope) or admit(asked, self._policy, now_ms)
        if isinstance(passed, Refusal):
            await _refuse(passed, scope, Body(asked, Proof.LATER, receive, self._held), send)
            return
        if passed is not Proof.NONE:
            scope[PROVED] = passed is Proof.TOKEN
        if session := session_of(asked, self._policy, now_ms):
            scope[SIGNED_OUT] = partial(session.over, self._now_ms)
        scope["app"] = self._app  # without it Starlette's router answers by itself that there is no such path
        if scope["type"] == "websocket":
            await self._failed(scope, receive, send)
            return
        body = Body(asked, passed, receive, self._held)
        try:
            if refusal := body.check_head():
                await _refuse(refusal, scope, body, send)
            else:
                await self._exchange(scope, body, send)
        finally:
            body.close()

    async def _exchange(self, scope: Scope, body: Body, send: Send) -> None:
        answer = _Answer(body, send)
        stopped = asyncio.ensure_future(self._stopping.wait())

        async def receive() -> Message:
            """A node that stops is to streams as if their client had gone: they end."""
            if (whole := body.at_once()) is not None:
                return whole
            coming = asyncio.ensure_future(body.receive())
            try:
                await asyncio.wait({coming, stopped}, return_when=asyncio.FIRST_COMPLETED)
                return coming.result() if coming.done() else {"type": "http.disconnect"}
            finally:
                coming.cancel()

        failed = False
        try:
            failed = await self._failed(scope, receive, answer.send)
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        finally:
            stopped.cancel()
        refusal = body.refusal or (DEFECT if failed else STOPPING if self._stopping.is_set() else None)
        if not answer.began and refusal is not None:
            await _refuse(refusal, scope, body, send)
        elif not failed:
            await answer.end()

    async def _failed(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Whether the application did, by a defect; it was logged."""
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return False
        except Exception:  # noqa: BLE001 - at the edge: the reader is answered, and the log is where it belongs
            _log.exception("a request failed", extra=fields("request_failed", path=scope["path"]))
            return True
        return False


class _Answer:
    """What leaves for one request. Of a request that has to be refused after all nothing leaves from here."""

    def __init__(self, body: Body, send: Send) -> None:
        self._body, self._send = body, send
        self._open_end = False
        self.began = False

    async def send(self, message: Message) -> None:
        if not self.began:
            if self._body.refusal is not None:
                return
            self.began = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("cache-control", "no-store")
            self._open_end = "content-length" not in headers
        elif not message.get("more_body", False):
            self._open_end = False
        await self._send(message)

    async def end(self) -> None:
        """Of a stream that was broken off: what has come is whole."""
        if self.began and self._open_end:
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(refusal: Refusal, scope: Scope, body: Body, send: Send) -> None:
    scope[REFUSED] = refusal.reason
    response = refusal.response
    response.headers["cache-control"] = "no-store"
    await response(scope, body.receive, send)


def _malformed(scope: Scope) -> Refusal | None:
    if scope["http_version"] not in ("1.0", "1.1"):
        return OTHER_VERSION
    fields = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if len(scope.get("raw_path", b"")) + len(scope["query_string"]) + fields > HEAD_BYTES_MAX:
        return LARGE_HEAD  # h11 looks only at what came in several pieces
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
        return TWO_LENGTHS
    path = scope["path"]
    bad = not path.startswith("/") or any(char < " " or char == "\x7f" for char in path)
    return BAD_TARGET if bad or ".." in path.replace("\\", "/").split("/") else None

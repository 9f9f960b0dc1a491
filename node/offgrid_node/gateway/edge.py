"""What every request passes before any route: whether it may be asked here, how much of it is read, how fast it comes.

ASGI in, ASGI out. Answers of routes leave with Cache-Control: no-store unless they say otherwise.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Collection
from contextlib import suppress
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from offgrid_node.gateway.connection import HEAD_BYTES_MAX
from offgrid_node.gateway.faults import Refusal

OTHER_VERSION = Refusal(
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "UnknownVersion", "this node speaks HTTP/1.1", (("Connection", "close"),)
)
LARGE_HEAD = Refusal(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    "LargeHead",
    f"the request's head has more than {HEAD_BYTES_MAX} bytes",
    (("Connection", "close"),),
)

_log = logging.getLogger(__name__)


def _head_bytes(scope: Scope) -> int:
    fields = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return len(scope.get("raw_path", b"")) + len(scope["query_string"]) + fields


class Edge:
    """Wraps one application."""

    def __init__(self, app: ASGIApp, hosts: Collection[str] = ()) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().rstrip(".") for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses, or lets in; what fails in there is logged, and never shown."""
        if scope["http_version"] not in ("1.0", "1.1"):
            await OTHER_VERSION.response(scope, receive, send)
            return
        if _head_bytes(scope) > HEAD_BYTES_MAX:  # h11 looks only at what came in several pieces
            await LARGE_HEAD.response(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")
        if not self._is_ours(host):
            text = f"this node is not called {host!r}; use its address, localhost, or a name of gateway.hosts"
            await Refusal(HTTPStatus.FORBIDDEN, "UnknownHost", text).response(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("cache-control", "no-store")
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except Exception:  # noqa: BLE001 - at the edge: the reader was answered, and the log is where it belongs
            _log.exception("%s failed", scope["path"])

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names an address, localhost, or a name that the owner gave; with any port."""
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name == "localhost" or name in self._hosts

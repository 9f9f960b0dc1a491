"""Talks to an OpenAI-compatible endpoint over HTTP/1.1, each exchange in a thread of its own.

Python's own http.client: no package to install or import on a node that has no endpoint (httpx takes a tenth of a
second and 15 MiB), no proxy from the environment, no redirect followed, so that nothing goes where the host's owner did
not say. A thread per exchange is little beside a model at work, and there are only as many as the endpoint has slots.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

CONNECT_TIMEOUT_S = 5.0
LIST_TIMEOUT_S, LIST_TIMEOUT_MAX_S = 5.0, 15.0  # for some of a list of models, and for all of it
PIECE_BYTES = 64 * 1024
BODY_BYTES_MAX = 4 * 1024 * 1024  # of a list of models or an error; an answer has its own bound
KEY_REFUSED = (http.client.UNAUTHORIZED, http.client.FORBIDDEN)
FAULTS = (OSError, http.client.HTTPException, ValueError)


class Unreachable(Exception):
    """Nobody answers there, or not in HTTP."""


class Silent(Unreachable):
    """Somebody is there and does not answer in time: it may just be at work."""


class Answer(msgspec.Struct, frozen=True):
    """The head of an answer."""

    status: int
    media_type: str


class Endpoint:
    """Where the models are. `url` ends where OpenAI's API begins, usually with /v1."""

    def __init__(self, url: str, api_key: str = "") -> None:
        parts = urlsplit(url)
        self.url = url
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._headers = {"User-Agent": "offgrid-node", "Accept": "application/json, text/event-stream"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def connect(self) -> http.client.HTTPConnection:
        """A connection, not made yet."""
        if not self._secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S)
        import ssl

        context = ssl.create_default_context()
        return http.client.HTTPSConnection(self._host, self._port, timeout=CONNECT_TIMEOUT_S, context=context)

    def request(self, connection: http.client.HTTPConnection, path: str, body: object = None) -> None:
        data = None if body is None else json.dumps(body, ensure_ascii=False).encode()
        headers = self._headers if data is None else {**self._headers, "Content-Type": "application/json"}
        connection.request("GET" if data is None else "POST", f"{self._path}{path}", data, headers)

    def list_models(self) -> list[str]:
        """What it says that it has. Blocks, up to its timeouts. Raises Unreachable, or LookupError when it has no such
        list."""
        connection, overdue = self.connect(), threading.Event()
        ending: threading.Timer | None = None
        try:
            connection.connect()
            connection.sock.settimeout(LIST_TIMEOUT_S)
            ending = threading.Timer(LIST_TIMEOUT_MAX_S, _end, (connection.sock, overdue))
            ending.daemon = True
            ending.start()
            return self._listed(connection)
        except (*FAULTS, LookupError) as fault:
            if overdue.is_set() or isinstance(fault, TimeoutError):
                raise Silent(why(TimeoutError())) from fault
            if isinstance(fault, LookupError):
                raise
            raise Unreachable(why(fault)) from fault
        finally:
            if ending is not None:
                ending.cancel()
            connection.close()

    def _listed(self, connection: http.client.HTTPConnection) -> list[str]:
        self.request(connection, "/models")
        response = connection.getresponse()
        body = response.read(BODY_BYTES_MAX + 1)
        if response.status in KEY_REFUSED:
            raise LookupError(f"it refuses the key ({response.status}): set OFFGRID_HOST__LLM__API_KEY")
        if response.status != http.client.OK:
            raise LookupError(f"it answers /models with {response.status}; name them in host.llm.models")
        try:
            return [entry["id"] for entry in json.loads(body)["data"] if isinstance(entry["id"], str)]
        except (KeyError, TypeError, RecursionError, ValueError):
            raise LookupError("what it answers to /models is no list of models; name them in host.llm.models") from None


def _end(sock: socket.socket, overdue: threading.Event) -> None:
    """Of an answer that comes, and comes, and has no end."""
    overdue.set()
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Exchange:
    """One request and its answer, in a thread of its own. `stop` ends it from any other thread, at once."""

    def __init__(self, endpoint: Endpoint, path: str, body: Any, timeout_s: float) -> None:
        self._endpoint, self._path, self._body, self._timeout_s = endpoint, path, body, timeout_s
        self._connection = endpoint.connect()
        self._stopped = threading.Event()
        self._sock: socket.socket | None = None  # the connection forgets it once the answer's head is there

    def start(
        self,
        on_head: Callable[[Answer], None],
        on_piece: Callable[[bytes], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """All three are called in the thread, `on_end` last and once, with what has broken it, if anything has."""

        def carry() -> None:
            try:
                self._carry(on_head, on_piece)
            except BaseException as error:  # noqa: BLE001 - it is handed over
                on_end(error)
            else:
                on_end(None)
            finally:
                self._connection.close()

        threading.Thread(target=carry, name="chat", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        if self._sock is not None:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def _carry(self, on_head: Callable[[Answer], None], on_piece: Callable[[bytes], None]) -> None:
        connection = self._connection
        try:
            connection.connect()
            self._sock = connection.sock
            self._sock.settimeout(self._timeout_s)
            if self._stopped.is_set():
                return
            self._endpoint.request(connection, self._path, self._body)
            response = connection.getresponse()
        except FAULTS as fault:
            raise Unreachable(why(fault)) from fault
        on_head(Answer(response.status, (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()))
        while not self._stopped.is_set() and (piece := response.read1(PIECE_BYTES)):
            on_piece(piece)


def why(fault: BaseException) -> str:
    """A fault of the connection in words."""
    if isinstance(fault, TimeoutError):
        return "it does not answer in time"
    if isinstance(fault, OSError) and fault.strerror:
        return fault.strerror
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__

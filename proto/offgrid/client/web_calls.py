"""Calls to a node on another machine, through its gateway: gRPC-Web over HTTP (PROTOCOL-WEB.md of grpc/grpc).

Requests and answers are framed by five bytes: flags (128: trailers) and a length. No proxy, no redirects; a token goes
with each call, so over networks that others can listen to the URL should be one of https, a tunnel or a VPN.
"""

from __future__ import annotations

import base64
import http.client
import json
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from offgrid.client.address import Address
from offgrid.client.errors import OffgridError, from_status

TYPE = "application/grpc-web+proto"
HEAD_BYTES, TRAILERS = 5, 0x80
FRAME_BYTES_MAX = 4 * 1024 * 1024 + 1
REFUSAL_BYTES_MAX = 65_536
CONNECT_S = 10.0
IDLE_MAX = 8  # connections that wait for the next call
KEPT_S = 20.0  # and so long at most: after 30 s a gateway closes them
NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
GRACE_S = 2.0  # that a node's own word of its deadline may come later than it


class WebCalls:
    """As GrpcCalls; thread-safe."""

    def __init__(self, address: Address) -> None:
        self._url, self._token = urlsplit(address.target), address.token
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []  # since when, the latest last
        self._lock = threading.Lock()

    def unary(self, method: str, data: bytes, timeout_s: float) -> bytes:
        connection, answer = self._ask(method, data, timeout_s)
        try:
            with _told_as_ours():
                frames = list(_frames(answer))
        except BaseException:
            connection.close()
            raise
        self._keep(connection, answer)
        *messages, trailers = frames or [(TRAILERS, b"")]
        _check(trailers)
        if len(messages) != 1:
            raise OffgridError("INTERNAL", "", "the answer is not one message")
        return messages[0][1]

    def stream(
        self, method: str, data: bytes, timeout_s: float | None, on_start: Callable[[Callable[[], object]], None]
    ) -> Iterator[bytes]:
        connection, answer = self._ask(method, data, timeout_s, endless=True)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        cancelled = threading.Event()

        def cancel() -> None:
            cancelled.set()
            with suppress(OSError, AttributeError):
                connection.sock.shutdown(2)

        on_start(cancel)
        try:
            with _told_as_ours(cancelled):
                for flags, frame in _frames(answer, connection, deadline):
                    if flags & TRAILERS:
                        _check((flags, frame))
                        return
                    yield frame
        finally:
            connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

    def _ask(
        self, method: str, data: bytes, timeout_s: float | None, *, endless: bool = False
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """The answer's head; raises OffgridError when the call was refused before it was one. It is sent once: what the
        node was sent it may have carried out."""
        headers = {"Content-Type": TYPE, "Accept": TYPE, "X-Grpc-Web": "1"}
        if timeout_s is not None:
            headers["Grpc-Timeout"] = f"{max(1, min(round(1000 * timeout_s), 99_999_999))}m"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        path = f"{self._url.path.rstrip('/')}/offgrid.v1.{method}"
        body = bytes(1) + len(data).to_bytes(4, "big") + data
        wait_s = None if timeout_s is None else timeout_s + GRACE_S
        connection = (None if endless else self._kept()) or self._connection()
        try:
            with _told_as_ours():
                if connection.sock is None:
                    connection.connect()
                connection.sock.settimeout(wait_s)
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                if answer.status != http.client.OK:
                    raise _refusal(answer)
        except BaseException:
            connection.close()
            raise
        return connection, answer

    def _kept(self) -> http.client.HTTPConnection | None:
        """One that the node has not closed, nor is about to; those that it has are closed here, too."""
        while True:
            with self._lock:
                if not self._idle:
                    return None
                since_s, connection = self._idle.pop()
            if time.monotonic() - since_s < KEPT_S and _is_silent(connection.sock):
                return connection
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._url.port, timeout=CONNECT_S, context=context)
        return http.client.HTTPConnection(host, self._url.port, timeout=CONNECT_S)

    def _keep(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        with self._lock:
            if not answer.will_close and len(self._idle) < IDLE_MAX:
                self._idle.append((time.monotonic(), connection))
                return
        connection.close()


class _told_as_ours:  # noqa: N801 - a context manager that reads as what it does
    """Faults of sockets and of HTTP become OffgridError, as those of other carriers."""

    def __init__(self, cancelled: threading.Event | None = None) -> None:
        self._cancelled = cancelled

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OffgridError) or not isinstance(error, OSError | http.client.HTTPException | ValueError):
            return
        if self._cancelled is not None and self._cancelled.is_set():
            raise OffgridError("CANCELLED", "", "the stream was cancelled") from None
        if isinstance(error, TimeoutError):
            raise OffgridError("DEADLINE_EXCEEDED", "", "no answer in time") from None
        if isinstance(error, ssl.SSLCertVerificationError):
            text = f"the certificate there is not trusted here: {error.verify_message}"
            raise OffgridError("FAILED_PRECONDITION", "Untrusted", text) from None
        if isinstance(error, ssl.SSLError) and error.reason in NO_TLS:
            raise OffgridError(
                "FAILED_PRECONDITION", "NoTls", "no TLS is spoken there; is it http:// instead?"
            ) from None
        raise OffgridError("UNAVAILABLE", "", str(error) or type(error).__name__) from None


def _is_silent(sock: socket.socket) -> bool:
    """Whether nothing has come since the last answer: what would, is the connection's end."""
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return not selector.select(0)


def _frames(
    answer: http.client.HTTPResponse,
    connection: http.client.HTTPConnection | None = None,
    deadline: float | None = None,
) -> Iterator[tuple[int, bytes]]:
    while head := _read(answer, HEAD_BYTES, connection, deadline):
        length = int.from_bytes(head[1:], "big")
        if length > FRAME_BYTES_MAX:
            raise OffgridError("RESOURCE_EXHAUSTED", "", f"larger than max ({length} vs. {FRAME_BYTES_MAX})")
        data = _read(answer, length, connection, deadline) if length else b""  # to read nothing waits for the next one
        if len(data) < length:
            raise http.client.IncompleteRead(data, length)
        yield head[0], data


def _read(
    answer: http.client.HTTPResponse, count: int, connection: http.client.HTTPConnection | None, deadline: float | None
) -> bytes:
    """So many bytes; none only at the end. Raises IncompleteRead."""
    if deadline is not None and connection is not None and connection.sock is not None:
        connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
    data = answer.read(count)
    if 0 < len(data) < count:
        raise http.client.IncompleteRead(data, count - len(data))
    return data


def _check(trailers: tuple[int, bytes]) -> None:
    """Raises what the call ended with."""
    fields = _fields(trailers[1])
    if not trailers[0] & TRAILERS or "grpc-status" not in fields:
        raise OffgridError("UNAVAILABLE", "", "the answer broke off")
    if fields["grpc-status"] == "0":
        return
    details = fields.get("grpc-status-details-bin", "")
    with suppress(ValueError):
        raise from_status(base64.b64decode(details + "=" * (-len(details) % 4), validate=True))
    raise OffgridError("UNKNOWN", "", unquote(fields.get("grpc-message", "")))


def _fields(text: bytes) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in text.decode("ascii", "replace").split("\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _refusal(answer: http.client.HTTPResponse) -> OffgridError:
    """What the gateway, or what else answers there, says instead of taking the call."""
    text = answer.read(REFUSAL_BYTES_MAX)
    try:
        error = json.loads(text)["error"]
        reason = next((str(each["reason"]) for each in error["details"] if "reason" in each), "")
        return OffgridError(str(error["status"]), reason, str(error["message"]))
    except (ValueError, KeyError, TypeError):
        said = f"what answers there is no gateway of a node ({answer.status} {answer.reason})"
        return OffgridError("UNIMPLEMENTED", "NotANode", said)

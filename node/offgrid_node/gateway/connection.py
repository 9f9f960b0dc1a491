"""One connection of HTTP/1.1 (RFC 9112): uvicorn's on h11, with the deadlines and refusals that it lacks.

A request's head has to come within HEAD_S of its first byte (of the connection, for the first), who reads nothing for
STALL_S is cut off, who goes on sending what has been answered, or does not let go of a connection that we have closed,
for CLOSING_S, too. What h11 refuses is answered with its own status and a sentence. Before a connection is closed of
which not all has been read, its other side may read the answer: unread bytes would take it back (RFC 9112, 9.6).
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol

from offgrid_node.config.http_ports import is_loopback
from offgrid_node.gateway.faults import DEFECT, JSON, Refusal
from offgrid_node.gateway.socket_owner import SocketOwner

HEAD_BYTES_MAX = 16_384  # of the request line and all header fields
HEAD_S = 5.0
STALL_S = 20.0
CLOSING_S = 5.0
CONNECTIONS_MAX = 128  # of all; as many more only from this machine, that its owner is never locked out
CONNECTIONS_EACH_MAX = 48  # of one address that is not this machine's
FRAMES_MAX = 64  # of a WebSocket's client in a second: a feed's readers have nothing to say
SLICE_BYTES = 1_024  # of what came are looked at before it is asked whether to go on
REFUSED_MAX = 32  # beyond that, which are told why; the next ones are not

OWNER = "offgrid.owner"
"""In the state of each of a connection's requests: its SocketOwner."""

_HEAD = re.compile(rb".*?\n\r?\n", re.DOTALL)
_FOLD = re.compile(rb"\n[ \t]")
_SENTENCES = {
    HTTPStatus.BAD_REQUEST: "this is no proper HTTP/1.1 request",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: f"the request's head has more than {HEAD_BYTES_MAX} bytes",
    HTTPStatus.NOT_IMPLEMENTED: "the only Transfer-Encoding is chunked",
}
_NO_HANDSHAKE = "this opens no WebSocket (RFC 6455)"
_OF_HANDSHAKES = ("Upgrade", "Allow", "Sec-WebSocket-Version")
CROWDED = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE, "TooManyConnections", "too many connections are open here", (("Retry-After", "1"),)
)
NO_SOCKET = Refusal(HTTPStatus.NOT_FOUND, "UnknownPath", "there is no WebSocket here; /v1/feed is the one")
SLOW_HEAD = Refusal(HTTPStatus.REQUEST_TIMEOUT, "SlowRequest", f"no whole head of a request came within {HEAD_S:g} s")


class _Watched(asyncio.Protocol):
    """One deadline at a time, of a transport that is aborted when it is over unless `then` does better."""

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    _due: asyncio.TimerHandle | None = None
    _lingers = False
    _full = False  # of what its reader has not taken

    def _by(self, seconds: float, then: Callable[[], None]) -> None:
        self._free()
        self._due = self.loop.call_later(seconds, then)

    def _free(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _linger(self) -> None:
        """All has been said: what still comes is thrown away, until the other side closes."""
        self._lingers = True
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.transport.resume_reading()
        self._on_written()

    def _on_written(self) -> None:
        """What was said has left, but for a little."""
        if self._lingers and not self._full:
            self._by(CLOSING_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._full = True
        self._by(STALL_S, partial(self._look, self.transport.get_write_buffer_size()))

    def _look(self, before: int) -> None:
        """Whether something of it has been read."""
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._by(STALL_S, partial(self._look, left))
        else:
            self.transport.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._full = False
        self._free()
        self._on_written()

    def connection_lost(self, exc: Exception | None) -> None:
        self._free()
        super().connection_lost(exc)


class _Reader(h11.Connection):
    """Takes no field that goes on in another line (RFC 9112, 5.2): what stands before a node may read it otherwise."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.IDLE:
            head = _HEAD.match(self.trailing_data[0])
            if head and _FOLD.search(head[0]):
                raise h11.RemoteProtocolError("a folded field")
        return super().next_event()


class HttpConnection(_Watched, H11Protocol):
    """Made by `server.py` for each connection, which sets `on_refused`."""

    on_refused: Callable[[str], None]

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        super().__init__(config, server_state, app_state)
        self.conn = _Reader(h11.SERVER, HEAD_BYTES_MAX)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        places = (transport.get_extra_info(name) for name in ("peername", "sockname"))
        self.app_state = {OWNER: SocketOwner(*(place and place[:2] for place in places))}
        open_now, host = len(self.connections), self.client[0] if self.client else ""
        most = 2 * CONNECTIONS_MAX if is_loopback(host) else CONNECTIONS_MAX
        if open_now > most + REFUSED_MAX:
            transport.abort()
        elif open_now > most or self._same(host) > CONNECTIONS_EACH_MAX:
            self._refuse(CROWDED)
        else:
            self._by(HEAD_S, self._on_slow_head)

    def _same(self, host: str) -> int:
        """How many connections its address has; of this machine none are counted, tunnels come from here as well."""
        if is_loopback(host):
            return 0
        return sum((getattr(other, "client", None) or ("",))[0] == host for other in self.connections)

    def data_received(self, data: bytes) -> None:
        if self._lingers or self.transport.is_closing():
            return
        super().data_received(data)
        if self._lingers or self._answered_early or self._full:
            return  # that has its deadline
        if self.conn.their_state is not h11.IDLE:
            self._free()
        elif self._due is None:
            self._by(HEAD_S, self._on_slow_head)

    def handle_events(self) -> None:
        super().handle_events()
        if self.cycle is not None:
            self.cycle.transport = _Answers(self)

    def _should_upgrade(self) -> bool:
        """Never in HTTP/1.0 (RFC 9110, 7.8)."""
        return self.scope["http_version"] != "1.0" and super()._should_upgrade()

    def on_response_complete(self) -> None:
        if not self._lingers:
            super().on_response_complete()
        self._on_written()

    def finish(self) -> None:
        """All has been answered: closes, when nothing more can come of what was asked."""
        if self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]:
            self._linger()
        else:
            self.transport.close()
            self._on_written()

    @property
    def _answered_early(self) -> bool:
        """Whether a request is answered of which not all has come."""
        return self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY

    def _on_written(self) -> None:
        over = self._lingers or self._answered_early or self.transport.is_closing()
        if over and not self._full:
            self._by(CLOSING_S, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        fault = sys.exc_info()[1]
        hint = fault.error_status_hint if isinstance(fault, h11.RemoteProtocolError) else HTTPStatus.BAD_REQUEST
        code = HTTPStatus(hint)
        self._refuse(Refusal(code, "BadRequest", _SENTENCES.get(code, _SENTENCES[HTTPStatus.BAD_REQUEST])))

    def _on_slow_head(self) -> None:
        self._refuse(SLOW_HEAD)

    def _refuse(self, refusal: Refusal) -> None:
        """Answers, if nothing has been answered yet, and closes."""
        self.on_refused(refusal.reason)
        self._unset_keepalive_if_required()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in self._answer(refusal)))
        self._linger()

    def _answer(self, refusal: Refusal) -> Sequence[h11.Event]:
        headers = [
            *self.server_state.default_headers,
            (b"content-type", JSON.encode()),
            (b"content-length", str(len(refusal.body)).encode()),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in refusal.headers),
        ]
        phrase = HTTPStatus(refusal.code).phrase.encode()
        start = h11.Response(status_code=refusal.code, headers=headers, reason=phrase)
        return start, h11.Data(data=refusal.body), h11.EndOfMessage()


class _Answers(asyncio.Transport):
    """Where uvicorn writes a request's answer to, and closes."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        return self._connection.transport.is_closing()

    def close(self) -> None:
        self._connection.finish()


class SocketConnection(_Watched, WebSocketsSansIOProtocol):
    """What a connection becomes that speaks WebSocket (RFC 6455). Of who does not read his answers nothing is read, so
    that no pongs pile up; who sends more than FRAMES_MAX is cut off. A handshake that cannot be is answered as all else
    that is refused here."""

    _second, _frames = 0, 0

    def handle_connect(self, event: Request) -> None:
        judge = ServerProtocol(logger=self.logger)
        answer = judge.accept(event)
        if answer.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
            return
        text = f"{_NO_HANDSHAKE}: {judge.handshake_exc}"
        kept = tuple((name, value) for name, value in answer.headers.raw_items() if name in _OF_HANDSHAKES)
        self._refuse(Refusal(answer.status_code, "BadHandshake", text, kept))

    async def send(self, message: Any) -> None:
        """uvicorn's answers to handshakes lack what goes with every answer, and words."""
        if message["type"] == "websocket.http.response.start":
            message = {**message, "headers": [*self.default_headers, *message["headers"]]}
        elif message["type"] == "websocket.close" and not (self.handshake_complete or self.disconnected):
            self._refuse(NO_SOCKET)
            return
        await super().send(message)

    def send_500_response(self) -> None:
        if not (self.initial_response or self.handshake_complete):
            self._refuse(DEFECT)

    def _refuse(self, refusal: Refusal) -> None:
        headers = Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.default_headers)
        headers.update({"content-type": JSON, "content-length": str(len(refusal.body)), "connection": "close"})
        headers.update(refusal.headers)
        self.handshake_complete = self.close_sent = True
        self.transport.write(Response(refusal.code, HTTPStatus(refusal.code).phrase, headers, refusal.body).serialize())
        self._linger()

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), SLICE_BYTES):
            if self._lingers or self.transport.is_closing():
                return
            super().data_received(data[at : at + SLICE_BYTES])
        if self._lingers:
            return
        if not self.handshake_initiated:  # the whole head was there, and the library says nothing of what it is not
            self._refuse(Refusal(HTTPStatus.BAD_REQUEST, "BadHandshake", f"{_NO_HANDSHAKE}: {self.conn.handshake_exc}"))
        elif not self.writable.is_set():
            self.transport.pause_reading()

    def handle_events(self) -> None:
        second = int(self.loop.time())
        self._frames = len(self.conn.events) + (self._frames if second == self._second else 0)
        self._second = second
        if self._frames > FRAMES_MAX:
            self.transport.abort()
        else:
            super().handle_events()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()

"""The answering half of long messages: keeps long answers while they are read, and puts long requests together.

Whoever answers requests of an endpoint stands behind this. Only peers who are known have anything kept.
"""

from __future__ import annotations

from msgspec.structs import replace

from offgrid_transports.answers import Request
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.long_messages import (
    ASK_WRITTEN,
    BLOCK_BYTES_MAX,
    DIGEST_BYTES,
    LONG_BYTES_MAX,
    READ,
    WRITE,
    Partial,
    Shelf,
    Trouble,
    block_bytes,
    digest_of,
    read_read,
    read_write,
    write_partial,
)
from offgrid_transports.messages import BODY_BYTES_MAX, METHOD_MAX
from offgrid_transports.packing import PackingError
from offgrid_transports.records import RecordError, read_varint, varint
from offgrid_transports.sessions import STRANGER
from offgrid_transports.shared_frames import ASK_SHARED, Overheard, read_ask
from offgrid_transports.transport import Priority

OWN_METHODS = (READ, WRITE, ASK_WRITTEN, ASK_SHARED)


class LongAnswers:
    """`answers` and `requests` are what is kept, and `overheard` what is for several."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.overheard = Overheard(endpoint.own.psk)
        endpoint.on_coded = self.overheard.on_frame
        self.answers, self.requests = Shelf(endpoint.now_ms), Shelf(endpoint.now_ms)

    def on_request(self, request: Request) -> Request | None:
        """The request, or the one that was written in blocks and is asked now; None for one that is answered here."""
        if request.method not in OWN_METHODS:
            return request
        try:
            if request.peer.startswith(STRANGER):
                raise RecordError("nothing is kept for strangers")
            if request.method == ASK_SHARED:
                return self._asked_shared(request)
            if request.method == ASK_WRITTEN:
                return self._asked(request)
            answer = self._read(request) if request.method == READ else self._write(request)
        except RecordError:
            answer = Trouble.MALFORMED
        error = isinstance(answer, Trouble)
        body = answer.body if isinstance(answer, Trouble) else answer
        self._endpoint.respond(request, body, error=error, partial=error, priority=Priority.BULK)
        return None

    def most(self, request: Request) -> int:
        """How many bytes an answer to it may have."""
        return BODY_BYTES_MAX if request.peer.startswith(STRANGER) else LONG_BYTES_MAX

    def respond(self, request: Request, body: bytes, *, error: bool = False, priority: Priority) -> bool:
        """As the endpoint's, with no more than `most`."""
        session = self._endpoint.session_of(request.peer)
        room = block_bytes(session.path if session is not None else None)
        if error or len(body) <= room or request.peer.startswith(STRANGER):
            return self._endpoint.respond(request, body, error=error, priority=priority)
        digest = digest_of(body)
        self.answers.open(request.peer, digest, len(body)).add(0, body)
        first = write_partial(Partial(digest, len(body), body[:room]))
        return self._endpoint.respond(request, first, partial=True, priority=priority)

    def _read(self, request: Request) -> bytes | Trouble:
        digest, offset, length = read_read(request.body)
        held = self.answers.get(request.peer, digest)
        if held is None:
            return Trouble.GONE
        if offset >= held.total:
            return Trouble.MALFORMED
        return bytes(held.data[offset : offset + min(length, BLOCK_BYTES_MAX)])

    def _write(self, request: Request) -> bytes | Trouble:
        asked = read_write(request.body)
        held = self.requests.open(request.peer, asked.digest, asked.total)
        held.add(asked.offset, asked.block)
        if held.whole and digest_of(held.data) != asked.digest:
            self.requests.drop(request.peer, asked.digest)
            return Trouble.MALFORMED
        return varint(len(held.data))

    def _asked(self, request: Request) -> Request | None:
        method, end = read_varint(request.body, DIGEST_BYTES, METHOD_MAX)
        if end != len(request.body) or method in OWN_METHODS:
            raise RecordError("no request for what was written")
        held = self.requests.get(request.peer, request.body[:DIGEST_BYTES])
        if held is not None and held.whole:
            return replace(request, method=method, body=bytes(held.data))
        self._endpoint.respond(request, Trouble.GONE.body, error=True, partial=True, priority=Priority.CONTROL)
        return None

    def _asked_shared(self, request: Request) -> Request | None:
        asked = read_ask(request.body)
        if asked.method in OWN_METHODS:
            raise RecordError("no request for what was overheard")
        missing = self.overheard.missing(asked.id)
        if missing == 0:
            body = self._overheard(self.overheard.payload(asked))
            if body is not None and digest_of(body) == asked.digest:
                return replace(request, method=asked.method, body=body)
            self.overheard.drop(asked.id)
            missing = None
        lacking = Trouble.GONE.body + bytes((0xFF if missing is None else missing,))
        self._endpoint.respond(request, lacking, error=True, partial=True, priority=Priority.CONTROL)
        return None

    def _overheard(self, payload: bytes) -> bytes | None:
        try:
            return self._endpoint.packing.unpack(payload[1:]) if payload[0] else payload[1:]
        except PackingError:
            return None

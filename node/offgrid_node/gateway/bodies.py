"""How much of a request's body is read, and how fast it has to come.

A body that is too large is refused at its Content-Length, before it is read; one that turns out to be, or that comes
too slowly, is refused in the middle. The rest is thrown away by the connection.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import Message, Receive

from offgrid_node.gateway.access import Asked, Proof
from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.requests import BODY_BYTES_MAX
from offgrid_node.gateway.signed_requests import SIGNED_BYTES_MAX

UNPROVED_BYTES_MAX = SIGNED_BYTES_MAX  # of one whose sender is not known yet
HELD_BYTES_MAX = 64 * 1024 * 1024  # of all requests at once
STALL_S, BODY_S = 10.0, 60.0  # between two pieces, and for all of it
STREAMED = (("PUT", "/v1/objects/"), ("PUT", "/v1/uploads/"))
"""Whose handlers take the body piece by piece, however long it is."""

CLOSE = (("Connection", "close"),)
ENCODED = Refusal(
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "EncodedBody", "bodies are taken as they are: send no Content-Encoding", CLOSE
)
SLOW = Refusal(HTTPStatus.REQUEST_TIMEOUT, "SlowBody", "the request's body came too slowly", CLOSE)
FULL = Refusal(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "TooManyBodies",
    "too much is being sent to this node at once",
    (("Retry-After", "1"), *CLOSE),
)


class Held:
    """What all requests hold of bodies now."""

    def __init__(self) -> None:
        self.size_bytes = 0


class Body:
    """One request's, between the server and the application."""

    def __init__(self, asked: Asked, proof: Proof, receive: Receive, held: Held) -> None:
        streamed = any(asked.method == method and asked.path.startswith(below) for method, below in STREAMED)
        self._asked, self._receive, self._held = asked, receive, held
        unproved = proof is Proof.LATER or asked.path == "/v1/login"
        self._most = None if streamed else UNPROVED_BYTES_MAX if unproved else BODY_BYTES_MAX
        self._size = 0
        self._whole = False
        self._none = not asked.all(b"content-length") and not asked.all(b"transfer-encoding")
        self._began_s = asyncio.get_running_loop().time()
        self.refusal: Refusal | None = None

    def check_head(self) -> Refusal | None:
        """What the head tells already."""
        if self._asked.one(b"content-encoding").lower() not in ("", "identity"):
            return ENCODED
        length = self._asked.one(b"content-length")
        if self._most is not None and length.isdigit() and int(length) > self._most:
            return _too_large(self._most)
        return None

    def at_once(self) -> Message | None:
        """All of a request that has no body (RFC 9112, 6.3), the first time: most have none, and waiting for it takes
        several turns of the loop."""
        if not self._none:
            return None
        self._none, self._whole = False, True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def receive(self) -> Message:
        """The next piece; once it has to be refused, `refusal` says so and the client counts as gone."""
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._whole:
            return await self._receive()
        if (patience_s := self._patience_s()) <= 0:
            return self._cut(SLOW)
        try:
            async with asyncio.timeout(patience_s):
                message = await self._receive()
        except TimeoutError:
            return self._cut(SLOW)
        size = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._most is None:
            return message
        self._size += size
        self._held.size_bytes += size
        if self._size > self._most:
            return self._cut(_too_large(self._most))
        if self._held.size_bytes > HELD_BYTES_MAX:
            return self._cut(FULL)
        return message

    def close(self) -> None:
        """The request is over."""
        self._held.size_bytes -= self._size
        self._size = 0

    def _patience_s(self) -> float:
        if self._most is None:
            return STALL_S
        return min(STALL_S, self._began_s + BODY_S - asyncio.get_running_loop().time())

    def _cut(self, refusal: Refusal) -> Message:
        self.refusal = refusal
        return {"type": "http.disconnect"}


def _too_large(most: int) -> Refusal:
    text = f"the request's body has more than {most} bytes; files go to PUT /v1/objects/NAME"
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "RequestTooLarge", text, CLOSE)

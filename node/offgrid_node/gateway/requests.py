"""What a request says beside its method: path, query, deadline and body, each within its bounds."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import parse_qsl, quote

from starlette.requests import Request
from starlette.types import Scope

from offgrid_node.protocol.errors import Exhausted, InvalidRequest

BODY_BYTES_MAX = 6 * 1024 * 1024  # base64 makes four of three: all that a message of MESSAGE_BYTES_MAX may be
READ_IN_LOOP_BYTES = 64 * 1024  # some 30 ms
QUERY_FIELDS_MAX = 1_000
TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX = 90_000, 600_000
TIMEOUT_HEADER, TIMEOUT_PARAMETER = "x-offgrid-timeout-ms", "timeout_ms"

T = TypeVar("T")


def raw_path(scope: Scope) -> str:
    """The path as it came, percent-encoded."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    return raw.partition(b"?")[0].decode("latin-1")


async def read_body(request: Request, *, allowed: bool) -> bytes:
    """Raises Exhausted (RequestTooLarge), InvalidRequest (NoBodyHere) for a body where none is allowed."""
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if found and not allowed:
            text = f"{request.method} takes no body here: its fields are query parameters, ?name=value"
            raise InvalidRequest(text, reason="NoBodyHere")
        if len(found) > BODY_BYTES_MAX:
            text = f"the body has more than {BODY_BYTES_MAX} bytes. PUT /v1/objects/… takes files of any size"
            raise Exhausted(text, reason="RequestTooLarge")
    return bytes(found)


async def read_aside(body: bytes, read: Callable[[bytes], T]) -> T:
    """What `read` makes of it: of a large one in a thread, so that the node goes on meanwhile."""
    return await asyncio.to_thread(read, body) if len(body) > READ_IN_LOOP_BYTES else read(body)


def fields_of_query(request: Request) -> list[tuple[str, str]]:
    """Names and values, without the deadline: no RPC has a field of that name in its query. Raises InvalidRequest."""
    return [(name, text) for name, text in _query(request) if name != TIMEOUT_PARAMETER]


def timeout_s_of(request: Request) -> float:
    """For how long the client waits for an answer. Raises InvalidRequest."""
    said = request.headers.get(TIMEOUT_HEADER)
    if said is None:
        said = next((text for name, text in _query(request) if name == TIMEOUT_PARAMETER), str(TIMEOUT_MS_DEFAULT))
    return number_of(said, TIMEOUT_PARAMETER, TIMEOUT_MS_MAX) / 1000


def number_of(text: str, name: str, most: int) -> int:
    """Raises InvalidRequest naming it."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII) or int(text) > most:
        raise InvalidRequest.field(name, f"a whole number from 0 to {most} is allowed")
    return int(text)


def _query(request: Request) -> list[tuple[str, str]]:
    raw = request.scope["query_string"].decode("latin-1")
    try:
        return parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS_MAX)
    except ValueError as error:
        text = f"the query is no text, or has more than {QUERY_FIELDS_MAX} fields"
        raise InvalidRequest(text, reason="MalformedQuery") from error

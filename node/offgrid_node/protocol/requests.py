"""Which request id made what, so that a repeated call finds the first one's fruit and never makes a second."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists

REQUESTS = "requests"
REQUESTS_REMEMBERED = 10_000  # those not committed yet are among them; older ones are found in the rows
DIGEST_BYTES = 16

M = TypeVar("M", bound=Message)


class Writes(Protocol):
    """A step's effects, as far as they are rows."""

    def put_bytes(self, table: str, key: bytes, value: bytes) -> None: ...


class Requests:
    """A domain has one space of request ids, a table. A row is the digest of the request and what it made."""

    def __init__(self, post: Writes, table: str = REQUESTS) -> None:
        self._post, self._table = post, table
        self._recent: OrderedDict[str, tuple[bytes, str]] = OrderedDict()
        self._rows: Rows | None = None

    def load(self, rows: Rows) -> None:
        self._rows = rows

    def made(self, request_id: str, digest: bytes) -> str:
        """The id of what the first call made; empty when there was none, or the call has no request id.

        Raises AlreadyExists (reason RequestIdReused) when that call asked for something else, Corrupt for a damaged
        row.
        """
        if not request_id:
            return ""
        known = self._recent.get(request_id)
        if known is None:
            return committed(self._rows, self._table, request_id, digest) if self._rows is not None else ""
        return _same(request_id, digest, *known)

    def row(self, table: str, row: type[M], row_id: str) -> M | None:
        """What was made, as it is committed; None for an empty id. Raises Corrupt."""
        value = self._rows.get(table, row_id.encode()) if self._rows is not None and row_id else None
        return row.FromString(value) if value is not None else None

    def remember(self, request_id: str, digest: bytes, made_id: str) -> None:
        if not request_id:
            return
        self._recent[request_id] = digest, made_id
        if len(self._recent) > REQUESTS_REMEMBERED:
            self._recent.popitem(last=False)
        self._post.put_bytes(self._table, request_id.encode(), digest + made_id.encode())


def committed(rows: Rows, table: str, request_id: str, digest: bytes) -> str:
    """As `Requests.made`, by the rows alone: what a handler may know before it asks a machine."""
    value = rows.get(table, request_id.encode()) if request_id else None
    return _same(request_id, digest, value[:DIGEST_BYTES], value[DIGEST_BYTES:].decode()) if value is not None else ""


def _same(request_id: str, digest: bytes, known: bytes, made: str) -> str:
    if known != digest:
        raise reused(request_id, made)
    return made


def reused(request_id: str, made: str) -> AlreadyExists:
    """The fault of a call with the id of another one."""
    return AlreadyExists(
        f"request_id {request_id!r} made {made} for another request; take a new one",
        reason="RequestIdReused",
        metadata={"request_id": request_id, "made": made},
    )


def request_digest(request: Message) -> bytes:
    """16 bytes over all that a request says but its `request_id`; its kind counts as well."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    said = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"og.request.v1")
    said.update(request.DESCRIPTOR.full_name.encode() + b"\0")
    said.update(bare.SerializeToString(deterministic=True))
    return said.digest()

"""Which request id made what, so that a repeated call finds the first one's fruit and never makes a second."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TypeVar

from google.protobuf.message import Message

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists
from offgrid_node.protocol.jobs.post import Post

REQUESTS = "requests"
REQUESTS_REMEMBERED = 10_000  # those not committed yet are among them; older ones are found in the rows
DIGEST_BYTES = 16

M = TypeVar("M", bound=Message)


class Requests:
    """Missions, tasks and jobs share one space of request ids. A row is the digest of the request and what it made."""

    def __init__(self, post: Post) -> None:
        self._post = post
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
            value = self._rows.get(REQUESTS, request_id.encode()) if self._rows is not None else None
            if value is None:
                return ""
            known = value[:DIGEST_BYTES], value[DIGEST_BYTES:].decode()
        if known[0] != digest:
            raise AlreadyExists(
                f"request_id {request_id!r} made {known[1]} for another request; take a new one",
                reason="RequestIdReused",
                metadata={"request_id": request_id, "made": known[1]},
            )
        return known[1]

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
        self._post.put_bytes(REQUESTS, request_id.encode(), digest + made_id.encode())


def request_digest(request: Message) -> bytes:
    """16 bytes over all that a request says but its `request_id`; its kind counts as well."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    said = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"og.request.v1")
    said.update(request.DESCRIPTOR.full_name.encode() + b"\0")
    said.update(bare.SerializeToString(deterministic=True))
    return said.digest()

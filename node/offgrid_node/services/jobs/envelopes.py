"""Payloads on roads that others can read: each sealed for the host that won, bound to its order.

Members' own connections are mutual TLS from core to host, and no broker stands between. A packet link proves nobody and
hides nothing (a radio is heard by all, a relay reads what it passes on), so there a StartJob carries a letter
(`keys/letters.py`) that only the host's key opens, in place of the payload. What else a call says stands in clear, as
brokers see it: kind, requirements, size, price.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.services.jobs.results import Letters


class Members(Protocol):
    """Whose keys there are."""

    def current_key(self, node_id: str) -> bytes | None: ...


class Envelopes:
    """Closes what leaves over an open road, and opens what has come over one."""

    def __init__(self, letters: Letters, self_id: str, members: Callable[[], Members]) -> None:
        self._letters, self._self_id, self._members = letters, self_id, members

    def closed(self, node: str, request: Message) -> Message:
        """The request as it may leave: itself, unless it holds payloads. Raises NotFound for a node whose key is not
        known."""
        if not isinstance(request, jobs_pb2.StartJobsRequest) or not request.starts:
            return request
        key = self._members().current_key(node)
        if key is None:
            raise NotFound(f"{node} is no member of this mesh", reason="NotAMember")
        sealed = jobs_pb2.StartJobsRequest()
        sealed.CopyFrom(request)
        for start in sealed.starts:
            start.sealed_payload = self._letters.seal(key, _context(self._self_id, node, start.order), start.payload)
            start.ClearField("payload")
        return sealed

    def open(self, field: str, core: str, start: jobs_pb2.StartJob) -> None:
        """Puts the payload in its place, where it came in a letter. Raises InvalidRequest, PermissionDenied."""
        if not start.sealed_payload:
            return
        if start.payload:
            raise InvalidRequest.field(f"{field}.sealed_payload", "stands beside a payload; one of them is allowed")
        start.payload = self._letters.open(start.sealed_payload, _context(core, self._self_id, start.order))
        start.ClearField("sealed_payload")


def _context(core: str, host: str, order: bytes) -> bytes:
    return f"og.start.v1/{core}/{host}/".encode() + order

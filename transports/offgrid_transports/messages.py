"""What the fragments of a request and of a response add up to: a small fixed head and an opaque body."""

from __future__ import annotations

import struct
from enum import IntEnum

REQUEST_HEAD = struct.Struct(">HI")  # method, timeout_ms


class Status(IntEnum):
    """The first byte of a response."""

    OK = 0
    ERROR = 1


def write_request(method: int, timeout_ms: int, body: bytes) -> bytes:
    return REQUEST_HEAD.pack(method, timeout_ms) + body


def parse_request(message: bytes) -> tuple[int, int, bytes] | None:
    """Method, timeout_ms and body; None when it is no request."""
    if len(message) < REQUEST_HEAD.size:
        return None
    method, timeout_ms = REQUEST_HEAD.unpack_from(message)
    return method, timeout_ms, message[REQUEST_HEAD.size :]


def write_response(status: Status, body: bytes) -> bytes:
    return bytes([status]) + body


def parse_response(message: bytes) -> tuple[Status, bytes] | None:
    """Status and body; None when it is no response."""
    if not message or message[0] > Status.ERROR:
        return None
    return Status(message[0]), message[1:]

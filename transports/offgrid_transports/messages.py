"""Requests and responses as they travel: five bits of flags, and the rest.

    request     timeout 4 bits, packed 1 bit | method (varint) | body
    response    error 1 bit, partial 1 bit, packed 1 bit | body

The body of a packed message is as packing.py has it; a partial answer is the beginning of a long one, a partial
error says why there is no more of it (long_messages.py).

In pieces a message begins with a byte that holds the flags. A method's number is 12 bits, its domain's 4 above and its
place's 8 below; they travel as place * 16 + domain, so that the first methods of each domain take one byte.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from offgrid_transports.gathering import MESSAGE_BYTES_MAX
from offgrid_transports.records import FLAGS_MAX, RecordError, read_varint, varint

TIMEOUTS_MS = (250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000, 120_000, 300_000, 900_000, 3_600_000,
               14_400_000, 43_200_000, 86_400_000)  # fmt: skip
METHOD_MAX = 0x0FFF
BODY_BYTES_MAX = MESSAGE_BYTES_MAX - 8
_TIMEOUT, _ERROR, _PARTIAL, _PACKED = 0x0F, 0x01, 0x02, 0x10


class Message(NamedTuple):
    """`flags` and `rest` as above."""

    flags: int
    rest: bytes

    @property
    def whole(self) -> bytes:
        """As it is cut into pieces."""
        return bytes((self.flags,)) + self.rest


class Asked(NamedTuple):
    method: int
    timeout_ms: int
    packed: bool
    body: bytes


class Answered(NamedTuple):
    error: bool
    partial: bool
    packed: bool
    body: bytes


def request(method: int, timeout_ms: int, body: bytes, *, packed: bool = False) -> Message:
    """The timeout is rounded up to one of TIMEOUTS_MS. Raises ValueError for a method above METHOD_MAX."""
    if not 0 <= method <= METHOD_MAX:
        raise ValueError(f"method {method:#x}; 0 to {METHOD_MAX:#x} are allowed")
    flags = min(bisect_left(TIMEOUTS_MS, timeout_ms), _TIMEOUT) | (_PACKED if packed else 0)
    return Message(flags, varint((method & 0xFF) << 4 | method >> 8) + body)


def response(body: bytes, *, error: bool = False, partial: bool = False, packed: bool = False) -> Message:
    flags = (_ERROR if error else 0) | (_PARTIAL if partial else 0) | (_PACKED if packed else 0)
    return Message(flags, body)


def cut(whole: bytes) -> Message:
    """Of what was put together from pieces. Raises RecordError."""
    if not whole or whole[0] > FLAGS_MAX:
        raise RecordError("a message without its flags")
    return Message(whole[0], whole[1:])


def read_request(message: Message) -> Asked:
    """Raises RecordError."""
    said, at = read_varint(message.rest, 0, METHOD_MAX)
    method = (said & 0xF) << 8 | said >> 4
    return Asked(method, TIMEOUTS_MS[message.flags & _TIMEOUT], bool(message.flags & _PACKED), message.rest[at:])


def read_response(message: Message) -> Answered:
    """Raises RecordError."""
    flags = message.flags
    if flags & ~(_ERROR | _PARTIAL | _PACKED):
        raise RecordError(f"the flags of an answer: {flags:#x}")
    return Answered(bool(flags & _ERROR), bool(flags & _PARTIAL), bool(flags & _PACKED), message.rest)

"""The frame: the smallest thing that a link carries, and the only parser that meets untrusted bytes first.

    0        1        2..5      6..9     10..11  12..13   14..
    VVVKKK0P round    session   call     index   total    payload     (big-endian)

V version, K kind, P poll ("acknowledge now"); the bit between them is reserved and must be 0. `session` is drawn at
random by the calling endpoint at each start and `call` counts from 1 within it: together they name a call between
two peers. A burst of fragments carries a `round` that its acknowledgement repeats (as SCHC's windows do, RFC 8724).
A session proved by node keys will later replace `session`, and seal the rest.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

VERSION = 1
HEADER = struct.Struct(">BBIIHH")
HEADER_BYTES = HEADER.size
FRAGMENTS_MAX = 0x8000  # of one message: 7 MB in the fragments of a LoRa frame, more than a message may have
BITMAP_BYTES_MAX = 128  # of one acknowledgement: the 1,024 fragments after the first that is missing

_POLL, _RESERVED = 1, 2


class Kind(IntEnum):
    """What a frame is for. `to_server` tells which half of an endpoint it is meant for."""

    REQUEST = 0
    RESPONSE = 1
    REQUEST_ACK = 2
    RESPONSE_ACK = 3
    PROBE = 4
    RESET = 5

    @property
    def to_server(self) -> bool:
        return self in (Kind.REQUEST, Kind.RESPONSE_ACK, Kind.PROBE)


class Reset(IntEnum):
    """Why a server ends a call: the one byte that a RESET carries."""

    GONE = 0  # it may have been carried out; its answer is not kept (any more)
    REFUSED = 1  # it was not and will not be carried out: no room
    TOO_LARGE = 2  # it was not and will not be carried out: longer than this peer takes
    MALFORMED = 3  # it was not and will not be carried out: no request


class FrameError(ValueError):
    """These bytes are no frame; they are dropped and counted."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame, taken apart.

    In REQUEST and RESPONSE `index` of `total` fragments; in an ACK `index` is the first missing fragment (`total`
    when none is) and the payload a bitmap, most significant bit first, of what is held beyond it; in PROBE and RESET
    both are 0.
    """

    kind: Kind
    session: int
    call: int
    index: int = 0
    total: int = 0
    round: int = 0
    poll: bool = False
    payload: bytes = b""


def encode(frame: Frame) -> bytes:
    """The bytes of a frame whose fields are within bounds."""
    first = VERSION << 5 | frame.kind << 2 | (_POLL if frame.poll else 0)
    return HEADER.pack(first, frame.round, frame.session, frame.call, frame.index, frame.total) + frame.payload


def decode(data: bytes) -> Frame:
    """The frame that `data` is; raises FrameError for anything that `encode` would not have written."""
    if len(data) < HEADER_BYTES:
        raise FrameError(f"{len(data)} bytes are no frame")
    first, round_, session, call, index, total = HEADER.unpack_from(data)
    kind, payload = first >> 2 & 7, data[HEADER_BYTES:]
    if first >> 5 != VERSION or first & _RESERVED:
        raise FrameError(f"version or flags {first:#x}")
    if kind > Kind.RESET or call == 0:
        raise FrameError(f"kind {kind}, call {call}")
    frame = Frame(Kind(kind), session, call, index, total, round_, bool(first & _POLL), payload)
    if not _BOUNDS[frame.kind](frame):
        raise FrameError(f"{frame.kind.name} {index}/{total} with {len(payload)} bytes")
    return frame


def _is_fragment(frame: Frame) -> bool:
    return 0 < frame.total <= FRAGMENTS_MAX and frame.index < frame.total and len(frame.payload) > 0


def _is_ack(frame: Frame) -> bool:
    return (
        0 < frame.total <= FRAGMENTS_MAX
        and frame.index <= frame.total
        and len(frame.payload) <= BITMAP_BYTES_MAX
        and not frame.poll
    )


def _is_probe(frame: Frame) -> bool:
    return not (frame.index or frame.total or frame.round or frame.payload or frame.poll)


def _is_reset(frame: Frame) -> bool:
    one_byte = len(frame.payload) == 1 and frame.payload[0] <= Reset.MALFORMED
    return one_byte and not (frame.index or frame.total or frame.round or frame.poll)


_BOUNDS = {
    Kind.REQUEST: _is_fragment,
    Kind.RESPONSE: _is_fragment,
    Kind.REQUEST_ACK: _is_ack,
    Kind.RESPONSE_ACK: _is_ack,
    Kind.PROBE: _is_probe,
    Kind.RESET: _is_reset,
}

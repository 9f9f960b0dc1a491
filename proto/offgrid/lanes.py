"""lane.proto's messages, the large ones without copies: one call, or one answer, that fills its message."""

from __future__ import annotations

from typing import TypeAlias

from offgrid.pieces import Buffer, Parts, before, cut, lone
from offgrid.v1 import lane_pb2

LARGE_BYTES = 16 * 1024  # of a message; a smaller one is copied as fast as it is taken apart
PIECE_BYTES_MAX = 1 << 20  # of an object, in one call or answer
PIECE_CALL_BYTES_MAX = PIECE_BYTES_MAX + 4 * 1024  # with what is beside it
_CALLS, _REQUEST, _ANSWERS, _RESPONSE = (
    kind.DESCRIPTOR.fields_by_name[name].number
    for kind, name in (
        (lane_pb2.CarryRequest, "calls"),
        (lane_pb2.LaneCall, "request"),
        (lane_pb2.CarryResponse, "answers"),
        (lane_pb2.LaneAnswer, "response"),
    )
)

Call: TypeAlias = "tuple[lane_pb2.LaneCall, Buffer]"
"""And its request, wherever that lies."""
Answer: TypeAlias = "tuple[lane_pb2.LaneAnswer, Buffer]"
"""And its response."""


def call_parts(call: lane_pb2.LaneCall, request: Parts) -> Parts:
    """A message of this call alone, which has no request itself."""
    return _within(_CALLS, _REQUEST, call.SerializeToString(), request)


def answer_parts(answer: lane_pb2.LaneAnswer, response: Parts) -> Parts:
    """A message of this answer alone, which has no response itself."""
    return _within(_ANSWERS, _RESPONSE, answer.SerializeToString(), response)


def read_calls(raw: Buffer) -> tuple[lane_pb2.CarryRequest, list[Call]]:
    """Raises DecodeError."""
    alone = lone(raw, _CALLS) if len(raw) > LARGE_BYTES else None
    if alone is not None:
        head, request = cut(alone, _REQUEST)
        return lane_pb2.CarryRequest(), [(lane_pb2.LaneCall.FromString(head), request)]
    message = lane_pb2.CarryRequest.FromString(bytes(raw))
    return message, [(call, call.request) for call in message.calls]


def read_answers(raw: Buffer) -> tuple[lane_pb2.CarryResponse, list[Answer]]:
    """Raises DecodeError."""
    alone = lone(raw, _ANSWERS) if len(raw) > LARGE_BYTES else None
    if alone is not None:
        head, response = cut(alone, _RESPONSE)
        return lane_pb2.CarryResponse(), [(lane_pb2.LaneAnswer.FromString(head), response)]
    message = lane_pb2.CarryResponse.FromString(bytes(raw))
    return message, [(answer, answer.response) for answer in message.answers]


def _within(outer: int, inner: int, around: bytes, parts: Parts) -> Parts:
    head, tail = parts
    item = before(around, inner, len(head) + len(tail)) + head
    return before(b"", outer, len(item) + len(tail)) + item, tail

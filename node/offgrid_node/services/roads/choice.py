"""Which carriers a call may take, and how much of its time each of them gets.

A call that would occupy a slow road for long waits for a faster one that was there a moment ago; where none was, it
may take longer, but not for hours. What is urgent, or asks with one frame for little, goes by whatever leads there. A
road that brings no word leaves time for those behind it: calls between nodes may be repeated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.pace import SEALED_BYTES, Pace
from offgrid_node.services.packet_methods import priority_of
from offgrid_transports.transport import Priority

LATELY_MS = 600_000  # a road that answered within it is expected back
HASTE_MS, AIR_MAX_MS = 60_000, 900_000  # for which a call may occupy a slow road: while one is, and else
ANSWER_BYTES = 600  # of most answers, at least
RETRY_MS = 5_000
READY_WEIGHT, FREE_WEIGHT, SLOW_WEIGHT = 8, 4, 1  # one with a connection; any other; one whose calls get longer anyway
TOO_SLOW = "RoadTooSlow"


def too_slow(
    road: str, pace: Pace, node: str, method: str, request: Message, timeout_ms: int, *, hasty: bool
) -> Unavailable | None:
    """Why a call with a time of `timeout_ms` does not take that road, or None. `hasty`: a faster one is expected."""
    asked_bytes = request.length if isinstance(request, objects_pb2.ReadReplicaRequest) else 0
    known_bytes = request.ByteSize() + asked_bytes
    size_bytes = known_bytes + (0 if asked_bytes else ANSWER_BYTES)
    air_ms, most_ms = pace.air_ms(size_bytes), HASTE_MS if hasty else AIR_MAX_MS
    small = air_ms <= most_ms or known_bytes <= pace.frame_bytes - SEALED_BYTES
    urgent = priority_of(method) in (Priority.CONTROL, Priority.PAYMENT)
    if small or urgent or pace.longer_ms(size_bytes) <= timeout_ms:
        return None
    why = "while a faster road may come back" if hasty else "at most"
    said = f"{size_bytes} bytes to {node} and back would occupy {road} for some {math.ceil(air_ms / 1_000)} s"
    return Unavailable(f"{method}: {said}; {most_ms // 1_000} s are allowed {why}", reason=TOO_SLOW, retry_ms=RETRY_MS)


def share_ms(timeout_ms: int, *, ready: bool, others: Sequence[Pace]) -> int:
    """What a road gets of a call's time; `others` are the paces of those that may be tried after it."""
    weight = READY_WEIGHT if ready else FREE_WEIGHT
    behind = sum(FREE_WEIGHT if pace.free else SLOW_WEIGHT for pace in others)
    return max(1, timeout_ms * weight // (weight + behind))

"""Events of a loop that runs sixty times a second, the same for all that is measured."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from offgrid_node.protocol.state.sessions.blocks import Entry

BATCH = 15
BEGAN_US = 1_790_000_000_000_000
FRAME_US = 16_667
A_FRAME = 10  # events; the last but one is a heartbeat, and the last one is never dropped
CRITICAL = "pattern.interference"


class Sample(NamedTuple):
    """One event as an application says it."""

    kind: str
    data: Mapping[str, Any]
    frame: int
    energy_delta: float


def samples(number: int = 0) -> Iterator[Sample]:
    """From that one on, without an end."""
    while True:
        yield sample(number)
        number += 1


def sample(number: int) -> Sample:
    frame, place = divmod(number, A_FRAME)
    if place == A_FRAME - 1:
        said: dict[str, Any] = {"models_involved": ["small", "large"], "interference_type": "phase", "strength": 0.25}
        return Sample(CRITICAL, said | {"frequency": 7.5, "duration_ms": 12.5}, frame, 0.0)
    if place == A_FRAME - 2:
        said = {"status": "ok", "uptime_s": frame / 60, "frame_ms": 14.25, "queue_depth": 12, "memory_mb": 410.5}
        return Sample("health.heartbeat", said, frame, 0.0)
    said = {"energy": 0.5 + place, "accumulator": number / 4, "model_id": "small", "fps": 59.9, "token_count": number}
    return Sample("energy.update", said, frame, 0.25)


def entry(number: int) -> Entry:
    """As the client sends it."""
    each = sample(number)
    return Entry(BEGAN_US + each.frame * FRAME_US, each.kind, each.frame, each.energy_delta, text_of(each))


def text_of(each: Sample) -> bytes:
    return json.dumps(each.data, separators=(",", ":")).encode()


def block(first: int, count: int) -> bytes:
    """What one request of the client has in it."""
    return msgspec.msgpack.encode([entry(number) for number in range(first, first + count)])

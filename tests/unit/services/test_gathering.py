"""Gathering a span of shards by itself; what it does with hosts that lie or are slow is in `test_reading.py`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from offgrid.pieces import Buffer
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.manifest import COPY, NONCE_BYTES, STRIPE_BYTES, Manifest
from offgrid_node.services.flow import Step
from offgrid_node.services.objects.gathering import Gathered, Gathering, Piece, Span
from offgrid_node.services.objects.pulls import Pulls

HOST = "a host"
BODY = Manifest(base32(bytes(20)), bytes(NONCE_BYTES), 9, STRIPE_BYTES, 1, COPY, (bytes(32),), 1)


class House:
    """One host that answers at once, whom nobody doubts. Timers are kept and never go off."""

    self_id = "a reader"

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return 0

    def rank(self, host: str) -> tuple[bool, bool, int]:
        return False, False, 0

    def has_free_road(self, host: str) -> bool:
        return True

    def of(self, shard: int) -> list[str]:
        return [HOST]

    def learn(self, shard: int, host: str) -> None:
        assert host == HOST

    def request(self, node: str, method: str, request: Any, timeout_ms: int, done: Callable[[Any], None]) -> None:
        done(objects_pb2.ReadReplicaResponse(data=bytes(request.length)))

    def later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        self.timers.append(callback)


class Reader:
    """Whoever waits for the pieces, and keeps them."""

    def __init__(self) -> None:
        self.pieces: dict[int, Piece] = {}

    def take(self, gathered: Gathered) -> None:
        self.pieces = gathered.pieces


def unchecked(shard: int, answer: objects_pb2.ReadReplicaResponse) -> Step[Buffer]:
    return lambda done: done(answer.data)


def test_a_reader_that_has_its_pieces_is_not_kept_for_as_long_as_another_host_might_be_asked() -> None:
    """What it holds is bounded by what is in use, not by how much comes in the time of a timer."""
    house, reader = House(), Reader()
    ground: Any = house
    span = Span(BODY, 0, 1)
    Gathering(span, ground, ground, Pulls(ground, ground), house.later, unchecked, reader.take).start()
    assert len(reader.pieces[0].data) == span.bytes[1]
    held = weakref.ref(reader)
    del reader
    assert house.timers
    assert held() is None

"""Endpoints joined by an in-memory network in virtual time."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from offgrid_transports.answers import Kept, Request
from offgrid_transports.calls import Reply
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.gathering import Gathering
from offgrid_transports.handshake import Own
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.path import Path
from offgrid_transports.transport import BROADCAST, Priority, Transport

CLEAN = Faults()


class Time(Protocol):
    """As nodes are given it."""

    @property
    def now_ms(self) -> int: ...

    def schedule(self, delay_ms: int, fn: Callable[[], object]) -> None: ...


class VirtualTime:
    """One heap of callbacks; time jumps from one to the next."""

    def __init__(self) -> None:
        self.now_ms = 0
        self._heap: list[tuple[int, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def schedule(self, delay_ms: int, fn: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (self.now_ms + delay_ms, next(self._order), fn))

    def run(self, until_ms: int) -> None:
        while self._heap and self._heap[0][0] <= until_ms:
            self.now_ms, _, fn = heapq.heappop(self._heap)
            fn()
        self.now_ms = until_ms

    @property
    def idle(self) -> bool:
        return not self._heap


class Node:
    """An endpoint on a network; requests are answered by `handle` after `work_ms`, or kept in `requests`."""

    def __init__(
        self,
        world: Time,
        end: Transport,
        name: str,
        *,
        handle: Callable[[Request], bytes] | None = None,
        work_ms: int = 0,
        gathering: Gathering | None = None,
        kept: Kept | None = None,
        strangers: bool = False,
    ) -> None:
        """`strangers`: it knows nobody's key."""
        self.name, self.world, self.end = name, world, end
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self._handle, self._work_ms = handle, work_ms
        self.endpoint = Endpoint(
            Own(key_of(name), PSK),
            (lambda public: None) if strangers else _NAMES.get,
            lambda: world.now_ms,
            world.schedule,
            Random(name),
            lambda: world.now_ms,
            gathering=gathering,
            kept=kept,
        )
        self.endpoint.on_request = self._on_request
        self.endpoint.attach(end)

    def knows(self, *others: str, address: str = "") -> None:
        """They are on the same link; their names are their addresses there, unless it has none."""
        for other in others:
            path = Path(self.end, BROADCAST if self.end.shared else address or other)
            self.endpoint.introduce(other, public_of(other), path)

    def call(
        self, peer: str, body: bytes, *, method: int = 1, timeout_ms: int = 60_000, priority: Priority = Priority.JOB
    ) -> None:
        self.endpoint.call(peer, method, body, timeout_ms, self.replies.append, priority=priority)

    def _on_request(self, request: Request) -> None:
        self.requests.append(request)
        if self._handle is not None:
            answer = self._handle(request)
            self.world.schedule(self._work_ms, lambda: self.endpoint.respond(request, answer))


PSK = bytes(range(32))
_NAMES: dict[bytes, str] = {}


def key_of(name: str) -> X25519PrivateKey:
    key = X25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    _NAMES[key.public_key().public_bytes_raw()] = name
    return key


def public_of(name: str) -> bytes:
    return key_of(name).public_key().public_bytes_raw()


def network(
    world: VirtualTime, seed: int = 1, *, mtu_bytes: int = 1200, bitrate_bps: int = 0, faults: Faults = CLEAN
) -> MemoryNetwork:
    return MemoryNetwork(Random(seed), world.schedule, mtu_bytes=mtu_bytes, bitrate_bps=bitrate_bps, faults=faults)

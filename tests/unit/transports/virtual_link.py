"""Endpoints joined by an in-memory network in virtual time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from functools import partial
from random import Random

from offgrid_transports.fragment import Reassembly
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.rpc import LinkProfile, Reply, Request, RpcEndpoint

CLEAN = Faults()


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
        world: VirtualTime,
        network: MemoryNetwork,
        name: str,
        *,
        handle: Callable[[Request], bytes] | None = None,
        work_ms: int = 0,
        reassembly: Reassembly | None = None,
        answer_bytes_max: int = 1 << 26,
    ) -> None:
        self.name = name
        self.world = world
        self.requests: list[Request] = []
        self.replies: list[Reply] = []
        self._handle = handle
        self._work_ms = work_ms
        self._alarm: int | None = None
        self.transport = network.attach(name)
        self.transport.on_frame = self.hear
        profile = LinkProfile.of(self.transport)
        self.endpoint = RpcEndpoint(profile, network.rng, reassembly=reassembly, answer_bytes_max=answer_bytes_max)

    def hear(self, peer: str, frame: bytes) -> None:
        self.endpoint.on_frame(self.world.now_ms, peer, frame)
        self.pump()

    def call(self, peer: str, body: bytes, *, method: int = 1, timeout_ms: int = 60_000) -> int:
        number = self.endpoint.call(self.world.now_ms, peer, method, body, timeout_ms)
        self.pump()
        return number

    def respond(self, request: Request, body: bytes, *, error: bool = False) -> bool:
        took = self.endpoint.respond(self.world.now_ms, request.key, body, error=error)
        self.pump()
        return took

    def pump(self) -> None:
        for request in self.endpoint.take_requests():
            self.requests.append(request)
            if self._handle is not None:
                self.world.schedule(self._work_ms, partial(self.respond, request, self._handle(request)))
        self.replies += self.endpoint.take_replies()
        for peer, frame in self.endpoint.take_frames():
            self.transport.send(peer, frame)
        due = self.endpoint.deadline_ms
        if due is not None and (self._alarm is None or due < self._alarm):
            self._alarm = due
            self.world.schedule(max(0, due - self.world.now_ms), lambda: self._ring(due))

    def _ring(self, due: int) -> None:
        if self._alarm == due:
            self._alarm = None
        self.endpoint.on_timer(self.world.now_ms)
        self.pump()


def network(
    world: VirtualTime, seed: int = 1, *, mtu_bytes: int = 1200, bitrate_bps: int = 0, faults: Faults = CLEAN
) -> MemoryNetwork:
    return MemoryNetwork(Random(seed), world.schedule, mtu_bytes=mtu_bytes, bitrate_bps=bitrate_bps, faults=faults)

"""A path with one bottleneck, and sessions that fill it, in virtual time: what `pacing.Controller` is judged on."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from random import Random

from offgrid_transports.pacing import Controller

REORDER = 3  # frames: one this far behind the newest that arrived is given up
FRAME = 1200


class World:
    """A heap of callbacks; time jumps from one to the next."""

    def __init__(self) -> None:
        self.now_ms = 0.0
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def at(self, when_ms: float, fn: Callable[[], object]) -> None:
        heapq.heappush(self._heap, (max(when_ms, self.now_ms), next(self._order), fn))

    def run(self, until_ms: float) -> None:
        while self._heap and self._heap[0][0] <= until_ms:
            self.now_ms, _, fn = heapq.heappop(self._heap)
            fn()
        self.now_ms = until_ms


class Bottleneck:
    """`rate` bytes a millisecond behind a buffer; `rtt_ms` is the whole way there and back; loss is per frame."""

    def __init__(self, world: World, rng: Random, rate: float, rtt_ms: float, buffer: int, loss: float) -> None:
        self.world, self.rng = world, rng
        self.rate, self.rtt_ms, self.buffer, self.loss = rate, rtt_ms, buffer, loss
        self.jitter_ms = 0.0
        self.dropped = 0
        self.queue_peak = 0.0
        self._free_ms = 0.0

    @property
    def queued(self) -> float:
        return max(0.0, self._free_ms - self.world.now_ms) * self.rate

    def send(self, length: int, arrived: Callable[[], object]) -> None:
        if self.queued + length > self.buffer:
            self.dropped += 1
            return
        self._free_ms = max(self._free_ms, self.world.now_ms) + length / self.rate
        self.queue_peak = max(self.queue_peak, self.queued)
        if self.rng.random() >= self.loss:
            jitter_ms = self.rng.random() * self.jitter_ms
            self.world.at(self._free_ms + self.rtt_ms / 2 + jitter_ms, arrived)


class Filler:
    """A session that always has more to send; every frame is acknowledged alone, and acknowledgements get lost too."""

    def __init__(self, path: Bottleneck, *, begins_ms: float = 0.0, window_frames_max: int = 8192) -> None:
        self.path, self.world = path, path.world
        self.control = Controller(FRAME, window_frames_max=window_frames_max)
        self.arrived = 0
        self.in_flight_peak = 0
        self._numbers = itertools.count()
        self._under_way: deque[tuple[int, float]] = deque()  # (number, when it left)
        self._got: set[int] = set()
        self._timer_ms = -1.0
        self.world.at(begins_ms, self.pump)

    def pump(self) -> None:
        now_ms = self.world.now_ms
        while self.control.can_send(now_ms, FRAME):
            number = next(self._numbers)
            self.control.on_sent(now_ms, number, FRAME)
            self._under_way.append((number, now_ms))
            self.path.send(FRAME, lambda number=number: self._arrive(number))  # type: ignore[misc]
        self.in_flight_peak = max(self.in_flight_peak, self.control.in_flight_bytes)
        rtt_ms = min(self.control.rtt_ms, 1000.0)
        due_ms = min(self.control.next_send_ms(now_ms, FRAME), self._under_way[0][1] + (2 * rtt_ms + 20))
        if not now_ms < self._timer_ms <= due_ms:
            self._timer_ms = due_ms
            self.world.at(due_ms, lambda: self._ring(due_ms))

    def _ring(self, due_ms: float) -> None:
        if due_ms == self._timer_ms:
            self._give_up(-1)
            self.pump()

    def _arrive(self, number: int) -> None:
        self.arrived += FRAME
        if self.path.rng.random() >= self.path.loss:
            self.world.at(self.world.now_ms + self.path.rtt_ms / 2, lambda: self._acked(number))
        # what arrived and whose word got lost is told with the next word, as ranges of numbers are
        self._got.add(number)

    def _acked(self, number: int) -> None:
        told = [n for n, _ in self._under_way if n in self._got and n <= number]
        self._got.difference_update(told)
        gone = set(told)
        self._under_way = deque(entry for entry in self._under_way if entry[0] not in gone)
        self.control.on_acked(self.world.now_ms, told)
        self._give_up(number - REORDER)
        self.pump()

    def _give_up(self, below: int) -> None:
        now_ms, late_ms = self.world.now_ms, 2 * min(self.control.rtt_ms, 1000.0) + 20
        lost = []
        while self._under_way and (self._under_way[0][0] < below or now_ms >= self._under_way[0][1] + late_ms):
            lost.append(self._under_way.popleft()[0])
        self._got.difference_update(lost)
        self.control.on_lost(now_ms, lost)

"""Virtual time: one heap, one Random, one trace. Equal instants run in the order they were scheduled."""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import TextIO

from offgrid_node.protocol.clock import Now

EPOCH_US = 1_790_000_000_000_000  # what the simulated wall clocks read at the start, give or take their skew
MS, SECOND = 1_000, 1_000_000  # in microseconds


INSTANT_STEPS_MAX = 20_000  # whoever does more within a microsecond goes round in circles


class Spinning(Exception):
    """Something keeps the cluster busy without time going by."""


class Trace:
    """Everything that happened, as a running hash and, if wanted, as lines of text."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._hash, self._out = hashlib.blake2b(digest_size=16, person=b"og.sim.trace"), out
        self.lines = 0

    def add(self, now_us: int, text: str, data: bytes = b"") -> None:
        self.lines += 1
        head = f"{now_us} {text} {len(data)}\n"
        self._hash.update(head.encode())
        self._hash.update(data)
        if self._out is not None:
            self._out.write(head if not data else f"{head[:-1]} {hashlib.blake2b(data, digest_size=8).hexdigest()}\n")

    def digest(self) -> str:
        return self._hash.hexdigest()


class Engine:
    """Runs scheduled callbacks; `now_us` is microseconds since the start."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.rng = Random(seed)  # noqa: S311 - a simulation must be repeatable
        self.trace = trace or Trace()
        self.now_us = 0
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def after(self, delay_us: int, callback: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_us + max(0, delay_us), next(self._count), callback))

    def note(self, text: str, data: bytes = b"") -> None:
        self.trace.add(self.now_us, text, data)

    def run_until(self, end_us: int) -> None:
        """Runs everything due until then; the clock stands at `end_us` afterwards."""
        instant_steps = 0
        while self._heap and self._heap[0][0] <= end_us:
            due_us, _, callback = heapq.heappop(self._heap)
            instant_steps = instant_steps + 1 if due_us == self.now_us else 0
            if instant_steps > INSTANT_STEPS_MAX:
                raise Spinning(f"{INSTANT_STEPS_MAX} steps at {due_us} us")
            self.now_us = due_us
            self.steps += 1
            callback()
        self.now_us = end_us


class VirtualClock:
    """A node's clock: monotonic time since some boot, and a wall clock that is wrong by `skew_us`."""

    def __init__(self, engine: Engine, skew_us: int, booted_us: int) -> None:
        self._engine, self._booted_us = engine, booted_us
        self.skew_us = skew_us

    def now(self) -> Now:
        now_us = self._engine.now_us
        return Now((now_us - self._booted_us) // 1000, EPOCH_US + now_us + self.skew_us)

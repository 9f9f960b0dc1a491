"""What all clients of the soak do alike: a thread of their own, and every call repeated until it is answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from random import Random
from typing import TypeVar

import msgspec

from offgrid.client import Client, OffgridError

T = TypeVar("T")

PAUSE_S = 0.05
TRANSIENT = ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


class Writer(msgspec.Struct):
    """One client; what it does over and over is `step`."""

    name: str
    rng: Random
    connect: Callable[[], Client]
    violations: list[str] = msgspec.field(default_factory=list)
    repeats: int = 0
    pause_s: float = 0.0
    """Between steps."""
    _stop: threading.Event = msgspec.field(default_factory=threading.Event)

    def run(self) -> None:
        with self.connect() as client:
            self.begin(client)
            number = 0
            while not self._stop.is_set():
                self.step(client, number)
                number += 1
                self._stop.wait(self.pause_s)

    def stop(self) -> None:
        self._stop.set()

    def begin(self, client: Client) -> None:
        """Before the first step."""

    def step(self, client: Client, number: int) -> None:
        raise NotImplementedError

    def insist(self, call: Callable[[], T]) -> T | None:
        """Repeats until there is an answer; None when it was told to stop before, or refused for good."""
        while True:
            try:
                return call()
            except OffgridError as error:
                if error.code not in TRANSIENT:
                    self.violations.append(f"{self.name}: {error.code} {error.reason}: {error.message}")
                    self._stop.set()
                    return None
            self.repeats += 1
            if self._stop.is_set():
                return None
            time.sleep(PAUSE_S)

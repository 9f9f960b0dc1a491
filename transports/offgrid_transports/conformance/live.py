"""Two ends of a link on an event loop that runs while a test waits for something, and not otherwise."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from random import Random
from typing import TypeVar

from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST, LinkHost, Priority, Transport

PATIENCE_S = 30.0  # beside what the link itself says that it takes
MEET_S = 0.05  # between two greetings
CLOSING_S = 0.01
LEAVING_S = 2.0  # for tasks that leave a device in order
GREETING = b"\x01offgrid conformance"

T = TypeVar("T")


class End:
    """One end, and what it heard. `nested` counts callbacks that came from within a call: there may be none."""

    def __init__(self, live: Live, transport: Transport) -> None:
        self.transport = transport
        self.live = live
        self.heard: list[tuple[str, bytes]] = []
        self.rooms = self.changes = self.nested = 0
        self.peer = BROADCAST
        """The address of the other end, once they have met."""
        self._inside = False
        transport.on_frame = self._on_frame
        transport.on_room = self._on_room
        transport.on_change = self._on_change

    @property
    def frames(self) -> list[bytes]:
        """What it heard but greetings."""
        return [frame for _, frame in self.heard if frame != GREETING]

    def call(self, what: Callable[[], T]) -> T:
        """Calls the transport as a node does: in its loop."""

        def within() -> T:
            self._inside = True
            try:
                return what()
            finally:
                self._inside = False

        return self.live.call(within)

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        return self.call(lambda: self.transport.send(address, frame, priority))

    def mtu_bytes(self) -> int:
        return self.call(lambda: self.transport.mtu_bytes(self.peer))

    def close(self) -> None:
        self.call(self.transport.close)

    def _on_frame(self, address: str, frame: bytes) -> None:
        self.nested += self._inside
        self.heard.append((address, frame))

    def _on_room(self) -> None:
        self.nested += self._inside
        self.rooms += 1

    def _on_change(self) -> None:
        self.nested += self._inside
        self.changes += 1


class Live:
    """The loop, and all ends that were opened on it."""

    def __init__(self, registry: TransportRegistry) -> None:
        self.registry = registry
        self.loop = asyncio.new_event_loop()
        self.ends: list[End] = []
        self.faults: list[str] = []
        """What the loop had to say of exceptions that nobody took."""
        self.loop.set_exception_handler(lambda loop, context: self.faults.append(str(context)))
        self.host = LinkHost(
            Random(1),  # noqa: S311
            lambda delay_ms, then: void(self.loop.call_later(delay_ms / 1000, then)),
            lambda: int(self.loop.time() * 1000),
        )

    def call(self, what: Callable[[], T]) -> T:
        async def within() -> T:
            return what()

        return self.loop.run_until_complete(within())

    def open(self, description: str) -> End:
        end = End(self, self.call(lambda: self.registry.open(description, self.host)))
        self.ends.append(end)
        return end

    def run(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def waits(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> bool:
        """Runs the loop until `condition` holds, and says whether it came to that."""

        async def watch() -> bool:
            until_s = self.loop.time() + seconds
            pause_s = 0.0
            while not condition():
                if self.loop.time() >= until_s:
                    return False
                await asyncio.sleep(pause_s)
                pause_s = min(0.02, pause_s + 0.001)
            return True

        return self.loop.run_until_complete(watch())

    def pair(self, one: str, other: str) -> tuple[End, End]:
        """Opens both and has them find each other by broadcast; raises AssertionError when they do not."""
        a, b = self.open(one), self.open(other)
        self.meet(a, b)
        return a, b

    def meet(self, a: End, b: End) -> None:
        def greet() -> bool:
            for end in (a, b):
                if end.transport.up:
                    end.send(BROADCAST, GREETING)
            return self.waits(lambda: a.heard and b.heard, MEET_S + 4 * self.takes_s(a, len(GREETING)))

        until_s = self.loop.time() + PATIENCE_S
        while not greet():
            assert self.loop.time() < until_s, f"within {PATIENCE_S:.0f} s one end does not hear the other's broadcasts"
        a.peer, b.peer = a.heard[-1][0], b.heard[-1][0]

    def takes_s(self, end: End, length: int) -> float:
        """How long a frame takes, by what the link says of itself."""
        link = end.transport
        takes_ms = self.call(lambda: link.wait_ms(length, Priority.JOB) + link.access_ms + link.airtime_ms(length))
        return takes_ms / 1000 if takes_ms < math.inf else 0.0

    def close(self) -> None:
        for end in self.ends:
            end.close()
        self.run(CLOSING_S)
        self.waits(lambda: len(asyncio.all_tasks(self.loop)) <= 1, LEAVING_S)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()


def void(_: object) -> None:
    """Takes what nobody wants."""

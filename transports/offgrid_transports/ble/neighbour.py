"""One channel from its opening to its end: greetings, then frames out of a short queue by priority."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from offgrid_transports.ble.greeting import BadGreeting, Greeting, parse_greeting
from offgrid_transports.ble.link import BleChannel
from offgrid_transports.transport import LINK_BYTE, Priority

QUEUE_FRAMES_MAX = 64
QUEUE_BYTES_MAX = 32_768  # a second of a middling connection
GREETING_S = 5.0  # for the other side to say who it is
STALL_S = 8.0  # something waits and nothing has left: it gives no credits, or its stack hangs


class Owner(Protocol):
    """Whom a link tells."""

    def on_greeting(self, link: Link, greeting: Greeting) -> None:
        """The other side has said who it is."""
        ...

    def on_link_frame(self, link: Link, frame: bytes) -> None: ...

    def on_link_room(self, link: Link) -> None:
        """Half of its queue is free again."""
        ...

    def on_link_end(self, link: Link, why: str) -> None:
        """It is over; not called for a link that was closed."""
        ...


class Link:
    """A channel and what waits for it."""

    def __init__(self, channel: BleChannel, greeting: Greeting, owner: Owner) -> None:
        self.channel = channel
        self.greeting: Greeting | None = None
        """What the other side said of itself; None before."""
        self.queued_bytes = 0
        self.frames_sent = self.frames_heard = 0
        self._mine = greeting
        self._owner = owner
        self._queues: list[deque[bytes]] = [deque() for _ in Priority]
        self._greet = channel.outgoing
        self._pumping = False
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.call_later(GREETING_S, self._end, "no greeting")
        self._stalled: asyncio.TimerHandle | None = None
        channel.on_message = self._on_message
        channel.on_room = self._pump
        channel.on_closed = self._end
        if self._greet:
            self._pump_soon()

    @property
    def name(self) -> str:
        """The neighbour's address; empty before its greeting."""
        return self.greeting.name.hex() if self.greeting else ""

    @property
    def frame_bytes(self) -> int:
        theirs = self.greeting.frame_bytes if self.greeting else self._mine.frame_bytes
        return min(self._mine.frame_bytes, theirs, self.channel.message_bytes_max)

    @property
    def queued_frames(self) -> int:
        return sum(map(len, self._queues))

    def offer(self, frame: bytes, priority: Priority) -> bool:
        """Queues a frame; False when the queue is full."""
        if self.queued_frames >= QUEUE_FRAMES_MAX or self.queued_bytes + len(frame) > QUEUE_BYTES_MAX:
            return False
        self._queues[priority].append(frame)
        self.queued_bytes += len(frame)
        self._pump_soon()
        return True

    def wait_ms(self, priority: Priority) -> float:
        """How long what goes before a frame of `priority` is on air."""
        frames = [frame for queue in self._queues[: priority + 1] for frame in queue]
        return sum(self.channel.airtime_ms(len(frame)) for frame in frames)

    def adopt(self, other: Link) -> None:
        """Takes over what waits for a channel that is not used any more."""
        for mine, theirs in zip(self._queues, other._queues, strict=True):
            mine.extend(theirs)
            theirs.clear()
        self.queued_bytes += other.queued_bytes
        other.queued_bytes = 0
        self._pump_soon()

    def close(self) -> None:
        if not self._over:
            self._stop()
            self.channel.close()

    def _end(self, why: str) -> None:
        if not self._over:
            self._stop()
            self.channel.close()
            self._owner.on_link_end(self, why)

    def _stop(self) -> None:
        self._over = True
        self._deadline.cancel()
        if self._stalled is not None:
            self._stalled.cancel()

    def _on_message(self, message: bytes) -> None:
        if self._over:
            return
        if self.greeting is not None:
            self.frames_heard += 1
            if 0 < len(message) <= self._mine.frame_bytes and message[0] < LINK_BYTE:
                self._owner.on_link_frame(self, message)
            return
        try:
            self.greeting = parse_greeting(message)
        except BadGreeting as error:
            self._end(f"bad greeting: {error}")
            return
        self._deadline.cancel()
        if not self.channel.outgoing:
            self._greet = True
        self._pump_soon()
        self._owner.on_greeting(self, self.greeting)

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Hands over what the channel takes."""
        self._pumping = False
        moved = False
        while not self._over:
            if self._greet:
                if not self.channel.write(bytes(self._mine)):
                    break
                self._greet, moved = False, True
                continue
            queue = next(filter(None, self._queues), None)
            if queue is None or self.greeting is None:
                break
            if not self.channel.write(queue[0]):
                break
            self.queued_bytes -= len(queue.popleft())
            self.frames_sent += 1
            moved = True
        self._watch(moved)
        if moved and self.queued_frames <= QUEUE_FRAMES_MAX // 2 and self.queued_bytes <= QUEUE_BYTES_MAX // 2:
            self._owner.on_link_room(self)

    def _watch(self, moved: bool) -> None:
        """Something has to move within STALL_S for as long as something waits."""
        waits = not self._over and (self._greet or (self.greeting is not None and any(self._queues)))
        if self._stalled is not None and (moved or not waits):
            self._stalled.cancel()
            self._stalled = None
        if waits and self._stalled is None:
            self._stalled = self._loop.call_later(STALL_S, self._end, "stalled")

"""A radio and its link in one, without the line between: a `Transport` that is itself a station on a LoRa channel.

For meshes of hundreds of nodes in virtual time. Medium access is that of RNode's firmware at little load: a free
channel for two slots, then 0 to 14 more, counted only while it stays free; what waits then leaves in one go, up to
BURST_FRAMES.
"""

from __future__ import annotations

from collections import deque

from offgrid_tools.emulators.channel import Channel
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.rnode import HEADER_BYTES
from offgrid_transports.lora.rnode_firmware import DIFS_SLOTS, contention_window, preamble_symbols, slot_ms
from offgrid_transports.transport import BROADCAST, OnEvent, OnFrame, Priority, Shown

FRAME_BYTES_MAX = 254
QUEUE_AIR_MS = 2_000.0
QUEUE_FRAMES_MIN = 4
BURST_FRAMES = 24


class AirLink:
    """`name` is the station's."""

    def __init__(self, name: str, channel: Channel, modulation: Modulation) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self.name = name
        self.sent_frames = self.sent_us = 0
        self.on: bool = True
        self._channel = channel
        self._modulation = modulation.with_preamble(preamble_symbols(modulation))
        self._slot_us = slot_ms(modulation) * 1000
        self._queues: tuple[deque[bytes], ...] = tuple(deque() for _ in Priority)
        self._queued_ms = 0.0
        self._refused = self._sending = False
        self._in_burst = self._turn = 0
        self._left_us: int | None = None  # of the random wait, while there is one
        self._free_since_us: int | None = None
        channel.join(self)

    # ---- as a Transport

    @property
    def up(self) -> bool:
        return self.on

    @property
    def shared(self) -> bool:
        return True

    @property
    def bitrate_bps(self) -> int:
        return self._modulation.bitrate_bps

    @property
    def access_ms(self) -> float:
        return (DIFS_SLOTS + sum(contention_window(0)) / 2) * self._slot_us / 1000

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return FRAME_BYTES_MAX

    def airtime_ms(self, length: int) -> float:
        return self._modulation.airtime_us(length + HEADER_BYTES) / 1000

    def wait_ms(self, length: int, priority: Priority) -> float:
        waiting = sum(self.airtime_ms(len(frame)) for queue in self._queues[: priority + 1] for frame in queue)
        return self.access_ms + waiting

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if len(frame) > FRAME_BYTES_MAX:
            raise ValueError(f"a frame of {len(frame)} bytes; this link carries {FRAME_BYTES_MAX}")
        air_ms = self.airtime_ms(len(frame))
        full = sum(map(len, self._queues)) >= QUEUE_FRAMES_MIN and self._queued_ms + air_ms > QUEUE_AIR_MS
        if not self.on or full:
            self._refused = True
            return False
        self._queues[priority].append(frame)
        self._queued_ms += air_ms
        self._contend()
        return True

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        return {"sent_frames": self.sent_frames, "airtime_ms": self.sent_us / 1000}

    def close(self) -> None:
        self.on = False
        for queue in self._queues:
            queue.clear()
        self._channel.leave(self)

    # ---- as a Station

    @property
    def tuned(self) -> Modulation | None:
        return self._modulation if self.on else None

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        self.on_frame(BROADCAST, frame[HEADER_BYTES:])

    def on_medium(self) -> None:
        if self._left_us is None:
            return
        now_us, busy = self._channel.clock.now_us, self._channel.busy(self)
        if busy and self._free_since_us is not None:
            self._left_us -= max(0, now_us - self._free_since_us - DIFS_SLOTS * self._slot_us)
            self._left_us, self._free_since_us = max(0, self._left_us), None
            self._turn += 1
        elif not busy and self._free_since_us is None:
            self._wait_free()

    # ---- medium access

    def _contend(self) -> None:
        if self._left_us is None and not self._sending:
            self._left_us = self._channel.rng.randint(*contention_window(0)) * self._slot_us
            self._free_since_us = None
            if not self._channel.busy(self):
                self._wait_free()

    def _wait_free(self) -> None:
        assert self._left_us is not None
        self._free_since_us = self._channel.clock.now_us
        self._turn += 1
        turn = self._turn
        self._channel.clock.after(DIFS_SLOTS * self._slot_us + self._left_us, lambda: self._begin(turn))

    def _begin(self, turn: int) -> None:
        if turn == self._turn and self._left_us is not None:
            self._left_us, self._in_burst = None, 0
            self._send_next()

    def _send_next(self) -> None:
        queue = next((queue for queue in self._queues if queue), None)
        self._sending = queue is not None and self._in_burst < BURST_FRAMES and self.on
        if queue is None or not self._sending:
            if queue is not None and self.on:
                self._contend()
            return
        frame = queue.popleft()
        self._in_burst += 1
        self._queued_ms -= self.airtime_ms(len(frame))
        self.sent_frames += 1
        self.sent_us += self._modulation.airtime_us(len(frame) + HEADER_BYTES)
        self._channel.send(self, self._modulation, bytes(HEADER_BYTES) + frame, self._sent)

    def _sent(self) -> None:
        self._send_next()
        if self._refused:
            self._refused = False
            self._channel.clock.after(0, self.on_room)

"""LoRa links in virtual time: the real adapters and the emulated modems, joined by lines that are no device."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

from offgrid_tools.emulators.clock import Clock, after_ms, now_ms
from offgrid_transports.keep import Keep, MemoryKeep
from offgrid_transports.transport import LinkHost

BYTE_US = 10_000_000 // 115_200
LATENCY_US = 1_000  # of a USB serial port


class Device(Protocol):
    """The other end of a line."""

    write: Callable[[bytes], object]

    def on_bytes(self, data: bytes) -> None: ...


def virtual_host(clock: Clock, rng: Random, *, keep: Keep | None = None, run: str = "run") -> LinkHost:
    """What a link is given when it lives in `clock`'s time; `run` names the run of the machine."""
    return LinkHost(
        rng,
        lambda delay_ms, fn: after_ms(clock, delay_ms, fn),
        lambda: now_ms(clock),
        keep=keep if keep is not None else MemoryKeep(),
        clock=run,
    )


class VirtualLine:
    """A line in `clock`'s time to an emulated device; a `Line`. Bytes arrive in order, as fast as 115,200 baud."""

    def __init__(self, clock: Clock) -> None:
        self.on_open: Callable[[], None] = lambda: None
        self.on_bytes: Callable[[bytes], None] = lambda data: None
        self.on_lost: Callable[[], None] = lambda: None
        self.trouble = "not plugged in"
        self._clock = clock
        self._device: Device | None = None
        self._started = self._open = False
        self._plugs = 0
        self._free_us = [0, 0]

    def plug(self, device: Device) -> None:
        """The device is there; it says what it says through this line."""
        self._device = device
        device.write = self.hear
        self._plugs += 1
        plugs = self._plugs
        self._clock.after(LATENCY_US, lambda: self._opened(plugs))

    def unplug(self) -> None:
        self._device = None
        self._plugs += 1
        if self._open:
            self._open = False
            self.trouble = "unplugged"
            self._clock.after(LATENCY_US, self.on_lost)

    def start(self) -> None:
        self._started = True
        plugs = self._plugs
        self._clock.after(LATENCY_US, lambda: self._opened(plugs))

    def write(self, data: bytes) -> None:
        device, plugs = self._device, self._plugs
        if self._open and data and device is not None:
            self._later(0, len(data), lambda: device.on_bytes(data) if plugs == self._plugs else None)

    def hear(self, data: bytes) -> None:
        """The device says this."""
        plugs = self._plugs
        if self._open and data:
            self._later(1, len(data), lambda: self.on_bytes(data) if plugs == self._plugs else None)

    def close(self) -> None:
        self.on_open = self.on_lost = lambda: None
        self.on_bytes = lambda data: None

    def _opened(self, plugs: int) -> None:
        if plugs == self._plugs and self._device is not None and self._started and not self._open:
            self._open, self.trouble = True, ""
            self.on_open()

    def _later(self, way: int, count: int, fn: Callable[[], object]) -> None:
        now_us = self._clock.now_us
        self._free_us[way] = max(self._free_us[way], now_us) + count * BYTE_US
        self._clock.after(self._free_us[way] + LATENCY_US - now_us, fn)

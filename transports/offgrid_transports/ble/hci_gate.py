"""What stands between a controller and Bumble's host: packets in portions, and the ones that nobody needs left out.

A controller may hand over hundreds of packets at once; they are taken for PORTION_MS at a time, so that the loop stays
free. Advertisements of others are dropped by their bytes, before they are parsed. Whatever a neighbour's bytes break in
the host is counted here and goes no further.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from offgrid_transports.ble.adverts import SERVICE_BYTES

PORTION_MS = 5.0
BACKLOG_PACKETS_MAX = 8192  # a controller of 2 Mbit/s needs seconds for that: who is so far behind starts anew
EVENT, LE_META = 0x04, 0x3E
ADVERTISING_REPORTS = (0x02, 0x0D)


class PacketSink(Protocol):
    """Whoever takes HCI packets."""

    def on_packet(self, packet: bytes) -> None: ...


class HciHost(PacketSink, Protocol):
    """Bumble's host."""

    def on_transport_lost(self) -> None:
        """Whoever waits for an answer gets none."""
        ...


class HciGate:
    """Both directions of one controller."""

    def __init__(self, host: HciHost, controller: PacketSink, on_lost: Callable[[str], None]) -> None:
        self.bad_packets = 0
        self.other_adverts = 0
        self._host = host
        self._controller = controller
        self._on_lost = on_lost
        self._backlog: deque[bytes] = deque()
        self._draining = False
        self.closed = False
        self._loop = asyncio.get_running_loop()
        self.towards_controller = _Outgoing(self)

    def on_packet(self, packet: bytes) -> None:
        """From the controller."""
        if self.closed:
            return
        if _reports_adverts(packet) and SERVICE_BYTES not in packet:
            self.other_adverts += 1
            return
        if len(self._backlog) >= BACKLOG_PACKETS_MAX:
            self.on_transport_lost("it sends more than can be taken")
            return
        self._backlog.append(packet)
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def on_transport_lost(self, why: str = "unplugged, or its other end is closed") -> None:
        """As Bumble's sources say it."""
        if not self.closed:
            self.close()
            self._on_lost(why)
            with contextlib.suppress(asyncio.InvalidStateError):  # the answer came in the same turn
                self._host.on_transport_lost()

    def send(self, packet: bytes) -> None:
        """Towards the controller."""
        if not self.closed:
            self._controller.on_packet(packet)

    def close(self) -> None:
        self.closed = True
        self._backlog.clear()

    def _drain(self) -> None:
        until = time.perf_counter() + PORTION_MS / 1000
        while self._backlog and not self.closed:
            self._take(self._backlog.popleft())
            if time.perf_counter() >= until:
                break
        self._draining = bool(self._backlog)
        if self._draining:
            self._loop.call_soon(self._drain)

    def _take(self, packet: bytes) -> None:
        try:
            self._host.on_packet(packet)
        except Exception:  # noqa: BLE001 - a neighbour's bytes: whatever they break is counted, and they are dropped
            self.bad_packets += 1


def _reports_adverts(packet: bytes) -> bool:
    return len(packet) > 3 and packet[0] == EVENT and packet[1] == LE_META and packet[3] in ADVERTISING_REPORTS


class _Outgoing:
    """The gate as Bumble's host sees its controller."""

    def __init__(self, gate: HciGate) -> None:
        self._gate = gate

    def on_packet(self, packet: bytes) -> None:
        self._gate.send(packet)

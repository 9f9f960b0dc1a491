"""What stands between a controller and Bumble's host: packets in portions, and the ones that nobody needs left out.

A controller may hand over hundreds of packets at once; they are taken for PORTION_MS at a time, so that the loop stays
free. Advertisements of others are dropped by their bytes, before they are parsed. Whatever a neighbour's bytes break in
the host is counted here and goes no further.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from offgrid_transports.ble.adverts import SERVICE_BYTES

PORTION_MS = 5.0
BACKLOG_PACKETS_MAX = 8192  # a controller of 2 Mbit/s needs seconds for that: who is so far behind starts anew
ACL_DATA, EVENT = 0x02, 0x04
COMPLETED_PACKETS, LE_META = 0x13, 0x3E
ADVERTISING_REPORTS = (0x02, 0x0D)
HANDLE_MASK = 0x0FFF


class PacketSink(Protocol):
    """Whoever takes HCI packets."""

    def on_packet(self, packet: bytes) -> None: ...


class HciGate:
    """Both directions of one controller; `in_flight` counts the data packets that it has of each connection."""

    def __init__(self, host: PacketSink, controller: PacketSink, on_lost: Callable[[str], None]) -> None:
        self.in_flight: Counter[int] = Counter()
        self.on_completed: Callable[[], None] = lambda: None
        """The controller has sent something."""
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

    def send(self, packet: bytes) -> None:
        """Towards the controller."""
        if self.closed:
            return
        if packet[0] == ACL_DATA:
            self.in_flight[int.from_bytes(packet[1:3], "little") & HANDLE_MASK] += 1
        self._controller.on_packet(packet)

    def forget(self, handle: int) -> None:
        """That connection is gone, and what the controller had of it."""
        self.in_flight.pop(handle, None)

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
        if packet[:2] == bytes((EVENT, COMPLETED_PACKETS)):
            self._completed(packet)

    def _completed(self, packet: bytes) -> None:
        count = packet[3] if len(packet) > 3 else 0
        if len(packet) < 4 + 4 * count:
            self.bad_packets += 1
            return
        for at in range(4, 4 + 4 * count, 4):
            handle = int.from_bytes(packet[at : at + 2], "little") & HANDLE_MASK
            done = int.from_bytes(packet[at + 2 : at + 4], "little")
            if handle in self.in_flight:
                self.in_flight[handle] = max(0, self.in_flight[handle] - done)
        self.on_completed()


def _reports_adverts(packet: bytes) -> bool:
    return len(packet) > 3 and packet[0] == EVENT and packet[1] == LE_META and packet[3] in ADVERTISING_REPORTS


class _Outgoing:
    """The gate as Bumble's host sees its controller."""

    def __init__(self, gate: HciGate) -> None:
        self._gate = gate

    def on_packet(self, packet: bytes) -> None:
        self._gate.send(packet)

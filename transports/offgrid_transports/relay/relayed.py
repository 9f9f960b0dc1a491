"""A node that is reached over several hops, as a link: to a session it is one like the others, only slower."""

from __future__ import annotations

from typing import Protocol

from offgrid_transports.relay.metric import Metric
from offgrid_transports.transport import BROADCAST, OnEvent, OnFrame, Priority, Shown, Transport

REPAIRS = 2.0  # waits for the media, with those of frames that have to be sent again: hops repair before the ends do
UNKNOWN = Metric(0, 0, 0, 1200, False)


class Ways(Protocol):
    """Who carries what is sent."""

    def metric(self, name: bytes) -> Metric | None: ...

    def reaches(self, name: bytes) -> bool: ...

    def wait_ms(self, name: bytes, length: int, priority: Priority) -> float: ...

    def send(self, name: bytes, frame: bytes, priority: Priority) -> bool: ...

    def first_link(self, name: bytes) -> Transport | None: ...


class Relayed:
    """A `Transport` to one node; its address there is its name in hexadecimal digits."""

    def __init__(self, name: bytes, ways: Ways) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self.name, self.address = name, name.hex()
        self._ways, self._closed = ways, False

    @property
    def _metric(self) -> Metric:
        return self._ways.metric(self.name) or UNKNOWN

    @property
    def up(self) -> bool:
        return not self._closed and self._ways.reaches(self.name)

    @property
    def first_link(self) -> Transport | None:
        """The link of this node's own that frames take first."""
        return self._ways.first_link(self.name)

    @property
    def shared(self) -> bool:
        return self._metric.shared

    @property
    def bitrate_bps(self) -> int:
        byte_ns = self._metric.byte_ns
        return 8_000_000_000 // byte_ns if byte_ns else 0

    @property
    def access_ms(self) -> float:
        return REPAIRS * self._metric.access_us / 1000

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return self._metric.mtu_bytes

    def airtime_ms(self, length: int) -> float:
        return self._metric.airtime_ms(length)

    def wait_ms(self, length: int, priority: Priority) -> float:
        return self._ways.wait_ms(self.name, length, priority)

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if len(frame) > self.mtu_bytes():
            raise ValueError(f"a frame of {len(frame)} bytes; this way carries {self.mtu_bytes()}")
        return not self._closed and self._ways.send(self.name, frame, priority)

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        metric = self._metric
        return {"relayed_to": self.address, "mtu_bytes": metric.mtu_bytes, "access_ms": self.access_ms}

    def close(self) -> None:
        self._closed = True
        self.on_frame = lambda address, frame: None
        self.on_room = self.on_change = lambda: None

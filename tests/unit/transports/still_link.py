"""A link that only says what it is and keeps what it is handed: for what asks a link and never hears from it."""

from __future__ import annotations

from offgrid_transports.transport import BROADCAST, OnEvent, OnFrame, Priority, Shown


class StillLink:
    """A byte takes a millisecond. Takes `room` frames, then says False."""

    def __init__(self, *, shared: bool = False, frame_bytes: int = 100, access_ms: float = 0, room: int = 1000) -> None:
        self.shared, self.frame_bytes, self.access_ms, self.room = shared, frame_bytes, access_ms, room
        self.up, self.bitrate_bps = True, 8000
        self.sent: list[tuple[str, bytes, Priority]] = []
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return self.frame_bytes

    def airtime_ms(self, length: int) -> float:
        return float(length)

    def wait_ms(self, length: int, priority: Priority) -> float:
        return self.access_ms

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if len(frame) > self.frame_bytes:
            raise ValueError(f"{len(frame)} bytes")
        if not self.up or not self.room:
            return False
        self.room -= 1
        self.sent.append((address, frame, priority))
        return True

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        return {}

    def close(self) -> None:
        self.up = False

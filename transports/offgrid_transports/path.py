"""Where a session's frames go: an address on a link, and what follows from that for times and lengths."""

from __future__ import annotations

from dataclasses import dataclass

from offgrid_transports.transport import Priority, Transport

SHORT_BYTES = 24  # an acknowledgement, sealed
GUESS_MS = 50.0  # of a peer's delay, before it is measured
ACK_DELAY_MS_MIN = 8.0
_ACCESSES = 3  # a slot is waited for until it is free: somewhat more than the mean


@dataclass(frozen=True, slots=True)
class Path:
    """Two are the same where link and address are."""

    transport: Transport
    address: str

    @property
    def shared(self) -> bool:
        return self.transport.shared

    @property
    def frame_bytes(self) -> int:
        return self.transport.mtu_bytes(self.address)

    @property
    def guess_ms(self) -> float:
        return GUESS_MS + 2 * self.transport.access_ms

    @property
    def ack_delay_ms(self) -> float:
        """How long an acknowledgement waits for others, or for an answer that makes it superfluous: as long as it would
        take on the air."""
        if not self.shared:
            return max(ACK_DELAY_MS_MIN, 2 * self.transport.airtime_ms(self.frame_bytes))
        return max(ACK_DELAY_MS_MIN, self.transport.access_ms + self.transport.airtime_ms(SHORT_BYTES))

    def sent_ms(self, length: int, priority: Priority) -> float:
        """In how long a frame that is handed over now will have left."""
        return self.transport.wait_ms(length, priority) + self.transport.airtime_ms(length)

    def answered_ms(self, length: int, priority: Priority) -> float:
        """In how long the shortest answer to it may be here, as far as the link goes."""
        transport = self.transport
        return self.sent_ms(length, priority) + _ACCESSES * transport.access_ms + transport.airtime_ms(SHORT_BYTES)

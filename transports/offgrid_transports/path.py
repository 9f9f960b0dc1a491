"""Where a session's frames go: an address on a link, and what follows from that for times and lengths."""

from __future__ import annotations

import math

import msgspec

from offgrid_transports.transport import Priority, Transport

SHORT_BYTES = 24  # an acknowledgement, sealed
DOWN_MS = 1_000.0  # assumed of a link that cannot send at all for now
GUESS_MS = 50.0  # of a peer's delay, before it is measured
ACK_DELAY_MS_MIN = 8.0
_ACCESSES = 3  # a slot is waited for until it is free: somewhat more than the mean


class Path(msgspec.Struct, frozen=True):
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
        return GUESS_MS + self.transport.access_ms

    @property
    def ack_delay_ms(self) -> float:
        """How long an acknowledgement waits for others, or for an answer that makes it superfluous: as long as it would
        take on the air."""
        if not self.shared:
            return max(ACK_DELAY_MS_MIN, 2 * self.transport.airtime_ms(self.frame_bytes))
        return max(ACK_DELAY_MS_MIN, self.transport.access_ms + self.transport.airtime_ms(SHORT_BYTES))

    def air_ms(self, length: int) -> float:
        """How long so many bytes occupy the link, in several frames if need be."""
        transport, frame_bytes = self.transport, self.frame_bytes
        full, rest = divmod(length, frame_bytes)
        return full * transport.airtime_ms(frame_bytes) + (transport.airtime_ms(rest) if rest else 0.0)

    def sent_ms(self, length: int, priority: Priority) -> float:
        """In how long so many bytes, handed over now, will have left; never infinite, for a link may come back."""
        wait_ms = self.transport.wait_ms(min(length, self.frame_bytes), priority)
        return (wait_ms if wait_ms < math.inf else DOWN_MS) + self.air_ms(length)

    def answered_ms(self, length: int, priority: Priority) -> float:
        """In how long the shortest answer to it may be here, as far as the link goes."""
        transport = self.transport
        return self.sent_ms(length, priority) + _ACCESSES * transport.access_ms + transport.airtime_ms(SHORT_BYTES)

"""How long Bluetooth LE is on air for a message, pure: from the PHY, the data length and the shape of the channel.

Bluetooth Core 5.4, Vol 6 Part B: 2.1 packets of the uncoded PHYs, 2.2 of the coded one, 4.1.1 the space between two
packets. Each data packet is answered by an empty one; what a connection event leaves unused is not counted, so these
are the figures of a connection that is always on air: the most that the link carries.
"""

from __future__ import annotations

from enum import Enum

import msgspec

SPACE_US = 150.0  # T_IFS
OCTETS_MIN = 27  # the data length of every connection at first
OCTETS_MAX = 251
L2CAP_HEADER_BYTES = 4


class Phy(Enum):
    """The name is what people call it; microseconds for what stands before the header, and for each byte from there."""

    LE_1M = ("1M", 40.0, 8.0)
    LE_2M = ("2M", 24.0, 4.0)
    LE_CODED_S8 = ("coded S8", 400.0, 64.0)  # preamble 80, access address 256, coding indicator 16, two ends of 24
    LE_CODED_S2 = ("coded S2", 382.0, 16.0)  # up to the coding indicator and its end as S8, the last end 6

    def __init__(self, label: str, before_us: float, byte_us: float) -> None:
        self.label = label
        self.before_us = before_us
        self.byte_us = byte_us

    def packet_us(self, payload_bytes: int) -> float:
        """One packet of the link layer: header 2, payload, check 3."""
        return self.before_us + (2 + payload_bytes + 3) * self.byte_us

    def exchange_us(self, payload_bytes: int) -> float:
        """A packet, its answer and the spaces after both."""
        return self.packet_us(payload_bytes) + self.packet_us(0) + 2 * SPACE_US


class Shape(msgspec.Struct, frozen=True):
    """How a channel cuts a message: pieces of at most `piece_bytes`, each with `piece_overhead`, the message with
    `message_overhead` once."""

    piece_bytes: int
    piece_overhead: int
    message_overhead: int = 0


def message_ms(length: int, shape: Shape, phy: Phy, octets: int) -> float:
    """How long a message of `length` bytes is on air over a connection with packets of up to `octets`."""
    whole, rest = divmod(length + shape.message_overhead, shape.piece_bytes)
    total_us = whole * _piece_us(shape.piece_bytes + shape.piece_overhead, phy, octets)
    if rest or not whole:
        total_us += _piece_us(rest + shape.piece_overhead, phy, octets)
    return total_us / 1000


def _piece_us(length: int, phy: Phy, octets: int) -> float:
    whole, rest = divmod(length, octets)
    return whole * phy.exchange_us(octets) + (phy.exchange_us(rest) if rest else 0.0)

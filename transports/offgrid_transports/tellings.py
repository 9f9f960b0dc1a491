"""What a member says to all who hear it on one link, so that it need not say it to each.

    0x80 | tag 8 | stamp 6 | said 1.. | MAC 8

Tag, stamp and MAC are a beacon's (beacons.py): the MAC shows that it is of this mesh, the stamp that it is no recording
for who has heard a later one. What is said is a hint that its hearer looks into over a session.
"""

from __future__ import annotations

from typing import NamedTuple

from offgrid_transports.beacons import TAG_BYTES
from offgrid_transports.macs import LONG_BYTES, bears, mac
from offgrid_transports.stamps import STAMP_BYTES

TELLING = 0x80
MAC_BYTES = LONG_BYTES
HEAD_BYTES = 1 + TAG_BYTES + STAMP_BYTES
TELLING_BYTES_MAX = 222  # whole, in one LoRa frame of any modem
SAID_BYTES_MAX = TELLING_BYTES_MAX - HEAD_BYTES - MAC_BYTES
_PERSON = b"og.tell"


class Telling(NamedTuple):
    tag: bytes
    stamp: int
    said: bytes


def write_telling(psk: bytes, telling: Telling) -> bytes:
    frame = bytes((TELLING,)) + telling.tag + telling.stamp.to_bytes(STAMP_BYTES) + telling.said
    return frame + mac(psk, _PERSON, frame, MAC_BYTES)


def read_telling(psk: bytes, frame: bytes) -> Telling | None:
    """None for what is none of this mesh."""
    if not HEAD_BYTES + MAC_BYTES < len(frame) <= TELLING_BYTES_MAX or frame[0] != TELLING:
        return None
    if not bears(psk, _PERSON, frame, MAC_BYTES):
        return None
    at = 1 + TAG_BYTES
    return Telling(frame[1:at], int.from_bytes(frame[at:HEAD_BYTES]), frame[HEAD_BYTES:-MAC_BYTES])

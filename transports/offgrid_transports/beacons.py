"""A node says where it is, to all who hear: so members of its mesh learn at which address of a link it is found.

    0x30 | tag 8 | stamp 6 | again 2 | told 0..16 | MAC 8

`tag` is a hash of the node's key, `stamp` a time in milliseconds that only rises, `again` in how many seconds the next
one is due, `told` what the node has to say of itself. The MAC keeps other meshes' beacons and accidents out, no more:
where a node is, is believed once a handshake at that address has come to something, and what is told is a hint.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from offgrid_transports.macs import LONG_BYTES, bears, mac
from offgrid_transports.stamps import STAMP_BYTES

BEACON = 0x30
TAG_BYTES, AGAIN_BYTES, MAC_BYTES = 8, 2, LONG_BYTES
TOLD_BYTES_MAX = 16
HEAD_BYTES = 1 + TAG_BYTES + STAMP_BYTES + AGAIN_BYTES
BEACON_BYTES_MAX = HEAD_BYTES + TOLD_BYTES_MAX + MAC_BYTES
AGAIN_S_MAX = (1 << 8 * AGAIN_BYTES) - 1
_PERSON = b"og.beacn"


class Beacon(NamedTuple):
    tag: bytes
    stamp: int
    again_s: int
    told: bytes = b""


def tag_of(public: bytes) -> bytes:
    """Of a node's static public key."""
    return hashlib.blake2s(public, digest_size=TAG_BYTES, person=b"og.tag").digest()


def write_beacon(psk: bytes, beacon: Beacon) -> bytes:
    head = bytes((BEACON,)) + beacon.tag + beacon.stamp.to_bytes(STAMP_BYTES)
    said = head + min(beacon.again_s, AGAIN_S_MAX).to_bytes(AGAIN_BYTES) + beacon.told
    return said + mac(psk, _PERSON, said, MAC_BYTES)


def read_beacon(psk: bytes, frame: bytes) -> Beacon | None:
    """None for what is none of this mesh."""
    if not HEAD_BYTES + MAC_BYTES <= len(frame) <= BEACON_BYTES_MAX or frame[0] != BEACON:
        return None
    if not bears(psk, _PERSON, frame, MAC_BYTES):
        return None
    said = frame[:-MAC_BYTES]
    stamp_at, again_at = 1 + TAG_BYTES, 1 + TAG_BYTES + STAMP_BYTES
    stamp, again_s = int.from_bytes(said[stamp_at:again_at]), int.from_bytes(said[again_at:HEAD_BYTES])
    return Beacon(said[1:stamp_at], stamp, again_s, said[HEAD_BYTES:])

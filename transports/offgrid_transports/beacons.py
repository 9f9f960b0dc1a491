"""A node says where it is, to all who hear: so members of its mesh learn at which address of a link it is found.

    0x30 | tag 8 | stamp 6 | MAC 8

`tag` is a hash of the node's key, `stamp` a time in milliseconds that only rises. The MAC keeps other meshes' beacons
and accidents out, no more: what a beacon says is believed once a handshake at that address has come to something.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

BEACON = 0x30
TAG_BYTES, STAMP_BYTES, MAC_BYTES = 8, 6, 8
BEACON_BYTES = 1 + TAG_BYTES + STAMP_BYTES + MAC_BYTES


class Beacon(NamedTuple):
    tag: bytes
    stamp: int


def tag_of(public: bytes) -> bytes:
    """Of a node's static public key."""
    return hashlib.blake2s(public, digest_size=TAG_BYTES, person=b"og.tag").digest()


def write_beacon(psk: bytes, beacon: Beacon) -> bytes:
    said = bytes((BEACON,)) + beacon.tag + beacon.stamp.to_bytes(STAMP_BYTES)
    return said + _mac(psk, said)


def read_beacon(psk: bytes, frame: bytes) -> Beacon | None:
    """None for what is none of this mesh."""
    said, mac = frame[:-MAC_BYTES], frame[-MAC_BYTES:]
    if len(frame) != BEACON_BYTES or frame[0] != BEACON or mac != _mac(psk, said):
        return None
    return Beacon(said[1 : 1 + TAG_BYTES], int.from_bytes(said[1 + TAG_BYTES :]))


def _mac(psk: bytes, said: bytes) -> bytes:
    return hashlib.blake2s(said, key=psk, digest_size=MAC_BYTES, person=b"og.beacn").digest()

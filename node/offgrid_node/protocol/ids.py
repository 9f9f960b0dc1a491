"""Identifiers: how they are made and what they may look like.

A node id is the base32 of a 160-bit BLAKE2b hash of the node's first Ed25519 key (32 lower-case characters, so that
it fits a DNS label). Missions and tasks are named by 80 random bits behind a one-letter prefix. Jobs come by the
thousand and in the order of time: their ids begin with it, so that rows made together lie together in the store (as
RFC 9562, UUID version 7).
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache

from offgrid_node.protocol.rng import Rng

NODE_ID_BYTES = 20
NODE_ID = re.compile(r"[a-z2-7]{32}\Z")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})\Z")
NODE_IDS_REMEMBERED = 4_096  # in both forms; those of the mesh come again and again
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _LETTERS for second in _LETTERS]
_TIME_BYTES, _CHANCE_BYTES = 6, 9  # milliseconds since 1970 modulo 2^48, which lasts for 8,900 years, and 72 bits
_STANDARD, _SORTED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"234567abcdefghijklmnopqrstuvwxyz"
_ORDERED, _DISORDERED = bytes.maketrans(_STANDARD, _SORTED), bytes.maketrans(_SORTED, _STANDARD)
ID_BYTES = 10  # of chance in an id of `fresh_id`
NAME_RULE = "1 to 63 characters of a-z, 0-9 and '-', the first not '-'"


def base32(data: bytes) -> str:
    """Lower-case base32 without padding; two characters at a time, which takes half of base64.b32encode's time."""
    pairs = -(-4 * len(data) // 5)  # of five bits for each character
    number = int.from_bytes(data, "big") << (10 * pairs - 8 * len(data))
    spelled = "".join([_PAIRS[number >> shift & 1023] for shift in range(10 * pairs - 10, -1, -10)])
    return spelled[: -(-8 * len(data) // 5)]


def unbase32(text: str) -> bytes:
    """The inverse of `base32`; raises ValueError on anything that it would not have written."""
    data = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    if base32(data) != text:
        raise ValueError("not canonical base32")
    return data


def node_id_of(public_key: bytes) -> str:
    """The node id of a 32-byte Ed25519 public key; also the fingerprint under which a later key is known."""
    digest = hashlib.blake2b(public_key, digest_size=NODE_ID_BYTES, person=b"og.node-id.v1").digest()
    return base32(digest)


@lru_cache(NODE_IDS_REMEMBERED)
def node_id_bytes(node_id: str) -> bytes:
    """The 20 bytes behind a node id; raises ValueError when it is none."""
    if not NODE_ID.match(node_id):
        raise ValueError(f"{node_id!r} is not a node id")
    return unbase32(node_id)


@lru_cache(NODE_IDS_REMEMBERED)
def node_id_from(data: bytes) -> str:
    """The node id of these 20 bytes."""
    if len(data) != NODE_ID_BYTES:
        raise ValueError(f"a node id has {NODE_ID_BYTES} bytes, not {len(data)}")
    return base32(data)


def fresh_id(prefix: str, rng: Rng) -> str:
    """A new id such as `j-4rk2…`: 80 bits of `rng` behind `prefix`."""
    return f"{prefix}-{base32(rng.randbytes(ID_BYTES))}"


def fresh_timely_id(prefix: str, utc_us: int, rng: Rng) -> str:
    """A new id that sorts by the time of its making: 24 characters whose alphabet is in the order of ASCII."""
    time = (utc_us // 1_000 % (1 << 8 * _TIME_BYTES)).to_bytes(_TIME_BYTES, "big")
    text = base64.b32encode(time + rng.randbytes(_CHANCE_BYTES)).translate(_ORDERED)
    return f"{prefix}-{text.decode('ascii')}"


def time_of_id(timely_id: str) -> int:
    """Of an id of `fresh_timely_id`: milliseconds since 1970 modulo 2^48."""
    text = timely_id.partition("-")[2].encode("ascii").translate(_DISORDERED)
    return int.from_bytes(base64.b32decode(text)[:_TIME_BYTES], "big")

"""Identifiers: how they are made and what they may look like.

A node id is the base32 of a 160-bit BLAKE2b hash of the node's first Ed25519 key (32 lower-case characters, so that
it fits a DNS label). Missions, tasks and jobs are named by 80 random bits behind a one-letter prefix.
"""

from __future__ import annotations

import base64
import hashlib
import re

from offgrid_node.protocol.rng import Rng

NODE_ID_BYTES = 20
NODE_ID = re.compile(r"[a-z2-7]{32}\Z")
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})\Z")
NAME_RULE = "1 to 63 characters of a-z, 0-9 and '-', the first not '-'"


def base32(data: bytes) -> str:
    """Lower-case base32 without padding."""
    return base64.b32encode(data).decode("ascii").rstrip("=").lower()


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


def node_id_bytes(node_id: str) -> bytes:
    """The 20 bytes behind a node id; raises ValueError when it is none."""
    if not NODE_ID.match(node_id):
        raise ValueError(f"{node_id!r} is not a node id")
    return unbase32(node_id)


def fresh_id(prefix: str, rng: Rng) -> str:
    """A new id such as `j-4rk2…`: 80 bits of `rng` behind `prefix`."""
    return f"{prefix}-{base32(rng.randbytes(10))}"

"""Version vectors: for each origin, which numbers its items run up to (Parker et al. 1983).

They tell "in sync" and who lacks whose latest in one message, and find no holes: who has an origin's item 7 is taken to
have 1 to 6 as well. Whether that is so, fingerprints over the items tell.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.reconcile.varints import read_varint, varint

ORIGINS_MAX = 2_048  # in one vector
DIGEST_BYTES = 16
VECTOR_KIND = b"og.vector.v1"

Heights = Mapping[bytes, int]
"""An origin's id (NODE_ID_BYTES) → its highest number here; one that is not named has 0."""


@dataclass(frozen=True, slots=True)
class Gap:
    """By origin: the numbers (the first, the last) that only the other has, or only this side."""

    there: Mapping[bytes, tuple[int, int]]
    here: Mapping[bytes, tuple[int, int]]


def gap_between(here: Heights, there: Heights) -> Gap:
    return Gap(_beyond(here, there), _beyond(there, here))


def digest_of(heights: Heights) -> bytes:
    return hashlib.blake2b(encode_vector(heights), digest_size=DIGEST_BYTES, person=VECTOR_KIND).digest()


def encode_vector(heights: Heights) -> bytes:
    return b"".join(origin + varint(height) for origin, height in sorted(heights.items()) if height)


def decode_vector(raw: bytes) -> dict[bytes, int]:
    """Raises PeerFault (reason BadVector) for anything that `encode_vector` would not have written."""
    heights, at, last = dict[bytes, int](), 0, b""
    try:
        while at < len(raw):
            origin = raw[at : at + NODE_ID_BYTES]
            height, at = read_varint(raw, at + NODE_ID_BYTES)
            if not last < origin or not height or len(heights) == ORIGINS_MAX:
                raise ValueError(f"no origin in its place before byte {at}")
            heights[origin], last = height, origin
    except ValueError as error:
        raise PeerFault(f"version vector: {error}", reason="BadVector") from error
    return heights


def _beyond(mine: Heights, theirs: Heights) -> dict[bytes, tuple[int, int]]:
    return {
        origin: (mine.get(origin, 0) + 1, height) for origin, height in theirs.items() if height > mine.get(origin, 0)
    }

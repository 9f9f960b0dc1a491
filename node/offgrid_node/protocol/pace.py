"""What a call takes of the road that leads to a peer now, so that nothing is chatty where roads are slow.

A radio channel belongs to all who are in reach. Whoever says something regularly asks how far apart that has to be, so
that its kind takes SHARE of the road's time at most; whoever waits for an answer asks how much longer it takes there.
Between machines with a cable all of it is nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import msgspec

SHARE = 2_000  # of a road's time one part is for each kind of thing that one node says regularly
SEALED_BYTES = 24  # of a frame: what it is, for whom, and that nobody has changed it
WAIT_FACTOR = 4  # frames get lost, and others have the channel meanwhile


class Pace(msgspec.Struct, frozen=True):
    """`frame_us` is what a frame takes beside its bytes, `byte_us` what each of those takes; `wait_ms` passes, as a
    rule, until a frame may begin. `frame_bytes` is the longest frame; `peers` are reached by the same road."""

    frame_us: int = 0
    byte_us: int = 0
    wait_ms: int = 0
    frame_bytes: int = 1_200
    peers: int = 1

    @property
    def free(self) -> bool:
        """Whether nothing needs to be spared."""
        return not self.byte_us

    def air_ms(self, size_bytes: int) -> int:
        """How long a call occupies the road, whose question and answer have so many bytes together."""
        if self.free:
            return 0
        frames = 2 + size_bytes // (self.frame_bytes - SEALED_BYTES)
        return math.ceil((frames * self.frame_us + (size_bytes + frames * SEALED_BYTES) * self.byte_us) / 1_000)

    def apart_ms(self, size_bytes: int, share: int = SHARE) -> int:
        """So far apart are such calls to one peer that all of its road's together take a part in `share` at most."""
        return self.air_ms(size_bytes) * self.peers * share

    def longer_ms(self, size_bytes: int) -> int:
        """How much longer such a call may take than over a free road."""
        return WAIT_FACTOR * (self.air_ms(size_bytes) + 2 * self.wait_ms)


FREE = Pace()
Paces: TypeAlias = Callable[[str], Pace]
"""Of the best road that reaches a node now; FREE where none does, and for this node itself."""


def all_free(node_id: str) -> Pace:
    """Of a mesh in which nothing needs to be spared."""
    return FREE

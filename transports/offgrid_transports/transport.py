"""What a link is: something that carries single frames between addresses and promises nothing about them.

Synchronous and driven by callbacks, so that a simulator can drive it in virtual time. Frames may be lost, doubled,
delayed and reordered; whatever must arrive is the business of the protocol above (`rpc.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

FRAME_BYTES_MAX = 65_507  # what one UDP datagram can carry; no link here carries more at once

OnFrame = Callable[[str, bytes], None]
Schedule = Callable[[int, Callable[[], object]], None]  # (delay_ms, what then runs once); never runs it at once


class TransportError(Exception):
    """The root of what this package raises; the message is a sentence for people."""


class BadSpec(TransportError):
    """A link's description cannot be used; says what is wrong and what is allowed."""


class Transport(Protocol):
    """One end of a link. All methods and the callback belong to one thread."""

    on_frame: OnFrame
    """Called as `on_frame(address, frame)` for each frame heard, never from within `send`. The owner sets it before it
    sends."""

    @property
    def mtu_bytes(self) -> int:
        """The longest frame that `send` takes."""
        ...

    @property
    def bitrate_bps(self) -> int:
        """What the link carries at best; 0 when it is not limited by its bit rate."""
        ...

    def airtime_ms(self, length: int) -> float:
        """How long a frame of `length` bytes occupies the link."""
        ...

    def send(self, address: str, frame: bytes) -> bool:
        """Queues a frame and returns at once; False when the bounded queue is full or the link is closed, and the
        frame was dropped. Raises ValueError for a frame longer than `mtu_bytes`."""
        ...

    def close(self) -> None:
        """Neither sends nor calls back any more; may be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class LinkHost:
    """What a link is given by the process that opens it.

    `shared` holds what links of one process have in common (the in-memory network): hand the same host to all that
    shall hear each other.
    """

    rng: Random
    schedule: Schedule
    shared: dict[str, object] = field(default_factory=dict)

"""What a link is: something that carries single frames between addresses and promises nothing about them.

Synchronous and driven by callbacks, so that a simulator can drive it in virtual time. Frames may be lost, doubled,
delayed, reordered and forged; whatever must arrive, and from whom, is the business of the protocol above. A frame has
at least one byte, and the first is below LINK_BYTE: what begins with a higher one is between the two ends of a link
(probes, hellos), and no frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntEnum
from random import Random
from typing import Protocol

import msgspec

from offgrid_transports.keep import Keep, MemoryKeep

FRAME_BYTES_MAX = 65_507  # what one UDP datagram can carry; no link here carries more at once
LINK_BYTE = 0xF0
BROADCAST = "*"
"""To all who hear; and, on a shared medium, the only address there is."""

OnFrame = Callable[[str, bytes], None]
OnEvent = Callable[[], None]
Schedule = Callable[[int, Callable[[], object]], None]  # (delay_ms, what then runs once); never runs it at once
Shown = Mapping[str, str | int | float]


class TransportError(Exception):
    """The root of what this package raises; the message is a sentence for people."""


class BadSpec(TransportError):
    """A link's description cannot be used; says what is wrong and what is allowed."""


class Priority(IntEnum):
    """Who goes first where a link cannot carry all."""

    CONTROL = 0
    PAYMENT = 1
    JOB = 2
    BULK = 3


class Transport(Protocol):
    """One end of a link. All methods and the callbacks belong to one thread; no callback comes from within a call."""

    on_frame: OnFrame
    """Called as `on_frame(address, frame)` for each frame heard. The owner sets it before it sends."""
    on_room: OnEvent
    """`send` has said False, and now has room again."""
    on_change: OnEvent
    """`up`, `neighbours` or an `mtu_bytes` is another one."""

    @property
    def up(self) -> bool:
        """False while its device is unplugged, not set up yet or closed: nothing can be sent."""
        ...

    @property
    def shared(self) -> bool:
        """All who are in reach hear all that is sent and only one at a time can send, as on a radio channel. There
        are no addresses then: what is heard comes from BROADCAST, and all that is sent goes there."""
        ...

    @property
    def bitrate_bps(self) -> int:
        """What the link carries at best; 0 when it is not limited by its bit rate."""
        ...

    @property
    def access_ms(self) -> float:
        """How long a frame waits, as a rule, for a free medium before it begins; 0 where there is no such wait."""
        ...

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        """The longest frame that `send` takes to there."""
        ...

    def airtime_ms(self, length: int) -> float:
        """How long a frame of `length` bytes occupies the link."""
        ...

    def wait_ms(self, length: int, priority: Priority) -> float:
        """How long until a frame that is handed over now would begin: what is queued, and what rules of the air
        leave. Infinite while it may never be sent."""
        ...

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        """Queues a frame and returns at once; False when the short queue is full, the rules of the air leave no time
        for it or the link is down, and the frame was dropped. Raises ValueError for a frame longer than
        `mtu_bytes`."""
        ...

    def neighbours(self) -> tuple[str, ...]:
        """Whom it is connected to now; empty on links without connections."""
        ...

    def figures(self) -> Shown:
        """What people want to know of it: counters, signal, what the device says of itself."""
        ...

    def close(self) -> None:
        """Neither sends nor calls back any more; may be called twice."""
        ...


def own_link(transport: Transport) -> Transport:
    """The link of this node's own that frames for there take first; another one where a way leads over others."""
    first: Transport | None = getattr(transport, "first_link", None)
    return transport if first is None else first


def duty_share(transport: Transport) -> float:
    """What rules of the air leave it of all time, from 0 to 1: a link that is bound by some has a property that is so
    called."""
    share: float = getattr(transport, "duty_share", 1.0)
    return share


class Unshared:
    """What holds of a link that nobody else waits for and no bit rate bounds, for adapters of such."""

    @property
    def shared(self) -> bool:
        return False

    @property
    def bitrate_bps(self) -> int:
        return 0

    @property
    def access_ms(self) -> float:
        return 0.0

    def airtime_ms(self, length: int) -> float:
        return 0.0


class LinkHost(msgspec.Struct, frozen=True):
    """What a link is given by the process that opens it.

    `now_ms` is a monotonic clock. `shared` holds what links of one process have in common (the in-memory network): hand
    the same host to all that shall hear each other. Links with sockets and devices use the running asyncio loop.
    """

    rng: Random
    schedule: Schedule
    now_ms: Callable[[], int]
    shared: dict[str, object] = msgspec.field(default_factory=dict)
    keep: Keep = msgspec.field(default_factory=MemoryKeep)
    """Where links remember what has to outlive the process, such as the airtime of the last hour. The default forgets:
    a daemon gives one that lasts."""
    clock: str = ""
    """Tells the run of the machine in which `now_ms` counts from another one, such as Linux' boot id; empty when
    nothing does."""
    hello: bytes = b""
    """Up to HELLO_BYTES_MAX that a link with advertisements shows to all who are near, so that nodes of a mesh find
    each other: the first HELLO_MESH_BYTES tell the mesh, the rest who."""


HELLO_BYTES_MAX = 16
HELLO_MESH_BYTES = 8

"""A packet network inside one process: the twin of every real link, with seeded faults.

Each end has one bounded send queue that drains at the link's bit rate. Every frame may be lost, doubled, delayed and
thereby reordered; the same `Random` and the same schedule give the same faults again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import msgspec

from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import (
    BROADCAST,
    FRAME_BYTES_MAX,
    BadSpec,
    LinkHost,
    OnEvent,
    OnFrame,
    Priority,
    Schedule,
    Shown,
    Unshared,
)

QUEUE_FRAMES_MAX = 4096  # waiting to leave one end; a real radio's queue is shorter still
ENDS_MAX = 1024
MTU_BYTES_MIN = 32


class Faults(msgspec.Struct, frozen=True):
    """How bad the network is. Probabilities are per frame; a frame takes `delay_ms` plus up to `jitter_ms`."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: int = 0
    jitter_ms: int = 0


FAULTLESS = Faults()


class MemoryNetwork:
    """Joins ends by name. `faults` and `cut` may be changed while it runs."""

    def __init__(
        self,
        rng: Random,
        schedule: Schedule,
        *,
        mtu_bytes: int = 1200,
        bitrate_bps: int = 0,
        faults: Faults = FAULTLESS,
        queue_frames_max: int = QUEUE_FRAMES_MAX,
    ) -> None:
        """`bitrate_bps` 0 is a link without a limit."""
        if not MTU_BYTES_MIN <= mtu_bytes <= FRAME_BYTES_MAX:
            raise ValueError(f"mtu_bytes: {MTU_BYTES_MIN} to {FRAME_BYTES_MAX}, not {mtu_bytes}")
        self.rng = rng
        self.schedule = schedule
        self.mtu_bytes = mtu_bytes
        self.bitrate_bps = bitrate_bps
        self.faults = faults
        self.queue_frames_max = queue_frames_max
        self.cut: Callable[[str, str], bool] = lambda source, target: False
        """Says whether frames from source to target are lost: a partition, perhaps one-way."""
        self.frames_sent = 0
        self.frames_lost = 0
        self._ends: dict[str, MemoryTransport] = {}

    def attach(self, address: str) -> MemoryTransport:
        """A new end; raises ValueError when the address is taken or the network is full."""
        if address in self._ends:
            raise ValueError(f"address {address!r} is taken")
        if len(self._ends) >= ENDS_MAX:
            raise ValueError(f"a network joins at most {ENDS_MAX} ends")
        end = self._ends[address] = MemoryTransport(self, address)
        return end

    def detach(self, address: str) -> None:
        self._ends.pop(address, None)

    def carry(self, source: str, target: str, frame: bytes) -> None:
        """Takes one frame that has left `source` to its fate."""
        if target != BROADCAST:
            self._carry_one(source, target, frame)
            return
        for other in self._ends:
            if other != source:
                self._carry_one(source, other, frame)

    def _carry_one(self, source: str, target: str, frame: bytes) -> None:
        self.frames_sent += 1
        faults, rng = self.faults, self.rng
        if self.cut(source, target) or rng.random() < faults.loss:
            self.frames_lost += 1
            return
        copies = 2 if rng.random() < faults.duplicate else 1
        for _ in range(copies):
            delay_ms = faults.delay_ms + (rng.randint(0, faults.jitter_ms) if faults.jitter_ms else 0)
            self.schedule(delay_ms, lambda: self._arrive(source, target, frame))

    def _arrive(self, source: str, target: str, frame: bytes) -> None:
        end = self._ends.get(target)
        if end is not None:
            end.on_frame(source, frame)


class MemoryTransport(Unshared):
    """One end of a MemoryNetwork; a `Transport`."""

    def __init__(self, network: MemoryNetwork, address: str) -> None:
        self.address = address
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self._network = network
        self._queue: deque[tuple[str, bytes]] = deque()
        self._queued_ms = 0.0
        self._sending = self._refused = False
        self._closed = False

    @property
    def up(self) -> bool:
        return not self._closed

    @property
    def bitrate_bps(self) -> int:
        return self._network.bitrate_bps

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        return self._network.mtu_bytes

    def airtime_ms(self, length: int) -> float:
        return length * 8000 / self.bitrate_bps if self.bitrate_bps else 0.0

    def wait_ms(self, length: int, priority: Priority) -> float:
        return self._queued_ms

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        if len(frame) > self._network.mtu_bytes:
            raise ValueError(f"a frame of {len(frame)} bytes; this link carries {self._network.mtu_bytes}")
        if self._closed or len(self._queue) >= self._network.queue_frames_max:
            self._refused = True
            return False
        if not self.bitrate_bps:
            self._network.carry(self.address, address, frame)
            return True
        self._queue.append((address, frame))
        self._queued_ms += self.airtime_ms(len(frame))
        if not self._sending:
            self._send_next()
        return True

    def neighbours(self) -> tuple[str, ...]:
        return ()

    def figures(self) -> Shown:
        return {"queued_frames": len(self._queue)}

    def close(self) -> None:
        self._closed = True
        self._queue.clear()
        self._network.detach(self.address)

    def _send_next(self) -> None:
        self._sending = bool(self._queue)
        if self._queue:
            address, frame = self._queue.popleft()
            self._network.schedule(round(self.airtime_ms(len(frame))), lambda: self._sent(address, frame))

    def _sent(self, address: str, frame: bytes) -> None:
        if self._closed:
            return
        self._network.carry(self.address, address, frame)
        self._queued_ms = max(0.0, self._queued_ms - self.airtime_ms(len(frame)))
        self._send_next()
        if self._refused:
            self._refused = False
            self.on_room()


def open_transport(spec: LinkSpec, host: LinkHost) -> MemoryTransport:
    """Opens "memory:NAME": an end called NAME on the host's in-memory network.

    Who comes first makes the network, with the parameters mtu, bps, loss, duplicate, delay_ms and jitter_ms.
    """
    spec.check_names(("mtu", "bps", "loss", "duplicate", "delay_ms", "jitter_ms"))
    faults = Faults(
        spec.number("loss", 0, 0, 1),
        spec.number("duplicate", 0, 0, 1),
        spec.whole("delay_ms", 0, 0, 60_000),
        spec.whole("jitter_ms", 0, 0, 60_000),
    )
    mtu_bytes, bitrate_bps = spec.whole("mtu", 1200, MTU_BYTES_MIN, FRAME_BYTES_MAX), spec.whole("bps", 0, 0, 10**10)
    network = host.shared.get("memory")
    if network is None:
        network = MemoryNetwork(host.rng, host.schedule, mtu_bytes=mtu_bytes, bitrate_bps=bitrate_bps, faults=faults)
        host.shared["memory"] = network
    assert isinstance(network, MemoryNetwork)
    try:
        return network.attach(spec.target)
    except ValueError as error:
        raise BadSpec(f"{spec}: {error}") from error

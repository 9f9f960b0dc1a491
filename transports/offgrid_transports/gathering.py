"""Messages put together again from their pieces, within bounds of bytes, messages and peers.

A piece has an offset and any length, so that what is sent again may be cut otherwise, for another link. What comes
twice is taken once; a message that contradicts itself about its end is dropped whole.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Hashable

import msgspec

MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # as gRPC's own limit, so that a message fits either carrier
PIECE_COST_BYTES = 128  # what a piece costs beside its bytes while it waits; keeps one-byte pieces from being free
WAITING_MAX = 8192  # pieces of one message from beyond a gap: all are joined in one go when it closes


class Contradiction(Exception):
    """A piece contradicts those before it; its message is no more."""


class NoRoom(Exception):
    """A new message would exceed a budget and no idle one could make room."""


class MessageTooLarge(Exception):
    """The message would be longer than MESSAGE_BYTES_MAX."""


class Gathered(msgspec.Struct):
    """What is held of one message: its beginning, and pieces from beyond a gap."""

    beginning: bytearray = msgspec.field(default_factory=bytearray)
    end: int | None = None
    cost_bytes: int = PIECE_COST_BYTES
    touched_ms: float = 0
    _waiting: dict[int, bytes] = msgspec.field(default_factory=dict)
    """By offset; pieces may overlap."""
    _offsets: list[int] = msgspec.field(default_factory=list)
    """Of those, a heap."""
    _reach: int = 0

    @property
    def complete(self) -> bool:
        return len(self.beginning) == self.end

    @property
    def come_bytes(self) -> int:
        """How much of it has come, as pieces that overlap tell: not more than where the last of them ends."""
        waiting_bytes = self.cost_bytes - len(self.beginning) - PIECE_COST_BYTES * (1 + len(self._waiting))
        return min(self._reach, len(self.beginning) + waiting_bytes)

    def message(self) -> bytes:
        """The whole message, once complete."""
        return bytes(self.beginning)

    def has_room(self, offset: int) -> bool:
        """Whether a piece from there may wait, or need not."""
        return len(self._waiting) < WAITING_MAX or offset <= len(self.beginning)

    def check(self, offset: int, data: bytes, *, last: bool) -> None:
        """Raises Contradiction or MessageTooLarge for a piece that cannot belong."""
        stop = offset + len(data)
        if stop > MESSAGE_BYTES_MAX:
            raise MessageTooLarge(f"a message of {stop} bytes or more; {MESSAGE_BYTES_MAX} are taken")
        if last and self.end is not None and stop != self.end:
            raise Contradiction(f"it ends at {stop}, and at {self.end} before")
        end = stop if last else self.end
        if end is not None and max(stop, self._reach) > end:
            raise Contradiction(f"it goes on to {max(stop, self._reach)}, beyond its end at {end}")

    def add(self, offset: int, data: bytes, *, last: bool) -> int:
        """Takes a piece that `check` let through; returns by how much the cost grew, which may be below 0."""
        before, held = self.cost_bytes, len(self.beginning)
        stop = offset + len(data)
        self._reach = max(self._reach, stop)
        if last:
            self.end = stop
        if offset > held:
            self._keep(offset, data)
        elif stop > held:
            self._lengthen(data[held - offset :])
            while self._offsets and self._offsets[0] <= len(self.beginning):
                offset = heapq.heappop(self._offsets)
                data = self._waiting.pop(offset)
                self.cost_bytes -= len(data) + PIECE_COST_BYTES
                self._lengthen(data[len(self.beginning) - offset :])
        return self.cost_bytes - before

    def _keep(self, offset: int, data: bytes) -> None:
        known = self._waiting.get(offset)
        if known is None:
            heapq.heappush(self._offsets, offset)
            self.cost_bytes += PIECE_COST_BYTES
        if len(data) > len(known or b""):
            self._waiting[offset] = data
            self.cost_bytes += len(data) - len(known or b"")

    def _lengthen(self, data: bytes) -> None:
        self.beginning += data
        self.cost_bytes += len(data)


class Gathering:
    """The unfinished messages of all peers, within budgets for each peer and for all.

    Who began first finishes first: when a budget is reached, a message that grows pushes out the one begun last, and
    a new one is refused unless the oldest has been idle for `idle_ms`. So a crowd never starves as a whole.
    """

    def __init__(
        self,
        *,
        peers_max: int = 256,
        messages_per_peer_max: int = 256,
        peer_bytes_max: int = 16 * 1024 * 1024,
        bytes_max: int = 64 * 1024 * 1024,
        idle_ms: int = 30_000,
    ) -> None:
        self._peers_max = peers_max
        self._messages_max = messages_per_peer_max
        self._peer_bytes_max = peer_bytes_max
        self._bytes_max = bytes_max
        self._idle_ms = idle_ms
        self._all: OrderedDict[tuple[str, Hashable], Gathered] = OrderedDict()
        self._by_peer: dict[str, OrderedDict[tuple[str, Hashable], Gathered]] = {}
        self._peer_bytes: dict[str, int] = {}
        self.held_bytes = 0
        self.on_evicted: Callable[[str, Hashable], None] = lambda peer, key: None
        """What was held of that message is no more, though its pieces were acknowledged."""

    def __len__(self) -> int:
        return len(self._all)

    def get(self, peer: str, key: Hashable) -> Gathered | None:
        return self._all.get((peer, key))

    def add(self, now_ms: float, peer: str, key: Hashable, offset: int, data: bytes, *, last: bool) -> Gathered:
        """Adds a piece and returns its message. Raises Contradiction, MessageTooLarge (the message is gone) or NoRoom
        (this piece is not taken)."""
        name = (peer, key)
        held = self._all.get(name) or Gathered()
        try:
            held.check(offset, data, last=last)
        except (Contradiction, MessageTooLarge):
            self.drop(peer, key)
            raise
        if not held.has_room(offset):
            raise NoRoom(f"{WAITING_MAX} pieces of this message wait for earlier ones")
        new_bytes = 0 if name in self._all else held.cost_bytes
        self._make_room(now_ms, name, new_bytes + len(data) + PIECE_COST_BYTES)
        if name not in self._all:
            self._all[name] = held
            self._by_peer.setdefault(peer, OrderedDict())[name] = held
            self._count(peer, held.cost_bytes)
        self._count(peer, held.add(offset, data, last=last))
        held.touched_ms = now_ms
        return held

    def drop(self, peer: str, key: Hashable) -> None:
        """Forgets a message, finished or not; an unknown one is no error."""
        held = self._all.pop((peer, key), None)
        if held is None:
            return
        del self._by_peer[peer][peer, key]
        self._count(peer, -held.cost_bytes)
        if not self._by_peer[peer]:
            del self._by_peer[peer], self._peer_bytes[peer]

    def _count(self, peer: str, grown: int) -> None:
        self._peer_bytes[peer] = self._peer_bytes.get(peer, 0) + grown
        self.held_bytes += grown

    def _make_room(self, now_ms: float, name: tuple[str, Hashable], cost: int) -> None:
        peer, new = name[0], name not in self._all
        while self._peer_bytes.get(peer, 0) + cost > self._peer_bytes_max or (
            new and len(self._by_peer.get(peer, ())) >= self._messages_max
        ):
            self._evict_one(now_ms, name, self._by_peer.get(peer, OrderedDict()))
        while self.held_bytes + cost > self._bytes_max or (
            peer not in self._by_peer and len(self._by_peer) >= self._peers_max
        ):
            self._evict_one(now_ms, name, self._all)

    def _evict_one(
        self, now_ms: float, name: tuple[str, Hashable], among: OrderedDict[tuple[str, Hashable], Gathered]
    ) -> None:
        oldest, newest = next(iter(among), None), next(reversed(among), None)
        if oldest is not None and oldest != name and among[oldest].touched_ms + self._idle_ms <= now_ms:
            self._evict(oldest)
        elif newest is not None and newest != name and name in self._all:
            self._evict(newest)
        else:
            raise NoRoom(f"{len(among)} messages of {self.held_bytes} bytes are under way")

    def _evict(self, name: tuple[str, Hashable]) -> None:
        self.drop(*name)
        self.on_evicted(*name)

"""Messages into fragments and back, within bounds of bytes, sets and peers.

All fragments of a message but the last have the same length, so that one of them tells how long the message can get.
A set that contradicts itself (another total, another length, other bytes at the same place) is dropped whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from offgrid_transports.framing import BITMAP_BYTES_MAX, FRAGMENTS_MAX

MESSAGE_BYTES_MAX = 4 * 1024 * 1024  # as gRPC's own limit, so that a message fits either carrier
FRAGMENT_COST_BYTES = 128  # what a fragment costs beside its bytes; keeps one-byte fragments from being free


class Contradiction(Exception):
    """A fragment contradicts those before it; its set is no more."""


class NoRoom(Exception):
    """A new set would exceed a budget and no idle one could make room."""


class MessageTooLarge(Exception):
    """The message would be longer than MESSAGE_BYTES_MAX."""


def split(message: bytes, part_bytes: int) -> list[bytes]:
    """The fragments of a message that is not empty, `part_bytes` each but the last.

    Raises MessageTooLarge when it is longer than MESSAGE_BYTES_MAX or needs more than FRAGMENTS_MAX.
    """
    if not message:
        raise ValueError("an empty message has no fragments")
    total = -(-len(message) // part_bytes)
    if len(message) > MESSAGE_BYTES_MAX or total > FRAGMENTS_MAX:
        limit = min(MESSAGE_BYTES_MAX, FRAGMENTS_MAX * part_bytes)
        raise MessageTooLarge(f"a message of {len(message)} bytes; this link takes {limit}")
    return [message[at : at + part_bytes] for at in range(0, len(message), part_bytes)]


@dataclass(slots=True)
class FragmentSet:
    """What is held of one message of `total` fragments."""

    total: int
    parts: dict[int, bytes] = field(default_factory=dict)
    cost_bytes: int = 0
    base: int = 0
    """The first fragment that is missing."""
    touched_ms: int = 0
    _part_bytes: int = 0

    @property
    def complete(self) -> bool:
        return self.base == self.total

    def message(self) -> bytes:
        """The whole message, once complete."""
        return b"".join(self.parts[index] for index in range(self.total))

    def held_bitmap(self, bytes_max: int = BITMAP_BYTES_MAX) -> bytes:
        """Which of the fragments from `base` on are held, without trailing zero bytes."""
        bitmap = bytearray(min(bytes_max, (self.total - self.base + 7) // 8))
        for offset in range(min(len(bitmap) * 8, self.total - self.base)):
            if self.base + offset in self.parts:
                bitmap[offset // 8] |= 0x80 >> offset % 8
        return bytes(bitmap.rstrip(b"\0"))

    def check(self, index: int, total: int, payload: bytes) -> None:
        """Raises Contradiction or MessageTooLarge for a fragment that cannot belong."""
        if total != self.total:
            raise Contradiction(f"{total} fragments, {self.total} before")
        if (held := self.parts.get(index)) is not None and held != payload:
            raise Contradiction(f"fragment {index} has other bytes than before")
        last = index == total - 1
        if not last and self._part_bytes and len(payload) != self._part_bytes:
            raise Contradiction(f"fragment {index} has {len(payload)} bytes, {self._part_bytes} before")
        part_bytes = self._part_bytes if last else len(payload)
        tail = payload if last else self.parts.get(total - 1, b"")
        if part_bytes and len(tail) > part_bytes:
            raise Contradiction(f"the last fragment has {len(tail)} bytes, the others {part_bytes}")
        if max(part_bytes, 1) * (total - 1) + max(len(tail), 1) > MESSAGE_BYTES_MAX:
            raise MessageTooLarge(f"{total} fragments of {part_bytes} bytes")

    def add(self, index: int, payload: bytes) -> int:
        """Takes a fragment that `check` let through; returns by how much the set's cost grew."""
        if index in self.parts:
            return 0
        if index != self.total - 1:
            self._part_bytes = len(payload)
        self.parts[index] = payload
        while self.base in self.parts:
            self.base += 1
        cost = len(payload) + FRAGMENT_COST_BYTES
        self.cost_bytes += cost
        return cost


class Reassembly:
    """The unfinished messages of all peers, within budgets for each peer and for all.

    Who began first finishes first: when a budget is reached, a message that grows pushes out the one begun last, and
    a new one is refused unless the oldest has been idle for `idle_ms`. So a crowd never starves as a whole.
    """

    def __init__(
        self,
        *,
        peers_max: int = 256,
        sets_per_peer_max: int = 256,
        peer_bytes_max: int = 16 * 1024 * 1024,
        bytes_max: int = 64 * 1024 * 1024,
        idle_ms: int = 30_000,
    ) -> None:
        self._peers_max = peers_max
        self._sets_max = sets_per_peer_max
        self._peer_bytes_max = peer_bytes_max
        self._bytes_max = bytes_max
        self._idle_ms = idle_ms
        self._all: OrderedDict[tuple[str, Hashable], FragmentSet] = OrderedDict()
        self._by_peer: dict[str, OrderedDict[tuple[str, Hashable], FragmentSet]] = {}
        self._peer_bytes: dict[str, int] = {}
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def get(self, peer: str, key: Hashable) -> FragmentSet | None:
        return self._all.get((peer, key))

    def add(self, now_ms: int, peer: str, key: Hashable, index: int, total: int, payload: bytes) -> FragmentSet:
        """Adds a fragment and returns its set. Raises Contradiction, MessageTooLarge (the set is gone) or NoRoom."""
        name = (peer, key)
        held = self._all.get(name) or FragmentSet(total)
        try:
            held.check(index, total, payload)
        except (Contradiction, MessageTooLarge):
            self.drop(peer, key)
            raise
        if index not in held.parts:
            self._make_room(now_ms, name, len(payload) + FRAGMENT_COST_BYTES)
        if name not in self._all:
            self._all[name] = held
            self._by_peer.setdefault(peer, OrderedDict())[name] = held
        grown = held.add(index, payload)
        held.touched_ms = now_ms
        self._peer_bytes[peer] = self._peer_bytes.get(peer, 0) + grown
        self.held_bytes += grown
        return held

    def drop(self, peer: str, key: Hashable) -> None:
        """Forgets a set, finished or not; an unknown one is no error."""
        held = self._all.pop((peer, key), None)
        if held is None:
            return
        del self._by_peer[peer][peer, key]
        self._peer_bytes[peer] -= held.cost_bytes
        self.held_bytes -= held.cost_bytes
        if not self._by_peer[peer]:
            del self._by_peer[peer], self._peer_bytes[peer]

    def _make_room(self, now_ms: int, name: tuple[str, Hashable], cost: int) -> None:
        peer, new = name[0], name not in self._all
        while self._peer_bytes.get(peer, 0) + cost > self._peer_bytes_max or (
            new and len(self._by_peer.get(peer, ())) >= self._sets_max
        ):
            self._evict_one(now_ms, name, self._by_peer.get(peer, OrderedDict()))
        while self.held_bytes + cost > self._bytes_max or (
            peer not in self._by_peer and len(self._by_peer) >= self._peers_max
        ):
            self._evict_one(now_ms, name, self._all)

    def _evict_one(
        self, now_ms: int, name: tuple[str, Hashable], among: OrderedDict[tuple[str, Hashable], FragmentSet]
    ) -> None:
        oldest, newest = next(iter(among), None), next(reversed(among), None)
        if oldest is not None and oldest != name and among[oldest].touched_ms + self._idle_ms <= now_ms:
            self.drop(*oldest)
        elif newest is not None and newest != name and name in self._all:
            self.drop(*newest)
        else:
            raise NoRoom(f"{len(among)} messages of {self.held_bytes} bytes are under way")

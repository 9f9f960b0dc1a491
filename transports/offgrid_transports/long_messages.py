"""Messages too long to go in one go, block by block; how requests for blocks travel, and what is kept of a message.

As CoAP's block-wise transfer (RFC 7959): whatever befalls a session, what has arrived need not be sent again.

    READ           digest 16 | offset | length             is answered with the bytes
    WRITE          digest 16 | total | offset | bytes      with how many from the beginning are there by now
    ASK_WRITTEN    digest 16 | method                      as that method is, asked with what was written
    partial answer digest 16 | total | the first block

Numbers are varints; the digest is of the whole message, and checked. An error's body is one byte, a Trouble.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from offgrid_transports.path import Path
from offgrid_transports.records import OFFSET_MAX, RecordError, read_varint, varint

READ, WRITE, ASK_WRITTEN = 0x001, 0x002, 0x003  # methods of this package's own
LONG_BYTES_MAX = 16 * 1024 * 1024
BLOCK_BYTES_MIN, BLOCK_BYTES_MAX = 2 * 1024, 2 * 1024 * 1024
BLOCK_S = 20  # of a link's time, at best: so much is lost with a session
DIGEST_BYTES = 16
SHELF_BYTES_MAX = 4 * LONG_BYTES_MAX
HELD_COST_BYTES = 64 * 1024  # at least, of one message: keeps many short ones from being free
KEEP_MS = 600_000.0

assert LONG_BYTES_MAX <= OFFSET_MAX


class Trouble(IntEnum):
    """Why there is no block."""

    GONE = 0
    NO_ROOM = 1
    MALFORMED = 2

    @property
    def body(self) -> bytes:
        return bytes((self,))


class Read(NamedTuple):
    digest: bytes
    offset: int
    length: int


class Write(NamedTuple):
    digest: bytes
    total: int
    offset: int
    block: bytes


class Partial(NamedTuple):
    digest: bytes
    total: int
    block: bytes


def digest_of(message: bytes | bytearray) -> bytes:
    return hashlib.blake2s(message, digest_size=DIGEST_BYTES, person=b"og.long").digest()


def block_bytes(path: Path | None) -> int:
    """What goes over that path in one go."""
    rate_bps = path.transport.bitrate_bps if path is not None else 0
    if not rate_bps:
        return BLOCK_BYTES_MAX
    return min(max(BLOCK_S * rate_bps // 8, BLOCK_BYTES_MIN), BLOCK_BYTES_MAX)


def write_read(asked: Read) -> bytes:
    return asked.digest + varint(asked.offset) + varint(asked.length)


def read_read(body: bytes) -> Read:
    """Raises RecordError, as all that read here."""
    offset, at = read_varint(body, DIGEST_BYTES, LONG_BYTES_MAX)
    length, at = read_varint(body, at, LONG_BYTES_MAX)
    if at != len(body) or not length:
        raise RecordError("no request for a block")
    return Read(body[:DIGEST_BYTES], offset, length)


def write_write(asked: Write) -> bytes:
    return asked.digest + varint(asked.total) + varint(asked.offset) + asked.block


def read_write(body: bytes) -> Write:
    total, at = read_varint(body, DIGEST_BYTES, LONG_BYTES_MAX)
    offset, at = read_varint(body, at, total)
    if offset + len(body) - at > total or not total:
        raise RecordError("a block beyond the end of its message")
    return Write(body[:DIGEST_BYTES], total, offset, body[at:])


def write_partial(answer: Partial) -> bytes:
    return answer.digest + varint(answer.total) + answer.block


def read_partial(body: bytes) -> Partial:
    total, at = read_varint(body, DIGEST_BYTES, LONG_BYTES_MAX)
    if not 0 < len(body) - at <= total:
        raise RecordError("a partial answer without a block, or with more than its total")
    return Partial(body[:DIGEST_BYTES], total, body[at:])


class Held:
    """The beginning of a message, or all of it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.cost_bytes = max(total, HELD_COST_BYTES)
        self.data = bytearray()
        self.touched_ms = 0.0

    @property
    def whole(self) -> bool:
        return len(self.data) == self.total

    def add(self, offset: int, block: bytes) -> None:
        """What goes on from what is there; what does not is sent again."""
        if offset == len(self.data):
            self.data += block[: self.total - offset]


class Shelf:
    """What is held of messages of all peers; the ones untouched for longest give way. Each counts as long as it is to
    become, and HELD_COST_BYTES at least."""

    def __init__(self, now_ms: Callable[[], float], bytes_max: int = SHELF_BYTES_MAX) -> None:
        self._now_ms, self._bytes_max = now_ms, bytes_max
        self._all: OrderedDict[tuple[str, bytes], Held] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._all)

    def get(self, peer: str, digest: bytes) -> Held | None:
        held = self._all.get((peer, digest))
        if held is not None:
            held.touched_ms = self._now_ms()
            self._all.move_to_end((peer, digest))
        return held

    def open(self, peer: str, digest: bytes, total: int) -> Held:
        """The one that is there, if it is to be as long, else a new one. Of one peer LONG_BYTES_MAX at most are
        kept."""
        held = self.get(peer, digest)
        if held is not None and held.total == total:
            return held
        self.drop(peer, digest)
        held = Held(total)
        self._make_room(peer, held.cost_bytes)
        self._all[peer, digest] = held
        held.touched_ms = self._now_ms()
        self.bytes += held.cost_bytes
        return held

    def drop(self, peer: str, digest: bytes) -> None:
        """An unknown one is no error."""
        held = self._all.pop((peer, digest), None)
        if held is not None:
            self.bytes -= held.cost_bytes

    def _make_room(self, peer: str, cost_bytes: int) -> None:
        stale_ms = self._now_ms() - KEEP_MS
        for name in [name for name, held in self._all.items() if held.touched_ms < stale_ms]:
            self.drop(*name)
        own = [name for name in self._all if name[0] == peer]
        while sum(self._all[name].cost_bytes for name in own) + cost_bytes > LONG_BYTES_MAX:
            self.drop(*own.pop(0))
        while self.bytes + cost_bytes > self._bytes_max:
            self.drop(*next(iter(self._all)))

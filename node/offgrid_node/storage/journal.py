"""The journal's packs: one batch's events as one value, each pack naming the digest of the pack before it.

    version 1 | count 4 | first seq 8 | digest of the previous pack 16 | count times (length 4 | event) | digest 16

Numbers are big-endian; the digest is BLAKE2b-128 over everything before it (RFC 7693). The packs form a hash chain,
so a lost, exchanged or older pack shows. A batch larger than PACK_BYTES becomes several packs of one transaction,
which bounds what a reader must hold.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from offgrid_node.protocol.errors import Corrupt

PACK_BYTES = 1024 * 1024  # a pack is closed before it would pass this, unless one event alone is larger
PACK_BYTES_MAX = 32 * 1024 * 1024  # above any pack that `encode_packs` makes of events within EVENT_BYTES_MAX
DIGEST_BYTES = 16

_VERSION = 1
_PERSON = b"og.journal.v1"
_HEADER = struct.Struct(">BIQ16s")
_LENGTH = struct.Struct(">I")
_FRAME_BYTES = _HEADER.size + DIGEST_BYTES


class Tail(NamedTuple):
    """The end of the chain: the newest event's number and the newest pack's digest."""

    seq: int
    digest: bytes


EMPTY = Tail(0, bytes(DIGEST_BYTES))


class Pack(msgspec.Struct, frozen=True):
    """A decoded pack; `digest` is its own, `previous` the one it names."""

    first_seq: int
    previous: bytes
    digest: bytes
    events: tuple[bytes, ...]

    @property
    def last_seq(self) -> int:
        return self.first_seq + len(self.events) - 1

    @property
    def tail(self) -> Tail:
        return Tail(self.last_seq, self.digest)


def journal_key(seq: int) -> bytes:
    """The key under which a pack lies: its first event's number."""
    return seq.to_bytes(8, "big")


def encode_packs(tail: Tail, events: Sequence[bytes]) -> tuple[list[tuple[bytes, bytes]], Tail]:
    """The (key, value) pairs that append `events` after `tail`, and the new tail."""
    packs: list[tuple[bytes, bytes]] = []
    for group in _groups(events):
        first = tail.seq + 1
        parts = [_HEADER.pack(_VERSION, len(group), first, tail.digest)]
        for event in group:
            parts += (_LENGTH.pack(len(event)), event)
        body = b"".join(parts)
        digest = _digest(body)
        packs.append((journal_key(first), body + digest))
        tail = Tail(tail.seq + len(group), digest)
    return packs, tail


def _groups(events: Sequence[bytes]) -> list[Sequence[bytes]]:
    if sum(map(len, events)) + len(events) * _LENGTH.size + _FRAME_BYTES <= PACK_BYTES:
        return [events] if events else []
    groups: list[Sequence[bytes]] = []
    group: list[bytes] = []
    size = _FRAME_BYTES
    for event in events:
        grown = size + _LENGTH.size + len(event)
        if group and grown > PACK_BYTES:
            groups.append(group)
            group, grown = [], _FRAME_BYTES + _LENGTH.size + len(event)
        group.append(event)
        size = grown
    groups.append(group)
    return groups


def decode_pack(key: bytes, stored: bytes) -> Pack:
    """The pack under `key`; raises `Corrupt` (reason JournalDamaged) unless every byte is as it was written."""
    if not _FRAME_BYTES < len(stored) <= PACK_BYTES_MAX:
        raise _damaged(key, f"has {len(stored)} bytes")
    body, digest = stored[:-DIGEST_BYTES], stored[-DIGEST_BYTES:]
    if _digest(body) != digest:
        raise _damaged(key, "fails its checksum")
    version, count, first, previous = _HEADER.unpack_from(body)
    if version != _VERSION:
        raise _damaged(key, f"has the unknown version {version}")
    if journal_key(first) != key:
        raise _damaged(key, f"says that it starts at event {first}")
    events = _split(key, body)
    if len(events) != count or not events:
        raise _damaged(key, f"holds {len(events)} events and claims {count}")
    return Pack(first, previous, digest, tuple(events))


def _split(key: bytes, body: bytes) -> list[bytes]:
    events: list[bytes] = []
    at = _HEADER.size
    while at < len(body):
        start = at + _LENGTH.size
        if start > len(body):
            raise _damaged(key, "ends within a length")
        at = start + _LENGTH.unpack_from(body, at)[0]
        if at > len(body):
            raise _damaged(key, "ends within an event")
        events.append(body[start:at])
    return events


def check_follows(pack: Pack, tail: Tail) -> None:
    """Raises `Corrupt` unless `pack` is the next after `tail` (JournalGap: a hole; JournalForked: a wrong link)."""
    if pack.first_seq != tail.seq + 1:
        raise gap(tail.seq + 1, pack.first_seq - 1)
    if pack.previous != tail.digest:
        raise Corrupt(
            f"journal: the pack at event {pack.first_seq} does not follow the pack that ends at event {tail.seq}: "
            "restore the journal from a backup",
            reason="JournalForked",
        )


def gap(first: int, last: int) -> Corrupt:
    """The fault of events that should be there and are not."""
    what = f"events {first} to {last} are missing" if first <= last else f"event {last + 1} is there twice"
    return Corrupt(f"journal: {what}: restore the journal from a backup", reason="JournalGap")


def _digest(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES, person=_PERSON).digest()


def _damaged(key: bytes, how: str) -> Corrupt:
    at = int.from_bytes(key, "big") if len(key) == 8 else key.hex()
    return Corrupt(f"journal: the pack at event {at} {how}: restore the journal from a backup", reason="JournalDamaged")

"""Damages of a file, as disks, cables and hands do them: one at a time, by a seeded Random."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

PAGE_BYTES, SECTOR_BYTES = 4_096, 512
RANGE_BYTES_MAX, NOISE_BYTES_MAX = 65_536, 4_096
TRIES_MAX = 64
BEHIND_PERCENT = 5  # of the damages come behind what is in use as well


class Harm(msgspec.Struct, frozen=True):
    """What was done, in words, and what has become of the file."""

    kind: str
    what: str
    content: bytes


def harmed(content: bytes, rng: Random, earlier: bytes = b"") -> Harm | None:
    """The file with one damage; `earlier`: as it once was, of which pages may come back. None for one to which nothing
    can be done that would change it."""
    for _ in range(TRIES_MAX):
        kind = rng.choice([*KINDS, "stale", "strayed"] if earlier else [*KINDS])
        what, data = _stale(content, rng, earlier) if kind == "stale" else _OF[kind](content, rng)
        if data != content:
            return Harm(kind, what, data)
    return None


def _place(content: bytes, rng: Random, step: int = 1) -> int:
    """Of something of `step` bytes in the file, most often in what is in use."""
    size = len(content) if rng.randrange(100) < BEHIND_PERCENT else len(content.rstrip(b"\0"))
    return rng.randrange(max(1, size)) // step * step


def _flip(content: bytes, rng: Random) -> tuple[str, bytes]:
    at, bit = _place(content, rng), rng.randrange(8)
    changed = bytes(byte ^ 1 << bit for byte in content[at : at + 1])
    return f"bit {bit} of byte {at} flipped", content[:at] + changed + content[at + 1 :]


def _zero(content: bytes, at: int, size: int) -> tuple[str, bytes]:
    size = len(content[at : at + size])
    return f"{size} bytes at {at} zeroed", content[:at] + bytes(size) + content[at + size :]


def _noise(content: bytes, rng: Random) -> tuple[str, bytes]:
    at = _place(content, rng)
    size = len(content[at : at + rng.randint(1, NOISE_BYTES_MAX)])
    return f"{size} bytes at {at} are noise", content[:at] + rng.randbytes(size) + content[at + size :]


def _truncate(content: bytes, rng: Random) -> tuple[str, bytes]:
    at = _place(content, rng, rng.choice((1, SECTOR_BYTES, PAGE_BYTES)))
    return f"cut off at {at} of {len(content)} bytes", content[:at]


def _strayed(content: bytes, rng: Random) -> tuple[str, bytes]:
    source, target = (_place(content, rng, PAGE_BYTES) for _ in range(2))
    page = content[source : source + PAGE_BYTES]
    return f"the page at {source} stands at {target} too", content[:target] + page + content[target + len(page) :]


def _stale(content: bytes, rng: Random, earlier: bytes) -> tuple[str, bytes]:
    at = _place(earlier, rng, PAGE_BYTES)
    page = earlier[at : at + PAGE_BYTES]
    return f"the page at {at} is as it once was", content[:at] + page + content[at + len(page) :]


_OF: dict[str, Callable[[bytes, Random], tuple[str, bytes]]] = {
    "flip": _flip,
    "zeroed page": lambda content, rng: _zero(content, _place(content, rng, PAGE_BYTES), PAGE_BYTES),
    "zeroed sector": lambda content, rng: _zero(content, _place(content, rng, SECTOR_BYTES), SECTOR_BYTES),
    "zeroed range": lambda content, rng: _zero(content, _place(content, rng), rng.randint(1, RANGE_BYTES_MAX)),
    "truncated": _truncate,
    "noise": _noise,
    "strayed": _strayed,
}
KINDS = ("flip", "flip", "flip", "zeroed page", "zeroed sector", "zeroed range", "truncated", "truncated", "noise")

"""Which keys were seen: a Bloom filter that can be joined with others and stays as good as it was.

It has one hash function over 2^32 places, so nearly all of them are empty, and only those that are set are kept: a
compressed Bloom filter (Mitzenmacher 2002), in the form of Elias and Fano, some 3 bytes for each of a thousand keys and
2.3 for each of a hundred thousand. Plain ones of 1 % take 1.2 bytes; but of 48 of them joined 38 % of all answers are
wrong, and they cannot be made larger afterwards. Here a union is that of the places, and all that a node remembers
together errs in 1 % of answers once it has 43 million keys.

A key that was seen is always found. One that was not is found with the chance `false_positive`.

Form: low bytes of each place (1) | number of places (4) | length of the bitmap (4) | bitmap | low bytes, sorted by
place. The bitmap has, behind a first 1, for each value of the high bits, in their order, as many ones as places have
it, and a zero; it is filled up with zeros in front. All numbers are big-endian.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from offgrid_node.protocol.errors import Corrupt

KEY_BYTES_MAX = 256  # of a longer key the first so many tell it from others
PLACE_BYTES = 4
PLACES = 1 << 8 * PLACE_BYTES
_PERSON = b"og.memory.key"
_LOW_BYTES = (2, 3, 4)  # of which the smallest form is taken: few places are not worth many bits of heads
_HEAD_BYTES = 9
EMPTY = b""


def counted(key: str) -> str:
    """What of a key counts."""
    if len(key) <= KEY_BYTES_MAX and key.isascii():
        return key
    return key.encode(errors="replace")[:KEY_BYTES_MAX].decode(errors="ignore")


def place_of(key: str) -> int:
    digest = hashlib.blake2b(counted(key).encode(), digest_size=PLACE_BYTES, person=_PERSON).digest()
    return int.from_bytes(digest, "big")


def false_positive(places: int) -> float:
    """The chance that a key which was never seen is found in a filter with so many places set."""
    return places / PLACES


def encode(places: Iterable[int]) -> bytes:
    ordered = sorted({*places})
    if not ordered:
        return EMPTY
    low = min(_LOW_BYTES, key=lambda size: _size(len(ordered), size))
    heads = [0] * (1 << 8 * (PLACE_BYTES - low))
    for place in ordered:
        heads[place >> 8 * low] += 1
    bits = "1" + "".join("1" * count + "0" for count in heads)
    bitmap = int(bits, 2).to_bytes(-(-len(bits) // 8), "big")
    mask = (1 << 8 * low) - 1
    lows = b"".join([(place & mask).to_bytes(low, "big") for place in ordered])
    return bytes([low]) + len(ordered).to_bytes(4, "big") + len(bitmap).to_bytes(4, "big") + bitmap + lows


def count(keyset: bytes) -> int:
    """How many places are set: as many as there are keys, but for those few that share one."""
    return int.from_bytes(keyset[1:5], "big")


def places(keyset: bytes) -> list[int]:
    """Ascending. Raises Corrupt."""
    if not keyset:
        return []
    low, heads, lows = _parts(keyset)
    found, at = list[int](), 0
    for head, ones in enumerate(heads):
        for _ in ones:
            found.append(head << 8 * low | int.from_bytes(lows[at : at + low], "big"))
            at += low
    return found


def may_have(keyset: bytes, place: int) -> bool:
    """Raises Corrupt."""
    if not keyset:
        return False
    low, heads, lows = _parts(keyset)
    head = place >> 8 * low
    start, wanted = sum(map(len, heads[:head])), (place & ((1 << 8 * low) - 1)).to_bytes(low, "big")
    return any(lows[at * low : (at + 1) * low] == wanted for at in range(start, start + len(heads[head])))


def union(keysets: Collection[bytes]) -> bytes:
    """Raises Corrupt."""
    return encode(place for keyset in keysets for place in places(keyset))


def _parts(keyset: bytes) -> tuple[int, list[str], bytes]:
    low, number, size = keyset[0], count(keyset), int.from_bytes(keyset[5:_HEAD_BYTES], "big")
    bits, lows = bin(int.from_bytes(keyset[_HEAD_BYTES : _HEAD_BYTES + size], "big"))[3:], keyset[_HEAD_BYTES + size :]
    heads = bits.split("0")[:-1]
    if low not in _LOW_BYTES or len(heads) != 1 << 8 * (PLACE_BYTES - low) or len(lows) != number * low:
        raise Corrupt("a set of keys that holds together nowhere", reason="SummaryDamaged")
    return low, heads, lows


def _size(number: int, low: int) -> int:
    return number * low + (number + (1 << 8 * (PLACE_BYTES - low))) // 8

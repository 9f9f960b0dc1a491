"""An input made of those that are there, with some things changed. Pure: the same `Random` makes the same again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

CHANGES_MAX = 6
INPUT_BYTES_MAX = 4096
TELLING = (0x00, 0x01, 0x7F, 0x80, 0xC0, 0xDB, 0xF0, 0xFF)
"""Bytes at which parsers turn: ends of ranges, and what frames begin with."""


def mutated(rng: Random, inputs: Sequence[bytes]) -> bytes:
    """One of them, changed in 1 to CHANGES_MAX ways; of INPUT_BYTES_MAX at most."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.randint(1, CHANGES_MAX)):
        _change(rng, data, inputs)
    return bytes(data[:INPUT_BYTES_MAX])


def _change(rng: Random, data: bytearray, inputs: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 1, 2, 4, 8, 32)))
    match rng.randrange(8):
        case 0 if data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[min(at, len(data) - 1)] = rng.choice(TELLING)
        case 2:
            data[at:at] = rng.randbytes(rng.choice((1, 1, 2, 8)))
        case 3:
            del data[at:end]
        case 4:
            data[at:at] = data[at:end] * rng.choice((1, 1, 2, 20))
        case 5:
            del data[at:]
        case 6:
            other = rng.choice(inputs)
            begin = rng.randrange(len(other) + 1)
            data[at:] = other[begin:]
        case _:
            data[at:end] = bytes((rng.randrange(256),)) * (end - at)

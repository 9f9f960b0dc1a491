"""A random linear code over GF(256): of a payload's n symbols any number of coded ones, and any n of them give it back.

The field is that of RFC 8681. Symbol j below n is the payload's own, so where nothing is lost nothing has to be worked
out; the others mix all, by coefficients that follow from `seed` and j. What one hearer
lost and what another one lost is made good by the same coded symbol; n of them fail to be enough once in 250 times, and
one more then does.
"""

from __future__ import annotations

import hashlib
from functools import cache

SYMBOLS_MAX = 64
NUMBER_MAX = 0xFFFF
_POLYNOMIAL = 0x11D


class CodingError(ValueError):
    """A symbol that cannot be one of these."""


def split(length: int, room: int) -> tuple[int, int]:
    """How many symbols, of how many bytes, a payload becomes where a frame has `room`. Raises CodingError for more than
    SYMBOLS_MAX."""
    count = -(-length // room) if length > 0 < room else 0
    if not 0 < count <= SYMBOLS_MAX:
        raise CodingError(f"{length} bytes in symbols of {room}: {SYMBOLS_MAX} are allowed")
    return count, -(-length // count)


class Encoder:
    """Of one payload."""

    def __init__(self, seed: bytes, payload: bytes, room: int) -> None:
        """Raises CodingError."""
        self.length = len(payload)
        self.count, self.symbol_bytes = split(self.length, room)
        padded, size = payload.ljust(self.count * self.symbol_bytes, b"\0"), self.symbol_bytes
        self._seed = seed
        self._symbols = [padded[at : at + size] for at in range(0, len(padded), size)]

    def symbol(self, number: int) -> bytes:
        """From 0 to NUMBER_MAX."""
        if number < self.count:
            return self._symbols[number]
        row = bytes(self.symbol_bytes)
        for factor, symbol in zip(_coefficients(self._seed, number, self.count), self._symbols, strict=True):
            row = _add(row, symbol.translate(_products(factor)))
        return row


class Decoder:
    """Gaussian elimination, symbol by symbol as they come."""

    def __init__(self, seed: bytes, length: int, symbol_bytes: int) -> None:
        """`length` is the payload's. Raises CodingError."""
        self._count, size = split(length, symbol_bytes)
        if size != symbol_bytes:
            raise CodingError(f"symbols of {symbol_bytes} bytes; {size} would be enough")
        self._seed, self._length, self._size = seed, length, size
        self._rows: dict[int, bytes] = {}  # by the place of its first coefficient, which is 1

    @property
    def missing(self) -> int:
        """How many symbols more it takes, at least."""
        return self._count - len(self._rows)

    def add(self, number: int, symbol: bytes) -> bool:
        """Whether it was new. Raises CodingError."""
        if len(symbol) != self._size or not 0 <= number <= NUMBER_MAX:
            raise CodingError(f"symbol {number} of {len(symbol)} bytes; the others have {self._size}")
        if number < self._count:
            row = bytes(number) + b"\1" + bytes(self._count - number - 1) + symbol
        else:
            row = _coefficients(self._seed, number, self._count) + symbol
        for place in range(self._count):
            factor = row[place]
            if not factor:
                continue
            if (held := self._rows.get(place)) is None:
                self._rows[place] = row.translate(_products(_inverse(factor)))
                return True
            row = _add(row, held.translate(_products(factor)))
        return False

    def payload(self) -> bytes:
        """Once none is missing."""
        rows = [self._rows[place] for place in range(self._count)]
        for place in range(self._count - 1, 0, -1):
            for above in range(place):
                if factor := rows[above][place]:
                    rows[above] = _add(rows[above], rows[place].translate(_products(factor)))
        return b"".join(row[self._count :] for row in rows)[: self._length]


def _coefficients(seed: bytes, number: int, count: int) -> bytes:
    return hashlib.shake_128(seed + number.to_bytes(2)).digest(count)


def _add(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one) ^ int.from_bytes(other)).to_bytes(len(one))


@cache
def _powers() -> tuple[list[int], list[int]]:
    """Of 2, and their logarithms."""
    powers, logarithms, value = [0] * 510, [0] * 256, 1
    for exponent in range(255):
        powers[exponent] = powers[exponent + 255] = value
        logarithms[value] = exponent
        value <<= 1
        if value > 0xFF:
            value ^= _POLYNOMIAL
    return powers, logarithms


@cache
def _products(factor: int) -> bytes:
    """Of that factor with each byte, as `bytes.translate` wants them."""
    powers, logarithms = _powers()
    if not factor:
        return bytes(256)
    return bytes(powers[logarithms[factor] + logarithms[value]] if value else 0 for value in range(256))


def _inverse(factor: int) -> int:
    powers, logarithms = _powers()
    return powers[255 - logarithms[factor]]

"""The code of coded objects: which sums of rows give which other row.

Reed-Solomon over GF(256), polynomial 0x11d, generator 2, in the systematic form of zfec (Rizzo, "Effective erasure
codes for reliable computer communication protocols", 1997): a Vandermonde matrix, turned so that the first k rows are
the data. Row i of a stripe is Σ matrix(k, n)[i][j] · data row j. Any k rows give any other: `rows_for` says with what
coefficients. Multiplying many bytes is the coders' work (`coding/`); here are only small numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

POLYNOMIAL = 0x11D
MATRICES, INVERSES = 16, 256  # remembered: of a few codes, each with many sets of hosts that are away


def _powers() -> tuple[bytes, bytes]:
    """2^i for i in 0..509, and the logarithm of each byte but 0."""
    power, log = bytearray(510), bytearray(256)
    value = 1
    for i in range(255):
        power[i] = power[i + 255] = value
        log[value] = i
        value = value << 1 ^ (POLYNOMIAL if value & 0x80 else 0)
    return bytes(power), bytes(log)


_POWER, _LOG = _powers()


def multiply(left: int, right: int) -> int:
    return _POWER[_LOG[left] + _LOG[right]] if left and right else 0


def inverse(value: int) -> int:
    """Of anything but 0."""
    if not value:
        raise ZeroDivisionError("0 has no inverse in GF(256)")
    return _POWER[255 - _LOG[value]]


def _multiples(factor: int) -> bytes:
    log = _LOG[factor]
    return b"\0" + _LOG[1:].translate(_POWER[log : log + 255] + b"\0") if factor else bytes(256)


MULTIPLES = tuple(map(_multiples, range(256)))
"""For `bytes.translate`: every byte times the factor."""


def scaled(factor: int, row: bytes) -> bytes:
    return row.translate(MULTIPLES[factor])


def added(left: bytes, right: bytes) -> bytes:
    """Two rows of one length; also their difference."""
    return (int.from_bytes(left, "little") ^ int.from_bytes(right, "little")).to_bytes(len(left), "little")


def combination(coefficients: Sequence[int], rows: Sequence[bytes]) -> bytes:
    """Σ coefficient · row, of at least one short row."""
    total = bytes(len(rows[0]))
    for factor, row in zip(coefficients, rows, strict=True):
        if factor:
            total = added(total, scaled(factor, row))
    return total


@lru_cache(MATRICES)
def matrix(k: int, n: int) -> tuple[bytes, ...]:
    """n rows of k coefficients, the first k of them the identity. Raises ValueError for a code that cannot be."""
    if not 0 < k <= n < 256:
        raise ValueError(f"a code of {k} of {n}: needed are 1 to total, total is at most 255")
    wide = [bytes([1] + [0] * (k - 1))]
    wide += [bytes(_POWER[row * column % 255] for column in range(k)) for row in range(n - 1)]
    turned = _inverted(wide[:k])
    return (*_identity(k), *(combination(row, turned) for row in wide[k:]))


@lru_cache(INVERSES)
def rows_for(k: int, n: int, have: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[bytes, ...]:
    """For each wanted row the k coefficients that make it of the rows `have`, in their order. Raises ValueError for
    other than k different rows, or for one that the code does not have."""
    code = matrix(k, n)
    if len(have) != k or len(set(have)) != k or not set(have).union(wanted) <= set(range(n)):
        raise ValueError(f"rows {have} for {wanted}: {k} different ones of {n} are needed")
    back = _inverted([code[row] for row in have])
    return tuple(combination(code[row], back) for row in wanted)


def _identity(size: int) -> list[bytes]:
    return [bytes(int(row == column) for column in range(size)) for row in range(size)]


def _inverted(square: Sequence[bytes]) -> list[bytes]:
    """Gauss and Jordan, on rows with the identity behind them."""
    size = len(square)
    rows = [left + right for left, right in zip(square, _identity(size), strict=True)]
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        rows[column] = scaled(inverse(rows[column][column]), rows[column])
        for row in range(size):
            if row != column and (factor := rows[row][column]):
                rows[row] = added(rows[row], scaled(factor, rows[column]))
    return [row[size:] for row in rows]

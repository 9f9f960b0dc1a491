"""A coder of the standard library alone, for where no compiled one is to be had.

Bytes side by side in one large integer are added by one XOR. Twice a row is a shift and a mask (0x1d goes into each
byte whose top bit fell out), and a coefficient is a sum of powers of two: so each sum is worked out from its
coefficients' top bits down, doubling in between (Horner). What is added for one bit is a choice among a few rows, and
those choices are made ready once for all sums (the "method of the four Russians").
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from offgrid_node.coding.coder import Buffer, SummingCoder
from offgrid_node.protocol.objects.code import POLYNOMIAL

PIECE_BYTES = 16 << 10  # worked on at once: with its sums it stays in a processor's cache
GROUP = 4  # rows whose 16 choices are made ready together
PLANS = 64  # remembered: lists of coefficients
_LENGTHS = 16  # of masks: all pieces but the last of a row have one length
_REDUCED = POLYNOMIAL & 0xFF  # what a bit that fell out of a byte is worth

Choices = tuple[tuple[int, int], ...]
"""Of each group that has one, its number and which of its rows are added: bit i is the group's row i."""


class Fallback(SummingCoder):
    name = "python"

    def _sums(self, sums: tuple[bytes, ...], rows: Sequence[Buffer]) -> list[bytes]:
        plans = _plans(sums)
        views = [memoryview(row) for row in rows]
        pieces = [_piece(plans, [view[at : at + PIECE_BYTES] for view in views]) for at in _starts(len(rows[0]))]
        return [b"".join(parts) for parts in zip(*pieces, strict=True)]


def _starts(length: int) -> range:
    return range(0, max(1, length), PIECE_BYTES)


@lru_cache(PLANS)
def _plans(sums: tuple[bytes, ...]) -> tuple[tuple[Choices, ...], ...]:
    """For each sum the choices of its coefficients' bits, the top bit first."""
    return tuple(tuple(_choices(coefficients, bit) for bit in range(7, -1, -1)) for coefficients in sums)


def _choices(coefficients: bytes, bit: int) -> Choices:
    groups = (coefficients[at : at + GROUP] for at in range(0, len(coefficients), GROUP))
    masks = (sum((c >> bit & 1) << place for place, c in enumerate(group)) for group in groups)
    return tuple((number, mask) for number, mask in enumerate(masks) if mask)


def _piece(plans: tuple[tuple[Choices, ...], ...], rows: Sequence[memoryview]) -> list[bytes]:
    length = len(rows[0])
    ready = [_all_sums(rows[at : at + GROUP]) for at in range(0, len(rows), GROUP)]
    return [_sum(plan, ready, length).to_bytes(length, "little") for plan in plans]


def _all_sums(rows: Sequence[memoryview]) -> list[int]:
    """Of a group: at place `mask`, the sum of the rows whose bits it has."""
    sums = [0]
    for row in rows:
        number = int.from_bytes(row, "little")
        sums += [other ^ number for other in sums]
    return sums


def _sum(plan: tuple[Choices, ...], ready: Sequence[Sequence[int]], length: int) -> int:
    low_bits, top_bits = _masks(length)
    total = 0
    for choices in plan:
        if total:
            total = (total & low_bits) << 1 ^ (total >> 7 & top_bits) * _REDUCED
        for group, mask in choices:
            total ^= ready[group][mask]
    return total


@lru_cache(_LENGTHS)
def _masks(length: int) -> tuple[int, int]:
    """All bits but the top one of each byte; the top one, where it is after seven places down."""
    return int.from_bytes(b"\x7f" * length, "little"), int.from_bytes(b"\x01" * length, "little")

"""Which coder a node uses: the fastest that passes its self-test.

The test is a code of every kind of row, worked out and given back, against shards that zfec once made: a library that
loads and is wrong on this processor is named and not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import msgspec

from offgrid_node.coding.coder import Coder
from offgrid_node.coding.fallback import Fallback
from offgrid_node.coding.isal import IsaL
from offgrid_node.coding.zfec_coder import Zfec

FASTEST_FIRST: tuple[Callable[[], Coder], ...] = (IsaL, Zfec, Fallback)
NEEDED, TOTAL, ROW_BYTES = 12, 20, 4_099  # a prime: the parts that kernels leave over are tested too
GOLDEN = "e52ffd34d512321fd07b663cb9146e43"
"""BLAKE2b-128 over the shards 12 to 19 that zfec 1.6 makes of `_rows()`."""


class Choice(msgspec.Struct, frozen=True):
    """`absent` says of each faster coder that is not here what is missing, `refused` of one that is why it is not
    used."""

    coder: Coder
    absent: tuple[str, ...]
    refused: tuple[str, ...]


def choose(makers: Sequence[Callable[[], Coder]] = FASTEST_FIRST) -> Choice:
    """Raises RuntimeError where not even the last one passes."""
    absent: list[str] = []
    refused: list[str] = []
    for maker in makers:
        try:
            coder = maker()
            self_test(coder)
        except ImportError as error:
            absent.append(str(error))
        except Exception as error:  # noqa: BLE001  whatever a library does on a strange machine, another is there
            refused.append(f"coder {maker.__name__} is not used: {error}")
        else:
            return Choice(coder, tuple(absent), tuple(refused))
    raise RuntimeError(f"no coder works: {'; '.join((*absent, *refused))}")


def self_test(coder: Coder) -> None:
    """Raises ValueError when it makes other shards than zfec's, or does not give the rows back."""
    rows = _rows()
    parity = coder.encode(NEEDED, TOTAL, rows, range(NEEDED, TOTAL))
    if hashlib.blake2b(b"".join(parity), digest_size=16).hexdigest() != GOLDEN:
        raise ValueError("it makes other shards than zfec")
    lost = range(TOTAL - NEEDED)
    have = dict(enumerate([*rows, *parity]))
    if coder.rebuild(NEEDED, TOTAL, {i: have[i] for i in have if i not in lost}, lost) != rows[: len(lost)]:
        raise ValueError("it does not give lost rows back")
    if coder.combine([b"\1\1"], [rows[0], rows[0]]) != [bytes(ROW_BYTES)]:
        raise ValueError("a row and itself are not nothing to it")


def _rows() -> list[bytes]:
    """Every byte, in no pattern."""
    return [hashlib.shake_128(b"og.coder.v1" + bytes([row])).digest(ROW_BYTES) for row in range(NEEDED)]

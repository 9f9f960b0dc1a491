"""The reference: zfec, the library of Tahoe-LAFS, by Rizzo's fec.c. GPL-2+ or TGPPL; taken where a wheel exists.

It lets go of the interpreter while it works. It knows its own matrix only, so that other sums are the fall-back's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from offgrid_node.coding.coder import Buffer, check_rows, usable
from offgrid_node.coding.fallback import Fallback


class Zfec:
    """Raises ImportError where the library is not."""

    name = "zfec"

    def __init__(self) -> None:
        import zfec

        self._zfec = zfec
        self._sums = Fallback()

    def encode(self, k: int, n: int, rows: Sequence[Buffer], wanted: Sequence[int]) -> list[bytes]:
        check_rows(k, n, rows, wanted)
        made = iter(self._zfec.Encoder(k, n).encode(list(rows), [row for row in wanted if row >= k]))
        return [bytes(rows[row]) if row < k else next(made) for row in wanted]

    def rebuild(self, k: int, n: int, have: Mapping[int, Buffer], wanted: Sequence[int]) -> list[bytes]:
        used = usable(k, n, have, wanted)
        # A list of our own: Decoder.decode moves the caller's rows about in place, and not their numbers with them.
        data = self._zfec.Decoder(k, n).decode(list(used.values()), list(used))
        return self.encode(k, n, data, wanted)

    def combine(self, sums: Sequence[bytes], rows: Sequence[Buffer]) -> list[bytes]:
        return self._sums.combine(sums, rows)

"""What every coder can do, and what those have in common that only have to sum rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from offgrid_node.protocol.objects.code import matrix, rows_for

Buffer = bytes | bytearray | memoryview
"""A row; memoryviews are of single bytes, one behind the other."""


class Coder(Protocol):
    """All rows of a call have one length. ValueError for rows or numbers that cannot be, before anything is worked
    out. Calls may come from several threads at once."""

    name: str

    def encode(self, k: int, n: int, rows: Sequence[Buffer], wanted: Sequence[int]) -> list[bytes]:
        """Of the k data rows any of the n, in the order asked for."""
        ...

    def rebuild(self, k: int, n: int, have: Mapping[int, Buffer], wanted: Sequence[int]) -> list[bytes]:
        """Of any k rows, by their numbers, any of the n."""
        ...

    def combine(self, sums: Sequence[bytes], rows: Sequence[Buffer]) -> list[bytes]:
        """For each list of coefficients Σ coefficient · row over GF(256), of at least one row."""
        ...


class SummingCoder:
    """A coder over one operation: several sums of the same rows."""

    def encode(self, k: int, n: int, rows: Sequence[Buffer], wanted: Sequence[int]) -> list[bytes]:
        check_rows(k, n, rows, wanted)
        code = matrix(k, n)
        made = self._made(tuple(code[row] for row in wanted if row >= k), rows)
        return [bytes(rows[row]) if row < k else next(made) for row in wanted]

    def rebuild(self, k: int, n: int, have: Mapping[int, Buffer], wanted: Sequence[int]) -> list[bytes]:
        used = usable(k, n, have, wanted)
        missing = tuple(row for row in wanted if row not in used)
        made = self._made(rows_for(k, n, tuple(used), missing), list(used.values()))
        return [bytes(used[row]) if row in used else next(made) for row in wanted]

    def combine(self, sums: Sequence[bytes], rows: Sequence[Buffer]) -> list[bytes]:
        check_sums(sums, rows)
        return self._sums(tuple(sums), rows) if sums else []

    def _made(self, sums: tuple[bytes, ...], rows: Sequence[Buffer]) -> Iterator[bytes]:
        return iter(self._sums(sums, rows) if sums else ())

    def _sums(self, sums: tuple[bytes, ...], rows: Sequence[Buffer]) -> list[bytes]:
        """For each of at least one list of coefficients the sum of all rows."""
        raise NotImplementedError


def usable(k: int, n: int, have: Mapping[int, Buffer], wanted: Sequence[int]) -> dict[int, Buffer]:
    """The k rows to take, in their order: those that are the data first, since what is one already is not worked
    out."""
    if len(have) < k:
        raise ValueError(f"{len(have)} rows, {k} of {n} are needed")
    used = {row: have[row] for row in sorted(have)[:k]}
    check_rows(k, n, list(used.values()), [*used, *wanted])
    return used


def check_rows(k: int, n: int, rows: Sequence[Buffer], numbers: Sequence[int]) -> None:
    if not 0 < k <= n < 256:
        raise ValueError(f"a code of {k} of {n}: needed are 1 to total, total is at most 255")
    if len(rows) != k:
        raise ValueError(f"{len(rows)} rows, just {k} are needed")
    if wrong := [number for number in numbers if not 0 <= number < n]:
        raise ValueError(f"row {wrong[0]}: a code of {n} has rows 0 to {n - 1}")
    check_lengths(rows)


def check_sums(sums: Sequence[bytes], rows: Sequence[Buffer]) -> None:
    wrong = next((len(coefficients) for coefficients in sums if len(coefficients) != len(rows)), None)
    if wrong is not None or not rows:
        raise ValueError(f"{wrong or 0} coefficients for {len(rows)} rows: as many as rows, at least one")
    check_lengths(rows)


def check_lengths(rows: Sequence[Buffer]) -> None:
    if len(lengths := {len(row) for row in rows}) > 1:
        raise ValueError(f"rows of {min(lengths)} and of {max(lengths)} bytes: all rows have one length")

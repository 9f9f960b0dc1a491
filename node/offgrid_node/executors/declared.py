"""What a WebAssembly module declares, read before it is compiled: its tables.

A few bytes declare a table of a million elements, and wasmtime lays out each that has a segment at its far end while it
compiles, where no limit of a store holds yet: 80 of them, in 1.2 kB, took 1.5 GB of the node (measured, wasmtime 50).
Format: https://webassembly.github.io/spec/core/binary/modules.html#table-section
"""

from __future__ import annotations

HEADER_BYTES = 8
TABLE_SECTION = 4
NUMBER_BYTES_MAX = 10  # of one in LEB128


def table_elements(binary: bytes) -> list[int]:
    """How many elements each table has at the least. What is no module says so when it is compiled; here it ends the
    list."""
    try:
        return _Reader(binary, HEADER_BYTES).tables()
    except IndexError:
        return []


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def tables(self) -> list[int]:
        """Raises IndexError where the bytes end too early."""
        while self._at < len(self._data):
            section, size = self._byte(), self._number()
            if section == TABLE_SECTION:
                return [self._table() for _ in range(min(self._number(), size))]
            self._at += size
        return []

    def _table(self) -> int:
        """Type, flags, least, and most where the flags say so: other forms are of proposals that are off here."""
        self._byte()
        has_most = self._byte() & 1
        least = self._number()
        if has_most:
            self._number()
        return least

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _number(self) -> int:
        """Unsigned LEB128."""
        value = 0
        for place in range(NUMBER_BYTES_MAX):
            byte = self._byte()
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                break
        return value

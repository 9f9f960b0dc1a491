"""Intel's ISA-L, out of the library that the `pyeclib` wheel brings (BSD; Linux on x86_64 and arm64).

Any coefficients can be given to it, so it makes zfec's own shards, many times faster: its kernels multiply sixteen to
sixty-four bytes at once. cffi hands it the rows where they lie, and lets go of the interpreter while it works.
`ec_init_tables` and `ec_encode_data` are described in ISA-L's erasure_code.h.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from offgrid_node.coding.coder import Buffer, SummingCoder

PACKAGE = "pyeclib"
TABLE_BYTES = 32  # of one coefficient
TABLES = 64  # lists of coefficients whose tables are remembered: 0.5 MB each at most, of 128 rows to 128
_HEADER = """
void ec_init_tables(int k, int rows, unsigned char *coefficients, unsigned char *tables);
void ec_encode_data(int length, int k, int rows, unsigned char *tables, unsigned char **data, unsigned char **sums);
"""


class IsaL(SummingCoder):
    """Raises ImportError where the library is not, OSError where it does not load."""

    name = "isa-l"

    def __init__(self) -> None:
        from cffi import FFI

        self._ffi = FFI()
        self._ffi.cdef(_HEADER)
        self._library: Any = self._ffi.dlopen(str(_library_path()))
        self._tables = lru_cache(TABLES)(self._make_tables)

    def _sums(self, sums: tuple[bytes, ...], rows: Sequence[Buffer]) -> list[bytes]:
        length, ffi = len(rows[0]), self._ffi
        made = bytearray(length * len(sums))
        # the views are kept in names: they hold what the pointers point to
        data = [ffi.from_buffer("unsigned char[]", row) for row in rows]
        whole = ffi.from_buffer("unsigned char[]", made, require_writable=True)
        targets = [whole + at * length for at in range(len(sums))]
        sources, sinks = ffi.new("unsigned char *[]", data), ffi.new("unsigned char *[]", targets)
        self._library.ec_encode_data(length, len(rows), len(sums), self._tables(sums), sources, sinks)
        view = memoryview(made)
        return [bytes(view[at * length : (at + 1) * length]) for at in range(len(sums))]

    def _make_tables(self, sums: tuple[bytes, ...]) -> Any:
        k = len(sums[0])
        tables = self._ffi.new("unsigned char[]", TABLE_BYTES * k * len(sums))
        self._library.ec_init_tables(k, len(sums), self._ffi.from_buffer(b"".join(sums)), tables)
        return tables


def _library_path() -> Path:
    """Found by the wheel's list of files: nothing of the package itself is loaded."""
    try:
        listed = files(PACKAGE) or ()
    except PackageNotFoundError as error:
        raise ImportError(f"{PACKAGE} is not installed") from error
    for file in listed:
        if file.name.startswith("libisal"):
            return Path(str(file.locate()))
    raise ImportError(f"this {PACKAGE} brings no libisal")

"""Intel's ISA-L, out of the library that the `pyeclib` wheel brings (BSD; Linux on x86_64 and arm64).

Any coefficients can be given to it, so it makes zfec's own shards, many times faster: its kernels multiply sixteen to
sixty-four bytes at once. It reads rows where they lie, writes into the answer itself, and lets go of the interpreter
meanwhile. `ec_init_tables` and `ec_encode_data` are described in ISA-L's erasure_code.h, the buffers in CPython's
"Buffer Protocol" and `PyBytes_FromStringAndSize`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from offgrid_node.coding.coder import Buffer, SummingCoder

PACKAGE = "pyeclib"
TABLE_BYTES = 32  # of one coefficient
TABLES = 64  # lists of coefficients whose tables are remembered: 0.5 MB each at most, of 128 rows to 128


class IsaL(SummingCoder):
    """Raises ImportError where the library is not, OSError where it does not load."""

    name = "isa-l"

    def __init__(self) -> None:
        self._library = ctypes.CDLL(str(_library_path()))
        self._library.ec_init_tables.restype = self._library.ec_encode_data.restype = None
        self._tables = lru_cache(TABLES)(self._make_tables)

    def _sums(self, sums: tuple[bytes, ...], rows: Sequence[Buffer]) -> list[bytes]:
        length = len(rows[0])
        made = [_new_bytes(None, length) for _ in sums]
        sources, sinks = [_View(row) for row in rows], [_View(row) for row in made]
        try:
            self._library.ec_encode_data(
                length, len(rows), len(sums), self._tables(sums), _pointers(sources), _pointers(sinks)
            )
        finally:
            for view in (*sources, *sinks):
                view.release()
        return made

    def _make_tables(self, sums: tuple[bytes, ...]) -> Any:
        k = len(sums[0])
        tables = ctypes.create_string_buffer(TABLE_BYTES * k * len(sums))
        self._library.ec_init_tables(k, len(sums), b"".join(sums), tables)
        return tables


class _PyBuffer(ctypes.Structure):
    """CPython's Py_buffer, of which only `buf` is looked at."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        *((name, ctypes.c_void_p) for name in ("format", "shape", "strides", "suboffsets", "internal")),
    )


class _View:
    """Bytes held where they lie, read-only ones too, until `release`."""

    __slots__ = ("_buffer",)

    def __init__(self, data: Buffer) -> None:
        self._buffer = _PyBuffer()
        _get_buffer(data, ctypes.byref(self._buffer), 0)  # PyBUF_SIMPLE: single bytes, one behind the other

    @property
    def address(self) -> int | None:
        return self._buffer.buf  # type: ignore[no-any-return]

    def release(self) -> None:
        _release_buffer(ctypes.byref(self._buffer))


def _pointers(views: Sequence[_View]) -> Any:
    return (ctypes.c_void_p * len(views))(*(view.address for view in views))


_get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int)(
    ("PyObject_GetBuffer", ctypes.pythonapi)
)
_release_buffer = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(("PyBuffer_Release", ctypes.pythonapi))
_new_bytes = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyBytes_FromStringAndSize", ctypes.pythonapi)
)


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

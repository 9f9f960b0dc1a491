"""Reads the archive of the files that a job has left: a tar of plain files alone (POSIX ustar, with pax headers for
long names).

It comes from a host that may lie. Python's own reader knows every form of tar, and some that keep it busy for ever
(CVE-2024-6232: a header of digits) or end it with errors of other kinds; this one knows what a node packs.
"""

from __future__ import annotations

import re

BLOCK_BYTES = 512
LONG_NAME_BYTES_MAX = 1_024  # of a header that brings nothing but a name of 255 bytes
_SIZE = re.compile(rb"[0-7]{11}\0")
_PLAIN, _PAX, _MAGIC = b"0", b"x", b"ustar\x0000"


def files_in(archive: bytes) -> list[tuple[str, bytes]]:
    """Names, and what the files hold, in their order. Raises ValueError for anything but plain files."""
    files, at, long_name = list[tuple[str, bytes]](), 0, ""
    while any(head := archive[at : at + BLOCK_BYTES]):
        size = _SIZE.fullmatch(head, 124, 136)
        if size is None or head[257:265] != _MAGIC:
            raise ValueError("a header in it is none of a plain file's")
        start, kind = at + BLOCK_BYTES, head[156:157]
        end = start + int(size[0][:-1], 8)
        data, at = archive[start:end], start + -(-(end - start) // BLOCK_BYTES) * BLOCK_BYTES
        if at > len(archive):
            raise ValueError("it ends in the middle of a file")
        if kind == _PAX and not long_name and len(data) <= LONG_NAME_BYTES_MAX:
            long_name = _long_name(data)
        elif kind == _PLAIN:
            files.append((long_name or head[:100].rstrip(b"\0").decode(), data))
            long_name = ""
        else:
            raise ValueError(f"it holds {head[:80].rstrip(bytes(1))!r}, which is no plain file")
    return files


def _long_name(data: bytes) -> str:
    """Of a pax header with this one record: its length, "path", and the name."""
    length, _, record = data.partition(b" ")
    if length != b"%d" % len(data) or not record.startswith(b"path=") or not record.endswith(b"\n"):
        raise ValueError("a header in it says more than a name")
    return record[5:-1].decode()

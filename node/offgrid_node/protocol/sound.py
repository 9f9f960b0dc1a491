"""Walks over a large table of which a row may be damaged: one flipped bit is no reason never to come behind it.

A store that cannot read a row says which one (`storage/rows.py`), and as a row that is damaged says nothing sure of its
neighbours, it may refuse to begin right behind it. So a walk goes on a little farther behind with each try, and passes
over few rows. The row may also lie outside of what is read, beside it: then a walk begins there, and gives nothing
that it was not asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from offgrid_node.protocol.errors import Corrupt

DAMAGED = "ChecksumMismatch"


class Scan(Protocol):
    """As `Rows.scan`."""

    def __call__(self, table: str, start: bytes, *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


def sound(
    scan: Scan,
    table: str,
    start: bytes = b"",
    *,
    prefix: bytes = b"",
    on_damaged: Callable[[bytes], None] = lambda key: None,
) -> Iterator[tuple[bytes, bytes]]:
    """The rows from `start` on, but for those that are damaged, of each of which `on_damaged` hears. Raises Corrupt for
    damage of any other kind."""
    first = floor = start = max(start, prefix)
    damaged, tries, within = b"", 0, prefix
    while start.startswith(prefix) or start < prefix:
        last = b""
        try:
            for key, value in scan(table, start, prefix=within):
                if within != prefix and key > prefix and not key.startswith(prefix):
                    return
                if key >= floor:
                    yield key, value
                    last = key
        except Corrupt as fault:
            key = key_in(fault, table)
            if last:
                floor, tries = last + b"\0", 0
            if key != damaged:
                damaged, tries = key, 0
                if key >= first and key.startswith(prefix):
                    on_damaged(key)
            if key < prefix:
                within = b""  # which would begin at the prefix again
            start, tries = _behind(key, tries), tries + 1
            if not start:
                return
        else:
            return


def keys(scan: Scan, table: str, *, prefix: bytes = b"") -> Iterator[bytes]:
    """In their order, those of damaged rows too. Raises as `sound`."""
    damaged = list[bytes]()
    for key, _ in sound(scan, table, prefix=prefix, on_damaged=damaged.append):
        yield from damaged
        damaged.clear()
        yield key
    yield from damaged


def row_name(table: str, key: bytes) -> str:
    """What a message calls a row."""
    shown = repr(key)[1:] if key.isascii() and key.decode("ascii").isprintable() else key.hex()
    return f"row {table}/{shown}"


def key_in(fault: Corrupt, table: str) -> bytes:
    """Of the row that is damaged. Raises the fault where it is of something else."""
    if fault.reason != DAMAGED or fault.metadata.get("table") != table:
        raise fault
    return bytes.fromhex(fault.metadata["key"])


def _behind(key: bytes, tries: int) -> bytes:
    """A place behind the key, and behind all that begin with ever less of it; empty where there is none."""
    if not tries:
        return key + b"\0"
    head = key[: max(0, len(key) - tries + 1)].rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b""

"""Where this node itself is reached: a row of its own, so that a reload after a failed commit forgets nothing."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.protocol.signing import BodyReader, BodyWriter

Reach = tuple[tuple[str, ...], tuple[str, ...]]


def reach_row(addresses: Sequence[str], doors: Sequence[str]) -> bytes:
    """The stored form of the addresses of the mesh port and of the door."""
    writer = BodyWriter()
    for group in (addresses, doors):
        writer.uint(len(group), 1)
        for address in group:
            writer.text(address)
    return writer.done()


def read_reach(row: bytes | None) -> Reach:
    """The inverse; nothing known without a row."""
    if row is None:
        return (), ()
    reader = BodyReader(row)
    addresses = tuple(reader.text() for _ in range(reader.uint(1)))
    doors = tuple(reader.text() for _ in range(reader.uint(1)))
    reader.end()
    return addresses, doors

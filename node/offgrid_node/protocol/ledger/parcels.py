"""What goes into one block of this node's: BLOCK_ITEMS_MAX, BLOCK_SIGNATURES_MAX and BLOCK_BYTES_MAX at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.ledger.blocks import BLOCK_BYTES_MAX, BLOCK_ITEMS_MAX, BLOCK_SIGNATURES_MAX, said_by
from offgrid_node.protocol.ledger.items import Item, signatures_in

HEADER_ROOM = 1_024  # of BLOCK_BYTES_MAX, for the header and the framing of items
ITEM_FRAMING = 8


def made_us(now: Now) -> int:
    """When a block is made: nobody needs to know it to the microsecond, and on slow links each byte counts."""
    return max(0, now.utc_us) // 1_000 * 1_000


def parcels(items: Sequence[Item]) -> Iterator[list[Item]]:
    """What goes into one block each."""
    parcel: list[Item] = []
    said, room, signatures = 0, BLOCK_BYTES_MAX - HEADER_ROOM, BLOCK_SIGNATURES_MAX - 1
    for item in items:
        encoded, says = item.encode(), said_by(item)
        size, signed = len(encoded) + ITEM_FRAMING, signatures_in([encoded])
        if parcel and (said + says > BLOCK_ITEMS_MAX or size > room or signed > signatures):
            yield parcel
            parcel, said, room, signatures = [], 0, BLOCK_BYTES_MAX - HEADER_ROOM, BLOCK_SIGNATURES_MAX - 1
        parcel.append(item)
        said += says
        room -= size
        signatures -= signed
    if parcel:
        yield parcel

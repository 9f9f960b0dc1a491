"""Whether the rows by which a node finds blocks lead to them: by digest, by author and height, each author's newest.

They follow from the blocks, which are verified apart from this (verification.py); a node whose own newest block is not
the one that its row names would sign a second one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt, PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.blocks import header_of
from offgrid_node.protocol.ledger.chains import Author, decode_author
from offgrid_node.protocol.ledger.pruning import pruned_behind
from offgrid_node.protocol.ledger.tables import AUTHORS, CHAINS, LOG, PLACES, chain_key, number_key, number_of

T = TypeVar("T")


def read_row(table: str, key: bytes, value: bytes, decode: Callable[[bytes], T]) -> T:
    """Raises Corrupt, which names the row."""
    try:
        return decode(value)
    except (DecodeError, struct.error, ValueError) as error:
        raise Corrupt(f"{table}, row {key.hex()}: it cannot be read: {error}", reason="DamagedRow") from error


def wrong_rows(rows: Rows, salt: bytes) -> Iterator[tuple[str, str]]:
    """Where, and what is wrong there. Memory grows with authors. Raises Corrupt for what is no row."""
    authors = {key: read_row(AUTHORS, key, row, decode_author) for key, row in rows.scan(AUTHORS)}
    bases = [*pruned_behind(rows)]
    gone = {(head.author, head.height, head.digest) for head in bases}
    behind = {head.author: head.height for head in bases}
    newest, tips = dict[bytes, int](), dict[bytes, bytes]()
    for key, value in rows.scan(LOG):
        try:
            signed = header_of(read_row(LOG, key, value, ledger_pb2.Block.FromString), salt)
        except PeerFault:
            continue  # which whoever verifies blocks finds
        name, height, place = signed.header.author, signed.header.height, number_key(number_of(key))
        author, where = authors.get(name, Author()), f"position {number_of(key)}"
        newest[name] = number_of(key)
        if rows.get(PLACES, signed.digest) != place:
            yield where, "the row of its digest does not lead to it"
        chained = rows.get(CHAINS, chain_key(name, height)) == place
        if not chained and not author.frozen:
            yield where, "the row of its author's height does not lead to it"
        if chained and height == author.height:
            tips[name] = signed.digest
    for name in newest.keys() - authors.keys():
        yield f"author {base32(name)}", "it has blocks and no row"
    for name, author in authors.items():
        if (name, author.height, author.digest) in gone and author.place >= newest.get(name, 0):
            continue
        here, forgot = newest.get(name, 0), author.frozen and bool(bases)  # blocks beside its chain, or its branch
        is_newest = author.place >= here if forgot else author.place == here
        is_tip = not author.height or tips.get(name) == author.digest
        if not is_newest or not (is_tip or (forgot and author.height <= behind.get(name, 0))):
            yield f"author {base32(name)}", f"its row, of height {author.height}, is not that of its newest block"

"""Blocks: many items under one Merkle root and one signature, each block naming the author's block before it and up to
four others that the author had taken in.

`check_block` is the only way for a block from outside into the ledger: whatever comes out of it was signed by whom it
says. `seal_block` makes this node's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ledger.items import (
    Claim,
    Item,
    Marks,
    SignedHeader,
    Statement,
    claims,
    decode_item,
    signatures_in,
)
from offgrid_node.protocol.ledger.records import HEADER_KIND, ITEM_KIND, Header
from offgrid_node.protocol.merkle import root_of
from offgrid_node.protocol.signing import digest_of

BLOCK_ITEMS_MAX = 4_096  # and no more statements, however many of them one item makes
BLOCK_MARKS_MAX = 16  # items that mark a block each: it may be an old one, which has to be read and decoded
BLOCK_BYTES_MAX = 256 * 1024
BLOCK_SIGNATURES_MAX = 512  # its author's included: checking one takes 0.05 to 0.5 ms, and each node checks all

Holds = Callable[[Claim], bool]


class CheckedBlock(msgspec.Struct, frozen=True):
    """A block that may go into the ledger: every signature in it was checked. `raw` is the whole ledger_pb2.Block,
    serialised, as it is kept and passed on."""

    signed: SignedHeader
    items: tuple[Item, ...]
    raw: bytes

    @property
    def digest(self) -> bytes:
        return self.signed.digest

    @property
    def header(self) -> Header:
        return self.signed.header

    @property
    def place(self) -> tuple[bytes, int]:
        """Its author, and its height in the author's chain."""
        return self.header.author, self.header.height

    @property
    def leans_on(self) -> tuple[bytes, ...]:
        """Whoever takes it in holds these."""
        marked = (item.block for item in self.items if isinstance(item, Marks))
        return self.header.prev, *self.header.parents, *marked


def check_block(block: ledger_pb2.Block, salt: bytes, holds: Holds) -> CheckedBlock:
    """The block, if it is one. `holds` says whether a claim's signature is by the signer's key of then.

    Raises PeerFault that names the block and what is wrong with it.
    """
    return check_read(block, header_of(block, salt), block.SerializeToString(), salt, holds)


def check_read(block: ledger_pb2.Block, signed: SignedHeader, raw: bytes, salt: bytes, holds: Holds) -> CheckedBlock:
    """The same of one whose header was read, `header_of`, and that was serialised."""
    header, digest, signatures = signed.header, signed.digest, signatures_of(block)
    name = f"block {header.height} of {header.author_id}"
    small = len(raw) <= BLOCK_BYTES_MAX and signatures <= BLOCK_SIGNATURES_MAX
    if not small or not 0 < len(block.items) <= BLOCK_ITEMS_MAX:
        raise PeerFault(
            f"{name}: {len(block.items)} items, {signatures} signatures, {len(raw)} bytes; 1 to {BLOCK_ITEMS_MAX} "
            f"items and at most {BLOCK_SIGNATURES_MAX} signatures and {BLOCK_BYTES_MAX} bytes are allowed",
            reason="BlockTooLarge",
        )
    if (len(block.items), root_of(leaves(block.items, salt))) != (header.items_count, header.items_root):
        raise PeerFault(f"{name}: its items are not those that were signed", reason="WrongItems")
    if not holds(Claim(header.author_id, digest, signed.signature, height=header.height)):
        raise PeerFault(f"{name}: the signature is not its author's", reason="BadSignature")
    try:
        items = tuple(decode_item(item, salt) for item in block.items)
    except PeerFault as fault:
        raise PeerFault(f"{name}: {fault.message}", reason=fault.reason) from fault
    if (marks := sum(isinstance(item, Marks) for item in items)) > BLOCK_MARKS_MAX:
        raise PeerFault(f"{name}: {marks} marks, at most {BLOCK_MARKS_MAX} are allowed", reason="BlockTooLarge")
    if (said := sum(map(said_by, items))) > BLOCK_ITEMS_MAX:
        raise PeerFault(f"{name}: it says {said} things, at most {BLOCK_ITEMS_MAX} are allowed", reason="BlockTooLarge")
    for item in items:
        for claim in claims(item, salt) if not isinstance(item, Statement) else ():
            if not holds(claim):
                raise PeerFault(f"{name}: an item is not signed by {claim.signer}", reason="BadSignature")
    return CheckedBlock(signed, items, raw)


def header_of(block: ledger_pb2.Block, salt: bytes) -> SignedHeader:
    """What a block says of itself; its signature is not checked. Raises PeerFault for what is no header."""
    body = block.header.body
    return SignedHeader(Header.decode(body), body, block.header.signature, digest_of(HEADER_KIND, salt, body))


def signatures_of(block: ledger_pb2.Block) -> int:
    """How many signatures whoever takes it in has to check."""
    return 1 + signatures_in(block.items)


def said_by(item: Item) -> int:
    """As how many items it counts."""
    return item.count if isinstance(item, Marks) else 1


def seal_block(
    author: bytes,
    height: int,
    prev: bytes,
    parents: tuple[bytes, ...],
    items: Sequence[Item],
    created_us: int,
    signer: Signer,
    salt: bytes,
    *,
    epoch: int = 0,
) -> CheckedBlock:
    """This node's next block over at least one item."""
    encoded = [item.encode() for item in items]
    header = Header(author, height, prev, parents, epoch, root_of(leaves(encoded, salt)), len(encoded), created_us)
    body = header.encode()
    digest = digest_of(HEADER_KIND, salt, body)
    signature = signer.sign(digest)
    block = ledger_pb2.Block(header=common_pb2.Signed(body=body, signature=signature), items=encoded)
    return CheckedBlock(SignedHeader(header, body, signature, digest), tuple(items), block.SerializeToString())


def leaves(items: Sequence[bytes], salt: bytes) -> list[bytes]:
    return [digest_of(ITEM_KIND, salt, item) for item in items]

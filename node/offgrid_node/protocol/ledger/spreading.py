"""Where a new block goes: to which links at once, to which later, and to which it is only announced.

What witnesses say of a payment is gathered by the payer's node, where that is a witness itself and all are linked with
all: votes and confirms of a payment out of a witness' own account go to that witness, which passes them on with its own
confirm, and once the payment is final there. Among four these are 12 calls a payment, and 24 where each tells each
other. From the others they are held back for HOLD_MS, for who gathers them may be dead, or lie about its own payment;
who has named such a block by then has it from elsewhere, and is not sent it any more. Nothing but time depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Item, Statement
from offgrid_node.protocol.ledger.links import Links, Peer
from offgrid_node.protocol.ledger.outgoing import Outgoing
from offgrid_node.protocol.rng import Rng

HOLD_MS = 400
ENDED_MS = 20  # from a payment's end, for what was gathered of it: the next one may take it along
HEIGHTS_MAX = 256


class Spreading:
    """Fills outboxes and announcements. `on_full` is told of a link that had no room."""

    def __init__(
        self, own: bytes, epochs: Epochs, links: Links, out: Outgoing, on_full: Callable[[str], object]
    ) -> None:
        self._own, self._epochs, self._links, self._out, self._on_full = own, epochs, links, out, on_full
        self._heights: dict[bytes, int] = {}  # of own blocks that were held back, the oldest first

    def tell(self, block: CheckedBlock, now_ms: int) -> None:
        """A block of this node's."""
        gatherer = self._gatherer(block)
        waits = gatherer not in (b"", self._own)
        if waits:
            self._heights[block.digest] = block.header.height
            if len(self._heights) > HEIGHTS_MAX:
                del self._heights[next(iter(self._heights))]
        for node, peer in self._lacking(block):
            at_once = not waits or node == base32(gatherer)
            self._put(node, peer, block, None if at_once else now_ms + HOLD_MS)

    def pass_on(self, block: CheckedBlock, now_ms: int, rng: Rng) -> None:
        """One that a peer has pushed here."""
        author, gatherer = block.header.author, self._gatherer(block)
        for node, peer in self._lacking(block):
            if gatherer == self._own:
                self._put(node, peer, block, now_ms + HOLD_MS)
            elif gatherer or (author in peer.lazy and author != self._own):
                self._out.announce(peer, author, block.header.height, now_ms, rng)
            else:
                self._put(node, peer, block)

    def announce(self, block: CheckedBlock, now_ms: int, rng: Rng) -> None:
        """One that is to be pushed to nobody."""
        for _, peer in self._lacking(block):
            self._out.announce(peer, *block.place, now_ms, rng)

    def on_named(self, block: CheckedBlock) -> None:
        """A block was taken in: its author has what it names."""
        heights = [self._heights[digest] for digest in block.header.parents if digest in self._heights]
        peer = self._links.get(block.header.author_id) if heights else None
        if peer is not None:
            peer.knows(max(heights))

    def on_ended(self, now_ms: int) -> None:
        """A payment that this node gathers for has ended here."""
        for _, peer in self._links.linked():
            if peer.held_ms is not None:
                self._out.hold(peer, now_ms + ENDED_MS)

    # ---- inside

    def _lacking(self, block: CheckedBlock) -> Iterator[tuple[str, Peer]]:
        """Links that lack it, for all this node knows."""
        author, height = block.place
        for node, peer in self._links.linked():
            if not peer.silent and peer.shown.get(author, 0) < height:
                yield node, peer

    def _put(self, node: str, peer: Peer, block: CheckedBlock, until_ms: int | None = None) -> None:
        author, height = block.place
        waits = peer.held_ms is not None or not peer.outbox
        if not peer.put(block.raw, height if author == self._own else 0):
            self._on_full(node)
            return
        peer.has(author, height)
        if until_ms is None:
            self._out.release(node, peer)
        elif waits:
            self._out.hold(peer, until_ms)

    def _gatherer(self, block: CheckedBlock) -> bytes:
        """The witness that is to hear first of what the block says; b"" where that is for all at once."""
        payer = payer_in(block.items, self._epochs.committee) if self._links.all_with_all else b""
        if payer in (b"", self._own):
            return payer
        peer = self._links.get(base32(payer))
        return payer if peer is not None and peer.linked and not peer.silent else b""


def payer_in(items: Iterable[Item], committee: Committee) -> bytes:
    """The one witness whose payments the items are votes and confirms of, at ballot 0; b"" if they say anything
    else."""
    payers = {item.account if isinstance(item, Statement) and not item.ballot else b"" for item in items}
    payer = payers.pop()
    return payer if not payers and committee.bit_of(payer) else b""

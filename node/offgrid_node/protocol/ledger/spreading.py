"""Where a new block goes: to which links at once, to which later, and to which it is only announced.

What is said of a payment is gathered by the payer's node, where that is a witness itself and all are linked with all:
votes and confirms of a payment out of a witness' own account go to that witness, which passes them on with its own
confirm, and once the payment is final there. From the others they are held back for HOLD_MS, for who gathers them may
be dead, or lie about its own payment; who has named such a block by then has it from elsewhere, and is not sent it.

The payer's node itself tells those first who have answered what it told them last, and of them no more than make a
quorum with it. The others are told HEDGE_MS later, or when the payment has ended: what they could say of it is
superfluous then. Among four these are 8 calls a payment and some for many together, and 24 where each tells each other
at once. Nothing but time depends on any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Item, Statement, TxItem
from offgrid_node.protocol.ledger.links import Links, Peer
from offgrid_node.protocol.ledger.outgoing import Outgoing
from offgrid_node.protocol.rng import Rng

HOLD_MS = 400
HEDGE_MS = 50
ENDED_MS = 20  # from a payment's end, for what was gathered of it: the next one may take it along
ENDED_OTHERS_MS = 100  # … to those who were not asked: that of several payments together
HEIGHTS_MAX = 256


class Spreading:
    """Fills outboxes and announcements. `on_full` is told of a link that had no room."""

    def __init__(
        self, own: bytes, epochs: Epochs, links: Links, out: Outgoing, on_full: Callable[[str], object]
    ) -> None:
        self._own, self._epochs, self._links, self._out, self._on_full = own, epochs, links, out, on_full
        self._heights: dict[bytes, int] = {}  # of own blocks that were held back, the oldest first
        self._quick: dict[str, None] = {}  # witnesses who have answered a payment of this node's, and not missed one
        self._first: set[str] | None = None  # who was told of the payment first; None: all
        self._awaited: set[str] = set()  # those of them who have said nothing of it yet

    def tell(self, block: CheckedBlock, now_ms: int) -> None:
        """A block of this node's."""
        gatherer, first, wait_ms = self._gatherer(block), None, HOLD_MS
        if gatherer == self._own:
            self._forget_awaited()
            first, wait_ms = self._quorum(), HEDGE_MS
            self._first, self._awaited = first, set(first or ())
        elif gatherer:
            first = {base32(gatherer)}
        if first is not None:
            self._heights[block.digest] = block.header.height
            if len(self._heights) > HEIGHTS_MAX:
                del self._heights[next(iter(self._heights))]
        for node, peer in self._lacking(block):
            self._put(node, peer, block, None if first is None or node in first else now_ms + wait_ms)

    def pass_on(self, block: CheckedBlock, now_ms: int, rng: Rng) -> None:
        """One that a peer has pushed here."""
        author, gatherer = block.header.author, self._gatherer(block)
        if gatherer == self._own and self._epochs.committee.bit_of(author):
            self._quick[block.header.author_id] = None
            self._awaited.discard(block.header.author_id)
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
            peer.has(self._own, max(heights))

    def on_ended(self, payer: bytes, now_ms: int, rng: Rng) -> None:
        """A payment out of that account has ended here: whoever gathered what was said of it passes it on, so what this
        node held back of that is only announced."""
        if payer == self._own:
            self._on_own_ended(now_ms)
        elif self._epochs.committee.bit_of(payer):
            for _, peer in self._links.linked():
                if heights := peer.take_back():
                    peer.shown[self._own] = heights[0] - 1
                    self._out.announce(peer, self._own, heights[-1], now_ms, rng)

    # ---- inside

    def _on_own_ended(self, now_ms: int) -> None:
        self._forget_awaited()
        for node, peer in self._links.linked():
            if peer.held_ms is not None:
                asked = self._first is None or node in self._first
                self._out.ended(peer, now_ms + (ENDED_MS if asked else ENDED_OTHERS_MS))

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

    def _forget_awaited(self) -> None:
        """It went on without them."""
        for name in self._awaited:
            self._quick.pop(name, None)
        self._awaited.clear()

    def _quorum(self) -> set[str] | None:
        """Quick ones, as many as make a quorum with this node; None where they do not."""
        committee, mask, names = self._epochs.committee, self._epochs.own_bit, set[str]()
        for name in self._quick:
            peer, bit = self._links.get(name), committee.bit_of(node_id_bytes(name))
            if bit and peer is not None and peer.linked and not peer.silent:
                mask |= bit
                names.add(name)
                if committee.enough(mask):
                    return names
        return None

    def _gatherer(self, block: CheckedBlock) -> bytes:
        """The witness that is to hear first of what the block says; b"" where that is for all at once."""
        payer = payer_in(block.items, self._epochs.committee) if self._links.all_with_all else b""
        if payer in (b"", self._own):
            return payer
        peer = self._links.get(base32(payer))
        return payer if peer is not None and peer.linked and not peer.silent else b""


def payer_in(items: Iterable[Item], committee: Committee) -> bytes:
    """The one witness of whose payments the items are, with votes and confirms at ballot 0; b"" if they are anything
    else."""
    payers = {_payer(item) for item in items}
    payer = payers.pop()
    return payer if not payers and committee.bit_of(payer) else b""


def _payer(item: Item) -> bytes:
    if isinstance(item, TxItem):
        return item.tx.src
    return item.account if isinstance(item, Statement) and not item.ballot else b""

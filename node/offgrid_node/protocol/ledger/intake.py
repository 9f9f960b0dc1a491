"""Which blocks come into the ledger, and in which order.

A block is taken in once its `prev`, its parents and what its marks name are held; till then it is an orphan. Its
signatures were checked before (blocks.check_block), if it was of use: held here already, or far beyond its author's
chain, a block is not even checked. Two blocks of one author at one height freeze the author (chains.py): never unsafe,
for every statement counts whatever branch it stands in (slots.py), and bounded.

A `Seen` counts only of an author who is frozen here; whoever says one has said the evidence first, in that block or one
before it in its chain. So nobody fills the rows of what is named without a liar who forked, and what one author has
named crowds out nothing that another has (orphans.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.chains import TELL_FORK, Chains
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import (
    Cut,
    Double,
    Fork,
    Item,
    Marks,
    OrderItem,
    Report,
    Seal,
    Seen,
    SignedHeader,
    Statement,
    TxItem,
    Unlock,
    Wish,
    decode_item,
    fork_of,
)
from offgrid_node.protocol.ledger.marking import Marking
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.records import Header
from offgrid_node.protocol.ledger.tables import FORKS
from offgrid_node.protocol.ledger.turning import Turning
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness

HEIGHTS_AHEAD_MAX = 1_024  # of an author's chain as it is held: an outbox full, so more than any peer brings at once


class Intake:
    """Takes blocks in and hands their items to those whom they concern."""

    def __init__(
        self,
        own: bytes,
        salt: bytes,
        draft: Draft,
        epochs: Epochs,
        chains: Chains,
        marking: Marking,
        orphans: Orphans,
        voice: Voice,
        witness: Witness,
        turning: Turning,
    ) -> None:
        self._own, self._salt, self._draft, self._epochs = own, salt, draft, epochs
        self._chains, self._marking, self._orphans = chains, marking, orphans
        self._voice, self._witness = voice, witness
        self._turning = turning

    def has(self, signed: SignedHeader) -> bool:
        """Whether that block is held. Of who has not forked none is above its newest: no row is read for that."""
        author, height = self._chains.author(signed.header.author), signed.header.height
        return (author.frozen or height <= author.height) and self._chains.place(signed.digest) is not None

    def of_use(self, headers: Sequence[SignedHeader]) -> list[bool]:
        """Of the blocks of one call, each in its place: whether it would be looked at once its signatures hold. What
        is not need not be checked."""
        along: set[bytes] = set()  # what comes along with a block asked for by name is asked for by that
        found: list[bool] = []
        for signed in reversed(headers):
            wanted = signed.digest in along or self._orphans.is_wanted(signed.digest)
            if wanted:
                along.add(signed.header.prev)
            found.append(self._of_use(signed, wanted))
        return found[::-1]

    def take(self, blocks: Iterable[CheckedBlock], sender: str, now: Now) -> list[CheckedBlock]:
        """Those that were taken in, orphans that had waited for them included, in that order."""
        taken: list[CheckedBlock] = []
        line = deque((block, sender) for block in blocks)
        for block, _ in reversed(line):  # what comes along with a block asked for by name is asked for by that
            if self._orphans.is_wanted(block.digest) and not self._chains.holds(block.header.prev):
                self._orphans.want([block.header.prev], block.header.author, sender, now.mono_ms)
        while line:
            block, source = line.popleft()
            if self._take(block, source, now):
                taken.append(block)
                line.extendleft(reversed(self._orphans.came(block.digest)))
        return taken

    def tell_of_forks(self) -> None:
        """Says what the others must know of authors that were frozen: see chains.py."""
        if not self._voice.free:
            return
        for name, author in self._chains.authors.items():
            if author.tell:
                if author.tell == TELL_FORK and (row := self._draft.get(FORKS, name)) is not None:
                    self._voice.say(decode_item(row, self._salt))
                if author.height:
                    self._voice.say(Seen(name, author.digest))
                self._chains.told(name)
        for name, digest in self._chains.take_untold():
            self._voice.say(Seen(name, digest))

    def _of_use(self, signed: SignedHeader, wanted: bool) -> bool:
        header = signed.header
        author = self._chains.author(header.author)
        if self.has(signed):
            return False
        if header.height <= self._chains.base(header.author):  # a checkpoint has fixed what it says
            return False
        if wanted or header.author == self._own:
            return True
        return author.plain(header.height) and header.height <= author.height + HEIGHTS_AHEAD_MAX

    def _take(self, block: CheckedBlock, sender: str, now: Now) -> bool:
        header, chains = block.header, self._chains
        wanted = self._orphans.is_wanted(block.digest)
        if not self._of_use(block.signed, wanted):
            return False
        author = chains.author(header.author)
        if header.author == self._own:
            self._voice.learning.on_came(block.digest, header.height)
            if not self._voice.learning.at_work:
                self._voice.mute(f"{sender} has a block that this node signed and does not have: was it restored?")
        if not author.frozen and header.height <= author.height:
            self._on_fork(block)
            author = chains.author(header.author)
        if not author.plain(header.height) and not wanted:
            return False
        now_on = header.epoch == self._epochs.number
        leans_on = block.leans_on if now_on else (header.prev,)  # others are behind the checkpoint
        missing = [digest for digest in leans_on if not chains.holds(digest)]
        if author.plain(header.height) and header.height > author.height + 1 and header.prev not in missing:
            missing.append(header.prev)  # its author's head in the checkpoint, known and not here
        if missing:
            gap = author.plain(header.height) and header.height > author.height + 1 and not wanted
            by_name = [digest for digest in missing if not gap or digest != header.prev]
            self._orphans.add(block, sender, missing, by_name, now.mono_ms)
            if header.author == self._own:  # this node is silent until it is here
                wanted_too = [block.digest, *missing]
                self._orphans.want(wanted_too, header.author, sender, now.mono_ms, named=True)
            return False
        if not chains.extends(header) and not (author.frozen and chains.follows(header)):
            return False
        bit = self._epochs.bit_of(header)
        if not self._epochs.has_come(header) or not self._witness.bounds.within_reach(block.items, bit):
            self._orphans.ask_soon(sender, now.mono_ms)
            return False
        if not chains.is_in_order(header, leans_on[1:]):
            return False
        chains.append(block)
        if header.epoch == self._epochs.number:
            self._marking.on_block(block)
        if header.author == self._own:
            self._voice.learning.on_learnt(block.digest, now.mono_ms)
        for item in block.items:
            if isinstance(item, Statement):  # of these there are thousands a second
                self._witness.on_statement(item, bit)
            elif isinstance(item, Marks):
                if bit:  # else a block might be read and decoded for nothing
                    self._witness.on_marked(self._marking.meant_by(item), bit, confirms=item.confirms)
            else:
                self._on_item(item, header, bit, sender, now)
        return True

    def _on_item(self, item: Item, header: Header, bit: int, sender: str, now: Now) -> None:
        match item:
            case TxItem():
                self._witness.on_tx(item, now)
                if header.epoch < self._epochs.number:
                    self._witness.carry(item)
            case Double(first, second):
                self._witness.on_tx(first, now, told=True)
                self._witness.on_tx(second, now, told=True)
            case Fork(first):
                name, frozen = first.header.author, self._chains.author(first.header.author).frozen
                if frozen and self._draft.get(FORKS, name) is not None:  # else by a checkpoint alone: nothing shows it
                    self._chains.forked_before(name, first.header.height)
                else:
                    self._freeze(item)
            case Report():
                self._witness.on_report(item, bit)
            case Unlock():
                self._witness.on_unlock(item)
            case Seen(name, digest):
                if self._chains.author(name).frozen and not self._chains.holds(digest):
                    self._orphans.want([digest], header.author, sender, now.mono_ms, named=True)
            case Wish():
                self._turning.on_wish(bit)
            case OrderItem():
                self._turning.on_order(item)
            case Cut():
                self._turning.on_cut(item, bit)
            case Seal():
                self._turning.on_seal(item, header.author)

    def _on_fork(self, block: CheckedBlock) -> None:
        held = self._chains.header_at(block.header.author, block.header.height)
        if held is not None:
            self._freeze(fork_of(held, block.signed))

    def _freeze(self, fork: Fork) -> None:
        name, height = fork.first.header.author, fork.first.header.height
        self._draft.put_bytes(FORKS, name, fork.encode())
        self._chains.freeze(name, height)
        self._turning.on_fork(fork)
        self._voice.accuse(name, f"{base32(name)} signed two blocks at height {height}: no more of it is taken in")
        if name == self._own:
            self._voice.mute(f"this node signed two blocks at height {height}: was it restored from a backup?")

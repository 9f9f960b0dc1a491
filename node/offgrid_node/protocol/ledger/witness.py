"""The rules by which a transaction becomes final, at ballot 0 (FastPay's broadcast with a second phase).

    tx seen     its slot is the account's next, its `prev` the account's head, the funds are there by final
                transactions, its owner signs with that key still, nothing was voted for in the slot → this node, a
                witness, votes for it: once, for ever
    quorum of votes for one transaction → a certificate → this node confirms it: once, for ever
    quorum of confirms                  → final: the money moves here, the next slot of the account is examined

Why it is safe while liars weigh less than a third: README.md. Locks are durable before anybody sees them. What is
superfluous is not said: no vote where there is a certificate, nothing where the slot is final. Whoever lacks what that
follows from gets the very blocks from here, for every statement counts wherever it is held.

Everything happens in the account's next slot: what comes in for later ones is counted, and looked at when its turn
comes. A slot in which no transaction gets a quorum any more is ended at higher ballots (ballots.py): there, once this
node has said anything, it says nothing at ballot 0 any more. What is kept of others is bounded (bounds.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.bounds import Bounds
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.doubles import Doubles
from offgrid_node.protocol.ledger.early import Early
from offgrid_node.protocol.ledger.endings import Endings
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem, Unlock
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.marking import Meant
from offgrid_node.protocol.ledger.records import BY_HAND, Tx
from offgrid_node.protocol.ledger.room import Room
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Slots
from offgrid_node.protocol.ledger.sources import HoldSource
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice


class Witness:
    """Every node follows the slots; only one of the epoch's committee votes and confirms."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        epochs: Epochs,
        cut: CutSlot,
        accounts: Accounts,
        slots: Slots,
        transactions: Transactions,
        voice: Voice,
        keys: Keys,
    ) -> None:
        self._own, self._draft, self._epochs, self._cut, self._keys = settings.account, draft, epochs, cut, keys
        self._accounts, self._slots, self._transactions, self._voice = accounts, slots, transactions, voice
        self._ballots = self.ballots = Ballots(settings.salt, draft, slots, self._is_here)
        self.bounds = Bounds(accounts, epochs, cut, self._ballots)
        self._endings = self.endings = Endings(draft, epochs, accounts, slots, transactions, self._ballots)
        self._committee, self._own_bit, self._fee_micro = Committee(()), 0, 0
        self.room = Room(slots, self._ballots)
        self._touched: dict[bytes, None] = {}  # accounts whose next slot is to be examined
        self._unheard: dict[bytes, None] = {}  # … once this node may speak
        self._learnt: list[Known] = []
        self._early, self._doubles = Early(), Doubles(draft, epochs, transactions, voice)

    def load(self) -> None:
        """Whatever could be done was done in the step that made it possible, unless this node had to be quiet."""
        self._unheard.update(dict.fromkeys(self._slots.load()))

    def open(self, fee_micro: int) -> None:
        self._fee_micro = fee_micro
        self._follow_epoch()

    def _follow_epoch(self) -> None:
        self._committee, self._own_bit = self._epochs.committee, self._epochs.own_bit
        self._ballots.open(self._committee, self._own_bit)
        self._endings.open()
        self.room.open(self._committee)

    # ---- the end of an epoch

    def end_by_cut(self, account: bytes, digest: bytes, now: Now) -> None:
        """The account's next slot ends with that, which is here."""
        slot = self._slots.make(account, self._accounts.get(account).next_seq)
        for each in self._endings.end_by_cut(slot, digest, now):
            self._touched[each] = None

    def enter(self) -> None:
        """Another epoch has begun: nothing that was said of open slots counts, and all are looked at anew."""
        self._follow_epoch()
        self._touched.update(dict.fromkeys(self._endings.reopen()))

    # ---- questions

    def deadline_ms(self) -> int | None:
        due = self._ballots.deadline_ms(), self._early.deadline_ms()
        return min((at for at in due if at is not None), default=None)

    def is_unlocked(self, name: bytes, seq: int) -> bool:
        """Whether the owner has asked that the slot ends."""
        return self._ballots.is_unlocked(name, seq)

    def standing(self, name: bytes) -> bytes | None:
        """The transaction seen first for the account's next slot."""
        slot = self._slots.get(name, self._accounts.get(name).next_seq)
        return slot.first if slot is not None and slot.first != NOTHING else None

    def names(self, item: TxItem) -> bool:
        """Whether the transaction's slot knows of it."""
        slot = self._slots.get(item.tx.src, item.tx.seq)
        return slot is not None and (slot.first == item.digest or item.digest in slot.tallies)

    def in_slot(self, name: bytes, seq: int) -> Iterator[Known]:
        """The transactions of a slot that are here."""
        slot = self._slots.get(name, seq)
        for digest in {slot.first: None, **dict.fromkeys(slot.tallies)} if slot is not None else ():
            known = self._transactions.of_slot(name, seq, digest)
            if known is not None:
                yield known

    # ---- inputs

    def on_tx(self, item: TxItem, now: Now, *, told: bool = False) -> None:
        """A transaction from a block, signed by its owner; `told`: as part of evidence, which is no news then."""
        tx, digest = item.tx, item.digest
        if not self._counts(tx):
            return
        slot = self._slots.get(tx.src, tx.seq)
        named = slot is not None and (slot.first == digest or digest in slot.tallies)
        if not named or self._transactions.get(digest) is None:  # a slot names every transaction of it that is here
            known = self._transactions.add(item, now)
            own, learns = tx.source.signer == self._own, self._voice.learning.at_work
            if own and (learns or self._keys.in_force(tx.source)):  # what others sign by an old key is none of its own
                self._learnt.append(known)
                if tx.request != BY_HAND and not learns:
                    self._voice.mute("a transaction came that this node signed and does not have: was it restored?")
        self.follow(item, now, told=told)
        if slot is not None and slot.aside:
            for statement, bit in self._ballots.take_up(slot, digest):
                self.on_statement(statement, bit)

    def carry(self, item: TxItem) -> None:
        """It came in a block of an epoch that is over."""
        if self.names(item):
            self._slots.make(item.tx.src, item.tx.seq).carried = True

    def follow(self, item: TxItem, now: Now, *, told: bool = False) -> None:
        """Looks at a known transaction's slot. The first one seen is the only one that this node may vote for; while
        its time has not come it is in nobody's way, nor is what an old key signs: whoever has found one."""
        tx, digest = item.tx, item.digest
        if not self._keys.in_force(tx.source):
            self._name(item)
            self._touched[tx.src] = None  # a quorum that had not heard of it may have voted
            return
        if isinstance(tx.source, HoldSource) and tx.source.due_us > now.utc_us:
            self._put_off(item, tx.source.due_us, now)
            return
        slot = self._slots.get(tx.src, tx.seq)
        if slot is None or slot.first == NOTHING:
            slot = self._slots.make(tx.src, tx.seq)
            slot.first = digest
        elif slot.first != digest and digest not in slot.tallies:
            self._slots.name(self._slots.make(tx.src, tx.seq), digest)
        if slot.first != digest and not slot.doubled:
            self._doubles.on_double(self._slots.make(tx.src, tx.seq), item, told=told)
        self._touched[tx.src] = None

    def recount(self, items: Iterable[Item], bit: int, now: Now) -> None:
        """After a restart, of a block that was taken in: what its slots' rows may not know yet."""
        for item in items:
            match item:
                case Statement(ballot=0):
                    self.on_statement(item, bit)
                case TxItem():
                    self._refollow(item, now)
                case Double(first, second):
                    self._refollow(first, now)
                    self._refollow(second, now)
                case _:
                    pass  # is in rows

    def on_statement(self, statement: Statement, bit: int) -> None:
        """What the witness with this bit says in a block of its own; bit 0 is nobody's, in this epoch."""
        if not bit:
            return
        name, digest, confirms = statement.account, statement.tx_digest, statement.confirms
        if statement.ballot and name == self._epochs.cut:
            self._cut.on_statement(statement, bit)
            return
        if statement.seq < (account := self._accounts.get(name)).next_seq:
            return
        if statement.ballot:
            if confirms and bit == self._own_bit:
                self.room.take(name, statement.seq)
            self._ballots.on_statement(statement, bit)
            self._touch(account, name, statement.seq)
            return
        slot = self._slots.make(name, statement.seq)
        if digest not in slot.tallies and self._ballots.put_aside(slot, slot.tallies, statement, bit):
            if bit == self._own_bit:
                self._bind(slot, digest, confirms=confirms)
            return
        self._count(account, slot, digest, bit, confirms=confirms)

    def on_marked(self, meant: Iterable[Meant], bit: int, *, confirms: bool) -> None:
        """The same of many, at ballot 0, by a witness of this epoch."""
        accounts, slots = self._accounts, self._slots
        for name, seq, digest in meant:
            account, slot = accounts.get(name), slots.get(name, seq)
            if slot is None or digest not in slot.tallies:
                self.on_statement(Statement(confirms, name, seq, 0, digest), bit)
            elif seq >= account.next_seq:
                slots.change(slot)
                self._count(account, slot, digest, bit, confirms=confirms)

    def on_report(self, report: Report, bit: int) -> None:
        """The witness with this bit says nothing more at lower ballots."""
        if bit and report.account == self._epochs.cut:
            self._cut.on_report(report, bit)
            return
        account = self._accounts.get(report.account)
        if bit and report.seq >= account.next_seq:
            self._ballots.on_report(report, bit)
            self._touch(account, report.account, report.seq)

    def on_unlock(self, unlock: Unlock) -> None:
        """Signed by the account's owner."""
        account = self._accounts.get(unlock.account)
        if unlock.seq >= account.next_seq and self._keys.in_force(unlock.source):
            self._ballots.on_unlock(unlock.account, unlock.seq)
            self._touch(account, unlock.account, unlock.seq)

    def on_key(self, node: str, number: int) -> None:
        """This is how often the member's key was replaced."""
        if self._keys.on_replaced(node, number):
            self._unheard.update(dict.fromkeys(self._slots.accounts()))

    def on_time(self, now: Now) -> None:
        self._touched.update(dict.fromkeys(self._ballots.on_time(now.mono_ms)))
        for digest in self._early.take_due(now.mono_ms):
            known = self._transactions.get(digest)
            if known is not None and known.row.state == ledger_pb2.TX_STATE_SIGNED:
                self.follow(known.item, now)

    # ---- the end of a step

    def settle(self, now: Now) -> None:
        """Does all that has become possible: what one slot's end makes possible in others too."""
        if self._unheard and self._voice.may_witness:
            self._touched.update(self._unheard)
            self._unheard.clear()
        while (account := next(iter(self._touched), None) or self.room.next_waiting()) is not None:
            self._touched.pop(account, None)
            while self._advance(account, now):
                pass

    def flush(self) -> None:
        """The end of a step: what was said at ballots above 0 becomes rows."""
        self._ballots.flush()

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        self._ballots.trim()

    def take_learnt(self) -> list[Known]:
        """Own transactions that came from others since it was asked last: this node had forgotten them."""
        learnt, self._learnt = self._learnt, []
        return learnt

    def take_ended(self) -> list[Known]:
        """Transactions that became final or void since it was asked last."""
        return self._endings.take()

    # ---- inside

    def _is_here(self, slot: Slot, digest: bytes) -> bool:
        return self._transactions.of_slot(slot.account, slot.seq, digest) is not None

    def _count(self, account: Account, slot: Slot, digest: bytes, bit: int, *, confirms: bool) -> None:
        if bit == self._own_bit:
            self._bind(slot, digest, confirms=confirms)
        if self._slots.state(slot, digest, bit, confirms=confirms):
            tally = slot.tallies[digest]
            waits = confirms and self.room.waits(slot.account)  # the more have confirmed, the sooner it has room
            if slot.disputed or waits or self._committee.enough(tally.confirmed if confirms else tally.voted):
                self._touch(account, slot.account, slot.seq)

    def _bind(self, slot: Slot, digest: bytes, *, confirms: bool) -> None:
        slot.bind(digest, confirms=confirms)
        if confirms:
            self.room.take(slot.account, slot.seq)

    def _counts(self, tx: Tx) -> bool:
        return tx.fee_micro >= self._fee_micro and tx.seq >= self._accounts.get(tx.src).next_seq

    def _refollow(self, item: TxItem, now: Now) -> None:
        if self._counts(item.tx):
            self.follow(item, now, told=True)

    def _touch(self, account: Account, name: bytes, seq: int) -> None:
        """The slot is looked at if it is the account's next."""
        if seq == account.next_seq:
            self._touched[name] = None

    def _touch_open(self, name: bytes) -> None:
        """The account's next slot is looked at if anything is known of it."""
        if self._slots.get(name, self._accounts.get(name).next_seq) is not None:
            self._touched[name] = None

    def _name(self, item: TxItem) -> None:
        """The slot knows of it, and does not turn to it."""
        slot = self._slots.make(item.tx.src, item.tx.seq)
        if item.digest not in (slot.first, *slot.tallies):
            self._slots.name(slot, item.digest)

    def _put_off(self, item: TxItem, due_us: int, now: Now) -> None:
        """It ends with the slot, and is looked at again when its time has come."""
        self._name(item)
        self._early.put(item.digest, due_us, now)

    def _advance(self, name: bytes, now: Now) -> bool:
        """What the account's next slot allows; False when that is all."""
        account = self._accounts.get(name)
        slot = self._slots.get(name, account.next_seq)
        if slot is None:
            return False
        if slot.first == NOTHING:
            self._look_again(slot, now)
        ended = self._endings.end(slot, account, self._ballots.dispute(slot), now)
        if ended is not None:  # its next slot's turn comes with those of others
            self.room.leave(name, slot.seq, now)
            for each in ended:
                self._touch_open(each)
            return False
        if not self._own_bit or self._cut.silent:
            return False
        if not self._voice.may_witness:
            self._unheard[name] = None
            return False
        if slot.doubled or slot.disputed:
            if not self.room.admits(slot, now):
                return False
            word = self._ballots.next_word(slot, lambda it: self._endings.holds(slot, account, it), now.mono_ms)
            if word is not None:
                if isinstance(word, Statement) and word.confirms:
                    self.room.take(name, slot.seq)
                self._voice.say(word)
                return True
            if self._ballots.has_promised(slot):
                return False
        return self._speak(slot, account, now)

    def _look_again(self, slot: Slot, now: Now) -> None:
        """After a restart at what was too early before, and at what a key signed that is in force again."""
        for digest in [*slot.tallies]:
            known = self._transactions.of_slot(slot.account, slot.seq, digest)
            if known is not None and digest not in self._early and self._keys.in_force(known.item.tx.source):
                self.follow(known.item, now)

    def _speak(self, slot: Slot, account: Account, now: Now) -> bool:
        """Votes and confirms at ballot 0; whether anything may follow from that in this step."""
        if slot.confirmed != NOTHING:
            return False
        certified = self._certified(slot, account)
        if certified is None and slot.voted == NOTHING and self._may_vote(slot, account):
            self._say(slot, slot.first, confirms=False)
            certified = self._certified(slot, account)
        if certified is None or not self.room.admits(slot, now):
            return False
        self._say(slot, certified, confirms=True)
        return slot.doubled or slot.disputed or self._committee.enough(slot.tallies[certified].confirmed)

    def _certified(self, slot: Slot, account: Account) -> bytes | None:
        """The transaction that a quorum has voted for."""
        for digest, tally in slot.tallies.items():
            if tally.voted and self._committee.enough(tally.voted) and self._endings.known(slot, account, digest):
                return digest
        return None

    def _may_vote(self, slot: Slot, account: Account) -> bool:
        known = self._endings.known(slot, account, slot.first)
        if known is None or not self._keys.in_force(known.item.tx.source):
            return False
        return account.balance_micro >= known.item.tx.total_micro

    def _say(self, slot: Slot, digest: bytes, *, confirms: bool) -> None:
        self._slots.change(slot)
        if slot.carried and not confirms and (known := self._transactions.get(digest)) is not None:
            self._voice.say(known.item)  # whoever began with this epoch has not got the block that it came with
        self._bind(slot, digest, confirms=confirms)
        self._slots.state(slot, digest, self._own_bit, confirms=confirms)
        self._voice.say(Statement(confirms, slot.account, slot.seq, 0, digest))

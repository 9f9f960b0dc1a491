"""The rules by which a transaction becomes final, at ballot 0 (FastPay's broadcast with a second phase).

    tx seen     its slot is the account's next, its `prev` the account's head, the funds are there by final
                transactions, nothing was voted for in the slot → this node, a witness, votes for it: once, for ever
    quorum of votes for one transaction → a certificate → this node confirms it: once, for ever
    quorum of confirms                  → final: the money moves here, the next slot of the account is examined

Why it is safe while liars weigh less than a third (research/ledger.md, section 1): two quorums share more than a third,
so an honest witness; it votes once per slot, hence one slot has one certificate; it confirms only a certificate, hence
one slot has one final transaction, whatever arrives in whatever order, for no rule asks for the time. Overdraft: an
honest witness behind the certificate had applied all earlier slots of the account, only these take from it, and credits
only grow. Locks are rows in the batch of the block that carries the statement, so a crash forgets none.

Everything happens in the account's next slot: what comes in for later ones is counted, and looked at when its turn
comes. A slot in which no transaction gets a quorum any more is ended at higher ballots (recovery.py): there, once this
node has said anything, it says nothing at ballot 0 any more. Epochs above 0 are not known yet and count for nothing.

What is kept of others is bounded. A block that speaks of an account without money, or of a slot SEQ_AHEAD_MAX or more
beyond the next, is not taken in yet (`within_reach`): an honest author has the money and the slots before final, from
blocks that it passes on as well, so its blocks are in reach once these are here; a liar's never are, anywhere. And of
one witness DIGESTS_MAX digests are kept in a slot, besides those of its transactions that are here; more are put aside
until their transaction is here (aside.py). What is left to rates, not bounded here: an owner with money may sign many
transactions for the slots in reach, and each is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.aside import Aside
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import DIGESTS_MAX, Dispute, Disputes
from offgrid_node.protocol.ledger.items import Double, Item, Report, Statement, TxItem, Unlock, double_of
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx, tx_id_of
from offgrid_node.protocol.ledger.recovery import EPOCH, Recovery
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Slots, Tally
from offgrid_node.protocol.ledger.tables import EVIDENCE, SLOTS
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice

SEQ_AHEAD_MAX = 128  # slots of one account, beginning with its next


class Witness:
    """Every node follows the slots; only one whom the genesis names votes and confirms."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        slots: Slots,
        transactions: Transactions,
        voice: Voice,
    ) -> None:
        self._own, self._draft = settings.account, draft
        self._accounts, self._slots, self._transactions, self._voice = accounts, slots, transactions, voice
        self._disputes, self._aside, self._recovery = Disputes(draft), Aside(draft), Recovery(settings.salt)
        self._committee = Committee(())
        self._own_bit = 0
        self._fee_micro = 0
        self._touched: dict[bytes, None] = {}  # accounts whose next slot is to be examined
        self._unheard: dict[bytes, None] = {}  # … once this node may speak
        self._ended: list[Known] = []
        self._learnt: list[Known] = []

    def load(self) -> None:
        """Whatever could be done was done in the step that made it possible, unless this node had to be quiet."""
        for key, _ in self._draft.committed(SLOTS, b""):
            self._unheard[key[: len(self._own)]] = None

    def open(self, genesis: LedgerGenesis) -> None:
        self._committee = Committee(genesis.witnesses)
        self._own_bit = self._committee.bit_of(self._own)
        self._recovery.open(self._committee, self._own_bit)
        self._fee_micro = genesis.fee_micro

    # ---- questions

    @property
    def committee(self) -> Committee:
        return self._committee

    def bit_of(self, account: bytes) -> int:
        return self._committee.bit_of(account)

    def within_reach(self, items: Iterable[Item], bit: int) -> bool:
        """Whether a block with these, by the witness with this bit, is one to take in now."""
        for item in items:
            ballot = 0
            match item:
                case Statement() | Report() if bit:
                    name, seq, ballot = item.account, item.seq, item.ballot
                case TxItem(tx):
                    name, seq = tx.src, tx.seq
                case Double(first):
                    name, seq = first.tx.src, first.tx.seq
                case Unlock(name, seq):
                    pass
                case _:
                    continue
            account = self._accounts.get(name)
            if seq >= account.next_seq + SEQ_AHEAD_MAX or account.untouched:
                return False
            open_slot = ballot > 0 and seq >= account.next_seq
            if open_slot and not self._recovery.within_reach(self._disputes.get(name, seq), ballot):
                return False
        return True

    def deadline_ms(self) -> int | None:
        return self._recovery.deadline_ms()

    def is_unlocked(self, name: bytes, seq: int) -> bool:
        """Whether the owner has asked that the slot ends."""
        dispute = self._disputes.get(name, seq)
        return dispute is not None and dispute.unlocked

    def standing(self, name: bytes) -> bytes | None:
        """The transaction seen first for the account's next slot."""
        slot = self._slots.get(name, self._accounts.get(name).next_seq)
        return slot.first if slot is not None and slot.first != NOTHING else None

    # ---- inputs

    def on_tx(self, item: TxItem, now: Now, *, told: bool = False) -> None:
        """A transaction from a block, signed by its owner; `told`: as part of evidence, which is no news then."""
        tx, digest = item.tx, item.digest
        if tx.fee_micro < self._fee_micro or tx.seq < self._accounts.get(tx.src).next_seq:
            return
        if self._transactions.get(digest) is None:
            known = self._transactions.add(item, now)
            if tx.src == self._own:
                self._learnt.append(known)
            if tx.src == self._own and not self._voice.learning.at_work:
                self._voice.mute("a transaction came that this node signed and does not have: was it restored?")
        self.follow(item, told=told)
        slot = self._slots.get(tx.src, tx.seq)
        if slot is not None and slot.aside:
            self._take_up_statements(slot, digest)

    def follow(self, item: TxItem, *, told: bool = False) -> None:
        """Looks at a known transaction's slot. The first one seen is the only one that this node may vote for."""
        tx, digest = item.tx, item.digest
        slot = self._slots.get(tx.src, tx.seq)
        if slot is None or slot.first == NOTHING:
            slot = self._slots.make(tx.src, tx.seq)
            slot.first = digest
        elif slot.first != digest and digest not in slot.tallies:
            self._slots.name(self._slots.make(tx.src, tx.seq), digest)
        if slot.first != digest and not slot.doubled:
            self._on_double(self._slots.make(tx.src, tx.seq), item, told)
        self._touched[tx.src] = None

    def on_statement(self, statement: Statement, bit: int) -> None:
        """What the witness with this bit says in a block of its own; bit 0 is nobody's."""
        if not bit or statement.epoch != EPOCH:
            return
        if statement.seq < (account := self._accounts.get(statement.account)).next_seq:
            return
        if statement.ballot:
            self._on_dispute(statement, bit)
            return
        slot = self._slots.make(statement.account, statement.seq)
        if bit == self._own_bit:
            slot.bind(statement.tx_digest, confirms=statement.confirms)
        if self._too_many(slot, slot.tallies, statement.tx_digest, bit):
            self._aside.put_statement(slot.key, statement, bit)
            slot.aside = True
            return
        if self._slots.state(slot, statement.tx_digest, bit, confirms=statement.confirms) and (
            statement.seq == account.next_seq
        ):
            self._touched[statement.account] = None

    def on_report(self, report: Report, bit: int) -> None:
        """The witness with this bit says nothing more at lower ballots."""
        if not bit or report.epoch != EPOCH or report.seq < self._accounts.get(report.account).next_seq:
            return
        dispute, certificate = self._dispute(report.account, report.seq), (report.certified_ballot, report.certified)
        slot = self._slots.make(report.account, report.seq)
        dispute.reach(report.ballot, bit)
        if self._recovery.is_seen(slot, dispute, certificate):
            dispute.report(report.ballot, certificate, bit)
        else:
            self._aside.put_report(slot.key, report, bit)
            slot.aside = True

    def on_unlock(self, unlock: Unlock) -> None:
        """Signed by the account's owner."""
        if unlock.seq >= self._accounts.get(unlock.account).next_seq:
            self._dispute(unlock.account, unlock.seq).unlocked = True

    def on_time(self, now_ms: int) -> None:
        self._touched.update(dict.fromkeys(self._recovery.on_time(now_ms)))

    # ---- the end of a step

    def settle(self, now: Now) -> None:
        """Does all that has become possible: what one slot's end makes possible in others too."""
        if self._unheard and self._voice.may_witness:
            self._touched.update(self._unheard)
            self._unheard.clear()
        while self._touched:
            account = next(iter(self._touched))
            del self._touched[account]
            while self._advance(account, now):
                pass

    def flush(self) -> None:
        """The end of a step: what was said of disputes becomes rows."""
        self._disputes.flush()

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        self._disputes.trim()
        self._aside.trim()

    def take_learnt(self) -> list[Known]:
        """Own transactions that came from others since it was asked last: this node had forgotten them."""
        learnt, self._learnt = self._learnt, []
        return learnt

    def take_ended(self) -> list[Known]:
        """Transactions that became final or void since it was asked last."""
        ended, self._ended = self._ended, []
        return ended

    # ---- inside

    def _advance(self, name: bytes, now: Now) -> bool:
        """One thing that the account's next slot allows; False when there is none."""
        account = self._accounts.get(name)
        slot = self._slots.get(name, account.next_seq)
        if slot is None:
            return False
        dispute = self._disputes.get(name, slot.seq) if slot.disputed else None
        if self._end(slot, account, dispute, now):
            return True
        if not self._own_bit:
            return False
        if not self._voice.may_witness:
            self._unheard[name] = None
            return False
        if slot.doubled or dispute is not None:
            dispute = dispute or Dispute(name, slot.seq)
            if slot.aside:
                self._take_up_reports(slot, dispute)
            word = self._recovery.next_word(slot, dispute, lambda it: self._holds(slot, account, it), now.mono_ms)
            if word is not None:
                self._say_above(word)
                return True
            if dispute.promised(self._own_bit):
                return False
        if slot.confirmed == NOTHING and (certified := self._certified(slot, account)) is not None:
            self._say(slot, certified, confirms=True)
            return True
        if slot.voted == NOTHING and self._may_vote(slot, account):
            self._say(slot, slot.first, confirms=False)
            return True
        return False

    def _end(self, slot: Slot, account: Account, dispute: Dispute | None, now: Now) -> bool:
        """Whether a quorum has confirmed what the slot ends with, at one ballot."""
        promised = dispute.promised(self._own_bit) if dispute is not None else 0
        for digest, tally in slot.tallies.items():
            if tally.confirmed and self._committee.enough(tally.confirmed) and self._known(slot, account, digest):
                # Final here by what a liar has shown to nobody else: the others need this node's word.
                if self._own_bit and slot.confirmed == NOTHING and self._voice.may_witness and not promised:
                    self._say(slot, digest, confirms=True)
                self._apply(slot, dispute, digest, tally, now)
                return True
        for _, digest, tally in dispute.all_tallies() if dispute is not None else ():
            if self._committee.enough(tally.confirmed) and self._holds(slot, account, digest):
                self._apply(slot, dispute, digest, tally, now)
                return True
        return False

    def _holds(self, slot: Slot, account: Account, digest: bytes) -> bool:
        """Whether the slot could end with this."""
        return digest == self._recovery.noop(slot) or self._known(slot, account, digest) is not None

    def _dispute(self, name: bytes, seq: int) -> Dispute:
        """The slot's dispute, to change."""
        self._slots.make(name, seq).disputed = True
        if seq == self._accounts.get(name).next_seq:
            self._touched[name] = None
        return self._disputes.make(name, seq)

    def _on_dispute(self, statement: Statement, bit: int) -> None:
        """A vote or a confirm at a ballot above 0."""
        dispute = self._dispute(statement.account, statement.seq)
        slot = self._slots.make(statement.account, statement.seq)
        tallies = dispute.tallies.get(statement.ballot, {})
        noop = statement.tx_digest == self._recovery.noop(slot)
        if noop or bit == self._own_bit or not self._too_many(slot, tallies, statement.tx_digest, bit):
            dispute.state(statement.ballot, statement.tx_digest, bit, confirms=statement.confirms)
        else:
            self._aside.put_statement(slot.key, statement, bit)
            slot.aside = True

    def _take_up_statements(self, slot: Slot, digest: bytes) -> None:
        """Counts what was put aside about this transaction, which is here now."""
        for tally in self._aside.take_tallies(slot.key, digest):
            for confirms, bits in ((False, tally.voted), (True, tally.confirmed)):
                for bit in _bits(bits):
                    self.on_statement(Statement(confirms, EPOCH, slot.account, slot.seq, tally.ballot, digest), bit)

    def _take_up_reports(self, slot: Slot, dispute: Dispute) -> None:
        """Counts reports that were put aside of certificates that are seen by now."""
        for digest in self._recovery.certified(slot, dispute):
            seen = self._aside.take_reports(slot.key, digest, lambda it: self._recovery.is_seen(slot, dispute, it))
            for told in seen:
                self._disputes.make(slot.account, slot.seq)
                dispute.report(told.ballot, (told.certified_ballot, digest), told.witnesses)

    def _say_above(self, word: Statement | Report) -> None:
        """Says it, at a ballot above 0, and is bound by it."""
        if isinstance(word, Report):
            self.on_report(word, self._own_bit)
        else:
            self._on_dispute(word, self._own_bit)
        self._voice.say(word)

    def _certified(self, slot: Slot, account: Account) -> bytes | None:
        """The transaction that a quorum has voted for."""
        for digest, tally in slot.tallies.items():
            if tally.voted and self._committee.enough(tally.voted) and self._known(slot, account, digest):
                return digest
        return None

    def _may_vote(self, slot: Slot, account: Account) -> bool:
        known = self._known(slot, account, slot.first)
        return known is not None and account.balance_micro >= known.item.tx.total_micro

    def _known(self, slot: Slot, account: Account, digest: bytes) -> Known | None:
        """The transaction, if it is here and belongs at the end of this account's chain. One that does not can have a
        quorum only where liars weigh a third or more."""
        known = self._of(slot, digest)
        return known if known is not None and known.item.tx.prev == account.head else None

    def _of(self, slot: Slot, digest: bytes) -> Known | None:
        """The transaction, if it is here and of this slot. A liar speaks in one slot of what belongs to another."""
        known = self._transactions.get(digest) if digest != NOTHING else None
        if known is None:
            return None
        return known if (known.item.tx.src, known.item.tx.seq) == (slot.account, slot.seq) else None

    def _too_many(self, slot: Slot, tallies: Mapping[bytes, Tally], digest: bytes, bit: int) -> bool:
        """Whether this witness names so many transactions at one ballot that one more, not known here, is put aside."""
        if len(tallies) < DIGESTS_MAX or self._of(slot, digest) is not None:
            return False
        named = [other for other, tally in tallies.items() if (tally.voted | tally.confirmed) & bit]
        return len(named) >= DIGESTS_MAX and digest not in named

    def _say(self, slot: Slot, digest: bytes, *, confirms: bool) -> None:
        self._slots.make(slot.account, slot.seq)
        if confirms:
            slot.confirmed = digest
        else:
            slot.voted = digest
        self._slots.state(slot, digest, self._own_bit, confirms=confirms)
        self._voice.say(Statement(confirms, EPOCH, slot.account, slot.seq, 0, digest))

    def _apply(self, slot: Slot, dispute: Dispute | None, digest: bytes, tally: Tally, now: Now) -> None:
        """The slot ends with this transaction, or with the no-op."""
        known = self._of(slot, digest)
        if known is not None:
            tx = known.item.tx
            self._accounts.apply(tx, digest)
            self._transactions.end(known, ledger_pb2.TX_STATE_FINAL, tally, now)
            self._ended.append(known)
            self._draft.record(EventType.TX_FINAL, tx_id_of(digest), ledger=ledger_event(tx, digest, "final"))
            self._touched.update(dict.fromkeys(name for name, _ in tx.outputs))
        else:
            self._accounts.skip(slot.account, slot.seq, digest)
            event = ledger_pb2.LedgerEvent(
                tx_id=tx_id_of(digest), src=base32(slot.account), seq=slot.seq, outcome="no-op"
            )
            self._draft.record(EventType.TX_FINAL, tx_id_of(digest), ledger=event)
        for named, votes in self._named(slot, dispute):
            other = self._of(slot, named) if named != digest else None
            if other is not None and other.row.state == ledger_pb2.TX_STATE_SIGNED:
                self._transactions.end(other, ledger_pb2.TX_STATE_VOID, votes, now)
                self._ended.append(other)
        self._slots.close(slot)
        if slot.aside:
            self._aside.close(slot.key)
        if slot.disputed:
            self._disputes.close(slot.account, slot.seq)
        self._recovery.forget(slot.account, slot.seq)
        self._touched[slot.account] = None

    def _named(self, slot: Slot, dispute: Dispute | None) -> list[tuple[bytes, Tally]]:
        """What was named in the slot, each with who voted for it at ballot 0."""
        digests = {slot.first: None, **dict.fromkeys(slot.tallies)}
        for _, digest, _ in dispute.all_tallies() if dispute is not None else ():
            digests[digest] = None
        return [(digest, slot.tallies.get(digest) or Tally()) for digest in digests]

    def _on_double(self, slot: Slot, item: TxItem, told: bool) -> None:
        """Two transactions of one owner for one slot: the second changes nothing, but all should know."""
        slot.doubled = True
        first = self._transactions.get(slot.first)
        if first is None:
            return
        evidence = double_of(first.item, item)
        self._draft.put_bytes(EVIDENCE, slot.account, evidence.encode())
        self._voice.accuse(slot.account, f"{base32(slot.account)} signed two transactions for its slot {slot.seq}")
        if self._own_bit and self._voice.free and not told:
            self._voice.say(evidence)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit


def ledger_event(tx: Tx, digest: bytes, outcome: str) -> ledger_pb2.LedgerEvent:
    """What the journal says of a transaction."""
    return ledger_pb2.LedgerEvent(
        tx_id=tx_id_of(digest),
        src=base32(tx.src),
        seq=tx.seq,
        amount_micro=tx.total_micro - tx.fee_micro,
        fee_micro=tx.fee_micro,
        outcome=outcome,
    )

"""What is said of slots at ballots above 0: taken in, counted or put aside, and what this witness says to it.

The rules are recovery.py's, the rows those of disputes.py and aside.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.aside import Aside
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import DIGESTS_MAX, Dispute, Disputes
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.recovery import Free, Holds, Recovery
from offgrid_node.protocol.ledger.slots import Slot, Tally

IsHere = Callable[[Slot, bytes], bool]  # whether what that digest names in that slot is here


class Makes(Protocol):
    def make(self, account: bytes, seq: int) -> Slot:
        """The slot to change."""
        ...


class Ballots:
    """Every statement counts, as at ballot 0; what cannot be counted yet waits."""

    def __init__(self, salt: bytes, draft: Draft, slots: Makes, is_here: IsHere) -> None:
        self._slots, self._is_here = slots, is_here
        self._disputes, self._aside, self._recovery = Disputes(draft), Aside(draft), Recovery(salt)
        self._committee, self._own_bit = Committee(()), 0

    def open(self, committee: Committee, own_bit: int) -> None:
        self._committee, self._own_bit = committee, own_bit
        self._recovery.open(committee, own_bit)

    # ---- questions

    def dispute(self, slot: Slot) -> Dispute | None:
        return self._disputes.get(slot.account, slot.seq) if slot.disputed else None

    def noop(self, slot: Slot) -> bytes:
        """The digest by which the slot ends with nothing."""
        return self._recovery.noop(slot)

    def certificates(self, slot: Slot) -> list[tuple[int, bytes]]:
        """What a quorum has voted for in a slot, each with its ballot, the highest first."""
        return [(at, digest) for at, digest, tally in self._tallies(slot) if self._committee.enough(tally.voted)]

    def confirmed(self, slot: Slot) -> list[tuple[int, bytes]]:
        """What this witness has confirmed there, at which ballots, the highest first."""
        return [(at, digest) for at, digest, tally in self._tallies(slot) if tally.confirmed & self._own_bit]

    def confirmers(self, slot: Slot) -> int:
        """Who has confirmed anything there."""
        mask = 0
        for _, _, tally in self._tallies(slot):
            mask |= tally.confirmed
        return mask

    def within_reach(self, name: bytes, seq: int, ballot: int) -> bool:
        """Whether an honest witness may be at that ballot of an open slot."""
        return self._recovery.within_reach(self._disputes.get(name, seq), ballot)

    def is_unlocked(self, name: bytes, seq: int) -> bool:
        """Whether the owner has asked that the slot ends."""
        dispute = self._disputes.get(name, seq)
        return dispute is not None and dispute.unlocked

    def deadline_ms(self) -> int | None:
        return self._recovery.deadline_ms()

    # ---- inputs, of slots that are not final

    def on_statement(self, statement: Statement, bit: int) -> None:
        """A vote or a confirm at a ballot above 0."""
        slot, dispute = self._make(statement.account, statement.seq)
        tallies = dispute.tallies.get(statement.ballot, {})
        noop = statement.tx_digest == self._recovery.noop(slot)
        if noop or bit == self._own_bit or not self.put_aside(slot, tallies, statement, bit):
            dispute.state(statement.ballot, statement.tx_digest, bit, confirms=statement.confirms)

    def on_report(self, report: Report, bit: int) -> None:
        """The witness with this bit says nothing more at lower ballots."""
        slot, dispute = self._make(report.account, report.seq)
        certificate = report.certified_ballot, report.certified
        dispute.reach(report.ballot, bit)
        if self._recovery.is_seen(slot, dispute, certificate):
            dispute.report(report.ballot, certificate, bit)
        else:
            self._aside.put_report(slot.key, report, bit)
            slot.aside = True

    def on_unlock(self, name: bytes, seq: int) -> None:
        _, dispute = self._make(name, seq)
        dispute.unlocked = True

    def reopen(self, slot: Slot) -> None:
        """An epoch has ended, and with it all that was said of the slot; that its owner wants it to end stays."""
        unlocked = self.is_unlocked(slot.account, slot.seq)
        self.close(slot)
        slot.aside, slot.disputed = False, unlocked
        if unlocked:
            self._disputes.make(slot.account, slot.seq).unlocked = True

    def on_time(self, now_ms: int) -> list[bytes]:
        """Accounts in whose slots a ballot has just had its time."""
        return self._recovery.on_time(now_ms)

    # ---- what cannot be counted yet

    def put_aside(self, slot: Slot, tallies: Mapping[bytes, Tally], statement: Statement, bit: int) -> bool:
        """Whether this witness names so many transactions at one ballot that this one, not known here, has to wait."""
        digest = statement.tx_digest
        if len(tallies) < DIGESTS_MAX or self._is_here(slot, digest):
            return False
        named = [other for other, tally in tallies.items() if (tally.voted | tally.confirmed) & bit]
        if len(named) < DIGESTS_MAX or digest in named:
            return False
        self._aside.put_statement(slot.key, statement, bit)
        slot.aside = True
        return True

    def take_up(self, slot: Slot, digest: bytes) -> Iterator[tuple[Statement, int]]:
        """What was put aside about this transaction, which is here now, each with who said it."""
        for tally in self._aside.take_tallies(slot.key, digest):
            for confirms, bits in ((False, tally.voted), (True, tally.confirmed)):
                for bit in bits_of(bits):
                    yield Statement(confirms, slot.account, slot.seq, tally.ballot, digest), bit

    # ---- what to say

    def next_word(self, slot: Slot, holds: Holds, now_ms: int, free: Free | None = None) -> Statement | Report | None:
        """The next thing that this witness has to say at ballots above 0; by saying it, it is bound by
        it. What is `free` to be voted for where there is no certificate is the no-op, unless something else is said."""
        dispute = self.dispute(slot) or Dispute(slot.account, slot.seq)
        if slot.aside:
            self._take_up_reports(slot, dispute)
        word = self._recovery.next_word(slot, dispute, holds, free or (lambda _: [self.noop(slot)]), now_ms)
        if isinstance(word, Report):
            self.on_report(word, self._own_bit)
        elif word is not None:
            self.on_statement(word, self._own_bit)
        return word

    def has_promised(self, slot: Slot) -> bool:
        """Whether this witness has said anything above ballot 0, and says no more there."""
        dispute = self.dispute(slot)
        return dispute is not None and dispute.promised(self._own_bit) > 0

    # ---- the end of a slot, and of a step

    def close(self, slot: Slot) -> None:
        """The slot is final."""
        if slot.aside:
            self._aside.close(slot.key)
        if slot.disputed:
            self._disputes.close(slot.account, slot.seq)
        self._recovery.forget(slot.account, slot.seq)

    def flush(self) -> None:
        """The end of a step: what was said becomes rows."""
        self._disputes.flush()

    def trim(self) -> None:
        """At a new instant: all that is held is in committed rows."""
        self._disputes.trim()
        self._aside.trim()

    # ---- inside

    def _tallies(self, slot: Slot) -> Iterator[tuple[int, bytes, Tally]]:
        dispute = self.dispute(slot)
        if dispute is not None:
            yield from dispute.all_tallies()
        for digest, tally in slot.tallies.items():
            yield 0, digest, tally

    def _make(self, name: bytes, seq: int) -> tuple[Slot, Dispute]:
        """The slot and its dispute, to change."""
        slot = self._slots.make(name, seq)
        slot.disputed = True
        return slot, self._disputes.make(name, seq)

    def _take_up_reports(self, slot: Slot, dispute: Dispute) -> None:
        """Counts reports that were put aside of certificates that are seen by now."""
        for digest in self._recovery.certified(slot, dispute):
            seen = self._aside.take_reports(slot.key, digest, lambda it: self._recovery.is_seen(slot, dispute, it))
            for told in seen:
                self._disputes.make(slot.account, slot.seq)
                dispute.report(told.ballot, (told.certified_ballot, digest), told.witnesses)


def bits_of(mask: int) -> Iterator[int]:
    while mask:
        bit = mask & -mask
        yield bit
        mask ^= bit

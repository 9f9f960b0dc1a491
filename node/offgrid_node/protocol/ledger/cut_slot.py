"""The slot in which it is agreed on what an epoch ends with: number 0 of an account that nobody has, at ballots from 1.

Its words are Statements and Reports like those of other slots, by the same rules (recovery.py), but that whoever leads
a ballot whose reports name no certificate proposes what it has itself. From its first word in this slot on a witness
says nothing else in the epoch: so what it had confirmed by then is all that it ever confirms there.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.disputes import Dispute
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.items import Report, Statement
from offgrid_node.protocol.ledger.recovery import Free, Holds
from offgrid_node.protocol.ledger.slots import Slot
from offgrid_node.protocol.ledger.tables import ASIDE, CUTS


class CutSlot:
    """Of the epoch that it is. What is said there is rows, as of every slot; the slot itself has none."""

    def __init__(self, salt: bytes, draft: Draft, epochs: Epochs) -> None:
        self._draft, self._epochs = draft, epochs
        self._slot = Slot(b"", 0)
        self._ballots = Ballots(salt, draft, self, self._is_here)
        self._silent = False  # this witness has spoken here

    def open(self) -> None:
        """At the start, and when an epoch is entered."""
        self._slot = slot = Slot(self._epochs.cut, 0, disputed=True)
        slot.aside = next(self._draft.committed(ASIDE, b"", prefix=slot.key), None) is not None
        self._ballots.open(self._epochs.committee, self._epochs.own_bit)
        self._silent = self._ballots.has_promised(slot)

    def make(self, account: bytes, seq: int) -> Slot:
        """For `ballots`."""
        return self._slot

    # ---- questions

    @property
    def silent(self) -> bool:
        """Whether this witness has spoken here, so that it says nothing in other slots."""
        return self._silent

    @property
    def dispute(self) -> Dispute | None:
        return self._ballots.dispute(self._slot)

    def within_reach(self, seq: int, ballot: int) -> bool:
        return seq == 0 and ballot > 0 and self._ballots.within_reach(self._slot.account, 0, ballot)

    def votes_of(self, bit: int, ballot: int) -> list[bytes]:
        dispute = self.dispute
        return dispute.votes_of(ballot, bit) if dispute is not None else []

    def confirmed(self) -> Iterator[bytes]:
        """What a quorum has confirmed at one ballot: one digest, while liars weigh less than a third."""
        dispute = self.dispute
        for _, digest, tally in dispute.all_tallies() if dispute is not None else ():
            if self._epochs.committee.enough(tally.confirmed):
                yield digest

    def deadline_ms(self) -> int | None:
        return self._ballots.deadline_ms()

    # ---- inputs

    def on_statement(self, statement: Statement, bit: int) -> None:
        self._ballots.on_statement(statement, bit)
        self._silent = self._silent or bit == self._epochs.own_bit

    def on_report(self, report: Report, bit: int) -> None:
        self._ballots.on_report(report, bit)
        self._silent = self._silent or bit == self._epochs.own_bit

    def on_cut(self, digest: bytes) -> None:
        """That checkpoint's cut is here now."""
        for statement, bit in [*self._ballots.take_up(self._slot, digest)] if self._slot.aside else ():
            self.on_statement(statement, bit)

    def end_soon(self) -> None:
        """A quorum wishes it: the first report comes when what is under way has had its time."""
        if not self._ballots.is_unlocked(self._slot.account, 0):
            self._ballots.on_unlock(self._slot.account, 0)

    def on_time(self, now_ms: int) -> bool:
        """Whether a ballot has just had its time."""
        return bool(self._ballots.on_time(now_ms))

    # ---- what to say

    def next_word(self, holds: Holds, free: Free, now_ms: int) -> Statement | Report | None:
        """By saying it this witness is bound by it."""
        word = self._ballots.next_word(self._slot, holds, now_ms, free)
        self._silent = self._silent or word is not None
        return word

    # ---- the end of the slot, and of a step

    def close(self) -> None:
        """The epoch has ended."""
        self._slot.aside = True
        self._ballots.close(self._slot)

    def flush(self) -> None:
        self._ballots.flush()

    def trim(self) -> None:
        self._ballots.trim()

    def _is_here(self, slot: Slot, digest: bytes) -> bool:
        return self._draft.get(CUTS, digest) is not None

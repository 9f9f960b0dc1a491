"""How a slot ends: a quorum has confirmed one transaction, or the no-op, at one ballot.

The money moves then and the account's next slot is open; whatever else was signed for the slot is void, for ever.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.disputes import Dispute
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.records import Tx, tx_id_of
from offgrid_node.protocol.ledger.slots import NOTHING, Slot, Slots, Tally
from offgrid_node.protocol.ledger.transactions import Known, Transactions


class Endings:
    """What could end a slot, and what has."""

    def __init__(
        self,
        draft: Draft,
        epochs: Epochs,
        accounts: Accounts,
        slots: Slots,
        transactions: Transactions,
        ballots: Ballots,
    ) -> None:
        self._draft, self._epochs, self._accounts, self._slots = draft, epochs, accounts, slots
        self._transactions, self._ballots = transactions, ballots
        self._committee = epochs.committee
        self._ended: list[Known] = []

    def open(self) -> None:
        """At the start, and when an epoch is entered."""
        self._committee = self._epochs.committee

    # ---- questions

    def known(self, slot: Slot, account: Account, digest: bytes) -> Known | None:
        """The transaction, if it is here and belongs at the end of this account's chain. One that does not can have a
        quorum only where liars weigh a third or more."""
        known = self._transactions.of_slot(slot.account, slot.seq, digest)
        return known if known is not None and known.item.tx.prev == account.head else None

    def holds(self, slot: Slot, account: Account, digest: bytes) -> bool:
        """Whether the slot could end with this."""
        return digest == self._ballots.noop(slot) or self.known(slot, account, digest) is not None

    # ---- changes

    def end(self, slot: Slot, account: Account, dispute: Dispute | None, now: Now) -> list[bytes] | None:
        """Ends the account's next slot if it can: the accounts whose next slots are to be looked at then."""
        enough = self._committee.enough
        for digest, tally in slot.tallies.items():
            if tally.confirmed and enough(tally.confirmed) and self.known(slot, account, digest):
                return self._apply(slot, dispute, digest, tally, now)
        for _, digest, tally in dispute.all_tallies() if dispute is not None else ():
            if enough(tally.confirmed) and self.holds(slot, account, digest):
                return self._apply(slot, dispute, digest, tally, now)
        return None

    def end_by_cut(self, slot: Slot, digest: bytes, now: Now) -> list[bytes]:
        """The account's next slot ends with this, as the epoch's cut says."""
        tally = slot.tallies.get(digest) or Tally()
        return self._apply(slot, self._ballots.dispute(slot), digest, tally, now)

    def begin_at(self, accounts: Callable[[bytes], Account], epoch: int, now: Now) -> None:
        """This node begins at the checkpoint of that epoch, at which accounts are so: open slots that lie behind it
        have ended, and the others are reopened. What stood in a slot the head of its account tells, or the next
        transaction that is here; of what it does not tell it is not known whether that was final."""
        over: dict[bytes, list[Slot]] = {}
        for slot in self._slots.open_ones():
            if slot.seq < accounts(slot.account).next_seq:
                over.setdefault(slot.account, []).append(slot)
        for name, slots in over.items():
            stands, seq = accounts(name).head, accounts(name).next_seq - 1
            for slot in sorted(slots, key=lambda each: each.seq, reverse=True):
                known = self._transactions.of_slot(name, slot.seq, stands)
                if slot.seq == seq:
                    self._tell(slot, stands, known)
                self._end_behind(slot, stands if slot.seq == seq else NOTHING, epoch, now)
                if known is not None:
                    stands, seq = known.item.tx.prev, seq - 1
        self.reopen()

    def reopen(self) -> list[bytes]:
        """Another epoch has begun: open slots keep what is here of their transactions, and whose owner wants them to
        end. The accounts of these."""
        accounts = []
        for slot in self._slots.open_ones():
            named = [digest for digest in slot.tallies if digest != slot.first]
            here = [each for each in named if self._transactions.of_slot(slot.account, slot.seq, each) is not None]
            self._slots.renew(slot, here)
            self._ballots.reopen(slot)
            if slot.first == NOTHING and not here and not slot.disputed:
                self._slots.close(slot)
            else:
                accounts.append(slot.account)
        return accounts

    def take(self) -> list[Known]:
        """Transactions that became final or void since it was asked last."""
        ended, self._ended = self._ended, []
        return ended

    # ---- inside

    def _apply(self, slot: Slot, dispute: Dispute | None, digest: bytes, tally: Tally, now: Now) -> list[bytes]:
        """The slot ends with this transaction, or with the no-op."""
        touched = [slot.account]
        self._epochs.move()
        known = self._transactions.of_slot(slot.account, slot.seq, digest)
        if known is not None:
            tx = known.item.tx
            self._accounts.apply(tx, digest)
            self._transactions.end(known, ledger_pb2.TX_STATE_FINAL, tally, now, epoch=self._epochs.number)
            self._ended.append(known)
            touched += [name for name, _ in tx.outputs]
        else:
            self._accounts.skip(slot.account, slot.seq, digest)
        self._tell(slot, digest, known)
        if len(slot.tallies) > 1 or slot.first != digest or dispute is not None:
            self._void_others(slot, dispute, digest, now)
        self._slots.close(slot)
        if slot.disputed or slot.aside or slot.doubled:
            self._ballots.close(slot)
        return touched

    def _end_behind(self, slot: Slot, stands: bytes, epoch: int, now: Now) -> None:
        """The slot ended while this node was away; with what `stands` there, as far as that is known."""
        for digest in {slot.first: None, **dict.fromkeys(slot.tallies)}:
            known = self._transactions.of_slot(slot.account, slot.seq, digest)
            if known is not None and known.row.state == ledger_pb2.TX_STATE_SIGNED:
                state = ledger_pb2.TX_STATE_FINAL if digest == stands else ledger_pb2.TX_STATE_VOID
                told = state if stands != NOTHING else ledger_pb2.TX_STATE_UNKNOWN
                self._transactions.end(known, told, Tally(), now, epoch=epoch)
        self._slots.close(slot)

    def _tell(self, slot: Slot, digest: bytes, known: Known | None) -> None:
        """To the journal: the slot has ended with that, which may be here."""
        if known is not None:
            event = ledger_event(known.item.tx, digest, "final")
        else:
            outcome = "no-op" if digest == self._ballots.noop(slot) else "final"
            event = ledger_pb2.LedgerEvent(
                tx_id=tx_id_of(digest), src=node_id_from(slot.account), seq=slot.seq, outcome=outcome
            )
        self._draft.record(EventType.TX_FINAL, event.tx_id, ledger=event)

    def _void_others(self, slot: Slot, dispute: Dispute | None, digest: bytes, now: Now) -> None:
        """What else was named in the slot will never be; each keeps who voted for it at ballot 0."""
        named = {slot.first: None, **dict.fromkeys(slot.tallies)}
        for _, other, _ in dispute.all_tallies() if dispute is not None else ():
            named[other] = None
        named.pop(digest, None)
        for other in named:
            known = self._transactions.of_slot(slot.account, slot.seq, other)
            if known is not None and known.row.state == ledger_pb2.TX_STATE_SIGNED:
                votes = slot.tallies.get(other) or Tally()
                self._transactions.end(known, ledger_pb2.TX_STATE_VOID, votes, now)
                self._ended.append(known)


def ledger_event(tx: Tx, digest: bytes, outcome: str) -> ledger_pb2.LedgerEvent:
    """What the journal says of a transaction."""
    return ledger_pb2.LedgerEvent(
        tx_id=tx_id_of(digest),
        src=node_id_from(tx.src),
        seq=tx.seq,
        amount_micro=tx.total_micro - tx.fee_micro,
        fee_micro=tx.fee_micro,
        outcome=outcome,
    )

"""Who is paid for what, all parts of it: bookings, the holds that this node gives and takes, and vouchers on their way.

What follows of each input is done in the batch of that input: a job's cost is promised where a hold is open, a voucher
that is acked is durable, what a hold's end did not pay is owed again. While this node must be silent it promises
nothing and ends no hold; what it promised before it tells on, for that binds it anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Accounts
from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.commands import DeliverVouchers, Settle
from offgrid_node.protocol.ledger.delivery import Delivery, VoucherTag
from offgrid_node.protocol.ledger.early import LOOK_MS
from offgrid_node.protocol.ledger.ends import Ends
from offgrid_node.protocol.ledger.given import GivenHolds
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.missed import Missed
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import HoldSource
from offgrid_node.protocol.ledger.tables import ACCOUNTS
from offgrid_node.protocol.ledger.taken import RETRY_MS, TakenHolds
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness


class Holding:
    """`bookings`, `given` and `taken` are to be asked; all that changes them comes in here."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        transactions: Transactions,
        witness: Witness,
        voice: Voice,
        keys: Keys,
    ) -> None:
        self._draft, self._voice = draft, voice
        ends = Ends(settings, draft, accounts, transactions, witness, voice, keys)
        self.given = GivenHolds(settings, draft, voice, keys, ends)
        self.taken = TakenHolds(settings, draft, ends)
        self._delivery = Delivery(settings, draft, self.given)
        self.bookings = Bookings(settings.account, settings.salt, draft, self.given, self._delivery)
        self._missed = Missed(
            settings, draft, accounts, transactions, voice, keys, self.given, self.taken, self.bookings
        )
        self._looked_back = False
        self._look_ms: int | None = 0  # when a hold's time may have come

    def load(self) -> None:
        self.bookings.load()
        self.given.load()
        self.taken.load()

    def deadline_ms(self) -> int | None:
        due = self._delivery.deadline_ms(), self._look_ms, self.given.funds_at_ms
        return min((at for at in due if at is not None), default=None)

    # ---- inputs

    def look_back(self) -> None:
        """Before anything else once this node's rows are loaded: what ended while it was away has ended here too."""
        if not self._looked_back:
            self._looked_back = True
            self._missed.on_fundings()
            for known in self._missed.ends():
                self.on_ended(known)

    def on_cost(self, cost: CostIncurred, now: Now, *, payable: bool, may_promise: bool) -> None:
        """Not `may_promise`: what a hold promises in this step is forgotten with it, and the hold may be over."""
        self.bookings.on_cost(cost, now, payable=payable, may_promise=may_promise and self._voice.free)

    def on_peer_up(self, node: str, now: Now) -> None:
        self._delivery.on_peer_up(node, now)

    def on_peer_down(self, node: str) -> None:
        self._delivery.on_peer_down(node)

    def on_answered(self, tag: VoucherTag, answered: Answered, now: Now) -> None:
        self._delivery.on_answered(tag, answered, now)
        if isinstance(answered.reply, ledger_pb2.DeliverVouchersResponse):
            for known in self._missed.told(answered.reply.ended):
                self.on_ended(known)

    def on_vouchers(self, command: DeliverVouchers, now: Now) -> ledger_pb2.DeliverVouchersResponse:
        self._look_ms = 0
        held = [self.taken.on_voucher(terms, voucher, now) for terms, voucher in command.vouchers]
        asked = [self.taken.on_asked(hold, command.payer) for hold in command.asked]
        held += [row.voucher.amount_micro for row in asked]
        for terms in (terms for terms, voucher in command.vouchers if voucher.end and self._voice.free):
            self.taken.on_end_wanted(terms, now)
        ended = [self.taken.ended_by(row) for row in asked if row.ended]
        return ledger_pb2.DeliverVouchersResponse(held_micro=held, ended=ended)

    def on_settle(self, command: Settle, now: Now) -> list[bytes]:
        """Transactions, by digest. Raises FailedPrecondition (NothingToSettle)."""
        posted = self.taken.on_settle(command.payer, now)
        if not posted:
            whose = base32(command.payer) if command.payer else "anybody"
            raise FailedPrecondition(
                f"there is nothing to settle: no voucher of {whose} is held here", reason="NothingToSettle"
            )
        return posted

    def on_learnt(self, known: Known, authors: Iterable[bytes]) -> None:
        """A transaction of this node's that it had forgotten; these have said anything in the ledger."""
        self.given.recover(known, self._nodes(authors))

    def on_learnt_all(self) -> None:
        self.given.on_restored()

    def on_ended(self, known: Known) -> None:
        """A transaction, of whichever account, became final or void."""
        payee = self.given.on_ended(known)
        if self.given.news or isinstance(known.item.tx.source, HoldSource):
            self._look_ms = 0
        if payee is not None:
            self.bookings.on_holds_ended(payee)
        self.taken.on_ended(known)

    # ---- the end of a step

    def pump(self, now: Now) -> bool:
        """Promises what there is room for, and ends the holds whose time has come; whether it has signed any."""
        if not self._voice.free:
            if self._look_ms is not None and self._look_ms <= now.mono_ms:
                self._look_ms = None if self._voice.muted_why else now.mono_ms + RETRY_MS
            return False
        if self.given.news:
            self.given.news = False
            for payee in sorted(self.given.waiting()):
                self.bookings.on_holds_ended(payee)  # a funding may have come to nothing
            self._delivery.ask_unsure(now)
            self.bookings.cover(now)
        if self._look_ms is None or now.mono_ms < self._look_ms:
            return False
        for payee in self.given.give_up(now):
            self.bookings.on_holds_ended(payee)
        signed = self.taken.post_due(now) + self.given.close_expired(now)
        waits = [wait for wait in (self.taken.wait_ms(now), self.given.wait_ms(now)) if wait is not None]
        # Not for as long as a clock says that is set right meanwhile.
        self._look_ms = now.mono_ms + min(max(RETRY_MS, min(waits)), LOOK_MS) if waits else None
        return signed > 0

    def _nodes(self, authors: Iterable[bytes]) -> Iterator[bytes]:
        """Whom this node may have had a hold for: who has said anything, who is up, and whose money has not moved yet.
        As far as it is asked for, for of accounts there are as many as there ever were holds."""
        yield from authors
        yield from map(node_id_bytes, sorted(self._delivery.up))
        for account, row in self._draft.committed(ACCOUNTS, b""):
            if Account.decode(row).next_seq == 0:
                yield account

    def flush(self, now: Now) -> None:
        """What is to be told is told, and what has changed becomes rows, in one batch."""
        self._delivery.on_time(now)
        self.given.flush(now)

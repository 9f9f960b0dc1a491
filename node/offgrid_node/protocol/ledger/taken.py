"""The payee's holds: the highest voucher that this node was given out of each, and the transaction that posts it.

A voucher is taken when its hold is final here: then the money is there, and nobody but this node can have it before
its time is over. One transaction posts a hold, however many bookings its voucher covers: at the first full settlement
interval after the first voucher came, before the hold's time is over, or when the owner or the payer asks for it. The
interval is over when either clock says so: that of the day knows how long this node was down, and may be set back while
it is up.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.ends import Ends
from offgrid_node.protocol.ledger.records import Tx, tx_id_of
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import CLOCK_MARGIN_US, NO_ROOT, GiveBack, HoldSource, HoldTerms, Post
from offgrid_node.protocol.ledger.tables import TAKEN, TAKEN_OPEN, TXS
from offgrid_node.protocol.ledger.transactions import Known
from offgrid_node.protocol.signing import SIGNATURE_BYTES

RETRY_MS = 1_000  # while this node may not sign


class TakenHolds:
    """All that have not ended are in memory, with a voucher each; each has cost its payer a fee."""

    def __init__(self, settings: LedgerSettings, draft: Draft, ends: Ends) -> None:
        self._settings, self._draft, self._ends = settings, draft, ends
        self._held: dict[bytes, tuple[HoldTerms, ledger_pb2.TakenHold]] = {}
        self._since_ms: dict[bytes, int] = {}  # when each was looked at first in this life
        self.promised_micro = 0  # and not this node's yet

    def load(self) -> None:
        for hold, _ in self._draft.committed(TAKEN_OPEN, b""):
            row = self._draft.row(TAKEN, hold, ledger_pb2.TakenHold)
            assert row is not None, "what is open is kept"
            self._held[hold] = HoldTerms.decode(row.voucher.terms), row
            self.promised_micro += row.voucher.amount_micro

    def all(self) -> list[tuple[HoldTerms, ledger_pb2.HoldVoucher]]:
        return [(terms, row.voucher) for terms, row in self._held.values()]

    # ---- inputs

    def on_voucher(self, terms: HoldTerms, voucher: ledger_pb2.HoldVoucher, now: Now) -> int:
        """What is held of this hold by now, in millionths. The handler has checked whose it is and who signed."""
        hold = terms.account
        if hold not in self._held:
            if not voucher.amount_micro or not self._ends.is_funded(terms):
                return self._ended_with(hold)
            self._held[hold] = terms, ledger_pb2.TakenHold(since_us=now.utc_us)
            self._draft.put_bytes(TAKEN_OPEN, hold, b"")
        _, row = self._held[hold]
        if voucher.amount_micro > row.voucher.amount_micro:
            self.promised_micro += voucher.amount_micro - row.voucher.amount_micro
            row.voucher.CopyFrom(voucher)
            row.voucher.ClearField("end")
            self._draft.put(TAKEN, hold, row)
        return row.voucher.amount_micro

    def on_asked(self, hold: bytes, payer: bytes) -> ledger_pb2.TakenHold:
        """What is known of that payer's hold; nothing, where there is none."""
        held = self._held.get(hold)
        row = held[1] if held is not None else self._draft.row(TAKEN, hold, ledger_pb2.TakenHold)
        if row is None:
            row = self._forgotten(hold)
        if row is None or HoldTerms.decode(row.voucher.terms).payer != payer:
            return ledger_pb2.TakenHold()
        return row

    def ended_by(self, row: ledger_pb2.TakenHold) -> ledger_pb2.HoldVoucher:
        """The voucher by which it has ended, as far as that transaction is kept: higher ones may have come since."""
        voucher, kept = ledger_pb2.HoldVoucher(), self._draft.row(TXS, row.ended, ledger_pb2.TxRow)
        voucher.CopyFrom(row.voucher)
        source = Tx.decode(kept.signed.body).source if kept is not None else None
        if isinstance(source, HoldSource):
            voucher.amount_micro = source.act.amount_micro
            if isinstance(source.act, Post):
                act = source.act
                voucher.count, voucher.root, voucher.signature = act.count, act.root, act.signature
        return voucher

    def on_end_wanted(self, terms: HoldTerms, now: Now) -> None:
        """Its payer promises nothing more out of this hold: it is posted, or given back where nothing is held of it."""
        if terms.account in self._held:
            self._post(terms, now)
        elif self._ends.is_funded(terms) and self._ends.own(terms) is None:
            self._ends.sign(terms, GiveBack(), now)

    def on_settle(self, payer: bytes, now: Now) -> list[bytes]:
        """Posts what this payer has promised, or what all have (b""): the transactions, by digest, also of what was
        posted before and is on its way."""
        chosen = [terms for terms, _ in self._held.values() if payer in (b"", terms.payer)]
        return [self._post(terms, now) for terms in chosen]

    def on_ended(self, known: Known) -> None:
        """A transaction became final or void."""
        source, digest = known.item.tx.source, known.item.digest
        if not isinstance(source, HoldSource) or source.account not in self._held:
            return
        _, row = self._held[source.account]
        if known.row.state != ledger_pb2.TX_STATE_FINAL:
            row.since_us = 0  # its slot came to nothing: it is posted again at once
            self._draft.put(TAKEN, source.account, row)
            return
        self.drop(source.account, digest, source.act.amount_micro)
        count = source.act.count if isinstance(source.act, Post) else row.voucher.count
        event = ledger_event(known.item.tx, digest, f"{count} bookings")
        self._draft.record(EventType.SETTLED, tx_id_of(digest), ledger=event)

    def drop(self, hold: bytes, digest: bytes, got_micro: int) -> None:
        """It has ended with that."""
        _, row = self._held.pop(hold)
        self._since_ms.pop(hold, None)
        self.promised_micro -= row.voucher.amount_micro
        row.ended, row.got_micro = digest, got_micro
        self._draft.put(TAKEN, hold, row)
        self._draft.delete(TAKEN_OPEN, hold)

    # ---- time

    def wait_ms(self, now: Now) -> int | None:
        """How long until the next is to be posted, as far as the clocks tell now."""
        waiting = (self._left_ms(*held, now) for held in self._held.values() if self._ends.own(held[0]) is None)
        return min(waiting, default=None)

    def post_due(self, now: Now) -> int:
        """How many are posted by that."""
        due = [terms for terms, row in self._held.values() if self._left_ms(terms, row, now) <= 0]
        due = [terms for terms in due if self._ends.own(terms) is None]
        for terms in due:
            self._post(terms, now)
        return len(due)

    # ---- inside

    def _left_ms(self, terms: HoldTerms, row: ledger_pb2.TakenHold, now: Now) -> int:
        interval_ms = self._settings.settlement_interval_ms
        due_us = min(self._settings.settles_us(row.since_us), terms.expires_us - CLOCK_MARGIN_US)
        due_ms = self._since_ms.setdefault(terms.account, now.mono_ms) + interval_ms
        return min(-(-(due_us - now.utc_us) // 1_000), due_ms - now.mono_ms)

    def _post(self, terms: HoldTerms, now: Now) -> bytes:
        """Once for a slot: what this node has signed there stays, though a higher voucher came."""
        own = self._ends.own(terms)
        if own is not None:
            return own
        said = self._held[terms.account][1].voucher
        return self._ends.sign(terms, Post(said.amount_micro, said.count, said.root, said.signature), now)

    def _forgotten(self, hold: bytes) -> ledger_pb2.TakenHold | None:
        """A hold of which this node has lost all but what ended it."""
        tx = self._ends.last(hold)
        if tx is None or not isinstance(tx.source, HoldSource):
            return None
        said = ledger_pb2.HoldVoucher(
            terms=tx.source.terms.encode(),
            amount_micro=tx.source.act.amount_micro,
            root=NO_ROOT,
            signature=bytes(SIGNATURE_BYTES),
        )
        return ledger_pb2.TakenHold(voucher=said, ended=tx.digest(self._settings.salt))

    def _ended_with(self, hold: bytes) -> int:
        """Of a hold that is not open here: what it ended with, or nothing yet."""
        row = self._draft.row(TAKEN, hold, ledger_pb2.TakenHold)
        return row.voucher.amount_micro if row is not None else 0


def amounts(transactions: Sequence[ledger_pb2.Transaction], own: str) -> int:
    """What these transactions pay to this node."""
    return sum(output.amount_micro for tx in transactions for output in tx.outputs if output.account == own)

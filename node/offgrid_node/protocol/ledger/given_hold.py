"""One hold of this node's as it is in memory."""

from __future__ import annotations

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.sources import CLOCK_MARGIN_US, NO_ROOT, HoldSource, HoldTerms, Post
from offgrid_node.protocol.ledger.transactions import Known
from offgrid_node.protocol.merkle import Peaks

FUNDING, OPEN, ENDED = ledger_pb2.HOLD_STATE_FUNDING, ledger_pb2.HOLD_STATE_OPEN, ledger_pb2.HOLD_STATE_ENDED


class Given(msgspec.Struct):
    """One that has not ended, or whose end waits for what others' ends show."""

    terms: HoldTerms
    row: ledger_pb2.GivenHold
    peaks: Peaks = msgspec.field(default_factory=Peaks)
    is_sure: bool = True  # whether its payee has said since this node's start what it holds, or could hold nothing
    asks: bool = False  # whether its payee is to say what it holds: after a start of either
    is_lost: bool = False  # whether it has ended by what is not known here (missed.py)
    ended_by: Known | None = None
    booked: int = 0  # the newest booking when its end was found to wait

    @property
    def beyond(self) -> Post | None:
        """Its payee has posted a voucher over more bookings than are known here."""
        source = self.ended_by.item.tx.source if self.ended_by is not None else None
        act = source.act if isinstance(source, HoldSource) else None
        return act if isinstance(act, Post) and act.count > self.row.count else None

    @property
    def root(self) -> bytes:
        """Over all that is promised out of it."""
        return self.peaks.root() if self.row.count else NO_ROOT

    @property
    def give_up_us(self) -> int:
        """By when an honest payee has posted, and been heard."""
        return self.terms.expires_us + 2 * CLOCK_MARGIN_US

    def has_room(self, amount_micro: int) -> bool:
        return self.row.amount_micro + amount_micro <= self.terms.room_micro

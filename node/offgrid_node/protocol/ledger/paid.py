"""A booking as people read it: its row, and what has become of the hold that it was promised out of."""

from __future__ import annotations

from typing import Protocol

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.records import tx_id_of
from offgrid_node.protocol.ledger.tables import GIVEN


class Reader(Protocol):
    """Rows by key."""

    def get(self, table: str, key: bytes) -> bytes | None: ...


def as_read(rows: Reader, booking: ledger_pb2.Booking) -> ledger_pb2.Booking:
    """The same, with the transaction that paid it and its share of the fees, or how far it is promised."""
    row = rows.get(GIVEN, booking.hold) if booking.hold else None
    if row is None:
        return booking
    given = ledger_pb2.GivenHold.FromString(row)
    if given.state != ledger_pb2.HOLD_STATE_ENDED:
        booking.promised, booking.delivered = True, booking.place < given.told_count
    elif booking.place < given.paid:
        share, rest = divmod(given.fee_micro, given.paid)
        booking.tx_id, booking.fee_micro = tx_id_of(given.ended), share + (booking.place < rest)
    return booking

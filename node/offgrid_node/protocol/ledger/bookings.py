"""What this node's jobs cost: a row per accepted job, and the owed ones put together into few payments.

A booking is made in the batch in which the job ends. It is owed when there is somebody else to pay and the ledger is
open; then it is in exactly one transaction, named in the batch in which that one is signed. A payment names the job
when it pays one booking; of many it names their number and the Merkle root over their digests (records.py), so that
the payer can prove later what it was for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes
from offgrid_node.protocol.ledger.records import OUTPUTS_MAX, Tx, booking_digest, decode_meta, encode_meta, meta_text
from offgrid_node.protocol.ledger.tables import (
    BOOKING_INDEX,
    BOOKINGS,
    NUMBER_MAX,
    OWED,
    newest_first,
    number_key,
    number_of,
)
from offgrid_node.protocol.merkle import root_of

PAYMENT_BOOKINGS_MAX = 512  # paid by one transaction
BOOKED_REMEMBERED = 4_096  # jobs, the newest: a core tells of a job once, so this is but a second lock
WINDOW_MAX = 4_096  # owed bookings in memory, the oldest first; all are in their rows
_DIGEST_BYTES, _AMOUNT_BYTES = 32, 8


@dataclass(frozen=True, slots=True)
class Owed:
    """One booking that waits for a transaction."""

    number: int
    job_id: str
    payee: bytes
    amount_micro: int
    digest: bytes

    def encode(self) -> bytes:
        return self.digest + self.amount_micro.to_bytes(_AMOUNT_BYTES, "big") + self.payee + self.job_id.encode()

    @classmethod
    def decode(cls, number: int, row: bytes) -> Owed:
        amount_at, payee_at = _DIGEST_BYTES, _DIGEST_BYTES + _AMOUNT_BYTES
        job_at = payee_at + NODE_ID_BYTES
        amount = int.from_bytes(row[amount_at:payee_at], "big")
        return cls(number, row[job_at:].decode(), row[payee_at:job_at], amount, row[:amount_at])


@dataclass(frozen=True, slots=True)
class Payment:
    """What one transaction is to pay."""

    outputs: tuple[tuple[bytes, int], ...]
    meta: bytes
    bookings: tuple[Owed, ...]


class Bookings:
    """Numbers are given in the order of booking and only rise."""

    def __init__(self, own: bytes, salt: bytes, draft: Draft) -> None:
        self._own, self._salt, self._draft = own, salt, draft
        self._window: OrderedDict[int, Owed] = OrderedDict()
        self._booked: OrderedDict[str, None] = OrderedDict()
        self._last = 0
        self._last_owed = self._last_held = 0
        self.owed_micro = 0

    def load(self) -> None:
        newest = next(iter(self._draft.committed(BOOKING_INDEX, b"")), None)
        self._last = NUMBER_MAX - number_of(newest[0]) if newest else 0
        for key, row in self._draft.committed(OWED, b""):
            owed = Owed.decode(number_of(key), row)
            self.owed_micro += owed.amount_micro
            self._hold(owed)

    # ---- changes

    def on_cost(self, cost: CostIncurred, now: Now, *, payable: bool) -> None:
        """Books it; said again it changes nothing. Of a new job no row can be older than this memory, and a look at the
        disk would cost more than all the rest."""
        key = cost.job_id.encode()
        if cost.job_id in self._booked or (not cost.is_new and self._draft.get(BOOKINGS, key) is not None):
            return
        self._booked[cost.job_id] = None
        if len(self._booked) > BOOKED_REMEMBERED:
            self._booked.popitem(last=False)
        payee = node_id_bytes(cost.payee)
        owed = payable and cost.amount_micro > 0 and payee != self._own
        self._last += 1
        self._draft.put(
            BOOKINGS,
            key,
            ledger_pb2.Booking(
                job_id=cost.job_id,
                attempt=cost.attempt,
                payee=cost.payee,
                amount_micro=cost.amount_micro,
                action=cost.action,
                booked_us=now.utc_us,
                owed=owed,
            ),
        )
        self._draft.put_bytes(BOOKING_INDEX, newest_first(self._last), key)
        if owed:
            digest = booking_digest(self._salt, cost.job_id, cost.attempt, payee, cost.amount_micro, cost.action)
            entry = Owed(self._last, cost.job_id, payee, cost.amount_micro, digest)
            self._draft.put_bytes(OWED, number_key(self._last), entry.encode())
            self.owed_micro += cost.amount_micro
            self._hold(entry)

    def next_payment(self, room_micro: int) -> Payment | None:
        """The oldest that fit into one transaction and into `room_micro`, which the fee is out of already; None when
        nothing is owed or nothing fits."""
        if not self._window and self._last_held < self._last_owed:
            self._refill()
        payees: set[bytes] = set()
        chosen: list[Owed] = []
        for owed in self._window.values():
            if owed.amount_micro > room_micro or (owed.payee not in payees and len(payees) == OUTPUTS_MAX):
                continue
            payees.add(owed.payee)
            room_micro -= owed.amount_micro
            chosen.append(owed)
            if len(chosen) == PAYMENT_BOOKINGS_MAX:
                break
        return self._payment(chosen) if chosen else None

    def payment_in(self, tx: Tx) -> Payment | None:
        """What this node's transaction pays, of what is still owed as far as its rows say: it was signed by a life of
        this node of which they are not. None where it pays something else, or bookings that are not in the rows."""
        said, payees = decode_meta(tx.meta), {account for account, _ in tx.outputs}
        owed = [owed for owed in self._window.values() if owed.payee in payees]
        if "job_id" in said:
            chosen = [one for one in owed if one.job_id == said["job_id"]]
        else:
            count = said.get("bookings", "")
            chosen = owed[: int(count)] if count.isdecimal() else []
        payment = self._payment(chosen) if chosen else None
        return payment if payment is not None and (payment.outputs, payment.meta) == (tx.outputs, tx.meta) else None

    def paid(self, payment: Payment, tx_id: str, fee_micro: int) -> None:
        """The transaction is signed in this very batch; its fee is shared among the bookings."""
        share, rest = divmod(fee_micro, len(payment.bookings))
        for index, owed in enumerate(payment.bookings):
            row = self._draft.row(BOOKINGS, owed.job_id.encode(), ledger_pb2.Booking)
            assert row is not None, "what is owed is booked"
            row.tx_id, row.owed, row.fee_micro = tx_id, False, share + (index < rest)
            self._draft.put(BOOKINGS, owed.job_id.encode(), row)
            self._draft.delete(OWED, number_key(owed.number))
            self.owed_micro -= owed.amount_micro
            del self._window[owed.number]

    def unpaid(self, tx_id: str, count: int) -> None:
        """This transaction will never be: what it was to pay is owed again, in its old place."""
        for key, job_id in self._draft.committed(BOOKING_INDEX, b""):
            if count == 0:
                break
            row = self._draft.row(BOOKINGS, job_id, ledger_pb2.Booking)
            if row is None or row.tx_id != tx_id:
                continue
            count -= 1
            row.tx_id, row.owed, row.fee_micro = "", True, 0
            self._draft.put(BOOKINGS, job_id, row)
            payee, number = node_id_bytes(row.payee), NUMBER_MAX - number_of(key)
            digest = booking_digest(self._salt, row.job_id, row.attempt, payee, row.amount_micro, row.action)
            owed = Owed(number, row.job_id, payee, row.amount_micro, digest)
            self._draft.put_bytes(OWED, number_key(number), owed.encode())
            self.owed_micro += row.amount_micro
            self._window[number] = owed
        assert count == 0, "what a transaction pays is booked"
        self._window = OrderedDict(sorted(self._window.items()))

    # ---- inside

    def _payment(self, chosen: Sequence[Owed]) -> Payment:
        sums: dict[bytes, int] = {}
        for owed in chosen:
            sums[owed.payee] = sums.get(owed.payee, 0) + owed.amount_micro
        return Payment(tuple(sums.items()), self._meta(chosen), tuple(chosen))

    def _meta(self, bookings: Sequence[Owed]) -> bytes:
        if len(bookings) == 1:
            row = self._draft.row(BOOKINGS, bookings[0].job_id.encode(), ledger_pb2.Booking)
            assert row is not None, "what is owed is booked"
            return encode_meta({"action": meta_text(row.action), "job_id": meta_text(row.job_id)})
        root = root_of([owed.digest for owed in bookings])
        return encode_meta({"action": "settle", "bookings": str(len(bookings)), "root": root.hex()})

    def _hold(self, owed: Owed) -> None:
        """The window is the oldest without a gap: behind a full one, all else is read when its turn comes."""
        if self._last_held == self._last_owed and len(self._window) < WINDOW_MAX:
            self._window[owed.number] = owed
            self._last_held = owed.number
        self._last_owed = owed.number

    def _refill(self) -> None:
        for key, row in self._draft.committed(OWED, number_key(self._last_held + 1)):
            if len(self._window) == WINDOW_MAX:
                break
            self._last_held = number_of(key)
            self._window[self._last_held] = Owed.decode(self._last_held, row)

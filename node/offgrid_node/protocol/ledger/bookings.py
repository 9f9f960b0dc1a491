"""What this node's jobs cost: a row per accepted job, and how each comes to be paid.

A booking is made in the batch in which the job ends. It is owed when there is somebody else to pay and the ledger is
open; then it is promised, in that very batch where a final hold for its payee has room (given.py), else once one has.
It is in one hold at a time, at a place of its own there: a leaf of the tree whose root the hold's vouchers name, so
that the payer can prove later what it was for. The hold's end pays the first of its places; the others are owed again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.ledger.delivery import Delivery
from offgrid_node.protocol.ledger.given import Ended, GivenHolds
from offgrid_node.protocol.ledger.records import booking_digest
from offgrid_node.protocol.ledger.sources import Post
from offgrid_node.protocol.ledger.tables import (
    BOOKING_INDEX,
    BOOKINGS,
    HOLD_BOOKINGS,
    NUMBER_BYTES,
    NUMBER_MAX,
    OWED,
    newest_first,
    number_key,
    number_of,
    place_key,
)

BOOKED_REMEMBERED = 4_096  # jobs, the newest: a core tells of a job once, so this is but a second lock
WINDOW_MAX = 4_096  # owed bookings in memory, the oldest first; all are in their rows
_DIGEST_BYTES, _AMOUNT_BYTES = 32, 8


@dataclass(frozen=True, slots=True)
class Owed:
    """One booking that no hold covers yet; in its hold's rows it stands in the same form."""

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


class Bookings:
    """Numbers are given in the order of booking and only rise."""

    def __init__(self, own: bytes, salt: bytes, draft: Draft, given: GivenHolds, delivery: Delivery) -> None:
        self._own, self._salt, self._draft = own, salt, draft
        self._given, self._delivery = given, delivery
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

    def on_cost(self, cost: CostIncurred, now: Now, *, payable: bool, may_promise: bool) -> None:
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
        row = ledger_pb2.Booking(
            job_id=cost.job_id,
            attempt=cost.attempt,
            payee=cost.payee,
            amount_micro=cost.amount_micro,
            action=cost.action,
            booked_us=now.utc_us,
            owed=owed,
        )
        self._draft.put_bytes(BOOKING_INDEX, newest_first(self._last), key)
        if not owed:
            self._draft.put(BOOKINGS, key, row)
            return
        digest = booking_digest(self._salt, cost.job_id, cost.attempt, payee, cost.amount_micro, cost.action)
        entry = Owed(self._last, cost.job_id, payee, cost.amount_micro, digest)
        if may_promise and self._promise(entry, row, now):
            return
        self._draft.put(BOOKINGS, key, row)
        self._owe(entry)

    def cover(self, now: Now) -> None:
        """Promises of what is owed as much as there is room for, the oldest first."""
        waiting = [*self._window.values()]
        while waiting:
            for owed in waiting:
                row = self._draft.row(BOOKINGS, owed.job_id.encode(), ledger_pb2.Booking)
                assert row is not None, "what is owed is booked"
                if self._promise(owed, row, now):
                    self._clear(owed)
            if self._window or self._last_held == self._last_owed:
                break
            self._refill()
            waiting = [*self._window.values()]

    def owed_by_payee(self) -> dict[bytes, tuple[int, int]]:
        """Of the oldest that are owed: payee → all of it, and the least booking."""
        owed: dict[bytes, tuple[int, int]] = {}
        for each in self._window.values():
            total, least = owed.get(each.payee, (0, each.amount_micro))
            owed[each.payee] = total + each.amount_micro, min(least, each.amount_micro)
        return owed

    def on_hold_ended(self, ended: Ended) -> None:
        """What the hold's end did not pay is owed again, in its old place."""
        if ended.beyond is not None:
            self._settle_forgotten(ended, ended.beyond)
        for place in range(ended.paid, ended.count):
            entry = self._draft.get(HOLD_BOOKINGS, place_key(ended.hold, place))
            assert entry is not None, "what is promised is kept"
            owed = Owed.decode(number_of(entry), entry[:-NUMBER_BYTES])
            row = self._draft.row(BOOKINGS, owed.job_id.encode(), ledger_pb2.Booking)
            assert row is not None, "what is promised is booked"
            row.owed, row.hold, row.place = True, b"", 0
            self._draft.put(BOOKINGS, owed.job_id.encode(), row)
            self._draft.delete(HOLD_BOOKINGS, place_key(ended.hold, place))
            self._draft.put_bytes(OWED, number_key(owed.number), owed.encode())
            self.owed_micro += owed.amount_micro
            self._window[owed.number] = owed
        self._window = OrderedDict(sorted(self._window.items()))

    # ---- inside

    def _settle_forgotten(self, ended: Ended, posted: Post) -> None:
        """What this node had promised out of the hold, and has forgotten, is paid: bookings are promised in their
        order, so the next ones of this payee were. Where all of these are remembered their root shows it."""
        owed = [each for each in self._window.values() if each.payee == ended.payee]
        chosen, peaks = owed[: posted.count - ended.count], ended.peaks
        for each in chosen:
            peaks.add(each.digest)
        if ended.count + len(chosen) == posted.count and peaks.root() != posted.root:
            return
        for place, each in enumerate(chosen, ended.count):
            row = self._draft.row(BOOKINGS, each.job_id.encode(), ledger_pb2.Booking)
            assert row is not None, "what is owed is booked"
            self._place(each, row, ended.hold, place)
            self._clear(each)
        self._given.pays_too(ended.hold, ended.count + len(chosen))

    def _place(self, owed: Owed, row: ledger_pb2.Booking, hold: bytes, place: int) -> None:
        row.owed, row.hold, row.place = False, hold, place
        self._draft.put(BOOKINGS, owed.job_id.encode(), row)
        self._draft.put_bytes(HOLD_BOOKINGS, place_key(hold, place), owed.encode() + number_key(owed.number))

    def _clear(self, owed: Owed) -> None:
        self._draft.delete(OWED, number_key(owed.number))
        self.owed_micro -= owed.amount_micro
        del self._window[owed.number]

    def _promise(self, owed: Owed, row: ledger_pb2.Booking, now: Now) -> bool:
        """Out of a hold with room for it, if there is one."""
        found = self._given.promise(owed.payee, owed.amount_micro, owed.digest, now)
        if found is None:
            return False
        self._place(owed, row, *found)
        self._delivery.on_promised(base32(owed.payee), now)
        return True

    def _owe(self, owed: Owed) -> None:
        self._draft.put_bytes(OWED, number_key(owed.number), owed.encode())
        self.owed_micro += owed.amount_micro
        self._hold(owed)

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
            if self._draft.get(OWED, key) is not None:  # promised in this batch else
                self._window[self._last_held] = Owed.decode(self._last_held, row)

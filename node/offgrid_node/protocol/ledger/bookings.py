"""What this node's jobs cost: a row per accepted job, and how each comes to be paid.

A booking is made in the batch in which the job ends. It is owed when there is somebody else to pay and the ledger is
open; then it is promised, in that very batch where a final hold for its payee has room (given.py), else once one has.
It is in one hold at a time, at a place of its own there: a leaf of the tree whose root the hold's vouchers name, so
that the payer can prove later what it was for. The hold's end pays the first of its places; the others are owed again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.delivery import Delivery
from offgrid_node.protocol.ledger.given import GivenHolds
from offgrid_node.protocol.ledger.given_hold import Given
from offgrid_node.protocol.ledger.owed import Owed, OwedLines
from offgrid_node.protocol.ledger.records import booking_digest
from offgrid_node.protocol.ledger.sources import Post
from offgrid_node.protocol.ledger.tables import (
    BOOKING_INDEX,
    BOOKINGS,
    HOLD_BOOKINGS,
    NUMBER_BYTES,
    NUMBER_MAX,
    newest_first,
    number_key,
    number_of,
    place_key,
)
from offgrid_node.protocol.merkle import Peaks

BOOKED_REMEMBERED = 4_096  # jobs, the newest: a core tells of a job once, so this is but a second lock


class Bookings:
    """Numbers are given in the order of booking and only rise."""

    def __init__(self, own: bytes, salt: bytes, draft: Draft, given: GivenHolds, delivery: Delivery) -> None:
        self._own, self._salt, self._draft = own, salt, draft
        self._given, self._delivery = given, delivery
        self._booked: OrderedDict[str, None] = OrderedDict()
        self._last = 0
        self.owed = OwedLines(draft)

    def load(self) -> None:
        newest = next(iter(self._draft.committed(BOOKING_INDEX, b"")), None)
        self._last = NUMBER_MAX - number_of(newest[0]) if newest else 0
        self.owed.load()

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
        if may_promise and self._promise(entry, now, row):
            return
        self._draft.put(BOOKINGS, key, row)
        self.owed.add(entry)

    def cover(self, now: Now) -> None:
        """Promises of what is owed as much as there is room for, the oldest first."""
        for payee in self.owed.payees():
            while self._given.of(payee):
                for owed in self.owed.window(payee):
                    if self._promise(owed, now):
                        self.owed.clear(owed)
                if not self.owed.refill(payee):
                    break

    def on_holds_ended(self, payee: bytes) -> None:
        """Some of this payee's have. What their ends did not pay is owed again, in its old place; one that pays what
        this node has forgotten waits until its root shows what that was, or all its other holds have ended: what they
        did not pay may be among it."""
        while (given := self._next_end(payee)) is not None:
            beyond = given.beyond
            self._given.end(given)
            if beyond is not None:
                self._settle_forgotten(given, beyond)
            self._owe_again(given)

    # ---- inside

    def _next_end(self, payee: bytes) -> Given | None:
        """Of this payee's holds that have ended, the oldest first, one that need not wait."""
        held = sorted(self._given.of(payee), key=lambda given: given.terms.number)
        ended = [given for given in held if given.ended_by is not None]
        for given in ended:
            if given.beyond is None or self._forgotten(given, given.beyond)[1]:
                return given
        if len(ended) == len(held):
            return next(iter(ended), None)
        for given in ended:
            given.booked = given.booked or self._last
        if ended:
            self._given.wait(payee)
        return None

    def _forgotten(self, given: Given, posted: Post, newest: int = NUMBER_MAX) -> tuple[list[Owed], bool]:
        """What this node had promised out of the hold, and has forgotten, and whether the root shows that: bookings are
        promised in their order as far as there is room, so these are the payee's next ones that the voucher has room
        for."""
        row, peaks = given.row, Peaks(given.peaks.peaks, given.row.count)
        owed = (each for each in self.owed.oldest(given.terms.payee) if each.number <= newest)
        found = [*islice(fitting(owed, posted.amount_micro - row.amount_micro), posted.count - row.count)]
        for each in found:
            peaks.add(each.digest)
        return found, len(found) == posted.count - row.count and peaks.root() == posted.root

    def _settle_forgotten(self, given: Given, posted: Post) -> None:
        """It is paid. Where the root does not show what it was, it is all that was booked before the end was known and
        is no more than the voucher covers."""
        hold, count = given.terms.account, given.row.count
        found, is_shown = self._forgotten(given, posted)
        if not is_shown:
            found, _ = self._forgotten(given, posted, given.booked or self._last)
            self._given.tell_unknown(hold, posted.count)
            if count + len(found) == posted.count:
                return
        for place, each in enumerate(found, count):
            self._place(each, self._row(each), hold, place)
            self.owed.clear(each)
            given.peaks.add(each.digest)
        self._given.pays_too(hold, count + len(found))

    def _owe_again(self, given: Given) -> None:
        hold, again = given.terms.account, list[Owed]()
        for place in range(given.row.paid, given.row.count):
            entry = self._draft.get(HOLD_BOOKINGS, place_key(hold, place))
            assert entry is not None, "what is promised is kept"
            owed = Owed.decode(number_of(entry), entry[:-NUMBER_BYTES])
            row = self._row(owed)
            row.owed, row.hold, row.place = True, b"", 0
            self._draft.put(BOOKINGS, owed.job_id.encode(), row)
            self._draft.delete(HOLD_BOOKINGS, place_key(hold, place))
            again.append(owed)
        if again:
            self.owed.add_again(given.terms.payee, again)

    def _row(self, owed: Owed) -> ledger_pb2.Booking:
        row = self._draft.row(BOOKINGS, owed.job_id.encode(), ledger_pb2.Booking)
        assert row is not None, "what is owed or promised is booked"
        return row

    def _place(self, owed: Owed, row: ledger_pb2.Booking, hold: bytes, place: int) -> None:
        row.owed, row.hold, row.place = False, hold, place
        self._draft.put(BOOKINGS, owed.job_id.encode(), row)
        self._draft.put_bytes(HOLD_BOOKINGS, place_key(hold, place), owed.encode() + number_key(owed.number))

    def _promise(self, owed: Owed, now: Now, row: ledger_pb2.Booking | None = None) -> bool:
        """Out of a hold with room for it, if there is one; `row` is that of a new one."""
        found = self._given.promise(owed.payee, owed.amount_micro, owed.digest, now)
        if found is None:
            return False
        self._place(owed, row or self._row(owed), *found)
        self._delivery.on_promised(base32(owed.payee), now)
        return True


def fitting(line: Iterable[Owed], room_micro: int) -> Iterator[Owed]:
    """Those that a hold with so much room has taken."""
    for owed in line:
        if owed.amount_micro <= room_micro:
            room_micro -= owed.amount_micro
            yield owed

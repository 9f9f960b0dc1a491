"""The payer's holds: what this node has set aside for those who work for it, and what it has promised out of that.

A hold is funded by a transaction of this node's account, which funds up to OUTPUTS_MAX at once. Once that is final a
booking for its payee is promised in the batch that books it: the hold's sum, count and Merkle peaks grow, and are
durable before the voucher over them leaves (delivery.py). Whoever ends the hold says by which voucher, so which
bookings are paid; all others are owed again. A booking stands in one hold at a time and a hold ends once: so none is
paid twice.

Nothing more is promised to the payee of a hold out of which this node may have promised more than it remembers: after
each start until the payee has said what it holds (vouchers are in no block, so a node that came back from a copy of its
disk finds out nowhere else); after a restore, and when the payee holds a higher voucher ("frozen"), until that hold has
ended and shows what it was: its payee is asked to end it at once. Nor is anything out of one whose key was replaced or
whose time is nearly over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.ends import Ends
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import OUTPUTS_MAX, tx_id_of
from offgrid_node.protocol.ledger.regained import regained
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import (
    CLOCK_MARGIN_US,
    NO_ROOT,
    TIME_MAX,
    Close,
    HoldSource,
    HoldTerms,
    Post,
    Voucher,
)
from offgrid_node.protocol.ledger.tables import (
    GIVEN,
    GIVEN_OPEN,
    HOLD_BOOKINGS,
    HOLD_NUMBER_KEY,
    META,
    number_key,
    place_key,
)
from offgrid_node.protocol.ledger.transactions import Known
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.merkle import DIGEST_BYTES, Peaks

LIFE_US = 7 * 24 * 3_600 * 1_000_000  # of a hold: its payee has so long to post
BOOKINGS_MAX = 65_536  # promised out of one hold
HEADROOM = 8  # times what is owed now is set aside, for what comes next,
GROWTH = 2  # or so many times what the hold before had,
FEES_LEAST = 100  # or so many fees, as far as half of what else is free allows
CONTESTS_MAX = 10
FUNDING, OPEN, ENDED = ledger_pb2.HOLD_STATE_FUNDING, ledger_pb2.HOLD_STATE_OPEN, ledger_pb2.HOLD_STATE_ENDED


@dataclass(slots=True)
class Given:
    """One that has not ended."""

    terms: HoldTerms
    row: ledger_pb2.GivenHold
    peaks: Peaks = field(default_factory=Peaks)
    is_sure: bool = True  # whether its payee has said since this node's start what it holds, or could hold nothing

    @property
    def root(self) -> bytes:
        """Over all that is promised out of it."""
        return self.peaks.root() if self.row.count else NO_ROOT

    def has_room(self, amount_micro: int) -> bool:
        return self.row.amount_micro + amount_micro <= self.terms.room_micro


@dataclass(frozen=True, slots=True)
class Ended:
    """A hold has ended: its bookings from `paid` on, of `count`, are owed again. `beyond`: its payee has posted a
    voucher over more than this node remembers, of which `peaks` are the tree of what it does, and `room_micro` is what
    that left."""

    hold: bytes
    payee: bytes
    paid: int
    count: int
    peaks: Peaks
    room_micro: int
    beyond: Post | None = None


class GivenHolds:
    """All that have not ended are in memory: one or two for each payee."""

    def __init__(self, settings: LedgerSettings, draft: Draft, voice: Voice, keys: Keys, ends: Ends) -> None:
        self._settings, self._draft, self._voice, self._keys, self._ends = settings, draft, voice, keys, ends
        self._held: dict[bytes, Given] = {}
        self._by_payee: dict[bytes, list[Given]] = {}
        self._by_funding: dict[bytes, list[Given]] = {}  # of those whose funds are not final
        self._changed: dict[bytes, Given] = {}
        self._number = 0
        self.promised_micro = 0  # and not paid yet
        self.news = True  # whether there is new room, or some may have been promised again

    def load(self) -> None:
        self._number = int.from_bytes(self._draft.get(META, HOLD_NUMBER_KEY) or b"", "big")
        for hold, _ in self._draft.committed(GIVEN_OPEN, b""):
            row = self._draft.row(GIVEN, hold, ledger_pb2.GivenHold)
            assert row is not None, "what is open is kept"
            self._hold(Given(HoldTerms.decode(row.terms), row, Peaks(row.peaks, row.count), is_sure=False))

    # ---- questions

    @property
    def held_micro(self) -> int:
        """In holds whose funds are final or on their way, promised or not."""
        return sum(given.terms.funds_micro for given in self._held.values())

    def all(self) -> list[Given]:
        return [*self._held.values()]

    def fundings(self) -> list[bytes]:
        """What is to fund some of them, by digest, and is not final here."""
        return [*self._by_funding]

    def of_funding(self, digest: bytes) -> Sequence[Given]:
        return self._by_funding[digest]

    def of(self, payee: bytes) -> Sequence[Given]:
        """Those of a payee that have not ended, the oldest first."""
        return self._by_payee.get(payee, ())

    def untold(self, payee: bytes) -> Iterator[Given]:
        """Those whose payee has not acked all that is promised, or not said yet what it holds, or is to end them, and
        whose key this node signs with still."""
        for given in self.of(payee):
            told = given.is_sure and given.row.told_micro >= given.row.amount_micro and not given.row.frozen
            if not told and self._may_sign(given) and given.row.state == OPEN:
                yield given

    def unsure(self, payee: bytes) -> bool:
        """Whether nothing is promised to this payee before it has said what it holds."""
        return any(not given.is_sure and self._may_sign(given) and given.row.state == OPEN for given in self.of(payee))

    def voucher(self, given: Given) -> ledger_pb2.HoldVoucher:
        """Over all that is promised out of it: durable by the end of this step."""
        row = given.row
        voucher = Voucher(given.terms.account, row.amount_micro, row.count, given.root)
        return ledger_pb2.HoldVoucher(
            terms=row.terms,
            amount_micro=row.amount_micro,
            count=row.count,
            root=voucher.root,
            signature=self._settings.signer.sign(voucher.digest(self._settings.salt)),
            end=row.frozen,
        )

    # ---- promises

    def promise(self, payee: bytes, amount_micro: int, leaf: bytes, now: Now) -> tuple[bytes, int] | None:
        """The hold out of which this is promised from now on, and its place there; None when none has room, or when
        this node may have promised it already, in what it has forgotten."""
        for given in self.of(payee) if not self._is_in_doubt(payee) else ():
            row = given.row
            if row.state != OPEN or row.count >= BOOKINGS_MAX or not given.has_room(amount_micro):
                continue
            if not self._may_sign(given) or now.utc_us >= given.terms.expires_us - CLOCK_MARGIN_US:
                continue
            given.peaks.add(leaf)
            row.amount_micro += amount_micro
            row.count += 1
            self.promised_micro += amount_micro
            self._changed[given.terms.account] = given
            return given.terms.account, row.count - 1
        return None

    def on_told(self, hold: bytes, sent_micro: int, sent_count: int, held_micro: int) -> None:
        """The payee has answered a voucher of so much with what it holds."""
        given = self._held.get(hold)
        if given is None:
            return
        if held_micro >= sent_micro > given.row.told_micro:
            given.row.told_micro, given.row.told_count = sent_micro, sent_count
            self._changed[hold] = given
        if not given.is_sure:
            given.is_sure = self.news = True
        if held_micro > given.row.amount_micro and not given.row.frozen:
            self.freeze(given)
            self._voice.notice(
                f"{base32(given.terms.payee)} holds a voucher over {held_micro} out of hold {base32(hold)}, "
                f"{given.row.amount_micro} are known here: was this node restored? Nothing more is promised out of it"
            )

    def tell_again(self, payee: bytes) -> None:
        """It may have lost what it has acked."""
        for given in self.of(payee):
            if given.row.told_micro:
                given.row.told_micro = given.row.told_count = 0
                self._changed[given.terms.account] = given

    def on_restored(self) -> None:
        """What was promised after the rows that this node came back with, only its payees know."""
        for given in self._held.values():
            self.freeze(given)

    # ---- funds

    def plan(self, owed: Mapping[bytes, tuple[int, int]], free_micro: int, fee_micro: int, now: Now) -> list[HoldTerms]:
        """Holds for those who are owed, payee → all of it and the least booking, within `free_micro`; none for a payee
        whose last one is on its way. `fee_micro` is what the end of each costs."""
        rooms: dict[bytes, int] = {}
        left = free_micro
        for payee, (total, least) in owed.items():
            waits = self._is_in_doubt(payee) or any(given.row.state == FUNDING for given in self.of(payee))
            if waits or len(rooms) == OUTPUTS_MAX:
                continue
            room = min(total, left - fee_micro)
            if room >= least:
                rooms[payee], left = room, left - room - fee_micro
        spare = left // 2 // max(1, len(rooms))
        return [
            HoldTerms(
                self._settings.account,
                payee,
                self._number + number,
                room + fee_micro + min(spare, self._wished(payee, owed[payee][0], fee_micro) - room),
                fee_micro,
                now.utc_us + LIFE_US,
                self._keys.number(self._settings.account),
            )
            for number, (payee, room) in enumerate(rooms.items(), start=1)
        ]

    def on_funding(self, planned: Sequence[HoldTerms], funding: bytes, fee_micro: int) -> None:
        """The transaction that funds them is signed in this very batch."""
        share, rest = divmod(fee_micro, len(planned))
        for place, terms in enumerate(planned):
            fees = terms.fee_micro + share + (place < rest)
            row = ledger_pb2.GivenHold(
                terms=terms.encode(), funding=funding, state=FUNDING, root=NO_ROOT, fee_micro=fees
            )
            given = Given(terms, row)
            self._hold(given)
            self._changed[terms.account] = given
            self._draft.put_bytes(GIVEN_OPEN, terms.account, b"")
        self._number += len(planned)
        self._draft.put_bytes(META, HOLD_NUMBER_KEY, number_key(self._number))

    def recover(self, known: Known, nodes: Iterable[bytes]) -> None:
        """The transaction funded holds of this node's that it has forgotten: among these nodes are their payees. What
        was promised out of them only those know, so nothing more is."""
        tx, own = known.item.tx, self._settings.account
        found = regained(tx, own, self._keys.number(own), nodes, self._held)
        if found:
            self._number = max(self._number, *(terms.number for terms in found))
            self.on_funding(found, known.item.digest, tx.fee_micro)
            for terms in found:
                self.freeze(self._held[terms.account])

    # ---- what ends

    def freeze(self, given: Given) -> None:
        """Nothing more is promised out of it."""
        given.row.frozen = True
        self._changed[given.terms.account] = given

    def on_funded(self, funding: bytes, is_final: bool) -> None:
        """What was to fund some of these became final, or void."""
        for given in self._by_funding.pop(funding):
            if is_final:
                given.row.state, self.news = OPEN, True
                self._changed[given.terms.account] = given
            else:
                given.row.state = ledger_pb2.HOLD_STATE_VOID
                self._drop(given)

    def on_ended(self, known: Known) -> Ended | None:
        """A transaction became final or void; what that means for what was promised."""
        is_final = known.row.state == ledger_pb2.TX_STATE_FINAL
        source, digest = known.item.tx.source, known.item.digest
        if digest in self._by_funding:
            self.on_funded(digest, is_final)
        if not is_final or not isinstance(source, HoldSource) or source.account not in self._held:
            return None
        given = self._held[source.account]
        row = given.row
        row.state, row.ended, row.paid = ENDED, digest, self._paid(given, source)
        self._drop(given)
        self.news = True
        event = ledger_event(known.item.tx, digest, f"{row.paid} bookings")
        self._draft.record(EventType.SETTLED, tx_id_of(digest), ledger=event)
        beyond = source.act if isinstance(source.act, Post) and source.act.count > row.count else None
        room = given.terms.room_micro - row.amount_micro
        return Ended(source.account, given.terms.payee, row.paid, row.count, given.peaks, room, beyond)

    def pays_too(self, hold: bytes, count: int) -> None:
        """Of a hold that has ended in this step: how many it has paid after all."""
        row = self._changed[hold].row
        row.count = row.paid = count

    def tell_unknown(self, hold: bytes, count: int) -> None:
        self._voice.notice(
            f"hold {base32(hold)} ended by a voucher over {count} bookings that this node does not know: was it "
            "restored? What it still owes may be paid"
        )

    def close_expired(self, now: Now) -> int:
        """Whose payee has let its time pass; how many there are."""
        over = [each for each in self._held.values() if each.row.state == OPEN and self._close_us(each) <= now.utc_us]
        for given in over:
            self.freeze(given)
            self._ends.sign(given.terms, Close(given.row.amount_micro), now)
        return len(over)

    def wait_ms(self, now: Now) -> int | None:
        """How long until the next is to be closed, as far as the clock tells now."""
        due_us = min((self._close_us(given) for given in self._held.values() if given.row.state == OPEN), default=None)
        return None if due_us is None else -(-(due_us - now.utc_us) // 1_000)

    def flush(self) -> None:
        """The end of a step: what has changed becomes rows."""
        for hold, given in self._changed.items():
            row = given.row
            row.root = given.root
            del row.peaks[:]
            row.peaks.extend(given.peaks.peaks)
            self._draft.put(GIVEN, hold, row)
        self._changed.clear()

    # ---- inside

    def _hold(self, given: Given) -> None:
        self._held[given.terms.account] = given
        self._by_payee.setdefault(given.terms.payee, []).append(given)
        if given.row.state == FUNDING:
            self._by_funding.setdefault(given.row.funding, []).append(given)
        self.promised_micro += given.row.amount_micro

    def _drop(self, given: Given) -> None:
        hold, payee = given.terms.account, given.terms.payee
        del self._held[hold]
        self._by_payee[payee].remove(given)
        if not self._by_payee[payee]:
            del self._by_payee[payee]
        self.promised_micro -= given.row.amount_micro
        self._changed[hold] = given
        self._draft.delete(GIVEN_OPEN, hold)

    def _paid(self, given: Given, source: HoldSource) -> int:
        """How many of the bookings that are known here that end pays, from the first on."""
        row = given.row
        if isinstance(source.act, Close):
            return row.count
        if not isinstance(source.act, Post):
            return 0
        count, root = source.act.count, source.act.root
        if count <= row.count and self._root(given, count) == root:
            return count
        if count > row.count and row.frozen:
            return row.count
        self.tell_unknown(source.account, count)
        return min(row.count, count)

    def _root(self, given: Given, count: int) -> bytes:
        """Over the first bookings of a hold."""
        if count == 0:
            return NO_ROOT
        if count == given.row.count:
            return given.root
        peaks = Peaks()
        for place in range(count):
            promised = self._draft.get(HOLD_BOOKINGS, place_key(given.terms.account, place))
            assert promised is not None, "what is promised is kept"
            peaks.add(promised[:DIGEST_BYTES])
        return peaks.root()

    def _close_us(self, given: Given) -> int:
        """After the margin twice, for the witnesses' clocks and for this one; each contest that came to nothing leaves
        the payee twice as long as the one before. There is nothing to close where nothing is left."""
        if self._ends.own(given.terms) is not None or not self._ends.is_funded(given.terms):
            return TIME_MAX
        return given.terms.expires_us + (2 * CLOCK_MARGIN_US << min(self._ends.seq(given.terms), CONTESTS_MAX))

    def _wished(self, payee: bytes, total_micro: int, fee_micro: int) -> int:
        before = max((given.terms.room_micro for given in self.of(payee)), default=0)
        return max(HEADROOM * total_micro, GROWTH * before, FEES_LEAST * fee_micro)

    def _is_in_doubt(self, payee: bytes) -> bool:
        return self.unsure(payee) or any(given.row.frozen for given in self.of(payee))

    def _may_sign(self, given: Given) -> bool:
        return given.terms.key == self._keys.number(self._settings.account)

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

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.ends import Ends
from offgrid_node.protocol.ledger.funding import Need, set_aside
from offgrid_node.protocol.ledger.given_hold import ENDED, FUNDING, OPEN, Given
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.records import tx_id_of
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
FUND_MS = 5_000  # payees who are owed meanwhile have theirs funded together
CONTESTS_MAX = 10


class GivenHolds:
    """All that have not ended are in memory: one or two for each payee."""

    def __init__(self, settings: LedgerSettings, draft: Draft, voice: Voice, keys: Keys, ends: Ends) -> None:
        self._settings, self._draft, self._voice, self._keys, self._ends = settings, draft, voice, keys, ends
        self._held: dict[bytes, Given] = {}
        self._by_payee: dict[bytes, list[Given]] = {}
        self._by_funding: dict[bytes, list[Given]] = {}  # of those whose funds are not final
        self._changed: dict[bytes, Given] = {}
        self._number = 0
        self._funded_ms: int | None = None  # when the last ones were
        self.funds_at_ms: int | None = None  # when those may be who have to wait for that
        self.promised_micro = 0  # and not paid yet
        self.news = True  # whether there is new room, or some may have been promised again

    def load(self) -> None:
        self._number = int.from_bytes(self._draft.get(META, HOLD_NUMBER_KEY) or b"", "big")
        for hold, _ in self._draft.committed(GIVEN_OPEN, b""):
            row = self._draft.row(GIVEN, hold, ledger_pb2.GivenHold)
            assert row is not None, "what is open is kept"
            given = Given(HoldTerms.decode(row.terms), row, Peaks(row.peaks, row.count), is_sure=False, asks=True)
            self._hold(given)

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
        for given in (each for each in self.of(payee) if each.ended_by is None):
            told = not given.asks and given.row.told_micro >= given.row.amount_micro and not given.row.frozen
            if given.asks if given.is_lost else not told and self._may_sign(given) and given.row.state == OPEN:
                yield given

    def age_ms(self, payee: bytes, now: Now) -> int:
        """Of this payee's newest hold."""
        made_us = max((given.terms.expires_us for given in self.of(payee)), default=TIME_MAX) - LIFE_US
        return max(0, (now.utc_us - made_us) // 1_000)

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
        """The payee has answered a voucher of so much, or a question, with what it holds: less than it has acked, where
        it has lost that."""
        given = self._held.get(hold)
        if given is None:
            return
        given.asks = False
        if held_micro < given.row.told_micro:
            given.row.told_micro = given.row.told_count = 0
            self._changed[hold] = given
        elif held_micro >= sent_micro > given.row.told_micro:
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

    def ask_again(self, payee: bytes) -> None:
        """It may have lost what it has acked."""
        for given in self.of(payee):
            given.asks = True

    def on_restored(self) -> None:
        """What was promised after the rows that this node came back with, only its payees know."""
        for given in self._held.values():
            self.freeze(given)

    # ---- funds

    def plan(self, owed: Mapping[bytes, tuple[int, int]], free_micro: int, fee_micro: int, now: Now) -> list[HoldTerms]:
        """Holds for those who are owed, payee → all of it and the least booking, within `free_micro`; none for a payee
        whose last one is on its way, and none sooner than FUND_MS after the last ones. `fee_micro` is what the end of
        each costs."""
        if self._funded_ms is not None and now.mono_ms < self._funded_ms + FUND_MS:
            self.funds_at_ms = self._funded_ms + FUND_MS
            return []
        asked = {
            payee: Need(*owed[payee], before_micro=max((each.terms.room_micro for each in self.of(payee)), default=0))
            for payee in owed
            if not self._is_in_doubt(payee) and all(given.row.state != FUNDING for given in self.of(payee))
        }
        funds = set_aside(asked, free_micro, self.held_micro, fee_micro)
        if funds:
            self._funded_ms = now.mono_ms
        own, key = self._settings.account, self._keys.number(self._settings.account)
        return [
            HoldTerms(own, payee, self._number + number, micro, fee_micro, now.utc_us + LIFE_US, key)
            for number, (payee, micro) in enumerate(funds.items(), start=1)
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

    def lose(self, given: Given) -> None:
        """It has ended: its payee is asked by what."""
        given.is_lost = given.asks = True
        self.freeze(given)

    def give_up(self, now: Now) -> Iterator[bytes]:
        """Nobody has said by what these have ended, and their time is over: what is promised is taken for paid. Their
        payees."""
        over = [given for given in self._held.values() if given.is_lost and given.give_up_us <= now.utc_us]
        for given in over:
            row = given.row
            row.state, row.paid = ENDED, row.count
            self._drop(given)
            self.news = True
            yield given.terms.payee

    def on_funded(self, funding: bytes, is_final: bool) -> None:
        """What was to fund some of these became final, or void."""
        self.news = True
        for given in self._by_funding.pop(funding):
            if is_final:
                given.row.state = OPEN
                self._changed[given.terms.account] = given
            else:
                given.row.state = ledger_pb2.HOLD_STATE_VOID
                self._drop(given)

    def on_ended(self, known: Known) -> bytes | None:
        """A transaction became final or void; the payee of the hold that has ended by it."""
        is_final = known.row.state == ledger_pb2.TX_STATE_FINAL
        source, digest = known.item.tx.source, known.item.digest
        if digest in self._by_funding:
            self.on_funded(digest, is_final)
        if not is_final or not isinstance(source, HoldSource) or source.account not in self._held:
            return None
        given = self._held[source.account]
        given.ended_by, given.is_lost, given.asks = known, False, False
        return given.terms.payee

    def end(self, given: Given) -> None:
        """By what has ended it, which says how many of its bookings are paid."""
        known, row = given.ended_by, given.row
        assert known is not None
        assert isinstance(known.item.tx.source, HoldSource)
        row.state, row.ended, row.paid = ENDED, known.item.digest, self._paid(given, known.item.tx.source)
        self._drop(given)
        self.news = True
        event = ledger_event(known.item.tx, row.ended, f"{row.paid} bookings")
        self._draft.record(EventType.SETTLED, tx_id_of(row.ended), ledger=event)

    def wait(self, payee: bytes) -> None:
        """For the ends of all holds of this payee: it is asked to see to those that have not ended."""
        for given in self.of(payee):
            if not given.row.frozen:
                self.freeze(given)
                self.news = True

    def waiting(self) -> set[bytes]:
        """Payees of holds that have ended, and wait."""
        return {given.terms.payee for given in self._held.values() if given.ended_by is not None}

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
        due_us = [self._close_us(given) for given in self._held.values() if given.row.state == OPEN]
        due_us += [given.give_up_us for given in self._held.values() if given.is_lost]
        return -(-(min(due_us) - now.utc_us) // 1_000) if due_us else None

    def flush(self, now: Now) -> None:
        """The end of a step: what has changed becomes rows."""
        if self.funds_at_ms is not None and self.funds_at_ms <= now.mono_ms:
            self.funds_at_ms = None
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

    def _is_in_doubt(self, payee: bytes) -> bool:
        return self.unsure(payee) or any(given.row.frozen for given in self.of(payee))

    def _may_sign(self, given: Given) -> bool:
        return given.terms.key == self._keys.number(self._settings.account)

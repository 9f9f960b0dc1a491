"""What has ended while this node was away: it began at a checkpoint, so nothing but accounts tells of it.

A funding whose holds nothing has touched, though its slot is over, is void. A hold that had its funds and has them no
more has ended; by what its account's head says, which is the digest of that end. All that an end says follows from
its terms, whoever signs and what is promised; so this node makes each that it can name until one has that digest: the
payer of each of its bookings up to, the payee of what it holds.

What no end shows that can be named here the payer asks its payee, whose word is good where it leads to that digest.
Until then, and until the hold's time is over, it promises nothing more out of such a hold and sets nothing more aside
for its payee, for what it owes may be paid; then it takes what it promised for paid, which an honest payee has posted
by then. The payee has got what it has got.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.bookings import Bookings, fitting
from offgrid_node.protocol.ledger.given import GivenHolds
from offgrid_node.protocol.ledger.given_hold import FUNDING, Given
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.owed import Owed
from offgrid_node.protocol.ledger.records import Tx, noop_digest
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import Act, Close, GiveBack, HoldSource, HoldTerms, Post, Voucher
from offgrid_node.protocol.ledger.tables import HOLD_BOOKINGS, NUMBER_BYTES, number_of, place_key
from offgrid_node.protocol.ledger.taken import TakenHolds
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.merkle import DIGEST_BYTES, Peaks
from offgrid_node.protocol.signing import SIGNATURE_BYTES

TRIED_MAX = 4_096  # vouchers of one hold, the highest that this node knows; and as many above those


class Missed:
    """Asked once, when this node's rows are loaded: of what did not end meanwhile it says nothing."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        transactions: Transactions,
        voice: Voice,
        keys: Keys,
        given: GivenHolds,
        taken: TakenHolds,
        bookings: Bookings,
    ) -> None:
        self._settings, self._draft, self._accounts, self._transactions = settings, draft, accounts, transactions
        self._voice, self._keys, self._given, self._taken, self._bookings = voice, keys, given, taken, bookings

    def on_fundings(self) -> None:
        for digest in self._given.fundings():
            if any(self._has_begun(given.terms) for given in self._given.of_funding(digest)):
                self._given.on_funded(digest, is_final=True)
            elif self._is_over(digest):
                self._given.on_funded(digest, is_final=False)

    def ends(self) -> Iterator[Known]:
        """As if each had just become final."""
        for given in self._given.all():
            if given.row.state != FUNDING and not self._is_funded(given.terms):
                known = self._named(given.terms, self._of_given(given))
                if known is not None:
                    yield known
                    continue
                self._given.lose(given)
                self._voice.notice(
                    f"hold {base32(given.terms.account)} for {base32(given.terms.payee)} ended while this node was "
                    f"away, by what it cannot tell: of {given.row.amount_micro} that it promised out of it some may "
                    "be unpaid; it promises that payee nothing more until it has said what it was paid by, or the "
                    "hold's time is over"
                )
        for terms, voucher in self._taken.all():
            if not self._is_funded(terms):
                known = self._named(terms, self._of_taken(terms, voucher))
                if known is not None:
                    yield known
                    continue
                self._taken.drop(terms.account, self._accounts.get(terms.account).head, 0)
                self._voice.notice(
                    f"hold {base32(terms.account)} of {base32(terms.payer)} ended while this node was away, by what "
                    f"it cannot tell: it held a voucher over {voucher.amount_micro} out of it"
                )

    def told(self, vouchers: Iterable[ledger_pb2.HoldVoucher]) -> Iterator[Known]:
        """A payee has said what it held when its holds ended; what does not lead to those ends says nothing."""
        lost = {given.row.terms: given for given in self._given.all() if given.is_lost}
        for said in vouchers:
            given = lost.pop(said.terms, None)  # of each hold one is looked at
            if given is not None and _may_be_of(given.terms, said):
                known = self._named(given.terms, self._of_taken(given.terms, said))
                if known is not None:
                    yield known

    # ---- by accounts

    def _is_funded(self, terms: HoldTerms) -> bool:
        return self._accounts.get(terms.account).balance_micro >= terms.funds_micro

    def _has_begun(self, terms: HoldTerms) -> bool:
        return self._is_funded(terms) or self._accounts.get(terms.account).next_seq > 0

    def _is_over(self, digest: bytes) -> bool:
        """Whether the slot of that transaction is; what is not kept any more was of such a one."""
        known = self._transactions.get(digest)
        return known is None or known.item.tx.seq < self._accounts.get(known.item.tx.src).next_seq

    # ---- by what ended it

    def _named(self, terms: HoldTerms, acts: Iterable[Act]) -> Known | None:
        """The end that stands in the hold's last slot, if it is here, or one of these."""
        account = self._accounts.get(terms.account)
        seq = account.next_seq - 1
        known = self._transactions.of_slot(terms.account, seq, account.head)
        if known is not None:
            return Known(known.item, _final(known.item))
        prev = noop_digest(self._settings.salt, terms.account, seq - 1) if seq else self._accounts.genesis_digest
        for act in acts:
            signer = HoldSource(terms, act).signer
            for key in range(self._keys.number(signer), -1, -1):
                source = HoldSource(terms, act, key)
                tx = Tx(source, seq, prev, terms.fee_micro, source.outputs)
                if tx.digest(self._settings.salt) == account.head:
                    item = TxItem(tx, tx.encode(), b"", account.head)
                    return Known(item, _final(item))
        return None

    def _of_given(self, given: Given) -> Iterator[Act]:
        """What its payee can have posted, what is promised last first, and then what this node has forgotten."""
        terms, row = given.terms, given.row
        yield GiveBack()
        yield Close(row.amount_micro)
        if terms.key != self._keys.number(self._settings.account):
            return  # what the key of then has signed the one of now cannot sign again
        tried = deque[Voucher](maxlen=TRIED_MAX)
        peaks, amount, tell_from = Peaks(), 0, row.count - TRIED_MAX
        for count, each in enumerate(self._promised(given), start=1):
            peaks.add(each.digest)
            amount += each.amount_micro
            if count > tell_from:
                tried.append(Voucher(terms.account, amount, count, peaks.root()))
        for voucher in reversed(tried):
            yield self._post(voucher)
        forgotten = fitting(self._bookings.owed.oldest(terms.payee), terms.room_micro - amount)
        for count, each in enumerate(islice(forgotten, TRIED_MAX), start=row.count + 1):
            peaks.add(each.digest)
            amount += each.amount_micro
            yield self._post(Voucher(terms.account, amount, count, peaks.root()))

    def _promised(self, given: Given) -> Iterator[Owed]:
        for place in range(given.row.count):
            entry = self._draft.get(HOLD_BOOKINGS, place_key(given.terms.account, place))
            assert entry is not None, "what is promised is kept"
            yield Owed.decode(number_of(entry), entry[:-NUMBER_BYTES])

    def _post(self, voucher: Voucher) -> Post:
        signature = self._settings.signer.sign(voucher.digest(self._settings.salt))
        return Post(voucher.amount_micro, voucher.count, voucher.root, signature)

    def _of_taken(self, terms: HoldTerms, said: ledger_pb2.HoldVoucher) -> Iterator[Act]:
        """What this node would have posted, and how an honest payer closes it."""
        yield Post(said.amount_micro, said.count, said.root, said.signature)
        yield GiveBack()
        yield Close(said.amount_micro)


def _may_be_of(terms: HoldTerms, said: ledger_pb2.HoldVoucher) -> bool:
    """Whether a voucher out of that hold could be like this, which nobody has checked."""
    lengths = len(said.root), len(said.signature)
    return lengths == (DIGEST_BYTES, SIGNATURE_BYTES) and said.amount_micro <= terms.room_micro


def _final(item: TxItem) -> ledger_pb2.TxRow:
    signed = common_pb2.Signed(body=item.body, signature=item.signature)
    return ledger_pb2.TxRow(signed=signed, state=ledger_pb2.TX_STATE_FINAL)

"""The owner's part: what this node spends, one signed transaction in flight at a time.

A transfer is durable when it is answered; it is signed at once when no transaction of this account is in flight, else
when its turn comes. A signed transaction is durable before it leaves: were it not, a crash could sign another for the
same slot. What jobs cost is paid in turns with transfers, so neither keeps the other waiting for ever; transfers in
the queue have their funds set aside, and what is owed waits for the rest.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import ID_BYTES, base32, fresh_id
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.bookings import Bookings
from offgrid_node.protocol.ledger.commands import CreateTransfer
from offgrid_node.protocol.ledger.endings import ledger_event
from offgrid_node.protocol.ledger.items import TxItem, Unlock
from offgrid_node.protocol.ledger.records import NO_REQUEST, TX_KIND, Tx, request_mark, tx_id_of, unlock_digest
from offgrid_node.protocol.ledger.refusals import wrong_amount
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import (
    IN_FLIGHT_KEY,
    META,
    REQUESTS,
    TRANSFERS,
    TRANSFERS_OPEN,
    number_key,
    number_of,
)
from offgrid_node.protocol.ledger.transactions import Known, Transactions
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_node.protocol.requests import reused
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.signing import digest_of

QUEUE_MAX = 1_000  # transfers that are not signed yet
LEARN_RETRY_MS = 1_000


class Wallet:
    """Transfers, and the payments of what is owed."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        transactions: Transactions,
        witness: Witness,
        voice: Voice,
        bookings: Bookings,
    ) -> None:
        self._settings, self._draft, self._accounts = settings, draft, accounts
        self._transactions, self._witness, self._voice, self._bookings = transactions, witness, voice, bookings
        self._queue: OrderedDict[int, ledger_pb2.TransferRow] = OrderedDict()
        self._queued_micro = 0
        self._last = 0
        self._in_flight = b""
        self._bookings_next = False
        self._fee_micro = 0

    def load(self) -> None:
        self._in_flight = self._draft.get(META, IN_FLIGHT_KEY) or b""
        for key, transfer_id in self._draft.committed(TRANSFERS_OPEN, b""):
            row = self._draft.row(TRANSFERS, transfer_id, ledger_pb2.TransferRow)
            assert row is not None, "what waits was asked for"
            self._queue[number_of(key)] = row
            self._queued_micro += _total(row)
        self._last = max(self._queue, default=0)

    def open(self, fee_micro: int) -> None:
        self._fee_micro = fee_micro

    # ---- questions

    @property
    def queued_micro(self) -> int:
        """Of transfers that are not signed yet, fees included."""
        return self._queued_micro

    # ---- inputs

    def on_create(self, command: CreateTransfer, now: Now, rng: Rng) -> ledger_pb2.TransferRow:
        """The transfer, signed if its turn is now. Raises the faults that commands.CreateTransfer names."""
        request = request_mark(command.request_id, self._settings.salt)
        if (made := self._made(request)) is not None:
            if (_outputs(made), made.fee_micro, made.meta) != (command.outputs, self._fee(command), command.meta):
                raise reused(command.request_id, made.transfer_id)
            return made
        self._check(command)
        self._last += 1
        row = ledger_pb2.TransferRow(
            transfer_id=fresh_id("t", rng),
            number=self._last,
            src=self._settings.account,
            outputs=[ledger_pb2.RawOutput(account=name, amount_micro=amount) for name, amount in command.outputs],
            fee_micro=self._fee(command),
            meta=command.meta,
            created_us=now.utc_us,
            request=request,
        )
        self._queue[row.number] = row
        self._queued_micro += _total(row)
        self._keep(row)
        self._draft.put_bytes(TRANSFERS_OPEN, number_key(row.number), row.transfer_id.encode())
        self.pump(now)
        return row

    def on_unlock(self) -> bytes:
        """The transaction that is in the open slot, by its digest. Raises the faults that commands.UnlockSlot names."""
        self._check_voice()
        if not self._voice.free:
            raise Unavailable("this node has just started and listens", reason="StillLearning", retry_ms=LEARN_RETRY_MS)
        account = self._settings.account
        if not self._in_flight:
            raise FailedPrecondition(
                "no transaction of this account is under way: there is nothing to end", reason="NothingUnderWay"
            )
        seq = self._accounts.get(account).next_seq
        digest = unlock_digest(self._settings.salt, account, seq)
        if not self._witness.is_unlocked(account, seq):
            unlock = Unlock(NodeSource(account), seq, self._settings.signer.sign(digest), digest)
            self._voice.say(unlock)
            self._witness.on_unlock(unlock)
        return self._in_flight

    def on_learnt(self, known: Known) -> None:
        """A transaction of this node's own that it had forgotten: what was to be paid by it is paid, and not again.
        Transfers are signed in the order in which they were made."""
        tx, digest = known.item.tx, known.item.digest
        if self._on_forgotten(known):
            return
        for row in self._queue.values():
            if (_outputs(row), row.fee_micro, row.meta, row.request) == (tx.outputs, tx.fee_micro, tx.meta, tx.request):
                self._transactions.explain(known, transfer_id=row.transfer_id)
                self._signed(row, digest)
                return
        if tx.request != NO_REQUEST:
            self._remember(known)

    def _on_forgotten(self, known: Known) -> bool:
        """Whether it pays what is owed, as far as this node remembers: that is paid then. Of several payments of the
        same bookings, of which all but one are void, that may come out only when the last one is final."""
        payment = self._bookings.payment_in(known.item.tx)
        if payment is not None:
            self._bookings.paid(payment, tx_id_of(known.item.digest), known.item.tx.fee_micro)
            self._transactions.explain(known, bookings=len(payment.bookings))
        return payment is not None

    def on_learnt_all(self) -> None:
        """The one that was in flight, if any, is so again: nothing else may take its slot."""
        self._in_flight = self._witness.standing(self._settings.account) or b""
        if self._in_flight:
            self._draft.put_bytes(META, IN_FLIGHT_KEY, self._in_flight)
        else:
            self._draft.delete(META, IN_FLIGHT_KEY)

    def on_ended(self, known: Known) -> None:
        """A transaction, of whichever account, became final or void."""
        tx, digest = known.item.tx, known.item.digest
        if tx.src != self._settings.account:
            self._tell_payee(known)
            return
        if known.row.state == ledger_pb2.TX_STATE_FINAL and not known.row.bookings and not known.row.transfer_id:
            self._on_forgotten(known)
        if known.row.state == ledger_pb2.TX_STATE_VOID:
            self._voice.notice(f"transaction {tx_id_of(digest)} of this node will never be: its slot ended without it")
            self._bookings.unpaid(tx_id_of(digest), known.row.bookings)
        elif known.row.bookings:
            outcome = f"{known.row.bookings} bookings"
            self._draft.record(EventType.SETTLED, tx_id_of(digest), ledger=ledger_event(tx, digest, outcome))
        if digest == self._in_flight:
            self._in_flight = b""
            self._draft.delete(META, IN_FLIGHT_KEY)

    def _tell_payee(self, known: Known) -> None:
        """What somebody else signed to this node, and it may have relied on, came to nothing."""
        tx = known.item.tx
        if known.row.state == ledger_pb2.TX_STATE_VOID and any(to == self._settings.account for to, _ in tx.outputs):
            self._voice.notice(
                f"transaction {tx_id_of(known.item.digest)} of {base32(tx.src)} to this node will never be: its slot "
                "ended without it"
            )

    # ---- the end of a step

    def pump(self, now: Now) -> bool:
        """Signs the next transaction if none is in flight; False when there is nothing to sign."""
        if self._in_flight or not self._voice.free:
            return False
        turns = (self._pay_bookings, self._sign_transfer)
        return any(turn(now) for turn in (turns if self._bookings_next else turns[::-1]))

    # ---- inside

    def _check(self, command: CreateTransfer) -> None:
        self._check_voice()
        fee = self._fee(command)
        if fee < self._fee_micro:
            allowed = f"{fee}; this ledger takes no less than {self._fee_micro}"
            raise wrong_amount("fee_micro", allowed, "FeeTooLow", fee_micro=fee, least_micro=self._fee_micro)
        if len(self._queue) >= QUEUE_MAX:
            raise Exhausted(
                f"{QUEUE_MAX} transfers wait to be signed; try again when some are final",
                reason="TooManyTransfers",
                retry_ms=1_000,
            )
        needed = sum(amount for _, amount in command.outputs) + fee
        free = self._free_micro() - self._queued_micro
        if needed > free:
            raise FailedPrecondition(
                f"the transfer needs {needed} millionths with its fee; the account has {max(0, free)} that are final "
                "and not spoken for",
                reason="InsufficientFunds",
                metadata={"needed_micro": str(needed), "available_micro": str(max(0, free))},
            )

    def _check_voice(self) -> None:
        if self._voice.muted_why:
            raise FailedPrecondition(f"this node signs nothing: {self._voice.muted_why}", reason="Muted")
        if why := self._voice.learning.why:  # among what it learns may be this very transfer
            raise Unavailable(f"this node signs nothing yet: {why}", reason="StillLearning", retry_ms=LEARN_RETRY_MS)

    def _fee(self, command: CreateTransfer) -> int:
        return command.fee_micro or self._fee_micro

    def _made(self, request: bytes) -> ledger_pb2.TransferRow | None:
        """What was asked for under this mark, if it is one."""
        made = self._draft.get(REQUESTS, request) if request != NO_REQUEST else None
        if made is None:
            return None
        row = self._draft.row(TRANSFERS, made, ledger_pb2.TransferRow)
        assert row is not None, "what a request made is kept"
        return row

    def _keep(self, row: ledger_pb2.TransferRow) -> None:
        self._draft.put(TRANSFERS, row.transfer_id.encode(), row)
        if row.request != NO_REQUEST:
            self._draft.put_bytes(REQUESTS, row.request, row.transfer_id.encode())

    def _remember(self, known: Known) -> None:
        """A transfer that was asked for in what this node has lost: whoever asks for it again finds it."""
        tx, digest = known.item.tx, known.item.digest
        row = ledger_pb2.TransferRow(
            transfer_id=f"t-{base32(digest[:ID_BYTES])}",
            src=tx.src,
            outputs=[ledger_pb2.RawOutput(account=name, amount_micro=amount) for name, amount in tx.outputs],
            fee_micro=tx.fee_micro,
            meta=tx.meta,
            created_us=known.row.created_us,
            tx_digest=digest,
            request=tx.request,
        )
        self._transactions.explain(known, transfer_id=row.transfer_id)
        self._keep(row)

    def _free_micro(self) -> int:
        """Final funds without what is in flight."""
        flying = self._transactions.get(self._in_flight) if self._in_flight else None
        balance = self._accounts.get(self._settings.account).balance_micro
        return balance - (flying.item.tx.total_micro if flying else 0)

    def _sign_transfer(self, now: Now) -> bool:
        row = next(iter(self._queue.values()), None)
        if row is None or _total(row) > self._free_micro():
            return False
        digest = self._sign(
            _outputs(row), row.fee_micro, row.meta, now, transfer_id=row.transfer_id, request=row.request
        )
        self._signed(row, digest)
        self._bookings_next = True
        return True

    def _signed(self, row: ledger_pb2.TransferRow, digest: bytes) -> None:
        """It waits no more."""
        del self._queue[row.number]
        self._queued_micro -= _total(row)
        row.tx_digest = digest
        self._draft.put(TRANSFERS, row.transfer_id.encode(), row)
        self._draft.delete(TRANSFERS_OPEN, number_key(row.number))

    def _pay_bookings(self, now: Now) -> bool:
        if not self._bookings.owed_micro:
            return False
        payment = self._bookings.next_payment(self._free_micro() - self._queued_micro - self._fee_micro)
        if payment is None:
            self._voice.notice("jobs are owed for that this account's free funds do not pay")
            return False
        digest = self._sign(payment.outputs, self._fee_micro, payment.meta, now, bookings=len(payment.bookings))
        self._bookings.paid(payment, tx_id_of(digest), self._fee_micro)
        self._bookings_next = False
        return True

    def _sign(
        self,
        outputs: tuple[tuple[bytes, int], ...],
        fee_micro: int,
        meta: bytes,
        now: Now,
        *,
        transfer_id: str = "",
        request: bytes = NO_REQUEST,
        bookings: int = 0,
    ) -> bytes:
        """Signs the account's next transaction; it leaves in the block that this step ends with."""
        account = self._accounts.get(self._settings.account)
        tx = Tx(NodeSource(self._settings.account), account.next_seq, account.head, fee_micro, outputs, meta, request)
        body = tx.encode()
        digest = digest_of(TX_KIND, self._settings.salt, body)
        item = TxItem(tx, body, self._settings.signer.sign(digest), digest)
        self._transactions.add(item, now, transfer_id=transfer_id, bookings=bookings)
        self._in_flight = digest
        self._draft.put_bytes(META, IN_FLIGHT_KEY, digest)
        self._draft.record(EventType.TX_CREATED, tx_id_of(digest), ledger=ledger_event(tx, digest, "signed"))
        self._voice.say(item)
        self._witness.follow(item, now)
        return digest


def _outputs(row: ledger_pb2.TransferRow) -> tuple[tuple[bytes, int], ...]:
    return tuple((output.account, output.amount_micro) for output in row.outputs)


def _total(row: ledger_pb2.TransferRow) -> int:
    return sum(output.amount_micro for output in row.outputs) + row.fee_micro

"""The owner's part: what this node spends, one signed transaction of each of its accounts in flight (lanes.py).

A transfer is durable when it is answered; it is signed at once when no transaction of its account is in flight, else
when its turn comes. Who names no account pays from the first that is free and has the funds, the node's own before its
lanes. A signed transaction is durable before it leaves: were it not, a crash could sign another for the
same slot. Holds are funded in turns with transfers, so neither keeps the other waiting for ever; transfers in
the queue have their funds set aside, and what is owed waits for the rest.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Unavailable
from offgrid_node.protocol.ids import ID_BYTES, base32, fresh_id
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLanes
from offgrid_node.protocol.ledger.holding import Holding
from offgrid_node.protocol.ledger.items import Unlock
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.lanes import Lanes
from offgrid_node.protocol.ledger.records import (
    NO_REQUEST,
    OUTPUTS_MAX,
    encode_meta,
    request_mark,
    tx_id_of,
    unlock_digest,
)
from offgrid_node.protocol.ledger.refusals import too_little, wrong_amount
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import Tally
from offgrid_node.protocol.ledger.sources import lane_account
from offgrid_node.protocol.ledger.tables import (
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

QUEUE_MAX = 1_000  # transfers that are not signed yet
LEARN_RETRY_MS = 1_000


class Wallet:
    """Transfers, and the funds of holds for whom this node owes."""

    def __init__(
        self,
        settings: LedgerSettings,
        draft: Draft,
        accounts: Accounts,
        transactions: Transactions,
        witness: Witness,
        voice: Voice,
        holding: Holding,
        keys: Keys,
    ) -> None:
        self._settings, self._draft, self._accounts = settings, draft, accounts
        self._transactions, self._witness, self._voice = transactions, witness, voice
        self._bookings, self._given = holding.bookings, holding.given
        self.lanes = Lanes(settings, draft, accounts, transactions, witness, voice, keys)
        self._queues: dict[bytes, OrderedDict[int, ledger_pb2.TransferRow]] = {}  # by account
        self._queued: Counter[bytes] = Counter()  # what they add up to, by account
        self._waiting = 0  # transfers in them
        self._last = 0
        self._holds_next = False
        self._is_short = False
        self.fee_micro = 0

    def load(self) -> None:
        self.lanes.load()
        for key, transfer_id in self._draft.committed(TRANSFERS_OPEN, b""):
            row = self._draft.row(TRANSFERS, transfer_id, ledger_pb2.TransferRow)
            assert row is not None, "what waits was asked for"
            self._enqueue(row)
            self._last = number_of(key)

    def open(self, fee_micro: int) -> None:
        self.fee_micro = fee_micro

    # ---- questions

    @property
    def why_owed(self) -> list[str]:
        """What stands in the way of paying what jobs cost, one sentence each."""
        is_short = self._is_short and self._bookings.owed.micro
        return ["jobs are owed for that this account's free funds do not pay"] if is_short else []

    @property
    def queued_micro(self) -> int:
        """Of transfers that are not signed yet, fees included."""
        return self._queued.total()

    def waiting(self, account: bytes) -> int:
        """How many transfers wait for the account's next slots."""
        return len(self._queues.get(account, ()))

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
            src=self._payer(command),
            outputs=[ledger_pb2.RawOutput(account=name, amount_micro=amount) for name, amount in command.outputs],
            fee_micro=self._fee(command),
            meta=command.meta,
            created_us=now.utc_us,
            request=request,
        )
        self._enqueue(row)
        self._keep(row)
        self._draft.put_bytes(TRANSFERS_OPEN, number_key(row.number), row.transfer_id.encode())
        self.pump(now)
        return row

    def on_open_lanes(self, command: OpenLanes, now: Now, rng: Rng) -> None:
        """Raises the faults that commands.OpenLanes names."""
        self._check_voice()
        new = range(self.lanes.count + 1, command.count + 1)
        fund = command.fund_micro
        payments = [new[at : at + OUTPUTS_MAX] for at in range(0, len(new) if fund else 0, OUTPUTS_MAX)]
        own = self._settings.account
        needed = fund * len(new) + self.fee_micro * len(payments)
        if needed > (free := self.spendable(own)):
            raise too_little(needed, free)
        if self._waiting + len(payments) > QUEUE_MAX:
            raise _too_many()
        self.lanes.open(command.count)
        for lanes in payments:
            outputs = tuple((lane_account(own, lane), fund) for lane in lanes)
            about = encode_meta({"action": "open-lanes", "lanes": f"{lanes[0]}-{lanes[-1]}"})
            self.on_create(CreateTransfer(outputs, 0, about, "", own), now, rng)

    def on_unlock(self, account: bytes) -> bytes:
        """The transaction that is in the open slot, by its digest. Raises the faults that commands.UnlockSlot names."""
        self.check_free()
        account = account or self._settings.account
        if self._is_idle(account):
            raise FailedPrecondition(
                "no transaction of this account is under way: there is nothing to end", reason="NothingUnderWay"
            )
        seq = self._accounts.get(account).next_seq
        digest = unlock_digest(self._settings.salt, account, seq)
        if not self._witness.is_unlocked(account, seq):
            unlock = Unlock(self.lanes.source(account), seq, self._settings.signer.sign(digest), digest)
            self._voice.say(unlock)
            self._witness.on_unlock(unlock)
        return self.lanes.in_flight(account)

    def on_learnt(self, known: Known) -> None:
        """A transaction of this node's own that it had forgotten: what was to be paid by it is paid, and not again.
        Transfers are signed in the order in which they were made."""
        tx, digest = known.item.tx, known.item.digest
        self.lanes.learn(tx)
        for row in self._queues.get(tx.src, {}).values():
            if (_outputs(row), row.fee_micro, row.meta, row.request) == (tx.outputs, tx.fee_micro, tx.meta, tx.request):
                self._transactions.explain(known, transfer_id=row.transfer_id)
                self._signed(row, digest)
                return
        if tx.request != NO_REQUEST:
            self._remember(known)

    def on_learnt_all(self) -> None:
        """What was in flight is so again: nothing else may take its slot. What was signed and has not left has it."""
        for account in self.lanes:
            standing = self._witness.standing(account)
            if standing is not None or not self.lanes.is_unsent(account):
                self.lanes.fly(account, standing or b"")

    def on_ended(self, known: Known) -> None:
        """A transaction, of whichever account, became final or void."""
        tx, digest = known.item.tx, known.item.digest
        if tx.src not in self.lanes:
            self._tell_payee(known)
            return
        if known.row.state == ledger_pb2.TX_STATE_VOID:
            self._tell_void(known)
        if digest == self.lanes.in_flight(tx.src):
            self.lanes.fly(tx.src, b"")

    def _tell_void(self, known: Known) -> None:
        tx_id = tx_id_of(known.item.digest)
        self._voice.notice(f"transaction {tx_id} of this node will never be: its slot ended without it")

    def _tell_payee(self, known: Known) -> None:
        """What somebody else signed to this node, and it may have relied on, came to nothing."""
        tx = known.item.tx
        if known.row.state == ledger_pb2.TX_STATE_VOID and any(to in self.lanes for to, _ in tx.outputs):
            self._voice.notice(
                f"transaction {tx_id_of(known.item.digest)} of {base32(tx.src)} to this node will never be: its slot "
                "ended without it"
            )

    # ---- the end of a step

    def pump(self, now: Now) -> bool:
        """Signs the next transaction of each account in which none is in flight; False if there is nothing to sign."""
        for known in self.lanes.take_overtaken():
            self._transactions.end(known, ledger_pb2.TX_STATE_VOID, Tally(), now)
            self._tell_void(known)
        if not self._voice.free:
            return False
        own, signed = self._settings.account, False
        for account in [each for each in self._queues if each != own]:
            signed |= self._is_idle(account) and self._sign_transfer(account, now)
        if self._is_idle(own):
            signed |= self._sign_own(now)
        return signed

    def _sign_own(self, now: Now) -> bool:
        """What the node's own account pays: what is owed and transfers in turns."""
        if self._holds_next:
            return self._fund_holds(now) or self._sign_transfer(self._settings.account, now)
        return self._sign_transfer(self._settings.account, now) or self._fund_holds(now)

    # ---- inside

    def _check(self, command: CreateTransfer) -> None:
        self._check_voice()
        fee = self._fee(command)
        if fee < self.fee_micro:
            allowed = f"{fee}; this ledger takes no less than {self.fee_micro}"
            raise wrong_amount("fee_micro", allowed, "FeeTooLow", fee_micro=fee, least_micro=self.fee_micro)
        if self._waiting >= QUEUE_MAX:
            raise _too_many()

    def _payer(self, command: CreateTransfer) -> bytes:
        """The account that is asked for, else the first that is free and has the funds, else the one that has the
        funds and the fewest who wait. Raises FailedPrecondition where none has them."""
        needed = sum(amount for _, amount in command.outputs) + self._fee(command)
        payees = {account for account, _ in command.outputs}
        others = [account for account in self.lanes if account not in payees]
        choice = [command.src] if command.src else others or [self._settings.account]
        for account in choice:
            if account not in self._queues and self._is_idle(account) and self.spendable(account) >= needed:
                return account
        able = [account for account in choice if self.spendable(account) >= needed]
        if not able:
            raise too_little(needed, max(self.spendable(account) for account in choice))
        return min(able, key=self.waiting)

    def spendable(self, account: bytes) -> int:
        """Final funds of it that are not spoken for."""
        return self.lanes.free_micro(account) - self._queued[account]

    def _is_idle(self, account: bytes) -> bool:
        """Whether nothing is in flight there: neither what this node signed nor what came from elsewhere, signed by
        hand with its key."""
        if self.lanes.in_flight(account):
            return False
        standing = self._witness.standing(account)
        if standing is not None:
            self.lanes.fly(account, standing)
        return standing is None

    def check_free(self) -> None:
        """Raises FailedPrecondition (Muted) and Unavailable (StillLearning) where this node signs nothing."""
        self._check_voice()
        if not self._voice.free:
            raise Unavailable("this node has just started and listens", reason="StillLearning", retry_ms=LEARN_RETRY_MS)

    def _enqueue(self, row: ledger_pb2.TransferRow) -> None:
        self._queues.setdefault(row.src, OrderedDict())[row.number] = row
        self._queued[row.src] += _total(row)
        self._waiting += 1

    def _check_voice(self) -> None:
        if self._voice.muted_why:
            raise FailedPrecondition(f"this node signs nothing: {self._voice.muted_why}", reason="Muted")
        if why := self._voice.learning.why:  # among what it learns may be this very transfer
            raise Unavailable(f"this node signs nothing yet: {why}", reason="StillLearning", retry_ms=LEARN_RETRY_MS)

    def _fee(self, command: CreateTransfer) -> int:
        return command.fee_micro or self.fee_micro

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

    def _sign_transfer(self, account: bytes, now: Now) -> bool:
        row = next(iter(self._queues.get(account, {}).values()), None)
        if row is None or _total(row) > self.lanes.free_micro(account):
            return False
        tx = self.lanes.draft(account, _outputs(row), row.fee_micro, row.meta, row.request)
        item = self.lanes.sign(tx, now, transfer_id=row.transfer_id)
        self.lanes.send(item, now)
        self._signed(row, item.digest)
        self._holds_next = self._holds_next or account == self._settings.account
        return True

    def _signed(self, row: ledger_pb2.TransferRow, digest: bytes) -> None:
        """It waits no more."""
        del self._queues[row.src][row.number]
        if not self._queues[row.src]:
            del self._queues[row.src]
        self._queued[row.src] -= _total(row)
        self._waiting -= 1
        row.tx_digest = digest
        self._draft.put(TRANSFERS, row.transfer_id.encode(), row)
        self._draft.delete(TRANSFERS_OPEN, number_key(row.number))

    def _fund_holds(self, now: Now) -> bool:
        if not self._bookings.owed.micro:
            return False
        own, owed = self._settings.account, self._bookings.owed.by_payee()
        planned = self._given.plan(owed, self.spendable(own) - self.fee_micro, self.fee_micro, now)
        is_late = self._given.funds_at_ms is not None  # their turn has not come: funds are not what they lack
        self._is_short = not planned and not is_late and any(not self._given.of(payee) for payee in owed)
        if not planned:
            return False
        outputs = tuple((terms.account, terms.funds_micro) for terms in planned)
        meta = encode_meta({"action": "hold", "expires": str(planned[0].expires_us), "number": str(planned[0].number)})
        item = self.lanes.sign(self.lanes.draft(own, outputs, self.fee_micro, meta, NO_REQUEST), now)
        self.lanes.send(item, now)
        self._given.on_funding(planned, item.digest, self.fee_micro)
        self._holds_next = False
        return True


def _outputs(row: ledger_pb2.TransferRow) -> tuple[tuple[bytes, int], ...]:
    return tuple((output.account, output.amount_micro) for output in row.outputs)


def _total(row: ledger_pb2.TransferRow) -> int:
    return sum(output.amount_micro for output in row.outputs) + row.fee_micro


def _too_many() -> Exhausted:
    return Exhausted(
        f"{QUEUE_MAX} transfers wait to be signed; try again when some are final",
        reason="TooManyTransfers",
        retry_ms=1_000,
    )

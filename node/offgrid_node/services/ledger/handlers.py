"""Handlers of LedgerService: opening, transfers and questions for people, blocks for peers.

Questions are answered from committed rows (`reads.py`). Before the machine sees it, what peers send is checked in
`blocks.py`, what people write of a payment in `payments.py`, and what an admin opens the ledger with in `opening.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Record, Signer, Verifier
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, InvalidRequest, Unavailable
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger import commands
from offgrid_node.protocol.ledger.items import TxItem, claims
from offgrid_node.protocol.ledger.lanes import LANES_MAX
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.meeting import question_of
from offgrid_node.protocol.ledger.records import AMOUNT_MAX, BY_HAND, GENESIS_KIND, TX_KIND, Tx
from offgrid_node.protocol.ledger.refusals import wrong_amount
from offgrid_node.protocol.ledger.sources import lane_source
from offgrid_node.protocol.ledger.words import words_of
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.records import signed
from offgrid_node.protocol.signing import digest_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_request_id
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.ledger.blocks import BlockChecks, check_digest
from offgrid_node.services.ledger.epochs import EpochReads
from offgrid_node.services.ledger.opening import check_admin, genesis_of
from offgrid_node.services.ledger.payments import decoded, own_account, payment
from offgrid_node.services.ledger.reads import LedgerReads
from offgrid_node.services.ledger.receipts import Calls, Receipts
from offgrid_node.services.ledger.vouchers import checked_asked, checked_vouchers
from offgrid_node.services.stream import Stream

_WITH_TRANSACTION = (
    ledger_pb2.CreateTransferResponse | ledger_pb2.UnlockSlotResponse | ledger_pb2.SignTransactionResponse
    | ledger_pb2.SendTransactionResponse
)  # fmt: skip
ENDED = frozenset({ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_VOID, ledger_pb2.TX_STATE_UNKNOWN})


class LedgerHandlers:
    """One method per RPC of LedgerService."""

    def __init__(
        self,
        runtime: Runtime,
        signer: Signer,
        directory: Callable[[], Directory],
        verify: Verifier,
        bulk: Bulk,
        calls: Calls,
        *,
        enabled: bool = True,
    ) -> None:
        """`bulk` checks the signatures, `calls` reach the witnesses; `enabled` is what the config says
        (economy.enabled)."""
        self._runtime, self._signer, self._directory, self._enabled = runtime, signer, directory, enabled
        self._verify = verify
        self._reads = LedgerReads(runtime.store, signer.node_id, directory)
        self._epochs = EpochReads(runtime.store, self._reads.names, signer, directory, verify)
        self._checks = BlockChecks(directory, verify, bulk)
        self._receipts = Receipts(
            runtime.store,
            signer,
            directory,
            lambda: self._reads.committee,
            lambda: self._reads.epoch,
            lambda: self._reads.ledger,
            verify,
            calls,
        )

    # ---- the ledger

    def get_genesis(self, caller: Caller, request: ledger_pb2.GetGenesisRequest) -> Message:
        return self._reads.genesis()

    def open_ledger(self, caller: Caller, request: ledger_pb2.OpenLedgerRequest) -> Ticket:
        self._check_enabled()
        if self._reads.is_open:
            issuer, created_us = self._reads.opened_by()
            raise AlreadyExists(
                f"{issuer} opened the mesh's ledger at {_utc(created_us)}; there is one for ever", reason="LedgerOpen"
            )
        directory = self._directory()
        check_admin(directory, self._signer.node_id)
        body = genesis_of(request, directory, self._signer.node_id, max(0, self._runtime.clock.now().utc_us))
        message = signed(GENESIS_KIND, directory.salt, body.encode(), self._signer)
        ticket = self._ask(caller, commands.OpenLedger(message, body), request)
        return ticket.map(lambda _: ledger_pb2.OpenLedgerResponse(genesis=self._reads.genesis()))

    def get_ledger_status(self, caller: Caller, request: ledger_pb2.GetLedgerStatusRequest) -> Message:
        status, machine = self._reads.status(), self._machine()
        status.enabled, status.owed_micro = self._enabled, machine.owed_micro
        status.notices.extend(machine.notices)
        status.muted_why = machine.muted_why
        status.promised_out_micro, status.promised_in_micro = machine.promised_out_micro, machine.promised_in_micro
        status.held_micro = machine.held_micro
        if status.open:
            self._epochs.describe(status, machine.waits)
        now = self._runtime.clock.now()
        for witness in status.witnesses:
            witness.state = machine.witness_state(witness.node_id)
            witness.away_ms = machine.reach.away_ms(witness.node_id, now)
        status.reach_milli = sum(witness.weight_milli for witness in status.witnesses if not witness.away_ms)
        return status

    # ---- epochs

    def order_committee(self, caller: Caller, request: ledger_pb2.OrderCommitteeRequest) -> Ticket:
        self._check_open()
        check_admin(self._directory(), self._signer.node_id, "order who witnesses")
        if not (request.add or request.remove or request.weigh):
            raise InvalidRequest.field("add", "nothing to order; name whom to add, to remove or to weigh anew")
        item = self._epochs.order(request, self._reads.ledger, max(0, self._runtime.clock.now().utc_us))
        ticket = self._ask(caller, commands.OrderCommittee(item), request)
        return ticket.map(lambda _: ledger_pb2.OrderCommitteeResponse(order=self._epochs.told(item)))

    def end_epoch(self, caller: Caller, request: ledger_pb2.EndEpochRequest) -> Ticket:
        """An admin orders the witnesses that there are anyway: so all of them wish it."""
        self._check_open()
        command: commands.OrderCommittee | commands.EndEpoch = commands.EndEpoch()
        epoch = self._reads.epoch
        ordered = self._directory().is_admin(self._signer.node_id)
        if ordered:
            now_us, same = max(0, self._runtime.clock.now().utc_us), ledger_pb2.OrderCommitteeRequest()
            command = commands.OrderCommittee(self._epochs.order(same, self._reads.ledger, now_us))
        ticket = self._ask(caller, command, request)
        return ticket.map(lambda _: ledger_pb2.EndEpochResponse(epoch=epoch, ordered=ordered))

    def list_epochs(self, caller: Caller, request: ledger_pb2.ListEpochsRequest) -> Message:
        self._check_open()
        return self._epochs.epochs(request)

    def get_checkpoint(self, caller: Caller, request: ledger_pb2.GetCheckpointRequest) -> Message:
        self._check_open()
        return self._epochs.checkpoint(request.epoch)

    # ---- accounts

    def get_balance(self, caller: Caller, request: ledger_pb2.GetBalanceRequest) -> Message:
        self._check_open()
        return ledger_pb2.GetBalanceResponse(balance=self._reads.balance(self._account("account", request.account)))

    def list_balances(self, caller: Caller, request: ledger_pb2.ListBalancesRequest) -> Message:
        self._check_open()
        return self._reads.balances(request)

    def set_credit_line(self, caller: Caller, request: ledger_pb2.SetCreditLineRequest) -> Ticket:
        self._check_open()
        payer, _ = self._reads.names.place("payer", request.payer, removed=True)
        if payer == self._signer.node_id:
            raise InvalidRequest.field("payer", "this node itself; another member is allowed")
        if request.amount_micro > AMOUNT_MAX:
            raise InvalidRequest.field("amount_micro", f"{request.amount_micro}; 0 (none) to {AMOUNT_MAX} are allowed")
        command = commands.SetCreditLine(node_id_bytes(payer), request.amount_micro)
        ticket = self._ask(caller, command, request)
        return ticket.map(lambda _: ledger_pb2.SetCreditLineResponse(line=self._reads.credit_line(payer)))

    def list_credit_lines(self, caller: Caller, request: ledger_pb2.ListCreditLinesRequest) -> Message:
        self._check_open()
        return self._reads.credit_lines()

    # ---- transactions

    def create_transfer(self, caller: Caller, request: ledger_pb2.CreateTransferRequest) -> Ticket:
        self._check_open()
        src = node_id_bytes(own_account(self._reads.names, "src", request.src)) if request.src else b""
        outputs, meta = payment(self._reads.names, request, src or node_id_bytes(self._signer.node_id))
        request_id = check_request_id(request.request_id)
        command = commands.CreateTransfer(outputs, request.fee_micro, meta, request_id, src)
        return self._ask(caller, command, request).map(self._with_names)

    def unlock_slot(self, caller: Caller, request: ledger_pb2.UnlockSlotRequest) -> Ticket:
        self._check_open()
        account = node_id_bytes(own_account(self._reads.names, "account", request.account))
        return self._ask(caller, commands.UnlockSlot(account), request).map(self._with_names)

    # ---- by hand

    def create_transaction(self, caller: Caller, request: ledger_pb2.CreateTransactionRequest) -> Message:
        self._check_open()
        names, directory, fee = self._reads.names, self._directory(), self._reads.fee_micro
        owner, lane = names.place("src", request.src, removed=True)
        account = names.account("src", request.src, removed=True)
        if directory.member(owner) is None:
            raise InvalidRequest.field("src", f"{request.src[:64]!r}: whose it is is not known here; name its owner")
        outputs, meta = payment(names, request, node_id_bytes(account))
        if request.fee_micro and request.fee_micro < fee:
            allowed = f"{request.fee_micro}; this ledger takes no less than {fee}"
            raise wrong_amount("fee_micro", allowed, "FeeTooLow", fee_micro=request.fee_micro, least_micro=fee)
        seq, prev = self._reads.next_slot(account)
        source = lane_source(node_id_bytes(owner), lane, directory.key_number(owner))
        tx = Tx(source, seq, prev, request.fee_micro or fee, outputs, meta, BY_HAND)
        shown = ledger_pb2.Transaction(
            src=account, seq=seq, fee_micro=tx.fee_micro, meta=request.meta,
            outputs=[ledger_pb2.Output(account=base32(to), amount_micro=amount) for to, amount in outputs],
        )  # fmt: skip
        return ledger_pb2.CreateTransactionResponse(
            body=tx.encode(), mesh_id=directory.mesh_id, transaction=self._reads.named(shown)
        )

    def sign_transaction(self, caller: Caller, request: ledger_pb2.SignTransactionRequest) -> Ticket:
        self._check_open()
        command = commands.SignTransaction(decoded("body", request.body))
        return self._ask(caller, command, request).map(self._with_names)

    def send_transaction(self, caller: Caller, request: ledger_pb2.SendTransactionRequest) -> Ticket:
        """Checked as a stranger's, whoever sends it."""
        self._check_open()
        body, signature = request.signed.body, request.signed.signature
        tx, salt = decoded("signed.body", body), self._directory().salt
        item = TxItem(tx, body, signature, digest_of(TX_KIND, salt, body))
        try:
            good = all(self._checks.holds(claim) for claim in claims(item, salt))
        except Unavailable as fault:
            raise InvalidRequest.field("signed.body", fault.message) from fault
        if not good:
            raise InvalidRequest.field(
                "signed.signature", f"it is not by the key of {base32(tx.source.signer)} that signs in this slot"
            )
        owner = base32(tx.source.signer)
        is_up = owner != self._signer.node_id and not self._machine().reach.away_ms(owner, self._runtime.clock.now())
        return self._ask(caller, commands.SendTransaction(item, is_up), request).map(self._with_names)

    # ---- this node's accounts

    def get_wallet(self, caller: Caller, request: ledger_pb2.GetWalletRequest) -> Message:
        self._check_open()
        return self._reads.wallet()

    def open_lanes(self, caller: Caller, request: ledger_pb2.OpenLanesRequest) -> Ticket:
        self._check_open()
        if not 0 < request.count <= LANES_MAX:
            raise InvalidRequest.field("count", f"{request.count}; 1 to {LANES_MAX} in all are allowed")
        if request.fund_micro > AMOUNT_MAX // LANES_MAX:
            raise InvalidRequest.field(
                "fund_micro", f"{request.fund_micro}; 0 to {AMOUNT_MAX // LANES_MAX} are allowed"
            )
        ticket = self._ask(caller, commands.OpenLanes(request.count, request.fund_micro), request)
        return ticket.map(lambda _: ledger_pb2.OpenLanesResponse(wallet=self._reads.wallet()))

    def get_transaction(self, caller: Caller, request: ledger_pb2.GetTransactionRequest) -> Message:
        return ledger_pb2.GetTransactionResponse(transaction=self._reads.transaction(request.tx_id))

    def watch_transaction(self, caller: Caller, request: ledger_pb2.WatchTransactionRequest) -> Stream:
        """The transaction now and at each event of it; ends after the last one."""
        stream, shown = Stream(), self._reads.transaction(request.tx_id)

        def push(tx: ledger_pb2.Transaction) -> None:
            nonlocal shown
            shown = tx
            stream.push(ledger_pb2.WatchTransactionResponse(transaction=tx))
            if tx.state in ENDED:
                stream.end()

        def on_events(events: Sequence[Record]) -> None:
            # One that waits has no id of its own yet: any event of the ledger may be that it was signed. One that
            # becomes void is told of by the event of the other that took its slot.
            waits, slot = shown.state == ledger_pb2.TX_STATE_QUEUED, (shown.src, shown.seq)
            told = [event.event.ledger for event in events if event.job is None and event.event.HasField("ledger")]
            if any(waits or (one.tx_id and (one.src, one.seq) == slot) for one in told):
                now = self._reads.transaction(shown.tx_id)
                if now != shown:
                    push(now)

        stream.when_closed(self._runtime.watch(on_events))
        push(shown)
        return stream

    def list_transactions(self, caller: Caller, request: ledger_pb2.ListTransactionsRequest) -> Message:
        account = self._account("account", request.account) if request.account else ""
        return self._reads.transactions(account, request.page_size, request.page_token, only_open=request.open)

    def list_bookings(self, caller: Caller, request: ledger_pb2.ListBookingsRequest) -> Message:
        bookings, token = self._reads.bookings(request)
        return ledger_pb2.ListBookingsResponse(
            bookings=bookings, next_page_token=token, owed_micro=self._machine().owed_micro
        )

    def list_blocks(self, caller: Caller, request: ledger_pb2.ListBlocksRequest) -> Message:
        self._check_open()
        return self._reads.blocks(request)

    # ---- receipts

    def get_receipt(self, caller: Caller, request: ledger_pb2.GetReceiptRequest) -> Ticket:
        self._check_open()
        return ticket_of(self._receipts.gather(self._reads.transaction(request.tx_id)))

    def sign_final(self, caller: Caller, request: ledger_pb2.SignFinalRequest) -> Message:
        self._check_open()
        return self._receipts.sign(check_digest("tx_digest", request.tx_digest), self._machine().muted_why)

    def settle(self, caller: Caller, request: ledger_pb2.SettleRequest) -> Ticket:
        payer = node_id_bytes(self._account("payer", request.payer)) if request.payer else b""
        return self._ask(caller, commands.Settle(payer), request).map(self._with_all_names)

    # ---- from peers

    def deliver_vouchers(self, caller: Caller, request: ledger_pb2.DeliverVouchersRequest) -> Ticket:
        self._check_open()
        own, fee = self._signer.node_id, self._reads.fee_micro
        checked = checked_vouchers(request, caller.node_id, own, fee, self._directory(), self._verify)
        asked = checked_asked(request)
        return self._ask(caller, commands.DeliverVouchers(checked, node_id_bytes(caller.node_id), asked), request)

    def push_blocks(self, caller: Caller, request: ledger_pb2.PushBlocksRequest) -> Ticket:
        self._check_open()  # before the signatures, which cost time
        return ticket_of(self._take_in(caller, request))

    def _take_in(self, caller: Caller, request: ledger_pb2.PushBlocksRequest) -> Flow[Message]:
        words, of_use = words_of(request), self._machine().of_use
        sifted = yield from self._checks.blocks(caller.node_id, request.blocks, of_use)
        command = commands.PushBlocks(caller.node_id, sifted.blocks, sifted.useless, words)
        answer: Message = yield asked(self._ask(caller, command, request))
        return answer

    def sync_blocks(self, caller: Caller, request: ledger_pb2.SyncBlocksRequest) -> Ticket:
        """A genesis is looked at only while there is none here."""
        self._check_enabled()
        question, wanted = question_of(request), self._checks.wanted(request.wanted)
        digest = check_digest("genesis_digest", request.genesis_digest) if request.genesis_digest else b""
        yours = None
        if request.HasField("yours"):
            yours = check_digest("yours", request.yours) if request.yours else b""
        genesis = None
        if request.HasField("ledger_genesis") and not self._reads.is_open:
            genesis = request.ledger_genesis, self._checks.genesis(request.ledger_genesis)
        command = commands.SyncBlocks(
            caller.node_id, question, yours, wanted, digest, genesis, request.link, request.epoch
        )
        return self._ask(caller, command, request)

    def ask_checkpoints(self, caller: Caller, request: ledger_pb2.AskCheckpointsRequest) -> Ticket:
        self._check_open()
        return self._ask(caller, commands.AskCheckpoints(caller.node_id, request.first), request)

    def push_checkpoints(self, caller: Caller, request: ledger_pb2.PushCheckpointsRequest) -> Ticket:
        self._check_open()
        if not self._machine().awaits_checkpoints(caller.node_id):  # before the seals, which cost time
            raise FailedPrecondition(f"{caller.node_id} was asked for no checkpoints", reason="NotAsked")
        return self._ask(caller, self._checks.checkpoints(caller.node_id, request, self._reads.ledger), request)

    def list_epoch_accounts(self, caller: Caller, request: ledger_pb2.ListEpochAccountsRequest) -> Message:
        self._check_open()
        return self._reads.epoch_accounts(request)

    # ---- inside

    def _with_all_names(self, response: Message) -> Message:
        assert isinstance(response, ledger_pb2.SettleResponse)
        for transaction in response.transactions:
            self._reads.named(transaction)
        return response

    def _machine(self) -> LedgerMachine:
        return self._runtime.machine("ledger", LedgerMachine)

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("ledger", str(caller), command, size_bytes=request.ByteSize())

    def _account(self, field: str, text: str) -> str:
        """The account that is meant, of a removed member too; "" is this node's."""
        return self._reads.names.account(field, text, removed=True)

    def _with_names(self, response: Message) -> Message:
        assert isinstance(response, _WITH_TRANSACTION)
        self._reads.named(response.transaction)
        return response

    def _check_enabled(self) -> None:
        if not self._enabled:
            raise FailedPrecondition("economy.enabled is false at this node", reason="EconomyOff")

    def _check_open(self) -> None:
        self._check_enabled()
        if not self._reads.is_open:
            raise FailedPrecondition(
                "the mesh's ledger is not open here; an admin opens it: offgrid ledger open", reason="LedgerNotOpen"
            )


def _utc(us: int) -> str:
    try:
        return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{us} µs"  # a clock that lies this much is shown as it is

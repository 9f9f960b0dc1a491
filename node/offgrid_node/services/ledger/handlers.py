"""Handlers of LedgerService: opening, transfers and questions for people, blocks for peers.

Questions are answered from committed rows (`reads.py`); what peers send is checked in `blocks.py` and what an
admin opens the ledger with in `opening.py` before the machine sees either.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Record, Signer, Verifier
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, InvalidRequest
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import commands
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.records import AMOUNT_MAX, GENESIS_KIND, encode_meta
from offgrid_node.protocol.ledger.refusals import wrong_amount
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.records import signed
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_request_id
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.ledger.blocks import BlockChecks, check_digest
from offgrid_node.services.ledger.opening import check_admin, genesis_of, resolve
from offgrid_node.services.ledger.reads import LedgerReads
from offgrid_node.services.ledger.receipts import Calls, Receipts
from offgrid_node.services.stream import Stream

ENDED = frozenset({ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_VOID})


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
        self._reads = LedgerReads(runtime.store, signer.node_id, directory)
        self._checks = BlockChecks(directory, verify, bulk)
        self._receipts = Receipts(runtime.store, signer, directory, lambda: self._reads.committee, verify, calls)

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
        now = self._runtime.clock.now()
        for witness in status.witnesses:
            witness.state = machine.witness_state(witness.node_id)
            witness.away_ms = machine.reach.away_ms(witness.node_id, now)
        status.reach_milli = sum(witness.weight_milli for witness in status.witnesses if not witness.away_ms)
        return status

    # ---- accounts

    def get_balance(self, caller: Caller, request: ledger_pb2.GetBalanceRequest) -> Message:
        self._check_open()
        return ledger_pb2.GetBalanceResponse(balance=self._reads.balance(self._account("account", request.account)))

    def list_balances(self, caller: Caller, request: ledger_pb2.ListBalancesRequest) -> Message:
        self._check_open()
        return self._reads.balances(request)

    def set_credit_line(self, caller: Caller, request: ledger_pb2.SetCreditLineRequest) -> Ticket:
        payer = self._account("payer", request.payer)
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
        own = self._signer.node_id
        if self._account("src", request.src) != own:
            raise InvalidRequest.field(
                "src", f"{request.src!r} is another node's account: this node holds only its own key; pay from there"
            )
        dst = resolve("dst", request.dst, self._directory())
        if dst == own:
            raise InvalidRequest.field("dst", f"{request.dst!r} is this node itself; another member is allowed")
        _check_amounts(request.amount_micro, request.fee_micro)
        try:
            meta = encode_meta(request.meta)
        except ValueError as error:
            raise InvalidRequest.field("meta", str(error)) from error
        outputs = ((node_id_bytes(dst), request.amount_micro),)
        request_id = check_request_id(request.request_id)
        command = commands.CreateTransfer(outputs, request.fee_micro, meta, request_id)
        return self._ask(caller, command, request).map(self._with_names)

    def unlock_slot(self, caller: Caller, request: ledger_pb2.UnlockSlotRequest) -> Ticket:
        return self._ask(caller, commands.UnlockSlot(), request).map(self._with_names)

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

    # ---- receipts

    def get_receipt(self, caller: Caller, request: ledger_pb2.GetReceiptRequest) -> Ticket:
        self._check_open()
        return ticket_of(self._receipts.gather(self._reads.transaction(request.tx_id)))

    def sign_final(self, caller: Caller, request: ledger_pb2.SignFinalRequest) -> Message:
        self._check_open()
        return self._receipts.sign(check_digest("tx_digest", request.tx_digest), self._machine().muted_why)

    # ---- from peers

    def push_blocks(self, caller: Caller, request: ledger_pb2.PushBlocksRequest) -> Ticket:
        self._check_open()  # before the signatures, which cost time
        return ticket_of(self._take_in(caller, request))

    def _take_in(self, caller: Caller, request: ledger_pb2.PushBlocksRequest) -> Flow[Message]:
        of_use = self._machine().of_use
        blocks = yield from self._checks.blocks(caller.node_id, request.blocks, of_use)
        answer: Message = yield asked(self._ask(caller, commands.PushBlocks(caller.node_id, blocks), request))
        return answer

    def sync_blocks(self, caller: Caller, request: ledger_pb2.SyncBlocksRequest) -> Ticket:
        """A genesis is looked at only while there is none here."""
        self._check_enabled()
        heads, wanted = self._checks.heads(request.heads), self._checks.wanted(request.wanted)
        digest = check_digest("genesis_digest", request.genesis_digest)
        genesis = None
        if request.HasField("ledger_genesis") and not self._reads.is_open:
            genesis = request.ledger_genesis, self._checks.genesis(request.ledger_genesis)
        command = commands.SyncBlocks(caller.node_id, heads, wanted, digest, genesis)
        return self._ask(caller, command, request)

    # ---- inside

    def _machine(self) -> LedgerMachine:
        return self._runtime.machine("ledger", LedgerMachine)

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("ledger", str(caller), command, size_bytes=request.ByteSize())

    def _account(self, field: str, text: str) -> str:
        """The account that is meant, of a removed member too; "" is this node's."""
        return resolve(field, text, self._directory(), removed=True) if text else self._signer.node_id

    def _with_names(self, response: Message) -> Message:
        assert isinstance(response, ledger_pb2.CreateTransferResponse | ledger_pb2.UnlockSlotResponse)
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


def _check_amounts(amount_micro: int, fee_micro: int) -> None:
    if not 0 < amount_micro <= AMOUNT_MAX:
        raise InvalidRequest.field("amount_micro", f"{amount_micro}; 1 to {AMOUNT_MAX} are allowed")
    if amount_micro + fee_micro > AMOUNT_MAX:
        allowed, total = f"{fee_micro}; with the amount at most {AMOUNT_MAX} are allowed", amount_micro + fee_micro
        raise wrong_amount("fee_micro", allowed, "AmountTooLarge", total_micro=total, most_micro=AMOUNT_MAX)


def _utc(us: int) -> str:
    try:
        return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{us} µs"  # a clock that lies this much is shown as it is

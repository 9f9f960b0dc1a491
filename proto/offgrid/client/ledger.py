"""ledger: accounts, transfers and what jobs cost. Amounts are integers, millionths of a credit.

An account is a node's id; wherever one is named, the node's name or the first characters of its id do as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.following import follow
from offgrid.client.paging import pages
from offgrid.v1 import common_pb2, ledger_pb2
from offgrid.v1.ledger_pb2 import TxState

ACCOUNT_BYTES, ENTRY_BYTES = 20, 68
ENDED = frozenset({TxState.TX_STATE_FINAL, TxState.TX_STATE_VOID, TxState.TX_STATE_UNKNOWN})


class Ledger:
    """LedgerService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def genesis(self) -> ledger_pb2.GetGenesisResponse:
        """The mesh's genesis and its root key; once the ledger is open, its witnesses and first balances too."""
        return self._calls.unary(
            "LedgerService/GetGenesis", ledger_pb2.GetGenesisRequest(), ledger_pb2.GetGenesisResponse
        )

    def open(
        self,
        *,
        witnesses: Mapping[str, int] | None = None,
        balances: Mapping[str, int] | None = None,
        fee_micro: int | None = None,
    ) -> ledger_pb2.GetGenesisResponse:
        """Opens the mesh's ledger, once and for ever; only an admin's node can.

        `witnesses` are weights in thousandths by node (0: the weight of its membership), none: every live member.
        `balances` are first amounts by node, none: 1,000,000 credits for every live member. `fee_micro` is the least
        that a transaction costs besides, None: 0.001 credits. It is not repeated when its outcome is unknown: a second
        one is refused, whoever made the first.
        """
        request = ledger_pb2.OpenLedgerRequest(
            witnesses=[
                ledger_pb2.Witness(name=node, weight_milli=weight) for node, weight in (witnesses or {}).items()
            ],
            balances=[ledger_pb2.Balance(name=node, final_micro=amount) for node, amount in (balances or {}).items()],
            fee_micro=fee_micro,
        )
        answer = ledger_pb2.OpenLedgerResponse
        return self._calls.unary("LedgerService/OpenLedger", request, answer, repeatable=False).genesis

    def order_committee(
        self,
        *,
        add: Mapping[str, int] | None = None,
        remove: Iterable[str] = (),
        weigh: Mapping[str, int] | None = None,
    ) -> ledger_pb2.CommitteeOrder:
        """Who witnesses from the next epoch on, which begins for it: only an admin's node may order it. Weights are in
        thousandths by node; of one that is added 0 is that of its membership."""
        request = ledger_pb2.OrderCommitteeRequest(
            add=[ledger_pb2.Witness(name=node, weight_milli=weight) for node, weight in (add or {}).items()],
            remove=remove,
            weigh=[ledger_pb2.Witness(name=node, weight_milli=weight) for node, weight in (weigh or {}).items()],
        )
        answer = ledger_pb2.OrderCommitteeResponse
        return self._calls.unary("LedgerService/OrderCommittee", request, answer, repeatable=False).order

    def end_epoch(self) -> ledger_pb2.EndEpochResponse:
        """Has the epoch end with a checkpoint: an admin's node orders it, another witness' wishes it."""
        request = ledger_pb2.EndEpochRequest()
        return self._calls.unary("LedgerService/EndEpoch", request, ledger_pb2.EndEpochResponse, repeatable=False)

    def epochs(self, *, limit: int | None = None) -> Iterator[ledger_pb2.Epoch]:
        """Those that have ended, newest first, each with its checkpoint and what its witnesses got for it."""

        def fetch(size: int, token: str) -> tuple[list[ledger_pb2.Epoch], str]:
            request = ledger_pb2.ListEpochsRequest(page_size=size, page_token=token)
            page = self._calls.unary("LedgerService/ListEpochs", request, ledger_pb2.ListEpochsResponse)
            return [*page.epochs], page.next_page_token

        return pages(fetch, limit)

    def checkpoint(self, epoch: int) -> ledger_pb2.GetCheckpointResponse:
        """The checkpoint with which `epoch` ended: its body, the heads of all chains then, and the seals of it that the
        node keeps, unchecked."""
        request = ledger_pb2.GetCheckpointRequest(epoch=epoch)
        return self._calls.unary("LedgerService/GetCheckpoint", request, ledger_pb2.GetCheckpointResponse)

    def epoch_accounts(self, epoch: int) -> Iterator[bytes]:
        """What each account had when `epoch` began, ENTRY_BYTES each, of which the first ACCOUNT_BYTES name it. Raises
        OffgridError EpochGone where the node keeps that no more, RuntimeError for accounts that are in no order."""
        after = b""
        while True:
            request = ledger_pb2.ListEpochAccountsRequest(epoch=epoch, after=after)
            page = self._calls.unary("LedgerService/ListEpochAccounts", request, ledger_pb2.ListEpochAccountsResponse)
            for at in range(0, len(page.accounts), ENTRY_BYTES):
                entry = page.accounts[at : at + ENTRY_BYTES]
                if entry[:ACCOUNT_BYTES] <= after:
                    raise RuntimeError("the node gave an account that does not come after the one before it")
                yield entry
                after = entry[:ACCOUNT_BYTES]
            if page.last or not page.accounts:
                return

    def status(self) -> ledger_pb2.GetLedgerStatusResponse:
        """Who witnesses, how far each author's blocks are known here, what is pending and owed."""
        return self._calls.unary(
            "LedgerService/GetLedgerStatus", ledger_pb2.GetLedgerStatusRequest(), ledger_pb2.GetLedgerStatusResponse
        )

    def settle(self, payer: str = "") -> ledger_pb2.SettleResponse:
        """Posts what this payer has promised this node by vouchers, "" for all, before the interval is over."""
        request = ledger_pb2.SettleRequest(payer=payer)
        return self._calls.unary("LedgerService/Settle", request, ledger_pb2.SettleResponse)

    # ---- accounts

    def balance(self, account: str = "") -> ledger_pb2.Balance:
        """One account as this node knows it; "" is this node's own."""
        request = ledger_pb2.GetBalanceRequest(account=account)
        return self._calls.unary("LedgerService/GetBalance", request, ledger_pb2.GetBalanceResponse).balance

    def balances(self) -> ledger_pb2.ListBalancesResponse:
        """Every account, with the fees that were paid and the supply."""
        found = ledger_pb2.ListBalancesResponse()

        def fetch(size: int, token: str) -> tuple[list[ledger_pb2.Balance], str]:
            request = ledger_pb2.ListBalancesRequest(page_size=size, page_token=token)
            page = self._calls.unary("LedgerService/ListBalances", request, ledger_pb2.ListBalancesResponse)
            found.fees_micro, found.supply_micro = page.fees_micro, page.supply_micro
            return [*page.balances], page.next_page_token

        found.balances.extend(pages(fetch, None))
        return found

    def wallet(self) -> ledger_pb2.GetWalletResponse:
        """This node's accounts: its own, which is lane 0, and its lanes."""
        request = ledger_pb2.GetWalletRequest()
        return self._calls.unary("LedgerService/GetWallet", request, ledger_pb2.GetWalletResponse)

    def open_lanes(self, count: int, *, fund_micro: int = 0) -> ledger_pb2.GetWalletResponse:
        """So many lanes in all; `fund_micro` is paid into each new one. Asked again it changes nothing."""
        request = ledger_pb2.OpenLanesRequest(count=count, fund_micro=fund_micro)
        return self._calls.unary("LedgerService/OpenLanes", request, ledger_pb2.OpenLanesResponse).wallet

    def set_credit_line(self, payer: str, amount_micro: int) -> ledger_pb2.CreditLine:
        """How much of what `payer` has signed to this node counts as accepted before it is final; 0: nothing. It is
        what this node's owner loses if the payer signs another transaction in its place."""
        request = ledger_pb2.SetCreditLineRequest(payer=payer, amount_micro=amount_micro)
        return self._calls.unary("LedgerService/SetCreditLine", request, ledger_pb2.SetCreditLineResponse).line

    def credit_lines(self) -> list[ledger_pb2.CreditLine]:
        """Those that are set, each with what counts as accepted by it now."""
        request = ledger_pb2.ListCreditLinesRequest()
        return [*self._calls.unary("LedgerService/ListCreditLines", request, ledger_pb2.ListCreditLinesResponse).lines]

    # ---- transactions

    def transfer(
        self,
        dst: str,
        amount_micro: int,
        *,
        src: str = "",
        fee_micro: int = 0,
        meta: Mapping[str, str] | None = None,
        request_id: str = "",
    ) -> ledger_pb2.Transaction:
        """Signs a transfer of this node's money, durably, and sends it on its way; see `settled` for its end.

        `src` is an account of this node's ("/3": its lane 3), "" the first that is free and has the funds; `fee_micro`
        0 is the ledger's least. A call that is repeated with the same `request_id` pays once.
        """
        request = ledger_pb2.CreateTransferRequest(
            src=src,
            dst=dst,
            amount_micro=amount_micro,
            fee_micro=fee_micro,
            meta=meta or {},
            request_id=request_id or fresh_request_id(),
        )
        return self._calls.unary("LedgerService/CreateTransfer", request, ledger_pb2.CreateTransferResponse).transaction

    def create_transaction(
        self, dst: str, amount_micro: int, *, src: str = "", fee_micro: int = 0, meta: Mapping[str, str] | None = None
    ) -> ledger_pb2.CreateTransactionResponse:
        """An unsigned transaction for the next slot of `src`, any member's account ("": this node's). Nothing is kept
        of it; sign its `body` with `sign_transaction`, or wherever the key is."""
        request = ledger_pb2.CreateTransactionRequest(
            src=src, dst=dst, amount_micro=amount_micro, fee_micro=fee_micro, meta=meta or {}
        )
        return self._calls.unary("LedgerService/CreateTransaction", request, ledger_pb2.CreateTransactionResponse)

    def sign_transaction(self, body: bytes) -> ledger_pb2.SignTransactionResponse:
        """Signed by this node, for an account of its own: nothing else is signed there until it has ended. It leaves
        with `send_transaction`."""
        request = ledger_pb2.SignTransactionRequest(body=body)
        return self._calls.unary("LedgerService/SignTransaction", request, ledger_pb2.SignTransactionResponse)

    def send_transaction(self, body: bytes, signature: bytes) -> ledger_pb2.Transaction:
        """Puts a signed transaction on its way; sent again it changes nothing."""
        request = ledger_pb2.SendTransactionRequest(signed=common_pb2.Signed(body=body, signature=signature))
        answer = ledger_pb2.SendTransactionResponse
        return self._calls.unary("LedgerService/SendTransaction", request, answer).transaction

    def unlock(self, account: str = "") -> ledger_pb2.Transaction:
        """Asks the witnesses to end the open slot of an account of this node's ("": its own), and with it what is under
        way: it becomes final if it could be final already, else void. OffgridError NothingUnderWay where nothing is."""
        request = ledger_pb2.UnlockSlotRequest(account=account)
        return self._calls.unary("LedgerService/UnlockSlot", request, ledger_pb2.UnlockSlotResponse).transaction

    def transaction(self, tx_id: str) -> ledger_pb2.Transaction:
        """By its id, or the first eight characters of it or more where they are one transaction's alone."""
        request = ledger_pb2.GetTransactionRequest(tx_id=tx_id)
        return self._calls.unary("LedgerService/GetTransaction", request, ledger_pb2.GetTransactionResponse).transaction

    def watch(self, tx_id: str, *, within_s: float | None = None) -> Iterator[ledger_pb2.Transaction]:
        """The transaction now and at each change; ends after its last state, or once `within_s` seconds are over.

        A node that restarts meanwhile is waited for, the client's `reconnect_s` long; then OffgridError WatchEnded.
        """
        request, response = ledger_pb2.WatchTransactionRequest(tx_id=tx_id), ledger_pb2.WatchTransactionResponse

        def states(for_s: float | None) -> Iterator[ledger_pb2.Transaction]:
            answers = self._calls.stream("LedgerService/WatchTransaction", request, response, timeout_s=for_s)
            return (answer.transaction for answer in answers)

        return follow(states, lambda tx: tx.state in ENDED, self._calls.silence(f"transaction {tx_id}"), within_s)

    def settled(self, tx_id: str, within_s: float) -> ledger_pb2.Transaction:
        """The transaction as soon as its slot has ended, or as it stands after `within_s` seconds: look at `state`."""
        seen = list(self.watch(tx_id, within_s=within_s))
        return seen[-1] if seen and seen[-1].state in ENDED else self.transaction(tx_id)

    def history(
        self, *, account: str = "", only_open: bool = False, limit: int | None = None
    ) -> Iterator[ledger_pb2.Transaction]:
        """Transactions that this node knows, newest first, of one account or of all; with `only_open` those that are
        neither final nor void."""

        def fetch(size: int, token: str) -> tuple[list[ledger_pb2.Transaction], str]:
            request = ledger_pb2.ListTransactionsRequest(
                page_size=size, page_token=token, account=account, open=only_open
            )
            page = self._calls.unary("LedgerService/ListTransactions", request, ledger_pb2.ListTransactionsResponse)
            return [*page.transactions], page.next_page_token

        return pages(fetch, limit)

    def bookings(self, *, job_id: str = "", limit: int | None = None) -> ledger_pb2.ListBookingsResponse:
        """What this node's jobs cost, newest first, each with the transaction that paid it; and what is still owed."""
        found = ledger_pb2.ListBookingsResponse()

        def fetch(size: int, token: str) -> tuple[list[ledger_pb2.Booking], str]:
            request = ledger_pb2.ListBookingsRequest(page_size=size, page_token=token, job_id=job_id)
            page = self._calls.unary("LedgerService/ListBookings", request, ledger_pb2.ListBookingsResponse)
            found.owed_micro = page.owed_micro
            return [*page.bookings], page.next_page_token

        found.bookings.extend(pages(fetch, limit))
        return found

    # ---- for third parties

    def blocks(self, first: int = 1) -> Iterator[tuple[int, ledger_pb2.Block]]:
        """The blocks that this node holds, each with its position, in the order in which it took them in."""
        while True:
            page = self.block_page(first)
            yield from zip(page.positions, page.blocks, strict=True)
            if not page.blocks or page.positions[-1] >= page.newest:
                return
            first = page.positions[-1] + 1

    def block_page(self, first: int = 0, count: int = 0) -> ledger_pb2.ListBlocksResponse:
        """Up to `count` blocks from that position on, 0: the newest; at most 1,000 and 1 MiB."""
        request = ledger_pb2.ListBlocksRequest(first=first, count=count)
        return self._calls.unary("LedgerService/ListBlocks", request, ledger_pb2.ListBlocksResponse)

    def receipt(self, tx_id: str) -> ledger_pb2.GetReceiptResponse:
        """Signatures of witnesses that hold the transaction final: `receipt` proves it to whoever has the ledger's
        papers (`offgrid.client.papers`). OffgridError TooFewWitnesses where not enough are reached, or hold it."""
        request = ledger_pb2.GetReceiptRequest(tx_id=tx_id)
        return self._calls.unary("LedgerService/GetReceipt", request, ledger_pb2.GetReceiptResponse)

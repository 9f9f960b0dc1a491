"""Who opens the ledger, and who pays: transfers that are repeated until they are answered, and watched until they are
final."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import AlreadyExists, Fault
from offgrid_tools.sim.engine import SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

POLL_US = SECOND
PAUSE_MAX_US = 6 * SECOND
AGAIN_CHANCE = 0.2


class LedgerOpener(Person):
    """The founder's owner, who names witnesses and first balances once."""

    wants = "a ledger"

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        founder: Process,
        witnesses: Sequence[ledger_pb2.Witness],
        balances: Sequence[ledger_pb2.Balance],
        at_us: int,
    ) -> None:
        """Without `witnesses` all members are, by the weights of their memberships."""
        super().__init__(engine, monitor, founder)
        self._witnesses, self._balances, self._at_us = witnesses, balances, at_us
        self._open = False

    @property
    def content(self) -> bool:
        return self._open

    def start(self) -> None:
        self._engine.after(self._at_us, self._ask)

    def _ask(self) -> None:
        request = ledger_pb2.OpenLedgerRequest(witnesses=self._witnesses, balances=self._balances)
        self._call("LedgerService/OpenLedger", request, lambda reply: self._opened(), self._refused)

    def _refused(self, fault: Fault) -> bool:
        if isinstance(fault, AlreadyExists):  # an earlier try got through
            self._opened()
            return True
        return False

    def _opened(self) -> None:
        self._open = True


class Payment(msgspec.Struct):
    """`tx_id` once the node has answered."""

    request_id: str
    dst: str
    amount_micro: int
    tx_id: str = ""
    ended: bool = False


class Payer(Person):
    """One person at one node, with a number of payments to make."""

    wants = "payments"

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        source: Process,
        payees: Sequence[Process],
        payments: int,
        amount_max_micro: int,
        name: str,
    ) -> None:
        super().__init__(engine, monitor, source)
        rng = engine.rng
        self._payments = [
            Payment(f"{name}-{number}", rng.choice(payees).node_id, rng.randint(1, amount_max_micro))
            for number in range(payments)
        ]
        self.refused = 0

    @property
    def content(self) -> bool:
        return all(payment.ended for payment in self._payments)

    @property
    def final(self) -> int:
        """How many payments were seen to be final."""
        return sum(payment.ended and bool(payment.tx_id) for payment in self._payments)

    def start(self) -> None:
        for payment in self._payments:
            self._engine.after(int(self._engine.rng.random() * PAUSE_MAX_US), self._later(self._pay, payment))

    def _later(self, step: Callable[[Payment], None], payment: Payment) -> Callable[[], None]:
        return lambda: step(payment)

    def _pay(self, payment: Payment) -> None:
        request = ledger_pb2.CreateTransferRequest(
            dst=payment.dst, amount_micro=payment.amount_micro, request_id=payment.request_id
        )
        self._call(
            "LedgerService/CreateTransfer",
            request,
            lambda reply: self._on_accepted(payment, reply),
            lambda fault: self._on_refused(payment, fault),
        )

    def _on_refused(self, payment: Payment, fault: Fault) -> bool:
        if fault.reason != "InsufficientFunds":
            return False
        self.refused += 1
        payment.ended = True
        return True

    def _on_accepted(self, payment: Payment, reply: Message) -> None:
        assert isinstance(reply, ledger_pb2.CreateTransferResponse)
        first, payment.tx_id = not payment.tx_id, reply.transaction.tx_id
        self._monitor.ledger.on_accepted(self.node, payment.request_id, reply.transaction)
        if first:
            if self._engine.rng.random() < AGAIN_CHANCE:
                self._pay(payment)
            self._poll(payment)

    def _poll(self, payment: Payment) -> None:
        request = ledger_pb2.GetTransactionRequest(tx_id=payment.tx_id)
        self._call("LedgerService/GetTransaction", request, lambda reply: self._on_state(payment, reply))

    def _on_state(self, payment: Payment, reply: Message) -> None:
        assert isinstance(reply, ledger_pb2.GetTransactionResponse)
        if reply.transaction.state == ledger_pb2.TX_STATE_FINAL:
            self._monitor.ledger.on_shown_final(self.node, reply.transaction)
            payment.ended = True
        else:
            self._engine.after(POLL_US, self._later(self._poll, payment))

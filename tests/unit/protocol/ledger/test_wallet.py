"""The owner's part: transfers, the queue behind the one in flight, and what jobs cost."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Asked
from offgrid_node.protocol.errors import AlreadyExists, Exhausted, FailedPrecondition, Fault, InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import wallet
from offgrid_node.protocol.ledger.commands import CreateTransfer, UnlockSlot
from offgrid_node.protocol.ledger.items import Statement, TxItem, Unlock
from offgrid_node.protocol.ledger.records import decode_meta, noop_digest
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import BOOKINGS
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO


def created(outcome: object) -> ledger_pb2.Transaction:
    assert isinstance(outcome, ledger_pb2.CreateTransferResponse), outcome
    return outcome.transaction


def own_txs(bench: Bench) -> list[TxItem]:
    return [item for item in bench.take_said() if isinstance(item, TxItem)]


def finish_own(bench: Bench) -> list[TxItem]:
    """Brings what this node has signed to its end, and returns it."""
    items = own_txs(bench)
    for item in items:
        bench.finish(item)
    return items


def cost(job: str, amount: int, payee: str = PAYEE) -> CostIncurred:
    return CostIncurred(job, 1, payee, amount, "compute")


def booking(bench: Bench, job: str) -> ledger_pb2.Booking:
    row = bench.store.get(BOOKINGS, job.encode())
    assert row is not None
    return ledger_pb2.Booking.FromString(row)


def end_with_nothing(bench: Bench, seq: int = 0) -> bytes:
    """The other witnesses end this node's open slot with the no-op."""
    noop = noop_digest(SALT, node_id_bytes(SELF), seq)
    statement = Statement(False, node_id_bytes(SELF), seq, 1, noop)
    for witness in (W1, W2, W3):
        bench.says(witness, statement, replace(statement, confirms=True))
    return noop


# ---- transfers


def test_a_transfer_is_signed_durable_and_on_its_way_in_one_step() -> None:
    bench = Bench()
    bench.up(W1)
    bench.take_calls()
    transaction = created(bench.transfer(500))
    (item,) = own_txs(bench)
    assert (transaction.state, transaction.src, transaction.seq) == (ledger_pb2.TX_STATE_SIGNED, SELF, 0)
    assert transaction.signed.body == item.body
    assert dict(transaction.meta) == {"note": "hello"}
    assert transaction.fee_micro == FEE
    (push,) = bench.take_calls("PushBlocks")
    assert item.encode() in push.request.blocks[0].items  # type: ignore[attr-defined]
    assert [event.etype for event in bench.events] == [EventType.TX_CREATED, EventType.BLOCK_ADDED]


def test_the_next_transfer_waits_for_the_one_in_flight_and_keeps_its_name() -> None:
    bench = Bench()
    created(bench.transfer(500))
    waiting = created(bench.transfer(700))
    assert (waiting.state, waiting.src) == (ledger_pb2.TX_STATE_QUEUED, SELF)
    assert waiting.tx_id == waiting.transfer_id
    finish_own(bench)
    (second,) = own_txs(bench)
    assert second.tx.seq == 1
    found = bench.views.transaction(waiting.transfer_id)
    assert found is not None
    assert (found.state, found.transfer_id) == (ledger_pb2.TX_STATE_SIGNED, waiting.transfer_id)
    assert bench.views.transaction(found.tx_id) == found
    bench.finish(second)
    assert bench.balance(PAYEE) == START_MICRO + 1_200


def test_one_request_makes_one_transfer_through_restarts() -> None:
    bench = Bench()
    first = created(bench.transfer(500, request_id="r1"))
    assert created(bench.transfer(500, request_id="r1")).transfer_id == first.transfer_id
    bench.restart()
    bench.calm()
    assert created(bench.transfer(500, request_id="r1")) == bench.views.transaction(first.transfer_id)
    assert len(own_txs(bench)) == 1
    refused = bench.transfer(600, request_id="r1")
    assert isinstance(refused, AlreadyExists)
    assert refused.reason == "RequestIdReused"


def test_a_restart_signs_no_second_transaction_for_the_slot_in_flight() -> None:
    bench = Bench()
    created(bench.transfer(500))
    (first,) = own_txs(bench)
    created(bench.transfer(700))
    bench.restart()
    bench.calm()
    assert own_txs(bench) == []
    bench.finish(first)
    (second,) = own_txs(bench)
    assert (second.tx.seq, second.tx.prev) == (1, first.digest)


def test_a_step_that_was_not_committed_signed_nothing() -> None:
    bench = Bench()
    command = CreateTransfer(((node_id_bytes(PAYEE), 5),), 0, b"", "")
    bench.step(Asked(1, "owner", command), commit=False)
    bench.calm()
    assert bench.machine.queued_micro == 0
    assert created(bench.transfer(7)).seq == 0


def test_funds_are_final_ones_that_nothing_else_is_waiting_for() -> None:
    bench = Bench()
    created(bench.transfer(START_MICRO - 500))
    created(bench.transfer(400))
    refused = bench.transfer(100)
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "InsufficientFunds"
    assert refused.metadata == {"needed_micro": "110", "available_micro": "80"}
    assert "needs 110" in refused.message
    assert "has 80" in refused.message
    created(bench.transfer(70))


def test_what_comes_in_can_be_spent_once_it_is_final() -> None:
    bench = Bench(balances={OWNER: START_MICRO})
    assert isinstance(bench.transfer(1), FailedPrecondition)
    gift = bench.tx(OWNER, to=SELF, amount=500)
    bench.says(OWNER, gift)
    assert isinstance(bench.transfer(1), FailedPrecondition)
    bench.finish(gift)
    created(bench.transfer(490))


def test_a_fee_below_the_least_is_refused_and_a_higher_one_is_paid() -> None:
    bench = Bench()
    refused = bench.transfer(5, fee=FEE - 1)
    assert isinstance(refused, InvalidRequest)
    assert refused.violations[0].field == "fee_micro"
    created(bench.transfer(5, fee=99))
    finish_own(bench)
    assert bench.views.totals.fees_micro == 99


def test_the_queue_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet, "QUEUE_MAX", 2)
    bench = Bench()
    outcomes = [bench.transfer(1) for _ in range(4)]
    assert isinstance(outcomes[-1], Exhausted)
    assert outcomes[-1].reason == "TooManyTransfers"
    assert not any(isinstance(outcome, Fault) for outcome in outcomes[:-1])


def test_nothing_is_signed_while_a_node_that_has_just_started_listens() -> None:
    bench = Bench()
    bench.restart()
    waiting = created(bench.transfer(5))
    assert waiting.state == ledger_pb2.TX_STATE_QUEUED
    assert own_txs(bench) == []
    bench.calm()
    assert len(own_txs(bench)) == 1


# ---- what jobs cost


def test_nothing_to_pay_or_nobody_else_is_booked_and_not_paid() -> None:
    bench = Bench()
    bench.step(cost("j-free", 0), cost("j-own", 50, SELF))
    assert own_txs(bench) == []
    assert [(booking(bench, job).owed, booking(bench, job).tx_id) for job in ("j-free", "j-own")] == [(False, "")] * 2


def test_a_booking_too_big_for_the_funds_does_not_hold_up_smaller_ones() -> None:
    bench = Bench(balances={SELF: 100})
    bench.step(cost("j-big", 5_000), cost("j-small", 50))
    finish_own(bench)
    assert (booking(bench, "j-big").owed, booking(bench, "j-small").owed) == (True, False)


def test_transfers_and_payments_take_turns() -> None:
    bench = Bench()
    created(bench.transfer(1))
    for index in range(3):
        created(bench.transfer(index + 2))
        bench.step(cost(f"j-{index}", 100 + index))
    turns = []
    while items := finish_own(bench):
        turns += ["pays" if "action" in decode_meta(item.tx.meta) else "transfers" for item in items]
    assert turns == ["transfers", "pays", "transfers", "transfers", "transfers"]


def test_payments_leave_what_queued_transfers_need() -> None:
    bench = Bench(balances={SELF: 1_000})
    created(bench.transfer(100))
    created(bench.transfer(800))
    bench.step(cost("j-1", 500))
    assert [item.tx.outputs[0][1] for item in finish_own(bench)] == [100]
    assert [item.tx.outputs[0][1] for item in finish_own(bench)] == [800]
    assert finish_own(bench) == []
    assert booking(bench, "j-1").owed


def test_before_the_ledger_is_open_jobs_cost_nothing_that_is_owed() -> None:
    bench = Bench(opened=False)
    bench.step(cost("j-1", 300))
    assert not booking(bench, "j-1").owed
    assert isinstance(bench.transfer(1), FailedPrecondition)


def test_with_the_economy_off_the_machine_is_silent() -> None:
    bench = Bench(enabled=False)
    bench.up(W1, W2)
    bench.step(cost("j-1", 300))
    assert isinstance(bench.replies[0], FailedPrecondition)  # OpenLedger
    for outcome in (bench.transfer(1), bench.replies[0]):
        assert isinstance(outcome, FailedPrecondition)
        assert outcome.reason == "EconomyOff"
    bench.says(W1, vote(bench.tx()))
    assert isinstance(bench.replies[-1], FailedPrecondition)
    bench.wait(60_000)
    assert bench.take_calls() == []
    assert [*bench.store.scan(BOOKINGS)] == []
    assert bench.machine.deadline_ms() is None


# ---- slots that the owner wants to end


def test_an_owner_asks_once_that_its_open_slot_ends() -> None:
    bench = Bench()
    assert isinstance(refused := bench.ask(UnlockSlot()), FailedPrecondition)
    assert refused.reason == "NothingUnderWay"
    transaction = created(bench.transfer(500))
    bench.take_said()
    for _ in range(2):
        answer = bench.ask(UnlockSlot())
        assert isinstance(answer, ledger_pb2.UnlockSlotResponse)
        assert answer.transaction.tx_id == transaction.tx_id
    bench.restart()
    bench.calm()
    bench.ask(UnlockSlot())
    said = [item for item in bench.take_said() if isinstance(item, Unlock)]
    assert [(item.source, item.seq) for item in said] == [(NodeSource(node_id_bytes(SELF)), 0)]


def test_what_ended_without_the_transaction_is_void_and_the_next_is_signed_behind_it() -> None:
    bench = Bench()
    transaction, waiting = created(bench.transfer(500)), created(bench.transfer(700))
    bench.ask(UnlockSlot())
    bench.take_said()
    noop = end_with_nothing(bench)
    found = bench.views.transaction(transaction.transfer_id)
    assert found is not None
    assert found.state == ledger_pb2.TX_STATE_VOID
    (second,) = own_txs(bench)
    assert (second.tx.seq, second.tx.prev) == (1, noop)
    bench.finish(second)
    assert bench.balance(PAYEE) == START_MICRO + 700
    found = bench.views.transaction(waiting.transfer_id)
    assert found is not None
    assert found.state == ledger_pb2.TX_STATE_FINAL

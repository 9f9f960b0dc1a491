"""Several accounts of one wallet: each has one transaction in flight, and none waits for another."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger import wallet
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLanes, UnlockSlot
from offgrid_node.protocol.ledger.items import TxItem, Unlock
from offgrid_node.protocol.ledger.sources import LaneSource, lane_account
from offgrid_tools.ledgersim.keys import FEE, START_MICRO

OWN = node_id_bytes(SELF)
FUND = 1_000 * FEE


def lane(number: int) -> bytes:
    return lane_account(OWN, number)


def held(bench: Bench, number: int) -> int:
    return bench.views.account(base32(lane(number))).balance_micro


def own_txs(bench: Bench) -> list[TxItem]:
    return [item for item in bench.take_said() if isinstance(item, TxItem) and item.tx.source.signer == OWN]


def finish(bench: Bench, *items: TxItem) -> None:
    for witness in (W1, W2, W3):
        bench.says(witness, *(word for item in items for word in (vote(item), confirm(item))))


def pay(bench: Bench, amount: int = 5, *, src: bytes = b"", to: bytes = node_id_bytes(PAYEE)) -> object:
    return bench.ask(CreateTransfer(((to, amount),), 0, b"", "", src))


@pytest.fixture
def bench() -> Bench:
    """With two funded lanes, nothing in flight."""
    bench = Bench()
    bench.ask(OpenLanes(2, FUND))
    finish(bench, *own_txs(bench))
    return bench


class TestOpening:
    def test_pays_into_each_new_one_out_of_the_nodes_own_account(self, bench: Bench) -> None:
        assert [held(bench, number) for number in (0, 1, 2)] == [START_MICRO - 2 * FUND - FEE, FUND, FUND]

    def test_asked_again_changes_nothing_and_more_are_funded_alone(self, bench: Bench) -> None:
        bench.ask(OpenLanes(2, FUND))
        assert own_txs(bench) == []
        bench.ask(OpenLanes(3, FUND))
        (item,) = own_txs(bench)
        assert item.tx.outputs == ((lane(3), FUND),)

    def test_of_many_one_transaction_pays_sixty_four(self) -> None:
        bench = Bench()
        bench.ask(OpenLanes(130, 10))
        sizes = []
        while txs := own_txs(bench):
            sizes += [len(item.tx.outputs) for item in txs]
            finish(bench, *txs)
        assert sizes == [64, 64, 2]
        assert held(bench, 130) == 10

    def test_what_is_not_there_to_fund_them_opens_none(self) -> None:
        bench = Bench()
        refused = bench.ask(OpenLanes(3, START_MICRO // 2))
        assert isinstance(refused, FailedPrecondition)
        assert refused.reason == "InsufficientFunds"
        assert bench.machine._wallet.lanes.count == 0

    def test_more_payments_than_may_wait_open_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wallet, "QUEUE_MAX", 1)
        bench = Bench()
        assert isinstance(bench.ask(OpenLanes(65, 1)), Exhausted)
        assert bench.machine._wallet.lanes.count == 0

    def test_they_are_there_after_a_crash(self, bench: Bench) -> None:
        bench.restart()
        bench.calm()
        assert bench.machine._wallet.lanes.count == 2


class TestPaying:
    def test_each_account_signs_without_waiting_for_the_others(self, bench: Bench) -> None:
        for _ in range(4):
            pay(bench)
        txs = own_txs(bench)
        assert [item.tx.src for item in txs] == [lane(0), lane(1), lane(2)]
        assert [item.tx.source for item in txs[1:]] == [LaneSource(OWN, 1), LaneSource(OWN, 2)]
        finish(bench, txs[1])
        assert own_txs(bench) == [], "the fourth waits behind the one of the account that it was given to"
        finish(bench, txs[0])
        (fourth,) = own_txs(bench)
        assert (fourth.tx.src, fourth.tx.prev) == (OWN, txs[0].digest)

    def test_one_that_is_named_pays_and_no_other(self, bench: Bench) -> None:
        for _ in range(2):
            pay(bench, src=lane(2))
        (first,) = own_txs(bench)
        assert first.tx.src == lane(2)
        finish(bench, first)
        (second,) = own_txs(bench)
        assert (second.tx.src, second.tx.seq) == (lane(2), 1)

    def test_an_account_without_the_funds_is_passed_over(self, bench: Bench) -> None:
        pay(bench)
        pay(bench, FUND)
        assert [item.tx.src for item in own_txs(bench)] == [OWN], "with the fee it is more than a lane has: it waits"

    def test_what_waits_for_an_account_is_set_aside_there(self, bench: Bench) -> None:
        pay(bench, FUND - 10 * FEE, src=lane(1))
        refused = pay(bench, 10 * FEE, src=lane(1))
        assert isinstance(refused, FailedPrecondition)
        assert refused.metadata == {"needed_micro": str(11 * FEE), "available_micro": str(9 * FEE)}

    def test_money_moves_between_them_and_never_from_one_to_itself(self, bench: Bench) -> None:
        pay(bench)
        pay(bench, 7, to=lane(1))
        txs = own_txs(bench)
        assert [(item.tx.src, item.tx.outputs) for item in txs[1:]] == [(lane(2), ((lane(1), 7),))]
        finish(bench, *txs)
        assert held(bench, 1) == FUND + 7

    def test_a_crash_between_leaves_each_in_flight(self, bench: Bench) -> None:
        for _ in range(3):
            pay(bench)
        own_txs(bench)
        bench.restart()
        bench.calm()
        for number in range(3):
            pay(bench, src=lane(number))
        assert own_txs(bench) == []

    def test_the_slot_of_one_lane_can_be_ended(self, bench: Bench) -> None:
        pay(bench, src=lane(1))
        own_txs(bench)
        assert isinstance(bench.ask(UnlockSlot(lane(2))), FailedPrecondition)
        answer = bench.ask(UnlockSlot(lane(1)))
        assert isinstance(answer, ledger_pb2.UnlockSlotResponse)
        (said,) = [item for item in bench.take_said() if isinstance(item, Unlock)]
        assert (said.source, said.seq) == (LaneSource(OWN, 1), 0)

    def test_what_comes_into_a_lane_is_spent_from_it(self, bench: Bench) -> None:
        coming = bench.tx(OWNER, to=base32(lane(1)), amount=50)
        bench.says(OWNER, coming)
        bench.finish(coming)
        assert held(bench, 1) == FUND + 50

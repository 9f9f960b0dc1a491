"""A payer that lost its disk: which of its jobs are paid by vouchers that it has forgotten."""

from __future__ import annotations

from copy import deepcopy

import pytest
from ledger_bench import OWNER, PAYEE, Bench
from test_holding import booking, cost, finish, given, posts, txs
from test_learning import learns, lost

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.events import CostIncurred, PeerDown
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import delivery, holding
from offgrid_node.protocol.ledger import given as given_holds
from offgrid_node.protocol.ledger.accounts import Account


def payer() -> Bench:
    bench = Bench()
    bench.up(PAYEE)
    return bench


def vouchers(bench: Bench) -> list[ledger_pb2.HoldVoucher]:
    """The newest of each hold; the first call may carry several."""
    bench.wait(delivery.GATHER_MS)
    newest: dict[bytes, ledger_pb2.HoldVoucher] = {}
    for call in bench.take_calls("DeliverVouchers"):
        assert isinstance(call.request, ledger_pb2.DeliverVouchersRequest)
        newest.update((voucher.terms, voucher) for voucher in call.request.vouchers)
    return [*newest.values()]


def owes_again(bench: Bench, *costs: object) -> None:
    """It is told again what its jobs cost."""
    bench.step(*costs)
    assert txs(bench) == [], "what it may have promised it does not promise again"


def test_what_it_forgot_is_paid_by_the_voucher_that_its_payee_posts() -> None:
    bench, costs = payer(), [cost("j-1", 300), cost("j-2", 10)]
    said: list[ledger_pb2.HoldVoucher] = []

    def works() -> None:
        bench.step(*costs)
        finish(bench)
        said.extend(vouchers(bench))

    learns(bench, lost(bench, works))
    owes_again(bench, *costs)
    ((_, row),) = given(bench)
    assert (row.frozen, row.count) == (True, 0)
    (voucher,) = said
    posts(bench, voucher)
    assert [bool(booking(bench, job).tx_id) for job in ("j-1", "j-2")] == [True, True]
    assert bench.machine.owed_micro == 0


def two_holds(bench: Bench, *costs: CostIncurred) -> list[ledger_pb2.HoldVoucher]:
    """The node works as long as two holds last, is told of what they cost again after it has lost its disk, and has not
    heard of what ended them."""
    said: list[ledger_pb2.HoldVoucher] = []

    def works() -> None:
        for each in costs:
            bench.step(each)
            bench.wait(given_holds.FUND_MS)
            finish(bench)
        bench.wait(10 * delivery.GATHER_MS)
        said.extend(vouchers(bench))

    learns(bench, lost(bench, works))
    return said


def test_what_it_forgot_of_two_holds_is_told_apart_by_their_room() -> None:
    bench, costs = payer(), [cost("j-1", 300), cost("j-2", 2_400), cost("j-3", 5)]
    first, second = two_holds(bench, *costs)
    owes_again(bench, *costs)
    assert (first.count, second.count) == (2, 1)
    posts(bench, first)
    posts(bench, second)
    assert [booking(bench, f"j-{number}").owed for number in (1, 2, 3)] == [False, False, False]
    assert bench.machine.owed_micro == 0
    assert bench.machine.notices == []


def test_ends_of_two_holds_are_told_apart_in_whatever_order_they_come() -> None:
    bench, costs = payer(), [cost("j-1", 300), cost("j-2", 2_400), cost("j-3", 5)]
    first, second = two_holds(bench, *costs)
    owes_again(bench, *costs)
    posts(bench, second)
    assert bench.machine.owed_micro == 2_705, "the first one's may be among it"
    bench.restart()
    bench.up(PAYEE)
    posts(bench, first)
    assert [booking(bench, f"j-{number}").owed for number in (1, 2, 3)] == [False, False, False]
    assert bench.machine.owed_micro == bench.machine.promised_out_micro == 0
    assert bench.machine.notices == []


def test_what_one_hold_did_not_pay_and_another_one_did_is_paid_once() -> None:
    """The node comes back with the rows of before: of what was then promised anew it finds the end first."""
    bench = payer()
    for each in (cost("j-1", 300), cost("j-3", 2_400)):
        bench.step(each)
        bench.wait(given_holds.FUND_MS)
        finish(bench)
    first, _ = vouchers(bench)
    bench.step(cost("j-2", 10))
    assert [row.count for _, row in given(bench)] == [2, 1]
    before, heads = deepcopy(bench.store), dict(bench._heads)
    posts(bench, first)
    bench.step(cost("j-4", 5))
    holds = bench.machine._holding.given
    (second,) = map(holds.voucher, holds.all())
    assert second.count == 3

    bench.store, bench._heads = before, heads
    bench.restart()
    bench.up(PAYEE)
    posts(bench, second)
    assert not booking(bench, "j-3").tx_id, "what the other one did not pay is not known yet"
    bench.step(cost("j-5", 3))
    posts(bench, first)
    assert [bool(booking(bench, f"j-{number}").tx_id) for number in (1, 2, 3, 5)] == [True, True, True, False]
    assert (bench.machine.owed_micro, bench.machine.promised_out_micro) == (3, 0)
    assert any("3 bookings" in notice for notice in bench.machine.notices), "it does not know of j-4"


def test_a_voucher_over_what_it_cannot_know_is_said() -> None:
    bench, costs = payer(), [cost("j-1", 300), cost("j-2", 10)]
    said: list[ledger_pb2.HoldVoucher] = []

    def works() -> None:
        bench.step(*costs)
        finish(bench)
        said.extend(vouchers(bench))

    learns(bench, lost(bench, works))
    owes_again(bench, cost("j-1", 299), cost("j-2", 10))
    posts(bench, said[0])
    assert bench.machine.owed_micro == 309
    assert any("2 bookings" in notice for notice in bench.machine.notices)


def test_a_voucher_over_more_than_it_owes_is_said_and_pays_what_it_owes() -> None:
    """Another hold's end may make it owe again what was among that."""
    bench, costs = payer(), [cost("j-1", 300), cost("j-2", 10)]
    said: list[ledger_pb2.HoldVoucher] = []

    def works() -> None:
        bench.step(*costs)
        finish(bench)
        said.extend(vouchers(bench))

    learns(bench, lost(bench, works))
    owes_again(bench, costs[0])
    posts(bench, said[0])
    assert bench.machine.owed_micro == 0
    assert any("2 bookings" in notice for notice in bench.machine.notices)


@pytest.mark.parametrize("is_known", [False, True])
def test_whose_a_forgotten_hold_is_it_finds_without_a_look_at_all_accounts_where_that_is_known(
    monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    bench, read = payer(), list[bytes]()

    def works() -> None:
        bench.transfer(7)
        finish(bench)
        if is_known:
            bench.says(PAYEE, bench.tx(PAYEE, to=OWNER))
        bench.step(cost("j-1", 300))
        finish(bench)

    class Read(Account):
        @classmethod
        def decode(cls, row: bytes) -> Account:
            read.append(row)
            return Account.decode(row)

    made = lost(bench, works)
    bench.step(PeerDown(PAYEE))
    monkeypatch.setattr(holding, "Account", Read)
    learns(bench, made)
    ((terms, row),) = given(bench)
    assert (terms.payee, row.frozen) == (node_id_bytes(PAYEE), True)
    assert bool(read) != is_known

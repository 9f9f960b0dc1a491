"""What jobs cost: booked, promised out of a final hold, told, posted once, and owed again where it was not.

`Bench` is the payer or the payee; the other one is played by the test.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, Bench, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.errors import FailedPrecondition, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import CostIncurred, KeyReplaced
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import delivery, owed
from offgrid_node.protocol.ledger import given as holds
from offgrid_node.protocol.ledger.commands import DeliverVouchers, Settle
from offgrid_node.protocol.ledger.early import LOOK_MS
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.paid import as_read
from offgrid_node.protocol.ledger.records import BY_HAND, Tx, booking_digest, decode_meta, encode_meta, tx_id_of
from offgrid_node.protocol.ledger.settings import SETTLEMENT_INTERVAL_MS
from offgrid_node.protocol.ledger.sources import (
    CLOCK_MARGIN_US,
    Close,
    GiveBack,
    HoldSource,
    HoldTerms,
    NodeSource,
    Post,
    Voucher,
)
from offgrid_node.protocol.ledger.tables import BOOKING_INDEX, BOOKINGS, GIVEN, OWED
from offgrid_node.protocol.merkle import root_of
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key

LIFE_US = 2 * CLOCK_MARGIN_US
OWN, PAYEE_ACCOUNT = node_id_bytes(SELF), node_id_bytes(PAYEE)


def cost(job: str, amount: int, payee: str = PAYEE) -> CostIncurred:
    return CostIncurred(job, 1, payee, amount, "compute")


def booking(bench: Bench, job: str) -> ledger_pb2.Booking:
    row = bench.store.get(BOOKINGS, job.encode())
    assert row is not None
    return as_read(bench.store, ledger_pb2.Booking.FromString(row))


def txs(bench: Bench) -> list[TxItem]:
    return [item for item in bench.take_said() if isinstance(item, TxItem)]


def finish(bench: Bench) -> list[TxItem]:
    """Brings what this node has signed to its end, and returns it."""
    items = txs(bench)
    for item in items:
        bench.finish(item)
    return items


def given(bench: Bench) -> list[tuple[HoldTerms, ledger_pb2.GivenHold]]:
    rows = [ledger_pb2.GivenHold.FromString(row) for _, row in bench.store.scan(GIVEN)]
    return sorted(((HoldTerms.decode(row.terms), row) for row in rows), key=lambda each: each[0].number)


def told(bench: Bench) -> Iterator[tuple[Call, ledger_pb2.HoldVoucher]]:
    """What it tells its payees, one voucher in a call."""
    for call in bench.take_calls("DeliverVouchers"):
        assert isinstance(call.request, ledger_pb2.DeliverVouchersRequest)
        (voucher,) = call.request.vouchers
        yield call, voucher


def says_what_it_holds(bench: Bench, amount: int) -> None:
    """The payee comes up, and is asked at once."""
    bench.up(PAYEE)
    bench.answer(asked(bench), ledger_pb2.DeliverVouchersResponse(held_micro=[amount]))


def asked(bench: Bench) -> Call:
    """It asks its payee what is held of its hold, and tells it nothing."""
    (call,) = bench.take_calls("DeliverVouchers")
    assert isinstance(call.request, ledger_pb2.DeliverVouchersRequest)
    assert (len(call.request.asked), len(call.request.vouchers)) == (1, 0)
    return call


def posts(bench: Bench, voucher: ledger_pb2.HoldVoucher, seq: int = 0, prev: bytes | None = None) -> TxItem:
    """The payee does, and it is final."""
    act = Post(voucher.amount_micro, voucher.count, voucher.root, voucher.signature)
    source = HoldSource(HoldTerms.decode(voucher.terms), act)
    item = bench.taking(source, source.outputs, seq, prev)
    bench.says(PAYEE, item)
    bench.finish(item)
    return item


@pytest.fixture(autouse=True)
def _short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "LIFE_US", LIFE_US)


def at_work(*costs: CostIncurred) -> Bench:
    """A payer whose hold for its payee is final; these are promised."""
    bench = Bench()
    bench.up(PAYEE)
    bench.step(*costs)
    finish(bench)
    return bench


# ---- booked and promised


def test_a_cost_is_owed_until_a_hold_for_its_payee_is_final_and_promised_then() -> None:
    bench = Bench()
    bench.step(cost("j-1", 300))
    assert (booking(bench, "j-1").owed, bench.machine.owed_micro) == (True, 300)
    (funding,) = finish(bench)
    ((terms, row),) = given(bench)
    assert funding.tx.outputs == ((terms.account, terms.funds_micro),)
    assert decode_meta(funding.tx.meta)["action"] == "hold"
    assert (terms.payer, terms.payee, terms.fee_micro) == (OWN, PAYEE_ACCOUNT, FEE)
    assert (row.amount_micro, row.count, row.state) == (300, 1, ledger_pb2.HOLD_STATE_OPEN)
    assert (booking(bench, "j-1").owed, booking(bench, "j-1").promised) == (False, True)
    assert (bench.machine.owed_micro, bench.machine.promised_out_micro) == (0, 300)


def test_what_comes_later_is_promised_in_the_batch_that_books_it() -> None:
    bench = at_work(cost("j-1", 300))
    bench.step(cost("j-2", 40), cost("j-3", 2))
    assert txs(bench) == []
    ((_, row),) = given(bench)
    leaves = [booking_digest(SALT, f"j-{n}", 1, PAYEE_ACCOUNT, a, "compute") for n, a in ((1, 300), (2, 40), (3, 2))]
    assert (row.amount_micro, row.count, row.root) == (342, 3, root_of(leaves))
    assert [booking(bench, f"j-{n}").place for n in (1, 2, 3)] == [0, 1, 2]


def test_several_payees_are_funded_by_one_transaction() -> None:
    bench = Bench()
    bench.step(cost("j-1", 10, W1), cost("j-2", 20, W2), cost("j-3", 30))
    (funding,) = finish(bench)
    assert len(funding.tx.outputs) == 3
    assert {terms.payee for terms, _ in given(bench)} == {node_id_bytes(W1), node_id_bytes(W2), PAYEE_ACCOUNT}


def test_a_cost_that_is_said_twice_is_booked_once() -> None:
    bench = Bench()
    bench.step(cost("j-1", 300), cost("j-1", 300))
    bench.restart()
    bench.calm()
    bench.step(cost("j-1", 300))
    finish(bench)
    says_what_it_holds(bench, 0)
    assert bench.machine.promised_out_micro == 300
    assert bench.machine.owed_micro == 0


def test_of_a_new_job_too_a_cost_is_booked_once_and_the_disk_is_not_asked() -> None:
    bench = Bench(opened=False)
    new = CostIncurred("j-1", 1, PAYEE, 300, "compute", is_new=True)
    store, asked = bench.store.get, list[str]()
    bench.store.get = lambda table, key: asked.append(table) or store(table, key)  # type: ignore[func-returns-value,method-assign]
    bench.step(new, new)
    bench.step(new)
    assert len([*bench.store.scan(BOOKINGS)]) == len([*bench.store.scan(BOOKING_INDEX)]) == 1
    assert BOOKINGS not in asked


def test_what_funds_do_not_pay_stays_owed_and_is_said_until_they_do() -> None:
    bench = Bench(balances={OWNER: START_MICRO})
    bench.step(cost("j-1", 300))
    assert txs(bench) == []
    assert booking(bench, "j-1").owed
    assert "owed" in bench.machine.notices[0]
    gift = bench.tx(OWNER, to=SELF, amount=320)
    bench.says(OWNER, gift)
    bench.take_said()
    bench.finish(gift)
    (funding,) = finish(bench)
    assert (funding.tx.total_micro, bench.machine.owed_micro, bench.machine.promised_out_micro) == (320, 0, 300)
    assert bench.machine.notices == []


def test_what_is_too_much_for_one_hold_gets_the_next() -> None:
    bench = at_work(cost("j-1", 300))
    ((terms, _),) = given(bench)
    bench.step(cost("j-2", terms.room_micro))
    assert booking(bench, "j-2").owed
    assert finish(bench) == [], "others may be owed by then, and have theirs with it"
    assert bench.machine.notices == [], "funds are not what it waits for"
    bench.wait(holds.FUND_MS)
    finish(bench)
    assert [row.amount_micro for _, row in given(bench)] == [300, terms.room_micro]
    assert booking(bench, "j-2").promised


def test_more_is_owed_than_is_held_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "WINDOW_MAX", 3)
    bench = Bench()
    bench.step(*(cost(f"j-{number}", 10) for number in range(8)))
    bench.restart()
    bench.calm()
    finish(bench)
    says_what_it_holds(bench, 0)
    bench.wait(holds.FUND_MS)
    while finish(bench):
        pass
    assert (bench.machine.owed_micro, bench.machine.promised_out_micro) == (0, 80)
    assert [*bench.store.scan(OWED)] == []


def test_who_cannot_be_paid_now_keeps_nobody_else_from_being_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owed, "WINDOW_MAX", 3)
    bench = at_work(cost("j-1", 300))
    bench.wait(delivery.GATHER_MS)
    ((call, _),) = told(bench)
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[500]))
    bench.step(*(cost(f"j-{number}", 10) for number in range(2, 10)))
    bench.step(cost("j-10", 7, W1))
    (funding,) = finish(bench)
    assert len(funding.tx.outputs) == 1
    assert booking(bench, "j-10").promised
    assert bench.machine.owed_micro == 80


def test_what_is_owed_again_beyond_what_is_held_in_memory_is_promised_in_its_old_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owed, "WINDOW_MAX", 3)
    bench = at_work(cost("j-0", 10))
    bench.wait(delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    bench.step(*(cost(f"j-{number}", 10) for number in range(1, 9)))
    posts(bench, voucher)
    assert bench.machine.owed_micro == 80
    bench.step(cost("j-9", 10))
    while finish(bench):
        pass
    assert [booking(bench, f"j-{number}").place for number in range(1, 10)] == [*range(9)]
    assert (bench.machine.owed_micro, [*bench.store.scan(OWED)]) == (0, [])


def test_nothing_is_promised_out_of_a_hold_whose_time_is_nearly_over() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait((LIFE_US - CLOCK_MARGIN_US) // 1_000 + 1)
    bench.step(cost("j-2", 10))
    assert booking(bench, "j-2").owed


def test_nothing_is_promised_out_of_a_hold_of_a_key_that_is_replaced() -> None:
    bench = at_work(cost("j-1", 300))
    bench.step(KeyReplaced(SELF, 1))
    bench.step(cost("j-2", 10))
    assert booking(bench, "j-2").owed
    bench.wait(holds.FUND_MS)
    finish(bench)
    assert [(terms.key, row.amount_micro) for terms, row in given(bench)] == [(0, 300), (1, 10)]


def test_cut_off_from_the_witnesses_a_final_hold_is_spent_on() -> None:
    bench = at_work(cost("j-1", 300))
    bench.step(cost("j-2", 10))
    bench.wait(delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    assert (voucher.amount_micro, voucher.count) == (310, 2)
    assert txs(bench) == []


# ---- told


def test_the_voucher_leaves_when_receipts_have_gathered_and_says_all_of_them() -> None:
    bench = at_work(cost("j-1", 300))
    bench.step(cost("j-2", 10))
    assert [*told(bench)] == []
    bench.wait(delivery.GATHER_MS)
    ((call, voucher),) = told(bench)
    ((terms, row),) = given(bench)
    said = Voucher(terms.account, 310, 2, row.root)
    assert (call.node, voucher.signature) == (PAYEE, Key(SELF).sign(said.digest(SALT)))
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[310]))
    bench.wait(60_000)
    assert [*told(bench)] == []
    assert booking(bench, "j-2").delivered


def test_a_voucher_that_is_not_acked_is_told_again_and_at_once_to_whoever_comes_up() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait(delivery.GATHER_MS)
    ((call, _),) = told(bench)
    bench.answer(call, Unavailable("cut"))
    bench.wait(delivery.RETRY_MS)
    ((call, _),) = told(bench)
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[300]))
    bench.up(PAYEE)
    bench.wait(delivery.GATHER_MS)
    bench.answer(asked(bench), ledger_pb2.DeliverVouchersResponse(held_micro=[0]))
    assert not booking(bench, "j-1").delivered, "it has lost that"
    bench.wait(delivery.RETRY_MS)
    ((call, voucher),) = told(bench)
    assert voucher.amount_micro == 300
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[300]))
    bench.up(PAYEE)
    bench.wait(delivery.GATHER_MS)
    bench.answer(asked(bench), ledger_pb2.DeliverVouchersResponse(held_micro=[300]))
    bench.wait(10 * delivery.RETRY_MS)
    assert [*told(bench)] == [], "it holds all"


def test_vouchers_are_gathered_for_longer_the_longer_a_hold_lasts_and_told_before_they_are_posted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(holds, "LIFE_US", 7 * 86_400_000_000)
    bench = Bench()
    bench.wait(SETTLEMENT_INTERVAL_MS - bench.now().utc_us // 1_000 % SETTLEMENT_INTERVAL_MS)
    bench.up(PAYEE)
    bench.step(cost("j-0", 1_000))
    finish(bench)
    told_s = list[int]()
    for second in range(1, SETTLEMENT_INTERVAL_MS // 1_000 + 1):
        bench.step(cost(f"j-{second}", 1))
        bench.wait(1_000)
        for call, voucher in told(bench):
            told_s.append(second)
            bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[voucher.amount_micro]))
    assert len(told_s) < 9, told_s
    assert told_s[0] <= delivery.GATHER_MS // 1_000
    assert told_s[-1] >= (SETTLEMENT_INTERVAL_MS - 2 * delivery.LEAD_MS) // 1_000, told_s


def test_what_is_promised_while_a_voucher_is_under_way_is_gathered_too() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait(10 * delivery.GATHER_MS)
    ((call, _),) = told(bench)
    bench.step(cost("j-2", 10))
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[300]))
    bench.wait(2 * delivery.RETRY_MS)
    assert [*told(bench)] == []
    bench.wait(20 * delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    assert voucher.amount_micro == 310


def test_a_restarted_payer_goes_on_where_it_was() -> None:
    bench = at_work(cost("j-1", 300))
    bench.step(cost("j-2", 10))
    bench.restart()
    bench.calm()
    bench.step(cost("j-3", 5))
    assert booking(bench, "j-3").owed
    says_what_it_holds(bench, 300)
    assert booking(bench, "j-3").promised
    bench.wait(10 * delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    assert (voucher.amount_micro, voucher.count) == (315, 3)


def test_a_payer_with_an_older_copy_of_its_disk_promises_nothing_before_its_payee_has_said_what_it_holds() -> None:
    bench = at_work(cost("j-1", 5))
    copy = deepcopy(bench.store)
    bench.step(cost("j-2", 100))
    bench.store = copy
    bench.restart()
    bench.calm()
    bench.step(cost("j-3", 110))
    assert booking(bench, "j-3").owed
    says_what_it_holds(bench, 105)
    bench.step()
    assert booking(bench, "j-3").owed
    ((_, row),) = given(bench)
    assert (row.amount_micro, row.frozen) == (5, True)
    assert "was this node restored" in bench.machine.notices[0]


def test_a_payee_whose_economy_is_off_is_promised_to_after_a_restart_too() -> None:
    bench = at_work(cost("j-1", 300))
    bench.restart()
    bench.calm()
    bench.up(PAYEE)
    call = asked(bench)
    bench.answer(call, FailedPrecondition("economy.enabled is false at this node", reason="EconomyOff"))
    bench.step(cost("j-2", 10))
    assert booking(bench, "j-2").promised


def test_a_hold_that_becomes_final_after_a_restart_is_asked_about_too() -> None:
    bench = Bench()
    bench.step(cost("j-1", 300))
    bench.restart()
    bench.calm()
    bench.up(PAYEE)
    finish(bench)
    assert booking(bench, "j-1").owed
    bench.answer(asked(bench), ledger_pb2.DeliverVouchersResponse(held_micro=[0]))
    assert booking(bench, "j-1").promised


def test_a_payee_that_holds_more_than_was_promised_gets_nothing_more_out_of_that_hold() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait(delivery.GATHER_MS)
    ((call, _),) = told(bench)
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[500]))
    bench.step(cost("j-2", 10))
    assert booking(bench, "j-2").owed
    assert "was this node restored" in bench.machine.notices[0]
    bench.wait(delivery.RETRY_MS)
    ((call, voucher),) = told(bench)
    assert voucher.end, "it is asked to post what it holds"
    bench.answer(call, ledger_pb2.DeliverVouchersResponse(held_micro=[500]))
    bench.wait(delivery.RETRY_MS)
    assert [said.end for _, said in told(bench)] == [True], "until it has"


@pytest.mark.parametrize("number", ["9" * 21, "²", "1" * 18])
def test_a_transfer_that_says_of_itself_that_it_funds_holds_is_a_transfer(number: str) -> None:
    bench = Bench()
    meta = encode_meta({"action": "hold", "expires": number, "number": number})
    tx = Tx(NodeSource(OWN), 0, bench.root, FEE, ((PAYEE_ACCOUNT, 5),), meta, BY_HAND)
    digest = tx.digest(SALT)
    bench.says(W1, TxItem(tx, tx.encode(), Key(SELF).sign(digest), digest))
    assert given(bench) == []


# ---- paid


def test_the_payees_post_pays_what_its_voucher_covers_with_a_share_of_the_fees() -> None:
    bench = at_work(cost("j-1", 300), cost("j-2", 10))
    bench.wait(delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    before = bench.balance(PAYEE)
    item = posts(bench, voucher)
    assert bench.balance(PAYEE) - before == 310
    rows = [booking(bench, job) for job in ("j-1", "j-2")]
    assert [row.tx_id for row in rows] == [tx_id_of(item.digest)] * 2
    assert sum(row.fee_micro for row in rows) == 2 * FEE
    assert (bench.machine.promised_out_micro, bench.machine.held_micro) == (0, 0)
    assert [event.ledger.outcome for event in bench.events if event.etype == EventType.SETTLED] == ["2 bookings"]


def test_what_an_older_voucher_did_not_cover_is_owed_again_and_promised_once() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait(delivery.GATHER_MS)
    ((_, voucher),) = told(bench)
    bench.step(cost("j-2", 10), cost("j-3", 20))
    posts(bench, voucher)
    assert [booking(bench, job).owed for job in ("j-1", "j-2", "j-3")] == [False, True, True]
    assert bench.machine.owed_micro == 30
    finish(bench)
    assert [booking(bench, job).place for job in ("j-2", "j-3")] == [0, 1]
    assert (bench.machine.owed_micro, bench.machine.promised_out_micro) == (0, 30)


def test_the_payer_closes_what_its_payee_let_pass_and_leaves_what_it_promised() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait((LIFE_US + 2 * CLOCK_MARGIN_US) // 1_000 - 10_000)
    assert txs(bench) == []
    bench.wait(20_000)
    (close,) = txs(bench)
    assert isinstance(close.tx.source, HoldSource)
    assert close.tx.source.act == Close(300)
    before = bench.balance(PAYEE)
    bench.finish(close)
    assert bench.balance(PAYEE) - before == 300
    assert booking(bench, "j-1").tx_id == tx_id_of(close.digest)


def test_a_payer_whose_key_is_replaced_closes_anew_what_the_old_one_has_closed() -> None:
    bench = at_work(cost("j-1", 300))
    bench.wait((LIFE_US + 2 * CLOCK_MARGIN_US) // 1_000 + 10_000)
    (close,) = txs(bench)
    bench.restart()
    bench.calm()
    bench.wait(LOOK_MS)
    assert txs(bench) == []
    bench.step(KeyReplaced(SELF, 1))
    bench.restart()
    bench.calm()
    bench.wait(LOOK_MS)
    (anew,) = txs(bench)
    assert isinstance(anew.tx.source, HoldSource)
    assert (anew.tx.source.key, anew.tx.source.act, anew.tx.seq) == (1, Close(300), close.tx.seq)


# ---- taken


def promised(
    bench: Bench, amount: int, count: int = 1, *, number: int = 1, fund: bool = True
) -> ledger_pb2.HoldVoucher:
    """The owner has a hold for this node, and promises so much out of it."""
    terms = HoldTerms(node_id_bytes(OWNER), OWN, number, 5_000, FEE, bench.genesis.created_us + 2**60)
    if fund:
        funding = bench.taking(NodeSource(node_id_bytes(OWNER)), ((terms.account, 5_000),))
        bench.says(OWNER, funding)
        bench.finish(funding)
        bench.take_said()
    root = bytes([count]) * 32
    signature = Key(OWNER).sign(Voucher(terms.account, amount, count, root).digest(SALT))
    return ledger_pb2.HoldVoucher(
        terms=terms.encode(), amount_micro=amount, count=count, root=root, signature=signature
    )


def deliver(bench: Bench, *vouchers: ledger_pb2.HoldVoucher) -> list[int]:
    said = DeliverVouchers(tuple((HoldTerms.decode(each.terms), each) for each in vouchers))
    answer = bench.ask(said, OWNER)
    assert isinstance(answer, ledger_pb2.DeliverVouchersResponse)
    return [*answer.held_micro]


def test_the_highest_voucher_is_kept_and_posted_once_when_the_interval_is_over() -> None:
    bench = Bench()
    bench.wait(SETTLEMENT_INTERVAL_MS - bench.now().utc_us // 1_000 % SETTLEMENT_INTERVAL_MS)
    low, high = promised(bench, 300), promised(bench, 400, 2, fund=False)
    assert [deliver(bench, each) for each in (low, high, low)] == [[300], [400], [400]]
    bench.wait(SETTLEMENT_INTERVAL_MS - 60_000)
    assert txs(bench) == []
    bench.restart()
    bench.calm()
    bench.wait(61_000)
    (post,) = txs(bench)
    before = bench.balance(SELF)
    assert isinstance(post.tx.source, HoldSource)
    assert post.tx.source.act == Post(400, 2, high.root, high.signature)
    bench.finish(post)
    assert bench.balance(SELF) - before == 400
    bench.wait(2 * SETTLEMENT_INTERVAL_MS)
    assert txs(bench) == []
    assert deliver(bench, high) == [400]
    assert bench.machine.promised_in_micro == 0


def ask_of(bench: Bench, hold: bytes, payer: str = OWNER) -> ledger_pb2.DeliverVouchersResponse:
    answer = bench.ask(DeliverVouchers((), node_id_bytes(payer), (hold,)), payer)
    assert isinstance(answer, ledger_pb2.DeliverVouchersResponse)
    return answer


def test_a_payer_that_asks_is_told_what_is_held_and_nobody_else_is() -> None:
    bench = Bench()
    funded = promised(bench, 300)
    hold = HoldTerms.decode(funded.terms).account
    assert ask_of(bench, hold).held_micro == [0]
    bench.restart()
    bench.calm()
    assert deliver(bench, funded) == ask_of(bench, hold).held_micro == [300]
    assert ask_of(bench, hold, W1).held_micro == [0]
    assert not ask_of(bench, hold).ended
    bench.ask(Settle(b""))
    (post,) = txs(bench)
    bench.finish(post)
    told = ask_of(bench, hold)
    assert ([each.amount_micro for each in told.ended], told.ended[0].terms) == ([300], funded.terms)
    assert not ask_of(bench, hold, W1).ended


def test_a_hold_whose_payer_promises_no_more_is_posted_at_once() -> None:
    bench = Bench()
    low, high = promised(bench, 300), promised(bench, 400, 2, fund=False)
    deliver(bench, high)
    low.end = True
    assert deliver(bench, low) == [400]
    (post,) = txs(bench)
    assert isinstance(post.tx.source, HoldSource)
    assert post.tx.source.act == Post(400, 2, high.root, high.signature)
    assert deliver(bench, low) == [400]
    assert txs(bench) == [], "once"


def test_a_hold_out_of_which_nothing_is_held_is_given_back_once_its_payer_promises_no_more() -> None:
    bench = Bench()
    before = bench.balance(OWNER)
    terms = promised(bench, 300).terms
    question = ledger_pb2.HoldVoucher(terms=terms, end=True)
    assert deliver(bench, question) == [0]
    (back,) = txs(bench)
    assert isinstance(back.tx.source, HoldSource)
    assert back.tx.source.act == GiveBack()
    assert deliver(bench, question) == [0]
    assert txs(bench) == [], "once"
    bench.finish(back)
    assert before - bench.balance(OWNER) == 2 * FEE
    assert deliver(bench, question) == [0]
    assert txs(bench) == [], "there is nothing left to give back"


def test_a_hold_that_is_not_final_is_not_given_back_yet() -> None:
    bench = Bench()
    deliver(bench, ledger_pb2.HoldVoucher(terms=promised(bench, 300, fund=False).terms, end=True))
    assert txs(bench) == []


def test_a_payee_whose_clock_was_wrong_posts_once_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    monkeypatch.setattr(bench, "now", lambda: Now(bench.now_ms, bench.now_ms * 1_000))  # as if it were 1970
    bench.restart()
    bench.calm()
    monkeypatch.undo()
    bench.wait(SETTLEMENT_INTERVAL_MS + LOOK_MS)
    assert len(txs(bench)) == 1


def test_a_payee_whose_clock_is_set_back_posts_when_the_interval_is_over_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    right = bench.now
    monkeypatch.setattr(bench, "now", lambda: Now(right().mono_ms, right().utc_us - 86_400_000_000))
    bench.wait(SETTLEMENT_INTERVAL_MS - LOOK_MS)
    assert txs(bench) == []
    bench.wait(2 * LOOK_MS)
    assert len(txs(bench)) == 1


def test_a_voucher_of_a_hold_that_is_not_final_is_not_taken_yet() -> None:
    bench = Bench()
    voucher = promised(bench, 300, fund=False)
    assert deliver(bench, voucher) == [0]
    assert isinstance(bench.ask(Settle(b"")), FailedPrecondition)
    promised(bench, 300)
    assert deliver(bench, voucher) == [300]


def test_settling_by_hand_posts_at_once_and_again_only_where_the_slot_came_to_nothing() -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    refused = bench.ask(Settle(node_id_bytes(W1)))
    assert isinstance(refused, FailedPrecondition)
    assert refused.reason == "NothingToSettle"
    for _ in range(2):
        answer = bench.ask(Settle(node_id_bytes(OWNER)))
        assert isinstance(answer, ledger_pb2.SettleResponse)
        assert answer.amount_micro == 300
    (post,) = txs(bench)
    assert vote(post).tx_digest == post.digest


def test_a_restarted_payee_posts_nothing_twice() -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    bench.ask(Settle(b""))
    (post,) = txs(bench)
    deliver(bench, promised(bench, 400, 2, fund=False))
    bench.restart()
    bench.calm()
    bench.wait(2 * SETTLEMENT_INTERVAL_MS)
    answer = bench.ask(Settle(b""))
    assert isinstance(answer, ledger_pb2.SettleResponse)
    assert [tx.tx_id for tx in answer.transactions] == [tx_id_of(post.digest)]
    assert txs(bench) == []


def test_a_payee_whose_key_is_replaced_posts_anew_what_the_old_one_has_posted() -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    bench.ask(Settle(b""))
    (old,) = txs(bench)
    bench.step(KeyReplaced(SELF, 1))
    bench.ask(Settle(b""))
    (new,) = txs(bench)
    assert isinstance(new.tx.source, HoldSource)
    assert (new.tx.source.key, new.tx.seq, new.tx.outputs) == (1, 0, old.tx.outputs)
    bench.finish(new)
    assert bench.machine.promised_in_micro == 0


def test_a_post_that_came_to_nothing_is_posted_again_in_the_next_slot() -> None:
    bench = Bench()
    deliver(bench, promised(bench, 300))
    bench.ask(Settle(b""))
    (post,) = txs(bench)
    noop = bench.machine._witness._ballots.noop(bench.machine._slots.make(post.tx.src, 0))
    for witness in bench.genesis.witnesses[1:]:
        statement = replace(vote(post), ballot=1, tx_digest=noop)
        bench.says(witness[0], statement, replace(statement, confirms=True))
    bench.wait(2_000)
    again = next(item for item in txs(bench) if item.tx.src == post.tx.src)
    assert (again.tx.seq, again.tx.prev, again.tx.outputs) == (1, noop, post.tx.outputs)

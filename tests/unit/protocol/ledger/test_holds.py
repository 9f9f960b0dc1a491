"""Holds as witnesses see them: what ends one, when, and what two parties' words for one slot come to."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, W1, W2, W3, Bench, confirm, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.events import KeyReplaced
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import early
from offgrid_node.protocol.ledger.blocks import check_block
from offgrid_node.protocol.ledger.early import LOOK_MS
from offgrid_node.protocol.ledger.items import Double, Report, TxItem
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_node.protocol.ledger.sources import (
    CLOCK_MARGIN_US,
    NO_ROOT,
    Act,
    Close,
    GiveBack,
    HoldSource,
    HoldTerms,
    NodeSource,
    Post,
    Voucher,
)
from offgrid_tools.ledgersim.keys import FEE, SALT, Key, holds

PAYER_ACCOUNT, PAYEE_ACCOUNT = node_id_bytes(OWNER), node_id_bytes(PAYEE)
FUNDS = 5_000


def terms(bench: Bench, for_ms: int = 60_000, funds: int = FUNDS) -> HoldTerms:
    return HoldTerms(PAYER_ACCOUNT, PAYEE_ACCOUNT, 1, funds, FEE, bench.now().utc_us + for_ms * 1_000)


def funded(for_ms: int = 60_000, short_by: int = 0) -> tuple[Bench, HoldTerms]:
    """A hold that the owner has paid into, and that is final."""
    bench = Bench()
    agreed = terms(bench, for_ms)
    funding = bench.taking(NodeSource(PAYER_ACCOUNT), ((agreed.account, FUNDS - short_by),))
    bench.says(OWNER, funding)
    bench.finish(funding)
    bench.take_said()
    return bench, agreed


def posted(agreed: HoldTerms, amount: int, count: int = 1, by: str = OWNER) -> Post:
    voucher = Voucher(agreed.account, amount, count, NO_ROOT)
    return Post(amount, count, NO_ROOT, Key(by).sign(voucher.digest(SALT)))


def ending(bench: Bench, agreed: HoldTerms, act: Act, seq: int = 0, prev: bytes | None = None, key: int = 0) -> TxItem:
    source = HoldSource(agreed, act, key)
    return bench.taking(source, source.outputs, seq, prev)


def test_the_payee_posts_a_voucher_and_the_payer_has_the_rest() -> None:
    bench, agreed = funded()
    payer, payee, fees = bench.balance(OWNER), bench.balance(PAYEE), bench.machine._accounts.totals.fees_micro
    item = ending(bench, agreed, posted(agreed, 3_000))
    bench.says(PAYEE, item)
    assert bench.take_said() == [vote(item)]
    bench.finish(item)
    assert bench.balance(PAYEE) - payee == 3_000
    assert bench.balance(OWNER) - payer == FUNDS - 3_000 - FEE
    assert bench.machine._accounts.totals.fees_micro - fees == FEE
    assert bench.machine._accounts.get(agreed.account).balance_micro == 0


def test_the_payee_may_give_all_back_at_any_time() -> None:
    bench, agreed = funded()
    before = bench.balance(OWNER)
    item = ending(bench, agreed, GiveBack())
    bench.says(PAYEE, item)
    assert bench.take_said() == [vote(item)]
    bench.finish(item)
    assert bench.balance(OWNER) - before == FUNDS - FEE


def test_a_voucher_that_the_payer_did_not_sign_is_no_block() -> None:
    bench, agreed = funded()
    for act in (posted(agreed, 3_000, by=PAYEE), replace(posted(agreed, 3_000), amount_micro=3_001)):
        block = bench.block(PAYEE, ending(bench, agreed, act))
        bench.rewind_to(PAYEE, 0, bench.root)
        with pytest.raises(PeerFault, match="not signed by"):
            check_block(ledger_pb2.Block.FromString(block.raw), SALT, holds)


def test_a_hold_that_holds_too_little_gets_no_vote() -> None:
    bench, agreed = funded(short_by=1)
    bench.says(PAYEE, ending(bench, agreed, posted(agreed, 3_000)))
    assert bench.take_said() == []


def test_the_payer_closes_only_after_the_time_and_the_margin_by_each_witness_own_clock() -> None:
    for restart in (False, True):
        bench, agreed = funded()
        item = ending(bench, agreed, Close(1_000))
        bench.says(OWNER, item)
        bench.wait(60_000 + CLOCK_MARGIN_US // 1_000 - 1_000)
        assert bench.take_said() == []
        if restart:
            bench.restart()
            bench.calm()
        else:
            bench.wait(2_000)
        assert vote(item) in bench.take_said()
        before = bench.balance(PAYEE)
        bench.finish(item)
        assert bench.balance(PAYEE) - before == 1_000


def test_a_witness_whose_clock_was_wrong_votes_for_a_close_once_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, agreed = funded(for_ms=-CLOCK_MARGIN_US // 1_000)
    item = ending(bench, agreed, Close(1_000))
    monkeypatch.setattr(bench, "now", lambda: Now(bench.now_ms, bench.now_ms * 1_000))  # as if it were 1970
    bench.says(OWNER, item)
    monkeypatch.undo()
    assert bench.take_said() == []
    bench.wait(LOOK_MS + 1)
    assert bench.take_said() == [vote(item)]


def test_closes_that_are_far_from_their_time_take_no_room_from_one_that_is_near(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(early, "EARLY_MAX", 2)
    bench = Bench()
    agreed = [terms(bench, for_ms) for for_ms in (8_000_000, 9_000_000, 60_000)]
    outputs = sorted((each.account, FUNDS) for each in agreed)
    funding = bench.taking(NodeSource(PAYER_ACCOUNT), tuple(outputs))
    bench.says(OWNER, funding)
    bench.finish(funding)
    closes = [ending(bench, each, Close(0)) for each in agreed]
    bench.says(OWNER, *closes)
    bench.take_said()
    bench.wait(60_000 + CLOCK_MARGIN_US // 1_000)
    assert bench.take_said() == [vote(closes[2])]
    bench.wait(8_000_000)
    assert bench.take_said() == [vote(closes[0])], "the one whose time comes last had to give way"


def test_a_close_before_its_time_is_in_nobodys_way() -> None:
    bench, agreed = funded()
    close, item = ending(bench, agreed, Close(0)), ending(bench, agreed, posted(agreed, 3_000))
    bench.says(OWNER, close)
    bench.says(PAYEE, item)
    assert bench.take_said() == [vote(item)]
    assert bench.machine.notices == []


def test_a_contest_accuses_nobody_and_ends_by_ballots_and_then_the_payee_posts_again() -> None:
    bench, agreed = funded(for_ms=-CLOCK_MARGIN_US // 1_000)
    post, close = ending(bench, agreed, posted(agreed, 3_000)), ending(bench, agreed, Close(0))
    bench.says(PAYEE, post)
    bench.says(OWNER, close)
    said = bench.take_said()
    assert said[0] == vote(post)
    assert [type(item) for item in said[1:]] == [Double]
    assert bench.machine.notices == []
    bench.wait(2_000)
    assert [type(item) for item in bench.take_said()] == [Report]
    noop = noop_digest(SALT, agreed.account, 0)
    for witness in (W1, W2, W3):
        bench.says(witness, replace(confirm(post), ballot=1, tx_digest=noop))
    again = ending(bench, agreed, posted(agreed, 3_000), 1, noop)
    bench.says(PAYEE, again)
    before = bench.balance(PAYEE)
    bench.finish(again)
    assert bench.balance(PAYEE) - before == 3_000


def test_whose_key_was_replaced_ends_a_hold_anew_and_is_not_accused() -> None:
    bench, agreed = funded(for_ms=-CLOCK_MARGIN_US // 1_000)
    old, new = (ending(bench, agreed, Close(1_000), key=key) for key in (0, 1))
    bench.says(OWNER, old)
    bench.step(KeyReplaced(OWNER, 1))
    bench.says(OWNER, new)
    bench.wait(5_000)
    said = bench.take_said()
    assert [type(item) for item in said[1:]] == [Double, Report], "it is a contest"
    assert bench.machine.notices == []


def test_a_party_that_ends_a_hold_twice_is_accused() -> None:
    bench, agreed = funded()
    bench.says(PAYEE, ending(bench, agreed, posted(agreed, 3_000)))
    bench.says(PAYEE, ending(bench, agreed, GiveBack()))
    (notice,) = bench.machine.notices
    assert PAYEE in notice
    assert "two transactions" in notice

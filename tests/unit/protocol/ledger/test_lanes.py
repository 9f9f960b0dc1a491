"""Lanes: further accounts of one owner, each with slots of its own, and the key that signs for them."""

from __future__ import annotations

from ledger_bench import OWNER, PAYEE, SELF, W1, Bench, confirm, vote

from offgrid_node.protocol.events import KeyReplaced
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.items import Report, TxItem, Unlock
from offgrid_node.protocol.ledger.records import unlock_digest
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource, lane_account
from offgrid_tools.ledgersim.keys import FEE, SALT, Key

OWNER_ACCOUNT, PAYEE_ACCOUNT = node_id_bytes(OWNER), node_id_bytes(PAYEE)
LANE = lane_account(OWNER_ACCOUNT, 1)


def funded() -> Bench:
    """The owner has moved 5,000 to its first lane."""
    bench = Bench()
    funding = bench.taking(NodeSource(OWNER_ACCOUNT), ((LANE, 5_000),))
    bench.says(OWNER, funding)
    bench.finish(funding)
    bench.take_said()
    return bench


def spending(bench: Bench, key: int = 0, amount: int = 3_000) -> TxItem:
    return bench.taking(LaneSource(OWNER_ACCOUNT, 1, key), ((PAYEE_ACCOUNT, amount),))


def unlock(source: LaneSource) -> Unlock:
    digest = unlock_digest(SALT, source.account, 0)
    return Unlock(source, 0, Key(base32(source.owner)).sign(digest), digest)


def test_a_lane_is_spent_by_its_owner_while_another_slot_of_it_is_open() -> None:
    bench = funded()
    elsewhere = bench.tx(seq=1, prev=bench.views.account(OWNER).head)
    item = spending(bench)
    bench.says(OWNER, elsewhere)
    bench.says(OWNER, item)
    assert bench.take_said() == [vote(elsewhere), vote(item)]
    before = bench.balance(PAYEE)
    bench.finish(item)
    assert bench.take_said() == [confirm(item)]
    assert bench.balance(PAYEE) - before == 3_000
    assert bench.machine._accounts.get(LANE).balance_micro == 5_000 - 3_000 - FEE


def test_a_lane_pays_no_more_than_it_has() -> None:
    bench = funded()
    bench.says(OWNER, spending(bench, amount=5_000 - FEE + 1))
    assert bench.take_said() == []


def test_a_key_that_is_replaced_gets_no_vote_in_a_lane_and_the_next_one_does() -> None:
    for restart in (False, True):
        bench = funded()
        bench.step(KeyReplaced(OWNER, 1))
        if restart:
            bench.restart()
            bench.calm()
        bench.says(OWNER, spending(bench, key=0))
        assert bench.take_said() == []
        other = funded()
        other.step(KeyReplaced(OWNER, 1))
        item = spending(other, key=1)
        other.says(OWNER, item)
        assert other.take_said() == [vote(item)]


def test_whoever_found_an_old_key_takes_no_slot_by_it_ends_none_and_accuses_nobody() -> None:
    for restart in (False, True):
        bench = funded()
        bench.step(KeyReplaced(OWNER, 1))
        bench.says(W1, spending(bench, key=0), unlock(LaneSource(OWNER_ACCOUNT, 1, 0)))
        if restart:
            bench.restart()
            bench.calm()
        item = spending(bench, key=1, amount=10)
        bench.says(OWNER, item)
        bench.wait(5_000)
        assert bench.take_said() == [vote(item)]
        bench.finish(item)
        assert bench.take_said() == [confirm(item)]
        assert bench.machine.notices == []


def test_an_unlock_by_the_key_of_now_ends_a_lanes_slot() -> None:
    bench = funded()
    bench.step(KeyReplaced(OWNER, 1))
    bench.says(OWNER, unlock(LaneSource(OWNER_ACCOUNT, 1, 1)))
    bench.wait(5_000)
    assert [type(item) for item in bench.take_said()] == [Report]


def test_what_others_sign_by_an_own_old_key_does_not_make_a_node_mute() -> None:
    bench, own = Bench(), node_id_bytes(SELF)
    lane = LaneSource(own, 1, 0)
    funding = bench.taking(NodeSource(OWNER_ACCOUNT), ((lane.account, 5_000),))
    bench.says(OWNER, funding)
    bench.finish(funding)
    bench.step(KeyReplaced(SELF, 1))
    bench.says(W1, bench.taking(lane, ((PAYEE_ACCOUNT, 10),)))
    assert bench.machine.muted_why == ""


def test_what_an_old_key_signed_is_voted_for_once_the_root_took_its_change_back() -> None:
    bench = funded()
    bench.step(KeyReplaced(OWNER, 1))
    item = spending(bench)
    bench.says(OWNER, item)
    assert bench.take_said() == []
    bench.step(KeyReplaced(OWNER, 0))
    assert bench.take_said() == [vote(item)]


def test_a_key_change_that_the_root_took_back_counts_no_more() -> None:
    bench = funded()
    bench.step(KeyReplaced(OWNER, 2))
    bench.step(KeyReplaced(OWNER, 1))
    item = spending(bench, key=1)
    bench.says(OWNER, item)
    assert bench.take_said() == [vote(item)]


def test_what_an_old_key_has_signed_stays_final() -> None:
    bench = funded()
    bench.step(KeyReplaced(OWNER, 1))
    item, before = spending(bench, key=0), bench.balance(PAYEE)
    bench.says(OWNER, item)
    bench.finish(item)
    assert bench.balance(PAYEE) - before == 3_000


def test_a_forgotten_transaction_of_an_own_lane_makes_a_node_mute() -> None:
    bench = Bench()
    bench.says(W1, bench.taking(NodeSource(node_id_bytes(W1)), ((lane_account(node_id_bytes(SELF), 1), 5_000),)))
    own = bench.taking(LaneSource(node_id_bytes(SELF), 1), ((PAYEE_ACCOUNT, 10),))
    funding = bench.taking(NodeSource(node_id_bytes(W1)), ((lane_account(node_id_bytes(SELF), 1), 5_000),))
    bench.finish(funding)
    bench.says(W1, own)
    assert "signed" in bench.machine.muted_why

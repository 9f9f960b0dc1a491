"""What counts as accepted before it is final: within the payer's line, whole, in the order in which it came."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.commands import SetCreditLine
from offgrid_node.protocol.ledger.items import Double, TxItem, Unlock, double_of
from offgrid_node.protocol.ledger.reach import Reach
from offgrid_node.protocol.ledger.records import unlock_digest
from offgrid_node.protocol.ledger.sources import LaneSource
from offgrid_tools.ledgersim.keys import FEE, START_MICRO, Key

OWN = node_id_bytes(SELF)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def set_line(bench: Bench, payer: str, amount: int) -> None:
    bench.ask(SetCreditLine(node_id_bytes(payer), amount))


def accepted(bench: Bench) -> int:
    return bench.views.balance(SELF, own=True).accepted_in_micro


class TestCreditLine:
    def test_without_one_nothing_is_accepted(self, bench: Bench) -> None:
        bench.says(OWNER, bench.tx(to=SELF, amount=50))
        assert (accepted(bench), bench.views.balance(SELF).pending_in_micro) == (0, 50)

    def test_what_is_within_it_counts_apart_from_final_money_and_only_until_it_is_final(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        coming = bench.tx(to=SELF, amount=50)
        bench.says(OWNER, coming)
        assert (accepted(bench), bench.balance(SELF)) == (50, START_MICRO)
        bench.finish(coming)
        assert (accepted(bench), bench.balance(SELF)) == (0, START_MICRO + 50)

    def test_it_cannot_be_spent_before_it_is_final(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        bench.says(OWNER, bench.tx(to=SELF, amount=50))
        refused = bench.transfer(START_MICRO - FEE + 1)
        assert isinstance(refused, FailedPrecondition)
        assert refused.reason == "InsufficientFunds"

    def test_a_transaction_counts_whole_or_not_at_all(self, bench: Bench) -> None:
        set_line(bench, OWNER, 49)
        bench.says(OWNER, bench.tx(to=SELF, amount=50))
        assert accepted(bench) == 0

    def test_it_is_the_payers_own_and_what_it_pays_to_others_is_nothing_to_it(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        bench.says(W1, bench.tx(W1, to=SELF, amount=50))
        bench.says(OWNER, bench.tx(to=PAYEE, amount=50))
        assert accepted(bench) == 0

    def test_all_accounts_of_a_payer_share_it(self, bench: Bench) -> None:
        set_line(bench, OWNER, 80)
        lane = LaneSource(node_id_bytes(OWNER), 1)
        funding = bench.tx(OWNER, to=base32(lane.account), amount=10 * FEE)
        bench.says(OWNER, funding)
        bench.finish(funding)
        bench.says(OWNER, bench.taking(lane, ((OWN, 50),)))
        assert accepted(bench) == 50
        bench.says(OWNER, bench.tx(OWNER, seq=1, prev=funding.digest, to=SELF, amount=40))
        assert accepted(bench) == 50, "with the second it would be more than 80"

    def test_it_survives_a_crash_and_can_be_taken_back(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        bench.restart()
        bench.says(OWNER, bench.tx(to=SELF, amount=50))
        assert accepted(bench) == 50
        set_line(bench, OWNER, 0)
        assert accepted(bench) == 0

    def test_a_second_transaction_in_its_place_ends_it(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        first, second = bench.tx(to=SELF, amount=50), bench.tx(to=PAYEE, amount=50)
        bench.says(OWNER, first)
        bench.says(W1, double(first, second))
        assert accepted(bench) == 0

    def test_an_owner_who_asks_for_the_end_ends_it(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        coming = bench.tx(to=SELF, amount=50)
        bench.says(OWNER, coming)
        bench.says(OWNER, unlock(bench, coming))
        assert accepted(bench) == 0

    def test_what_its_account_does_not_hold_is_not_accepted(self, bench: Bench) -> None:
        set_line(bench, OWNER, 2 * START_MICRO)
        bench.says(OWNER, bench.tx(to=SELF, amount=START_MICRO))
        assert accepted(bench) == 0

    def test_what_is_not_the_accounts_next_is_not_accepted(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        bench.says(OWNER, bench.tx(seq=1, prev=bytes(32), to=SELF, amount=50))
        assert accepted(bench) == 0

    def test_the_payee_is_told_when_it_comes_to_nothing(self, bench: Bench) -> None:
        set_line(bench, OWNER, 50)
        first, second = bench.tx(to=SELF, amount=50), bench.tx(to=PAYEE, amount=51)
        bench.says(OWNER, first)
        for witness in (W1, W2):
            bench.says(witness, second, vote(second), confirm(second))
        bench.says(W3, vote(second), confirm(second))
        assert any("to this node will never be" in notice for notice in bench.machine.notices), bench.machine.notices


def double(first: TxItem, second: TxItem) -> Double:
    return double_of(first, second)


def unlock(bench: Bench, item: TxItem) -> Unlock:
    digest = unlock_digest(bench.settings.salt, item.tx.src, item.tx.seq)
    return Unlock(item.tx.source, item.tx.seq, Key(OWNER).sign(digest), digest)


class TestReach:
    def test_says_since_when_a_peer_is_away(self) -> None:
        reach = Reach("self")
        reach.load(at(1_000))
        assert reach.away_ms("self", at(5_000)) == 0
        assert reach.away_ms("barn", at(5_000)) == 4_000
        reach.on_peer_up("barn")
        assert reach.away_ms("barn", at(6_000)) == 0
        reach.on_peer_down("barn", at(7_000))
        reach.on_peer_down("barn", at(8_000))
        assert reach.away_ms("barn", at(9_000)) == 2_000

    def test_the_machine_follows_the_mesh(self, bench: Bench) -> None:
        bench.up(W1, W2)
        bench.step(PeerDown(W2))
        away = [bench.machine.reach.away_ms(node, bench.now()) > 0 for node in (SELF, W1, W2, W3)]
        assert away == [False, False, True, True]


def at(ms: int) -> Now:
    return Now(ms, 0)

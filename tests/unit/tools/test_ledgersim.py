"""The ledger's simulator: its misfortunes happen, and its judge and its reports see what they are there for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_tools.ledgersim import main
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.keys import FEE, START_MICRO, name_of, sign_tx
from offgrid_tools.ledgersim.slots import plan as slots_plan
from offgrid_tools.ledgersim.slots.play import Play as SlotsPlay
from offgrid_tools.ledgersim.whole import plan as whole_plan
from offgrid_tools.ledgersim.whole.play import Play as WholePlay
from offgrid_tools.soak import ledger as soak

HOUR_MS = 3_600_000
OWNER, PAYEE = name_of(0), name_of(1)


class Enough(Exception):
    """Nothing is to be seen any more."""


def slots_for_hours(seed: int) -> SlotsPlay:
    return SlotsPlay(seed, replace(slots_plan.draw(seed, 4), cut_ms=HOUR_MS, cut_odds=0.0, hostile_ms=200))


def whole_for_hours(seed: int) -> WholePlay:
    return WholePlay(seed, replace(whole_plan.draw(seed, 4), cut_ms=HOUR_MS, hostile_ms=200))


@pytest.mark.parametrize("play_of", [slots_for_hours, whole_for_hours])
def test_while_a_cut_of_hours_lasts_honest_witnesses_are_apart(play_of: Callable[[int], SlotsPlay | WholePlay]) -> None:
    for seed in range(6):
        play = play_of(seed)
        world, run = play.world, play.world.run

        def run_until_the_cut(for_ms: int, run: Callable[[int], None] = run) -> None:
            if for_ms > HOUR_MS // 10:
                raise Enough
            run(for_ms)

        world.run = run_until_the_cut  # type: ignore[method-assign]
        with pytest.raises(Enough):
            play.execute()
        witnesses = [name for name, _ in world.genesis.witnesses if name in world.nodes]
        assert {world.sides[name] for name in witnesses} == {0, 1}
        assert world.slowness > 1, "liars would fill the hours with lies"


def signed(amount: int) -> TxItem:
    return sign_tx(Tx(NodeSource(node_id_bytes(OWNER)), 0, bytes(32), FEE, ((node_id_bytes(PAYEE), amount),)))


def test_an_honest_owner_that_signs_two_transactions_for_one_slot_is_seen_at_once() -> None:
    judge = Judge(LedgerGenesis(PAYEE, ((PAYEE, 1_000),), ((OWNER, START_MICRO),), FEE, 1))
    author = node_id_bytes(OWNER)
    judge.said(author, [signed(1)])
    judge.said(author, [signed(1)])
    with pytest.raises(Broken, match="signed two transactions for slot 0"):
        judge.said(author, [signed(2)])
    judge.forgive(author)
    judge.said(author, [signed(3)])
    judge.liars.add(author)
    judge.said(author, [signed(4)])


def fail(play: SlotsPlay) -> None:
    raise KeyError("a row that is not there")


def test_whatever_the_rules_raise_is_a_violation_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotsPlay, "execute", fail)
    report = main.simulate(7, "slots", witnesses=4)
    assert report.seed == 7
    assert report.violation == "a node fails: KeyError: 'a row that is not there'"


def test_a_planted_bug_that_does_not_fit_any_more_is_not_found_by_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SlotsPlay, "execute", fail)
    _, wrong = soak._found("fee-lost", 0, 3)
    assert wrong == "it does not fit the rules any more: KeyError: 'a row that is not there'"

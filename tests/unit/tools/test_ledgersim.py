"""The ledger's simulator: its misfortunes happen, and its judge and its reports see what they are there for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_tools.ledgersim import main
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.keys import FEE, START_MICRO, name_of, sign_tx
from offgrid_tools.ledgersim.met import Met
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


def test_what_was_met_is_counted() -> None:
    drawn = replace(
        slots_plan.draw(1, 4), weights=(1_000,) * 4, liars=1, owners=6, torn=4, hasty=2, latency_ms=(1, 60), loss=0.3,
        repeats=0.1, crash_odds=0.02, cut_odds=0.3, cut_ms=0, siege=False, hostile_ms=4_000,
    )  # fmt: skip
    play = SlotsPlay(1, drawn)
    play.execute()
    counts = play.judge.met.counts()
    of_machines = ["restored", "epochs", "ordered", "evicted", "usurped", "dismissed", "awoken"]
    assert [kind for kind, count in counts.items() if not count] == of_machines, counts


def test_epochs_end_by_orders_and_without_them() -> None:
    drawn = replace(
        whole_plan.draw(1, 4), weights=(1_000,) * 4, liars=0, tearing=False, lying_owner=False, comeback=False,
        loss=0.0, crash_odds=0.0, latency_ms=(1, 5), epoch_ms=4_000, hostile_ms=9_000,
    )  # fmt: skip
    play = WholePlay(1, drawn)
    play.execute()
    assert play.judge.met.epochs > play.judge.met.ordered > 0


def test_a_liar_leads_an_epochs_end() -> None:
    drawn = replace(
        whole_plan.draw(1, 4), weights=(1_000,) * 4, liars=1, tearing=False, lying_owner=False, comeback=False,
        loss=0.0, crash_odds=0.0, latency_ms=(1, 5), skews=False, epoch_ms=4_000, hostile_ms=9_000,
    )  # fmt: skip
    play = WholePlay(0, drawn)
    play.execute()
    assert play.judge.met.usurped > 0


def test_a_witness_that_comes_back_is_counted() -> None:
    drawn = replace(whole_plan.draw(1, 4), tearing=False, lying_owner=False, comeback=True, liars=0, hostile_ms=3_000)
    play = WholePlay(1, drawn)
    play.execute()
    assert play.judge.met.restored == 1


def test_a_soak_names_the_misfortunes_that_never_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    report = main.Report(0, "slots", 4, "", "", 0, 0, 0, 0, 0, Met(crashes=1, lies=2), "")
    monkeypatch.setattr(soak, "sweep", lambda cases, **_: [(report, True) for _ in cases])
    said: list[str] = []
    broken = soak.soak_ledger(0, soak.CHUNK, said.append)
    assert "no seed met what is called restored" in broken
    assert not any("crashes" in each or "lies" in each for each in broken)
    assert soak.soak_ledger(0, soak.CHUNK - 1, said.append) == [], "a few seeds may not meet everything"

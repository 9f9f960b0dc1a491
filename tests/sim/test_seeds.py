"""Some seeds: no invariant breaks, and those that are run twice repeat themselves. `soak sim` runs as many as one
likes."""

from __future__ import annotations

from offgrid_tools.sim.main import simulate, sweep
from offgrid_tools.sim.plan import CUTS_MESH, MAIL_MESH, MARKET_MESH, TALK_MESH, VAULT_MESH, draw

SEEDS, MARKET_SEEDS, VAULT_SEEDS, CUT_SEEDS, TALK_SEEDS, MAIL_SEEDS = 3, 2, 3, 2, 3, 3


def test_no_seed_breaks_an_invariant_and_each_repeats_itself() -> None:
    summary = sweep(range(SEEDS), twice=True)
    assert summary.violations == {}
    assert summary.unequal == []
    assert summary.seeds == SEEDS
    assert summary.jobs > SEEDS
    assert summary.kept > SEEDS / 2
    assert summary.paid > SEEDS / 2
    assert summary.faults > SEEDS


def test_three_brokers_and_ten_hosts_some_of_whom_lie_break_no_invariant_either() -> None:
    summary = sweep(range(MARKET_SEEDS), mesh=MARKET_MESH)
    assert summary.violations == {}
    assert summary.jobs > 4 * MARKET_SEEDS
    assert summary.faults > MARKET_SEEDS


def test_owners_and_hosts_of_a_vault_two_of_which_may_be_lost_break_no_invariant_either() -> None:
    summary = sweep(range(VAULT_SEEDS), mesh=VAULT_MESH, twice=True)
    assert summary.violations == {}
    assert summary.unequal == []
    assert summary.kept > 2 * VAULT_SEEDS
    assert summary.faults > VAULT_SEEDS


def test_no_power_cut_at_a_write_loses_what_was_acked() -> None:
    """`soak cuts` counts a thousand."""
    summary = sweep(range(CUT_SEEDS), mesh=CUTS_MESH)
    assert summary.violations == {}
    assert summary.met["power cuts at a write of hosts"] > 10 * CUT_SEEDS
    assert summary.met["power cuts at a write of owners"] > CUT_SEEDS


def test_sessions_that_are_kept_short_of_room_break_no_invariant() -> None:
    """`soak talk` has a thousand."""
    summary = sweep(range(3, 3 + TALK_SEEDS), mesh=TALK_MESH, twice=True)
    assert summary.violations == {}
    assert summary.unequal == []
    for met in ("events of sessions", "events of sessions dropped", "summaries joined", "sessions purged"):
        assert summary.met[met] > TALK_SEEDS


def test_people_who_never_meet_get_their_mail_once_by_way_of_boxes() -> None:
    """`soak mail` has a thousand."""
    summary = sweep(range(MAIL_SEEDS), mesh=MAIL_MESH, twice=True)
    assert summary.violations == {}
    assert summary.unequal == []
    for met in ("mail custody", "mail handed over", "mail taken", "mail offered and wanted", "mail answered"):
        assert summary.met[met] > 0, met


def test_a_broker_of_the_market_may_lie() -> None:
    lying = next(seed for seed in range(100) if (plan := draw(seed, MARKET_MESH)).broker_liar and not plan.job_liars)
    assert simulate(lying, mesh=MARKET_MESH).lies > 0

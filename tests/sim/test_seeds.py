"""Some seeds: no invariant breaks, and those that are run twice repeat themselves. `soak sim` runs as many as one
likes."""

from __future__ import annotations

import pytest

from offgrid_tools.sim.main import simulate, sweep
from offgrid_tools.sim.plan import CUTS_MESH, MARKET_MESH, VAULT_MESH, draw

SEEDS, BATCH = 16, 8
MARKET_SEEDS = 5
VAULT_SEEDS, CUT_SEEDS = 16, 2


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_no_seed_breaks_an_invariant_and_each_repeats_itself(first: int) -> None:
    summary = sweep(range(first, first + BATCH), twice=first == 0)
    assert summary.violations == {}
    assert summary.unequal == []
    assert summary.seeds == BATCH
    assert summary.jobs > BATCH
    assert summary.kept > BATCH / 2
    assert summary.paid > BATCH / 2
    assert summary.faults > BATCH


def test_three_brokers_and_ten_hosts_some_of_whom_lie_break_no_invariant_either() -> None:
    seeds = range(MARKET_SEEDS)
    summary = sweep(seeds, mesh=MARKET_MESH)
    assert summary.violations == {}
    assert summary.jobs > 4 * MARKET_SEEDS
    assert summary.faults > MARKET_SEEDS


@pytest.mark.parametrize("first", range(0, VAULT_SEEDS, BATCH))
def test_owners_and_hosts_of_a_vault_two_of_which_may_be_lost_break_no_invariant_either(first: int) -> None:
    summary = sweep(range(first, first + BATCH), mesh=VAULT_MESH, twice=first == 0)
    assert summary.violations == {}
    assert summary.unequal == []
    assert summary.kept > 2 * BATCH
    assert summary.faults > BATCH


def test_no_power_cut_at_a_write_loses_what_was_acked() -> None:
    """`soak cuts` counts a thousand."""
    summary = sweep(range(CUT_SEEDS), mesh=CUTS_MESH)
    assert summary.violations == {}
    assert summary.met["power cuts at a write of hosts"] > 10 * CUT_SEEDS
    assert summary.met["power cuts at a write of owners"] > CUT_SEEDS


def test_a_broker_of_the_market_may_lie() -> None:
    lying = next(seed for seed in range(100) if (plan := draw(seed, MARKET_MESH)).broker_liar and not plan.job_liars)
    assert simulate(lying, mesh=MARKET_MESH).lies > 0

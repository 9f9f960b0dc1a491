"""A simulator that finds nothing may be blind: each planted bug must show within a hundred seeds."""

from __future__ import annotations

import pytest

from offgrid_tools.sim.main import simulate
from offgrid_tools.sim.mutants import MUTANTS

SEEDS = 100


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_planted_bug_is_found(mutant: str) -> None:
    found = next((seed for seed in range(SEEDS) if simulate(seed, mutant=mutant).violation), None)
    assert found is not None, f"{mutant} ({MUTANTS[mutant].says}) went unseen through {SEEDS} seeds"
    assert simulate(found).violation == "", "the seed must be sound without the planted bug"


def test_what_was_planted_is_gone_afterwards() -> None:
    sound = simulate(1)
    for mutant in MUTANTS.values():
        with mutant.planted():
            pass
    assert simulate(1) == sound

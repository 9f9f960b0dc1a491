"""Some seeds of the ledger's own simulator: no invariant breaks, and each repeats itself. `soak ledger` runs as many as
one likes, and `soak ledger-mutants` demands every planted bug within a hundred seeds."""

from __future__ import annotations

import pytest

from offgrid_tools.ledgersim.main import LEVELS, Case, again, sweep, unmask
from offgrid_tools.ledgersim.mutants import MUTANTS
from offgrid_tools.soak.ledger import SIZES, cases_of

WHOLE_SEEDS, SLOTS_SEEDS, BATCH = 24, 16, 8
SEEDS = 16
SAMPLE = (
    "told-before-sync",
    "lock-overwritten",
    "tallies-forgotten",
    "words-of-others-unwritten",
    "told-before-commit",
    "orphans-dropped",
)


@pytest.mark.parametrize("first", range(0, WHOLE_SEEDS, BATCH))
def test_whole_machines_keep_what_they_promise_in_every_seed(first: int) -> None:
    reports = sweep([Case(seed, "whole") for seed in range(first, first + BATCH)], twice=first == 0)
    assert [report for report, equal in reports if report.violation or not equal] == []
    assert sum(report.final for report, _ in reports) > BATCH


@pytest.mark.parametrize("first", range(0, SLOTS_SEEDS, BATCH))
def test_the_witness_rules_keep_what_they_promise_in_every_seed(first: int) -> None:
    reports = sweep([Case(seed, "slots") for seed in range(first, first + BATCH)], twice=first == 0)
    assert [report for report, equal in reports if report.violation or not equal] == []
    assert sum(report.final for report, _ in reports) > BATCH
    assert sum(report.disputed for report, _ in reports) > 0


@pytest.mark.parametrize("mutant", SAMPLE)
def test_a_planted_bug_is_found(mutant: str) -> None:
    found = unmask(mutant, range(SEEDS))
    assert found is not None, f"{mutant} ({MUTANTS[mutant].says}) went unseen through {SEEDS} seeds"
    assert again(found).violation == "", "the seed must be sound without the planted bug"


def test_the_soak_deals_its_seeds_over_all_sizes_and_levels() -> None:
    cases = [case for seed in range(60) for case in cases_of(seed)]
    assert {case.witnesses for case in cases} == set(SIZES)
    assert {case.level for case in cases} == set(LEVELS)

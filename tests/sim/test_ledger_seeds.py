"""Some seeds of the ledger's own simulator: no invariant breaks, and each repeats itself. `soak ledger` runs as many as
one likes, and `soak ledger-mutants` demands every planted bug within a hundred seeds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from offgrid_tools.ledgersim.main import LEVELS, Case, again, simulate, sweep, unmask
from offgrid_tools.ledgersim.mutants import MUTANTS
from offgrid_tools.soak.ledger import SIZES, cases_of

WHOLE_SEEDS, SLOTS_SEEDS, BATCH = 4, 8, 2
SEEDS = 16
SAMPLE = (
    "lock-overwritten",
    "confirm-without-certificate",
    "ballot-0-goes-on",
    "votes-count-for-all",
    "end-ignored",
)


@pytest.mark.parametrize("first", range(0, WHOLE_SEEDS, BATCH))
def test_whole_machines_keep_what_they_promise_in_every_seed(first: int) -> None:
    reports = list(sweep([Case(seed, "whole") for seed in range(first, first + BATCH)], twice=lambda _: first == 0))
    assert [report for report, equal in reports if report.violation or not equal] == []
    assert sum(report.final for report, _ in reports) > BATCH


@pytest.mark.parametrize("first", range(0, SLOTS_SEEDS, BATCH))
def test_the_witness_rules_keep_what_they_promise_in_every_seed(first: int) -> None:
    reports = list(sweep([Case(seed, "slots") for seed in range(first, first + BATCH)], twice=lambda _: first == 0))
    assert [report for report, equal in reports if report.violation or not equal] == []
    assert sum(report.final for report, _ in reports) > BATCH
    assert sum(report.disputed for report, _ in reports) > 0


@pytest.mark.parametrize("mutant", SAMPLE)
def test_a_planted_bug_is_found(mutant: str) -> None:
    found = unmask(mutant, range(SEEDS))
    assert found is not None, f"{mutant} ({MUTANTS[mutant].says}) went unseen through {SEEDS} seeds"
    assert again(found).violation == "", "the seed must be sound without the planted bug"


def test_an_equal_seed_gives_an_equal_trace_whatever_the_hashes_of_objects() -> None:
    """Another process, other hashes of strings, other places in memory."""
    code = (
        "from offgrid_tools.ledgersim.main import LEVELS, simulate\n"
        "print(*(simulate(0, each).trace for each in LEVELS))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("0", "1")
    }
    assert said == {f"{simulate(0, 'slots').trace} {simulate(0, 'whole').trace}\n"}


def test_what_was_planted_is_gone_afterwards() -> None:
    sound = simulate(1, "slots")
    for planted in MUTANTS.values():
        with planted.planted():
            pass
    assert simulate(1, "slots") == sound


def test_the_soak_deals_its_seeds_over_all_sizes_and_levels() -> None:
    cases = [case for seed in range(60) for case in cases_of(seed)]
    assert {case.witnesses for case in cases} == set(SIZES)
    assert {case.level for case in cases} == set(LEVELS)

"""A simulator that finds nothing may be blind: planted bugs must show. A sample here; `soak mutants` demands each of
them within a hundred seeds."""

from __future__ import annotations

import pytest

from offgrid_tools.sim.main import simulate, unmask
from offgrid_tools.sim.mutants import (
    MUTANTS,
    bustle,
    changes,
    comebacks,
    jobs,
    ledger,
    mail,
    market,
    mesh,
    objects,
    outlived,
    perils,
    redundant,
    rotation,
    runtime,
    sessions,
    terms,
    upkeep,
    vault,
)

SEEDS = 16
SAMPLE = (
    "reply-before-commit",
    "ack-before-fsync",
    "vote-before-sync",
    "quorum-too-small",
    "sealed-anew-under-old-key",
    "dropped-without-snapshot",
    "windows-overlap",
    "taken-is-forgotten",
)


@pytest.mark.parametrize("mutant", SAMPLE)
def test_a_planted_bug_is_found(mutant: str) -> None:
    found = unmask(mutant, range(SEEDS))
    assert found is not None, f"{mutant} ({MUTANTS[mutant].says}) went unseen through {SEEDS} seeds"
    assert simulate(found.seed, mesh=found.mesh).violation == "", "the seed must be sound without the planted bug"


def test_no_two_domains_plant_bugs_of_one_name() -> None:
    assert len(MUTANTS) == sum(
        len(room.MUTANTS) for room in (runtime, jobs, market, redundant, terms, bustle, perils, mesh, ledger)
    ) + sum(
        len(room.MUTANTS) for room in (objects, vault, outlived, upkeep, changes, rotation, comebacks, sessions, mail)
    )


def test_what_was_planted_is_gone_afterwards() -> None:
    sound = simulate(1)
    for mutant in MUTANTS.values():
        with mutant.planted():
            pass
    assert simulate(1) == sound

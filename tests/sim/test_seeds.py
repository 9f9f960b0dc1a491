"""Some seeds, each run twice: no invariant breaks, and the second run repeats the first. `soak sim` runs as many as one
likes."""

from __future__ import annotations

import pytest

from offgrid_tools.sim.main import sweep

SEEDS, SHARD = 40, 10


@pytest.mark.parametrize("first", range(0, SEEDS, SHARD))
def test_no_seed_breaks_an_invariant_and_each_repeats_itself(first: int) -> None:
    summary = sweep(range(first, first + SHARD), twice=True)
    assert summary.violations == {}
    assert summary.unequal == []
    assert summary.seeds == SHARD
    assert summary.jobs > SHARD
    assert summary.kept > SHARD / 2
    assert summary.paid > SHARD / 2
    assert summary.faults > SHARD

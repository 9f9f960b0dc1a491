"""Seeds of the simulator, as many as asked for; a violation names its seed, which replays it exactly."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

from offgrid_tools.sim.main import replay, sweep
from offgrid_tools.sim.plan import HOME

CHUNK = 100


def soak_seeds(seed: int, rounds: int, say: Callable[[str], None], mesh: str = HOME) -> list[str]:
    """Runs `rounds` seeds from `seed` on, each twice; returns what was violated."""
    broken: list[str] = []
    jobs = faults = 0
    met = Counter[str]()
    began = time.monotonic()
    for first in range(seed, seed + rounds, CHUNK):
        seeds = range(first, min(first + CHUNK, seed + rounds))
        summary = sweep(seeds, mesh=mesh, jobs=os.cpu_count() or 1, twice=True)
        jobs, faults = jobs + summary.jobs, faults + summary.faults
        broken += [f"{what}; replay: {replay(mesh, number)}" for number, what in summary.violations.items()]
        broken += [f"seed {number} does not repeat itself" for number in summary.unequal]
        met.update(summary.met)
        say(f"   seeds {seeds[0]} to {seeds[-1]}, {len(broken)} violations, {time.monotonic() - began:.0f} s")
    say(f"   {rounds} seeds twice: {jobs} jobs under {faults} faults")
    say(f"   what these met, and what came of it, in {CHUNK} seeds:")
    for what, count in sorted(met.items()):
        say(f"   {count * CHUNK / rounds:10.1f}  {what}")
    return broken

"""Every bug that the simulator can plant: each must show within so many seeds, and the seed be sound without it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from offgrid_tools.sim.main import simulate, unmask
from offgrid_tools.sim.mutants import MUTANTS


def soak_mutants(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """Tries each on up to `rounds` seeds from `seed` on; returns those that went unseen."""
    began, names = time.monotonic(), list(MUTANTS)
    broken: list[str] = []
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(_found, names, [seed] * len(names), [rounds] * len(names))
        for name, (tried, wrong) in zip(names, found, strict=True):
            say(f"   {name:28} {wrong or f'found by seed {tried}'}")
            if wrong:
                broken.append(f"{name}: {MUTANTS[name].says}: {wrong}")
    say(f"   {len(names) - len(broken)} of {len(names)} planted bugs found, {time.monotonic() - began:.0f} s")
    return broken


def _found(mutant: str, seed: int, rounds: int) -> tuple[int, str]:
    """The seed that found it, and what is wrong with that."""
    report = unmask(mutant, range(seed, seed + rounds))
    if report is None:
        return seed + rounds, f"unseen through {rounds} seeds from {seed}"
    if "TypeError" in report.violation or "AttributeError" in report.violation:
        return report.seed, f"it does not fit what it is planted in any more: {report.violation}"
    if sound := simulate(report.seed, mesh=report.mesh).violation:
        return report.seed, f"seed {report.seed} is not sound without it: {sound}"
    return report.seed, ""

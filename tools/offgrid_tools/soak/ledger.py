"""Seeds of the ledger's simulator, and the bugs planted in it; a violation names its seed, which replays it exactly."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from offgrid_tools.ledgersim.main import LEVELS, Case, again, replay, sweep, unmask
from offgrid_tools.ledgersim.met import Met
from offgrid_tools.ledgersim.mutants import MUTANTS
from offgrid_tools.soak.interpreters import SEEDS_MAX, compare

CHUNK = 100
UNSEEN = "unseen"
SIZES = (4, 7, 20)
WHOLE_EVERY = {4: 3, 7: 4, 20: 40}  # of the seeds with so many witnesses one runs whole machines too: they take long
TWICE_EVERY = 10  # one of so many seeds is run again, and must come to the same


def cases_of(seed: int) -> list[Case]:
    """What a seed is run as: sizes are dealt in turn."""
    size = SIZES[seed % len(SIZES)]
    levels = [level for level in LEVELS if level != "whole" or seed // len(SIZES) % WHOLE_EVERY[size] == 0]
    return [Case(seed, level, size) for level in levels]


def is_run_twice(case: Case) -> bool:
    return case.seed % TWICE_EVERY == 0


def soak_ledger(seed: int, rounds: int, say: Callable[[str], None], pythons: Sequence[Path] | None = None) -> list[str]:
    """Runs `rounds` seeds from `seed` on, some of them twice, the first by other Pythons too unless `pythons` is None
    (see interpreters.py); returns what was violated."""
    broken: list[str] = []
    began, events, final, noops, met = time.monotonic(), 0, 0, 0, Met()
    ran: Counter[tuple[str, int]] = Counter()
    cases = [case for each in range(seed, seed + rounds) for case in cases_of(each)]
    for place, (report, equal) in enumerate(sweep(cases, jobs=os.cpu_count() or 1, twice=is_run_twice), 1):
        events, final, noops = events + report.events, final + report.final, noops + report.noops
        met.add(report.met)
        ran[report.level, report.witnesses] += 1
        wrong = [f"{report.violation}; replay: {replay(report)}"] if report.violation else []
        wrong += [] if equal else [f"seed {report.seed} of the {report.level} level does not repeat itself"]
        for each in wrong:
            say(f"   {each}")
        broken += wrong
        if place % CHUNK == 0:
            say(f"   {place} of {len(cases)} runs, {len(broken)} violations, {time.monotonic() - began:.0f} s")
    for (level, witnesses), count in sorted(ran.items()):
        say(f"   {count} seeds of the {level} level with {witnesses} witnesses")
    say(f"   {rounds} seeds, each tenth twice: {events} events, {final} final slots, {noops} of them no-ops")
    say(f"   met: {met}")
    if rounds >= CHUNK:
        broken += [f"no seed met what is called {kind}" for kind, count in met.counts().items() if not count]
    if pythons is not None:
        seeds = range(seed, seed + min(rounds, SEEDS_MAX))
        broken += compare(pythons, [case for each in seeds for case in cases_of(each)], say)
    return broken


def soak_ledger_mutants(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """Tries each planted bug on up to `rounds` seeds from `seed` on; returns those that went unseen and should not."""
    began, names = time.monotonic(), list(MUTANTS)
    broken: list[str] = []
    with ProcessPoolExecutor(os.cpu_count() or 1) as pool:
        found = pool.map(_found, names, [seed] * len(names), [rounds] * len(names))
        for name, (tried, wrong) in zip(names, found, strict=True):
            why = MUTANTS[name].unseen
            excused = bool(why) and wrong.startswith(UNSEEN)
            say(f"   {name:32} {f'unseen, as is known: {why}' if excused else wrong or f'found by seed {tried}'}")
            if wrong and not excused:
                broken.append(f"{name}: {MUTANTS[name].says}: {wrong}")
    unseen = sum(1 for name in names if MUTANTS[name].unseen)
    say(f"   {len(names)} planted bugs, {unseen} of them known to hide, {time.monotonic() - began:.0f} s")
    return broken


def _found(mutant: str, seed: int, rounds: int) -> tuple[int, str]:
    """The seed that found it, and what is wrong with that."""
    try:
        report = unmask(mutant, range(seed, seed + rounds))
    except Exception as failed:  # noqa: BLE001 - of the many this one is named, and the others are still tried
        return seed, f"it does not fit the rules any more: {type(failed).__name__}: {failed}"
    if report is None:
        return seed + rounds, f"{UNSEEN} through {rounds} seeds from {seed}"
    if sound := again(report).violation:
        return report.seed, f"seed {report.seed} is not sound without it: {sound}"
    return report.seed, ""

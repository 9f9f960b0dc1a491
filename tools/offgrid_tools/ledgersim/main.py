"""One seed of a level from the first misfortune to peace: what `offgrid sim ledger` runs, and what sweeps go over."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from json import dumps
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.met import Met
from offgrid_tools.ledgersim.mutants import MUTANTS
from offgrid_tools.ledgersim.slots import plan as slots_plan
from offgrid_tools.ledgersim.slots.play import Play as SlotsPlay
from offgrid_tools.ledgersim.whole import plan as whole_plan
from offgrid_tools.ledgersim.whole.play import Play as WholePlay
from offgrid_tools.sim.engine import MS, Engine, Spinning, Trace


class Level(Protocol):
    """A seed of a level, drawn and not begun."""

    @property
    def judge(self) -> Judge: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def handled(self) -> int:
        """Messages and timers, each handled by one node."""

    @property
    def about(self) -> str:
        """What was drawn, for people."""

    def execute(self) -> None:
        """Raises Broken, or whatever the rules raise by mistake."""

    def state(self) -> bytes:
        """What the honest nodes hold, the same bytes for the same."""


def _whole(seed: int, witnesses: int, owners: int, trace: Trace | None) -> Level:
    return WholePlay(seed, whole_plan.draw(seed, witnesses, owners), trace)


def _slots(seed: int, witnesses: int, owners: int, trace: Trace | None) -> Level:
    return SlotsPlay(seed, slots_plan.draw(seed, witnesses, owners), trace)


LEVELS: dict[str, Callable[[int, int, int, Trace | None], Level]] = {"slots": _slots, "whole": _whole}


class Report(msgspec.Struct, frozen=True):
    """What one seed came to; equal for equal seeds, byte by byte. `witnesses` is what was asked for, 0: the seed chose.
    `events` are messages and timers, each handled by one node."""

    seed: int
    level: str
    witnesses: int
    about: str
    violation: str
    virtual_ms: int
    events: int
    final: int
    noops: int
    disputed: int
    met: Met
    trace: str


def simulate(
    seed: int,
    level: str,
    *,
    witnesses: int = 0,
    owners: int = 0,
    mutant: str | None = None,
    trace: Path | None = None,
) -> Report:
    """Runs one seed. `witnesses` and `owners` 0: the seed chooses. `mutant` plants one of `MUTANTS`; `trace` is a file
    for what happened, line by line."""
    planted = MUTANTS[mutant].planted() if mutant else nullcontext()
    with trace.open("w", encoding="utf-8") if trace else nullcontext() as out, planted, uncollected():
        run = LEVELS[level](seed, witnesses, owners, Trace(out))
        violation = ""
        try:
            run.execute()
        except Broken as broken:
            violation = str(broken)
        except Spinning as broken:
            violation = f"time stands still: {broken}"
        except AssertionError as broken:
            violation = f"a node's own check fails: {broken}"
        except Exception as broken:  # whatever the rules raise by mistake has a seed that shows it
            if mutant:  # and a planted bug that no longer fits the rules is not found by that
                raise
            violation = f"a node fails: {type(broken).__name__}: {broken}"
        final = run.judge.final
        run.engine.note("state", run.state())
        return Report(
            seed=seed,
            level=level,
            witnesses=witnesses,
            about=run.about,
            violation=violation,
            virtual_ms=run.engine.now_us // MS,
            events=run.handled,
            final=len(final),
            noops=sum(1 for (account, seq), digest in final.items() if digest == noop_digest(SALT, account, seq)),
            disputed=len(run.judge.disputed),
            met=run.judge.met,
            trace=run.engine.trace.digest(),
        )


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector of cycles looks at all that the judge remembers again and again, and finds next to nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def run(
    seed: int,
    *,
    level: str = "",
    witnesses: int = 0,
    owners: int = 0,
    json: bool = False,
    out: TextIO | None = None,
    trace: Path | None = None,
    mutant: str | None = None,
) -> int:
    """Prints what the seed came to, at each level unless one is named: the same bytes every time. Returns 1 on a
    violation, otherwise 0."""
    levels = [level] if level else [*LEVELS]
    reports = [
        simulate(seed, each, witnesses=witnesses, owners=owners, mutant=mutant, trace=_beside(trace, each, levels))
        for each in levels
    ]
    text = dumps(msgspec.to_builtins(reports)) if json else "\n\n".join(map(_for_people, reports))
    print(text, file=out or sys.stdout)
    return 1 if any(report.violation for report in reports) else 0


def _beside(trace: Path | None, level: str, levels: list[str]) -> Path | None:
    return trace if trace is None or len(levels) == 1 else trace.with_name(f"{trace.name}.{level}")


def _for_people(report: Report) -> str:
    lines = [
        f"seed       {report.seed} of the {report.level} level: {report.about}",
        f"time       {report.virtual_ms / 1000:.1f} s virtual, {report.events} events",
        f"slots      {report.final} final, {report.noops} of them no-ops, {report.disputed} above ballot 0",
        f"met        {report.met}",
        f"trace      {report.trace}",
    ]
    verdict = f"VIOLATION  {report.violation}" if report.violation else "result     no violation"
    return "\n".join([*lines, verdict])


def replay(report: Report) -> str:
    """The command that runs this very seed again."""
    sized = f" --witnesses {report.witnesses}" if report.witnesses else ""
    return f"offgrid sim ledger --seed {report.seed} --level {report.level}{sized}"


class Case(msgspec.Struct, frozen=True):
    """One seed of a level, with as many witnesses; 0: the seed chooses."""

    seed: int
    level: str
    witnesses: int = 0


def sweep(
    cases: Iterable[Case], *, jobs: int = 1, twice: Callable[[Case], bool] = lambda _: False
) -> Iterator[tuple[Report, bool]]:
    """Runs all, in `jobs` processes, and yields in their order; those that `twice` names are run again, and False says
    that one did not repeat itself."""
    wanted = list(cases)
    if jobs == 1:
        yield from (_one(case, twice(case)) for case in wanted)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_one, wanted, map(twice, wanted))


def _one(case: Case, twice: bool) -> tuple[Report, bool]:
    report = simulate(case.seed, case.level, witnesses=case.witnesses)
    return report, not twice or again(report) == report


def again(report: Report) -> Report:
    """The same seed, sound."""
    return simulate(report.seed, report.level, witnesses=report.witnesses)


FEW = (4, 4, 7)  # witnesses; what a bug needs is seldom more of them


def unmask(mutant: str, seeds: Iterable[int]) -> Report | None:
    """The first of these seeds in which the planted bug shows, at its level; None when it shows in none. What shows
    only where epochs end is not looked for where none does."""
    planted = MUTANTS[mutant]
    cases = (Case(seed, planted.level, FEW[seed % len(FEW)]) for seed in seeds)
    wanted = (case for case in cases if not planted.ends or whole_plan.draw(case.seed, case.witnesses).epoch_ms)
    reports = (simulate(case.seed, case.level, witnesses=case.witnesses, mutant=mutant) for case in wanted)
    return next((report for report in reports if report.violation), None)

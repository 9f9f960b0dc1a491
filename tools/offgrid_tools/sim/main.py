"""One seed from the first misfortune to the last job: what `offgrid sim` runs, and what the tests sweep over."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from json import dumps
from pathlib import Path
from typing import TextIO

from offgrid_node.protocol.events import CORE, HOST
from offgrid_tools.sim.cluster import LAYOUTS, Cluster
from offgrid_tools.sim.engine import MS, SECOND, Spinning, Trace
from offgrid_tools.sim.liar import Liar
from offgrid_tools.sim.monitor import Violation
from offgrid_tools.sim.mutants import MUTANTS
from offgrid_tools.sim.nemesis import Nemesis
from offgrid_tools.sim.users import User

JOBS_MIN, JOBS_MAX = 2, 6  # per user
STORM_CHANCE, STORM_JOBS = 0.08, 4  # some seeds are longer and busier, with so many times the jobs
LIAR_CHANCE = 0.3
LOOK_US = 500 * MS
FINISH_US = 150 * SECOND  # after the last misfortune everything must have come to its end by then


@dataclass(frozen=True, slots=True)
class Report:
    """What one seed came to; equal for equal seeds, byte by byte."""

    seed: int
    violation: str
    virtual_ms: int
    events: int
    messages: int
    lost: int
    faults: dict[str, int]
    lies: int
    jobs: int
    results: int
    ended_early: dict[str, int]
    journals: dict[str, str]
    trace: str


class Run:
    """Five nodes, their users, their misfortunes."""

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.seed = seed
        layout = LAYOUTS[seed % len(LAYOUTS)]
        self.cluster = Cluster(seed, layout, trace=trace)
        engine, monitor = self.cluster.engine, self.cluster.monitor
        rng = engine.rng
        self._healed = False
        storm = rng.random() < STORM_CHANCE
        times = STORM_JOBS if storm else 1
        self.users = [
            User(engine, monitor, core.node_id, core.admin, times * rng.randint(JOBS_MIN, JOBS_MAX), f"u{number}")
            for number, core in enumerate(core for core in self.cluster.with_role(CORE) for _ in range(2))
        ]
        hosts = [process for process in self.cluster.with_role(HOST) if CORE not in process.spec.roles]
        self.liar = Liar(self.cluster, rng.choice(hosts)) if rng.random() < LIAR_CHANCE else None
        self.nemesis = Nemesis(self.cluster, self._on_healed, storm=storm)
        self.cluster.start()
        for user in self.users:
            engine.after(rng.randint(0, 2 * SECOND), user.start)

    def _on_healed(self) -> None:
        self._healed = True

    def execute(self) -> Report:
        violation = ""
        try:
            self._live()
        except Violation as broken:
            violation = str(broken)
        except Spinning as broken:
            violation = f"time stands still: {broken}"
        return self._report(violation)

    def _live(self) -> None:
        engine, monitor, judged = self.cluster.engine, self.cluster.monitor, 0
        end_us = self.nemesis.until_us + FINISH_US
        while True:
            engine.run_until(engine.now_us + LOOK_US)
            for job_id, error in monitor.excused[judged:]:
                if not self.nemesis.excuses:
                    raise Violation(f"job {job_id} ended with {error}, and nothing had happened that explains it")
            judged = len(monitor.excused)
            if self._healed and self._unfinished() == "":
                break
            if engine.now_us >= end_us:
                raise Violation(f"{FINISH_US // SECOND} s after everything healed {self._unfinished()}")
        self.cluster.check_end()

    def _unfinished(self) -> str:
        waiting = sum(not user.content for user in self.users)
        if waiting:
            return f"{waiting} users still wait for jobs"
        return self.cluster.disagreement()

    def _report(self, violation: str) -> Report:
        cluster = self.cluster
        early: dict[str, int] = {}
        for _, error in cluster.monitor.excused:
            early[error] = early.get(error, 0) + 1
        return Report(
            seed=self.seed,
            violation=violation,
            virtual_ms=cluster.engine.now_us // MS,
            events=cluster.engine.steps,
            messages=cluster.network.carried,
            lost=cluster.network.lost,
            faults=dict(sorted(self.nemesis.counts.items())),
            lies=self.liar.lies if self.liar else 0,
            jobs=sum(len(user.done) for user in self.users),
            results=cluster.monitor.results,
            ended_early=dict(sorted(early.items())),
            journals=cluster.journal_digests(),
            trace=cluster.engine.trace.digest(),
        )


def simulate(seed: int, *, mutant: str | None = None, trace: Path | None = None) -> Report:
    """Runs one seed. `mutant` plants one of `MUTANTS`; `trace` is a file for what happened, line by line."""
    planted = MUTANTS[mutant].planted() if mutant else nullcontext()
    with trace.open("w", encoding="utf-8") if trace else nullcontext() as out, planted:
        return Run(seed, Trace(out)).execute()


def run(
    seed: int,
    *,
    json: bool = False,
    out: TextIO | None = None,
    trace: Path | None = None,
    mutant: str | None = None,
) -> int:
    """Prints what the seed came to, the same bytes every time. Returns 1 on a violation, otherwise 0."""
    report = simulate(seed, mutant=mutant, trace=trace)
    text = dumps(asdict(report), indent=2) if json else _for_people(report)
    print(text, file=out or sys.stdout)
    return 1 if report.violation else 0


def _for_people(report: Report) -> str:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{what} {count}" for what, count in counts.items()) or "none"

    lines = [
        f"seed       {report.seed}",
        f"time       {report.virtual_ms / 1000:.1f} s virtual, {report.events} events",
        f"messages   {report.messages} carried, {report.lost} lost, {report.lies} lies",
        f"faults     {listed(report.faults)}",
        f"jobs       {report.jobs} ended as their users saw, {report.results} on their own merits",
        f"cut short  {listed(report.ended_early)}",
        *(f"journal    {digest}  {name}" for name, digest in report.journals.items()),
        f"trace      {report.trace}",
    ]
    verdict = f"VIOLATION  {report.violation}\nreplay     offgrid sim --seed {report.seed}"
    return "\n".join([*lines, verdict if report.violation else "result     no violation"])


@dataclass(frozen=True, slots=True)
class Summary:
    """What many seeds came to. `unequal` are seeds whose second run did not repeat the first."""

    seeds: int
    violations: dict[int, str]
    unequal: list[int]
    jobs: int
    faults: int


def sweep(seeds: Iterable[int], *, jobs: int = 1, twice: bool = False) -> Summary:
    """Runs all seeds, in `jobs` processes; with `twice` each is run again and must come to the same report."""
    wanted = list(seeds)
    if jobs == 1:
        pairs = [_one(seed, twice) for seed in wanted]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            pairs = list(pool.map(_one, wanted, [twice] * len(wanted), chunksize=4))
    return Summary(
        seeds=len(wanted),
        violations={report.seed: report.violation for report, _ in pairs if report.violation},
        unequal=[report.seed for report, equal in pairs if not equal],
        jobs=sum(report.jobs for report, _ in pairs),
        faults=sum(sum(report.faults.values()) for report, _ in pairs),
    )


def _one(seed: int, twice: bool) -> tuple[Report, bool]:
    report = simulate(seed)
    return report, not twice or simulate(seed) == report

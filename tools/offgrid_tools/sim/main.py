"""One seed from the first misfortune to the last job: what `offgrid sim` runs, and what the tests sweep over."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from json import dumps
from pathlib import Path
from typing import TextIO

import msgspec

from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_tools.sim.aftermath import Aftermath
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crowd import Crowd
from offgrid_tools.sim.engine import MS, SECOND, Spinning, Trace
from offgrid_tools.sim.monitor import Violation
from offgrid_tools.sim.mutants import MUTANTS
from offgrid_tools.sim.nemesis import Nemesis
from offgrid_tools.sim.plan import HOME, draw
from offgrid_tools.sim.vices import LIES, RESTORED, ROTS

LOOK_US = 500 * MS
MAIL_US = 600 * SECOND  # for mail between those who never meet, whose mailboxes are full now and then
FINISH_US = 150 * SECOND  # after the last misfortune everything must have come to its end by then
# So long a host that is drained may wait: only then is one that has died taken for lost, and what it kept made anew.
DRAINED_US = REPAIR_AFTER_MS * MS + FINISH_US


class Report(msgspec.Struct, frozen=True):
    """What one seed came to; equal for equal seeds, byte by byte."""

    seed: int
    mesh: str
    violation: str
    virtual_ms: int
    events: int
    messages: int
    lost: int
    faults: dict[str, int]
    lies: int
    jobs: int
    results: int
    kept: int
    paid: int
    ended_early: dict[str, int]
    met: dict[str, int]
    journals: dict[str, str]
    trace: str


class Run:
    """Some nodes, their users, their misfortunes."""

    def __init__(self, seed: int, trace: Trace | None = None, mesh: str = HOME) -> None:
        self.seed, self.mesh = seed, mesh
        self.plan = plan = draw(seed, mesh)
        self.cluster = cluster = Cluster(seed, plan.layout, trace=trace)
        evidence, ids = cluster.monitor.evidence, {name: node.node_id for name, node in cluster.processes.items()}
        evidence.bad.update(ids[name] for name in plan.vices)
        evidence.doubted.update(ids[name] for vice in (LIES, ROTS) for name in plan.having(vice))
        self._healed = False
        self._judged = 0  # of the jobs that ended for want of hosts or brokers
        self.crowd = Crowd(cluster, plan)
        self.nemesis = Nemesis(cluster, plan, self._on_healed)
        self.cluster.start()
        self.crowd.come()

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
        self._until_settled()
        self._until(self.crowd.staying, DRAINED_US)
        self.crowd.ask_again()
        self._until_settled()
        self.cluster.check_end()
        if self.plan.vault is not None:
            self._outlive()

    def _outlive(self) -> None:
        """What is promised of objects holds, and beyond that nobody is told anything false."""
        cluster = self.cluster
        left = (process.spec.name for process in cluster.processes.values() if process.dead)
        bad = {*self.plan.vices, *left}
        gone = {cluster.processes[name].node_id for name in bad}
        for keeper in self.crowd.keepers:
            cluster.monitor.promises.check(keeper.node, gone)
        aftermath = Aftermath(cluster, self.crowd.keepers, bad)
        for lose in (aftermath.lose_what_may_be_lost, aftermath.lose_more):
            lose()
            self._until(self.crowd.wanting)

    def _until_settled(self) -> None:
        """Until the misfortunes are over and everybody has what they wanted."""
        self._until(self._unfinished, MAIL_US if self.plan.post is not None else FINISH_US)

    def _until(self, unfinished: Callable[[], str], within_us: int = FINISH_US) -> None:
        engine = self.cluster.engine
        end_us = max(engine.now_us, self.nemesis.until_us) + within_us
        while True:
            engine.run_until(engine.now_us + LOOK_US)
            self._judge()
            if self._healed and unfinished() == "":
                break
            if engine.now_us >= end_us:
                raise Violation(f"{within_us // SECOND} s after everything healed {unfinished()}")

    def _judge(self) -> None:
        """Each job that ended for want of hosts or brokers, once, and by what had happened until then."""
        excused = self.cluster.monitor.jobs.excused
        for job_id, error in excused[self._judged :]:
            if not self.nemesis.excuses(error):
                raise Violation(f"job {job_id} ended with {error}, and nothing had happened that explains it")
        self._judged = len(excused)

    def _unfinished(self) -> str:
        restored = (self.cluster.processes[name].node_id for name in self.plan.having(RESTORED))
        forgetful = next(filter(None, map(self.cluster.monitor.ledger.forgetful, restored)), "")
        return self.crowd.wanting() or self.cluster.disagreement(self.plan.vices) or forgetful

    def _report(self, violation: str) -> Report:
        cluster = self.cluster
        early: dict[str, int] = {}
        for _, error in cluster.monitor.jobs.excused:
            early[error] = early.get(error, 0) + 1
        return Report(
            seed=self.seed,
            mesh=self.mesh,
            violation=violation,
            virtual_ms=cluster.engine.now_us // MS,
            events=cluster.engine.steps,
            messages=cluster.network.carried,
            lost=cluster.network.lost,
            faults=dict(sorted(self.nemesis.counts.items())),
            lies=self.crowd.lies,
            jobs=sum(len(worker.done) for worker in self.crowd.workers),
            results=cluster.monitor.jobs.results,
            kept=sum(keeper.kept for keeper in self.crowd.keepers),
            paid=sum(payer.final for payer in self.crowd.payers),
            ended_early=dict(sorted(early.items())),
            met={what: count for what, count in sorted(cluster.monitor.met.counts.items()) if count},
            journals=cluster.journal_digests(),
            trace=cluster.engine.trace.digest(),
        )


def simulate(seed: int, *, mesh: str = HOME, mutant: str | None = None, trace: Path | None = None) -> Report:
    """Runs one seed of one of the `MESHES`. `mutant` plants one of `MUTANTS`; `trace` is a file for what happened, line
    by line."""
    planted = MUTANTS[mutant].planted() if mutant else nullcontext()
    with trace.open("w", encoding="utf-8") if trace else nullcontext() as out, planted, _silence():
        return Run(seed, Trace(out), mesh).execute()


@contextmanager
def _silence() -> Iterator[None]:
    """Simulated nodes log to nobody: what they would warn of is what befalls them."""
    logs = [logging.getLogger(name) for name in ("offgrid_node", "offgrid")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def run(
    seed: int,
    *,
    mesh: str = HOME,
    json: bool = False,
    out: TextIO | None = None,
    trace: Path | None = None,
    mutant: str | None = None,
) -> int:
    """Prints what the seed came to, the same bytes every time. Returns 1 on a violation, otherwise 0."""
    report = simulate(seed, mesh=mesh, mutant=mutant, trace=trace)
    text = dumps(msgspec.to_builtins(report)) if json else _for_people(report)
    print(text, file=out or sys.stdout)
    return 1 if report.violation else 0


def _for_people(report: Report) -> str:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{what} {count}" for what, count in counts.items()) or "none"

    lines = [
        f"seed       {report.seed} of the {report.mesh} mesh",
        f"time       {report.virtual_ms / 1000:.1f} s virtual, {report.events} events",
        f"messages   {report.messages} carried, {report.lost} lost, {report.lies} lies",
        f"faults     {listed(report.faults)}",
        f"jobs       {report.jobs} ended as their users saw, {report.results} on their own merits",
        f"objects    {report.kept} kept, read back twice",
        f"payments   {report.paid} final",
        f"cut short  {listed(report.ended_early)}",
        f"met        {listed(report.met)}",
        *(f"journal    {digest}  {name}" for name, digest in report.journals.items()),
        f"trace      {report.trace}",
    ]
    verdict = f"VIOLATION  {report.violation}\nreplay     {replay(report.mesh, report.seed)}"
    return "\n".join([*lines, verdict if report.violation else "result     no violation"])


def replay(mesh: str, seed: int) -> str:
    """The command that runs this very seed again."""
    return f"offgrid sim --seed {seed}" + ("" if mesh == HOME else f" --mesh {mesh}")


class Summary(msgspec.Struct, frozen=True):
    """What many seeds came to. `unequal` are seeds whose second run did not repeat the first."""

    seeds: int
    violations: dict[int, str]
    unequal: list[int]
    jobs: int
    kept: int
    paid: int
    faults: int
    met: dict[str, int]  # what misfortunes met, and what came of it


def sweep(seeds: Iterable[int], *, mesh: str = HOME, jobs: int = 1, twice: bool = False) -> Summary:
    """Runs all seeds, in `jobs` processes; with `twice` each is run again and must come to the same report."""
    wanted = list(seeds)
    if jobs == 1:
        pairs = [_one(seed, mesh, twice) for seed in wanted]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            pairs = list(pool.map(_one, wanted, [mesh] * len(wanted), [twice] * len(wanted), chunksize=4))
    return Summary(
        seeds=len(wanted),
        violations={report.seed: report.violation for report, _ in pairs if report.violation},
        unequal=[report.seed for report, equal in pairs if not equal],
        jobs=sum(report.jobs for report, _ in pairs),
        kept=sum(report.kept for report, _ in pairs),
        paid=sum(report.paid for report, _ in pairs),
        faults=sum(sum(report.faults.values()) for report, _ in pairs),
        met=dict(sorted(sum((Counter(report.met) for report, _ in pairs), Counter[str]()).items())),
    )


def _one(seed: int, mesh: str, twice: bool) -> tuple[Report, bool]:
    report = simulate(seed, mesh=mesh)
    return report, not twice or simulate(seed, mesh=mesh) == report


def unmask(mutant: str, seeds: Iterable[int]) -> Report | None:
    """The first of these seeds in which the planted bug shows; None when it shows in none."""
    reports = (simulate(seed, mesh=MUTANTS[mutant].mesh, mutant=mutant) for seed in seeds)
    return next((report for report in reports if report.violation), None)

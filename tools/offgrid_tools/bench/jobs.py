"""jobs: no-op jobs through three nodes, durable and with signed receipts, beside a tuned Dask, turn about."""

from __future__ import annotations

import statistics

from msgspec.structs import replace

from offgrid_tools.bench import profile
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import Pairs, conditions_noted, quantile, side_by_side
from offgrid_tools.bench.jobs_celery import CeleryCluster
from offgrid_tools.bench.jobs_dask import DaskCluster
from offgrid_tools.bench.jobs_jetstream import JetStream
from offgrid_tools.bench.jobs_ours import OurMesh
from offgrid_tools.bench.jobs_ray import RayCluster
from offgrid_tools.bench.peers import Peer
from offgrid_tools.bench.processes import Meter, own_pid, resident_mib

IN_FLIGHT = 64
BATCH = 256  # what a node takes in one call
OTHERS: tuple[type[RayCluster] | type[CeleryCluster] | type[JetStream], ...] = (RayCluster, CeleryCluster, JetStream)
JOBS, JOBS_QUICK = 3_000, 400  # a sample
PAIRS, PAIRS_QUICK = 7, 3
PEER_PAIRS = 5
SINGLES, SINGLES_QUICK = 150, 40  # a sample
SINGLE_PAIRS, SINGLE_PAIRS_QUICK = 5, 3
METERED, METERED_QUICK = 6_000, 800
CPU = "cpu_us_per_job_"


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    plan.say("jobs: starting core, broker and host, and Dask's scheduler and worker")
    with OurMesh(plan.folder / "ours") as ours, DaskCluster(plan.folder / "dask") as dask:
        idle_mib = {role: resident_mib(pid) for role, pid in ours.pids.items()}
        figures = [
            *throughput(plan, ours, dask),
            *latency(plan, ours, dask),
            Figure("rss_idle_mb_per_role", max(idle_mib.values()), note=per_process(idle_mib)),
            *processor_time(plan, ours, dask),
        ]
        figures += beside_others(plan, ours, figures)
        if plan.profile:
            add_profile(plan, ours, figures)
        return figures


def throughput(plan: Plan, ours: OurMesh, dask: DaskCluster) -> list[Figure]:
    count = plan.rounds(JOBS, JOBS_QUICK)
    plan.say(f"jobs: {count} jobs a sample, {IN_FLIGHT} in flight, ours and Dask turn about")
    with conditions_noted(plan.folder) as conditions:
        pairs = side_by_side(
            lambda: count / ours.run(count, IN_FLIGHT),
            lambda: count / dask.run(count, IN_FLIGHT),
            plan.rounds(PAIRS, PAIRS_QUICK),
        )
    note = f"{pairs.spread}; {conditions}"
    return [
        Figure("inflight64_per_s", pairs.our_median, "Dask", pairs.their_median, note),
        Figure("inflight64_vs_dask", pairs.ratio, "Dask, jobs/s", pairs.their_median, note),
    ]


def beside_others(plan: Plan, ours: OurMesh, figures: list[Figure]) -> list[Figure]:
    """The same beside each peer that this machine has; those that it has not are named with the first figure."""
    found, absent = list[Figure](), list[str]()
    for peer in OTHERS:
        if reason := peer.missing():
            plan.say(f"jobs: without {peer.name}: {reason}")
            absent.append(f"{peer.name} ({reason})")
            continue
        plan.say(f"jobs: ours and {peer.name} turn about")
        with peer(plan.folder / peer.name.lower()) as theirs, conditions_noted(plan.folder) as conditions:
            for name, in_flight in peer_figures(peer.name):
                pairs = rates(plan, ours, theirs, in_flight)
                note = f"{pairs.spread}; {conditions}"
                found.append(Figure(name, pairs.ratio, f"{peer.name}, jobs/s", pairs.their_median, note))
    if absent:
        figures[0] = replace(figures[0], note=f"{figures[0].note}; not beside {', '.join(absent)}")
    return found


def peer_figures(name: str) -> list[tuple[str, int]]:
    """Names of figures, and how many jobs are in flight for each."""
    figures = [(f"inflight64_vs_{name.lower()}", IN_FLIGHT)]
    return [*figures, ("batch256_vs_jetstream", BATCH)] if name == JetStream.name else figures


def rates(plan: Plan, ours: OurMesh, theirs: Peer, in_flight: int) -> Pairs:
    """Jobs a second; where as many are in flight as a batch has, ours go by the batch."""
    count = plan.rounds(JOBS, JOBS_QUICK) // BATCH * BATCH or BATCH
    run = ours.run_batches if in_flight == BATCH else ours.run
    return side_by_side(
        lambda: count / run(count, in_flight),
        lambda: count / theirs.run(count, in_flight),
        plan.rounds(PEER_PAIRS, PAIRS_QUICK),
    )


def latency(plan: Plan, ours: OurMesh, dask: DaskCluster) -> list[Figure]:
    count = plan.rounds(SINGLES, SINGLES_QUICK)
    plan.say(f"jobs: {count} jobs a sample, one at a time")
    all_ours: list[float] = []
    all_theirs: list[float] = []

    def sample(system: OurMesh | DaskCluster, into: list[float]) -> float:
        times = [1000 * system.run_one() for _ in range(count)]
        into += times
        return statistics.median(times)

    with conditions_noted(plan.folder) as conditions:
        pairs: Pairs = side_by_side(
            lambda: sample(ours, all_ours),
            lambda: sample(dask, all_theirs),
            plan.rounds(SINGLE_PAIRS, SINGLE_PAIRS_QUICK),
        )
    note = f"{len(all_ours)} jobs; {conditions}"
    p99, their_p99 = (quantile(times, 0.99) for times in (all_ours, all_theirs))
    return [
        Figure("single_p50_ms", pairs.our_median, "Dask", pairs.their_median, note),
        Figure("single_p99_ms", p99, "Dask", their_p99, note),
        Figure("single_p50_vs_dask", pairs.ratio, "Dask, ms", pairs.their_median, pairs.spread),
    ]


def processor_time(plan: Plan, ours: OurMesh, dask: DaskCluster) -> list[Figure]:
    """Microseconds of processor time that a job costs each process: what bounds the throughput, whatever else runs."""
    count = plan.rounds(METERED, METERED_QUICK)
    plan.say(f"jobs: processor time of {count} jobs")
    meter = Meter({"client": own_pid(), **ours.pids})
    ours.run(count, IN_FLIGHT)
    our_us = {role: seconds / count * 1e6 for role, seconds in meter.read().items()}
    meter = Meter({"client": own_pid(), **dask.pids})
    dask.run(count, IN_FLIGHT)
    their_us = {name: seconds / count * 1e6 for name, seconds in meter.read().items()}
    ratio = sum(our_us.values()) / sum(their_us.values())
    return [
        *(Figure(f"{CPU}{role}", spent) for role, spent in our_us.items()),
        Figure("cpu_per_job_vs_dask", ratio, "Dask, µs", sum(their_us.values()), per_process(their_us)),
    ]


def add_profile(plan: Plan, ours: OurMesh, figures: list[Figure]) -> None:
    """Adds the table of where those microseconds go; what cannot be looked at is said, and costs no figure."""
    seconds = plan.rounds(profile.SECONDS, profile.SECONDS_QUICK)
    plan.say(f"jobs: profile of {seconds} s")
    spent = {figure.name.removeprefix(CPU): figure.value for figure in figures if figure.name.startswith(CPU)}
    pids = {"client": own_pid(), **ours.pids}
    try:
        counts = profile.profile(pids, plan.folder, seconds, lambda: ours.run(10 * IN_FLIGHT, IN_FLIGHT))
    except profile.CannotLook as refused:
        plan.say(f"jobs: no profile: {refused}")
    else:
        plan.tables["jobs profile"] = profile.table(counts, spent, seconds)


def per_process(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f}" for name, value in values.items())

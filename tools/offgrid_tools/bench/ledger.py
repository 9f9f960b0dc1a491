"""ledger: payments through four witnesses, real processes on loopback, durable; beside what signature checks alone
allow on this machine, and beside a plain loop that signs and sends each thing by itself."""

from __future__ import annotations

import multiprocessing
import os
import time

from nacl.signing import SigningKey

from offgrid_node.keys import verify
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import conditions_noted, quantile, side_by_side
from offgrid_tools.bench.ledger_mesh import LANES, WITNESSES, Flood, OurLedger
from offgrid_tools.bench.ledger_plain import PlainLoop
from offgrid_tools.bench.processes import Meter

SINGLES, SINGLES_QUICK = 300, 60
FLOOD, FLOOD_QUICK = 16 * LANES, 4 * LANES
PAIRS, PAIRS_QUICK = 5, 2
PLAIN, PLAIN_QUICK = 1_500, 300
CHECKS, CHECKS_QUICK = 20_000, 5_000  # of each processor


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    plan.say("ledger: starting four witnesses")
    with OurLedger(plan.folder / "ours") as ours:
        figures = single(plan, ours)
        plan.say(f"ledger: {LANES} lanes are opened")
        ours.fund()
        ours.flood(LANES)
        figures += beside_checks(plan, ours)
        with PlainLoop(plan.folder / "plain") as plain:
            figures += beside_plain(plan, ours, plain)
    return figures


def single(plan: Plan, ours: OurLedger) -> list[Figure]:
    count = plan.rounds(SINGLES, SINGLES_QUICK)
    plan.say(f"ledger: {count} transfers, one at a time")
    for _ in range(5):
        ours.transfer()
    with conditions_noted(plan.folder) as conditions:
        times = [1_000 * ours.transfer() for _ in range(count)]
    note = f"{count} transfers, from the call until it is final; {conditions}"
    return [
        Figure("final_single_p50_ms", quantile(times, 0.5), note=note),
        Figure("final_single_p99_ms", quantile(times, 0.99), note=note),
    ]


def beside_checks(plan: Plan, ours: OurLedger) -> list[Figure]:
    """The bound: each witness checks each transaction's signature, and each block's of all others, and nothing else."""
    count, checks = plan.rounds(FLOOD, FLOOD_QUICK), plan.rounds(CHECKS, CHECKS_QUICK)
    plan.say(f"ledger: {count} transactions a sample, and signature checks alone, turn about")
    floods: list[Flood] = []
    meter = Meter(ours.pids)

    def flood() -> float:
        floods.append(ours.flood(count))
        return floods[-1].count / floods[-1].took_s

    def bound() -> float:
        """Transactions a second that this machine's checks would do for, with as many blocks as the last flood had."""
        last = floods[-1]
        needed = len(WITNESSES) * (1 + last.blocks / last.count)
        return checks_per_s(checks) / needed

    flood()
    with conditions_noted(plan.folder) as conditions:
        pairs = side_by_side(flood, bound, plan.rounds(PAIRS, PAIRS_QUICK))
    spent = sum(meter.read().values()) / sum(flooded.count for flooded in floods) / len(WITNESSES)
    blocks = sum(flooded.blocks for flooded in floods) / sum(flooded.count for flooded in floods)
    note = (
        f"{pairs.spread}; {1e6 * spent:.0f} µs of a processor for each and witness, {blocks:.3f} blocks; {conditions}"
    )
    return [
        Figure("final_per_s_n4", pairs.our_median, "signature checks alone", pairs.their_median, note),
        Figure("final_vs_verify_bound_n4", pairs.ratio, "signature checks alone", pairs.their_median, note),
    ]


def beside_plain(plan: Plan, ours: OurLedger, plain: PlainLoop) -> list[Figure]:
    count, few = plan.rounds(FLOOD, FLOOD_QUICK), plan.rounds(PLAIN, PLAIN_QUICK)
    plan.say(f"ledger: beside a plain loop, {few} transactions a sample")
    with conditions_noted(plan.folder) as conditions:
        pairs = side_by_side(
            lambda: count / ours.flood(count).took_s, lambda: few / plain.run(few), plan.rounds(PAIRS, PAIRS_QUICK)
        )
    note = f"{pairs.spread}; {conditions}"
    return [Figure("blocks_vs_one_by_one", pairs.ratio, "a plain loop, transactions/s", pairs.their_median, note)]


def checks_per_s(count: int) -> float:
    """How many signatures all processors together check in a second, each `count` of them."""
    processors = os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(processors) as pool:
        pool.map(_check, [100] * processors, chunksize=1)
        began = time.perf_counter()
        pool.map(_check, [count] * processors, chunksize=1)
        return processors * count / (time.perf_counter() - began)


def _check(count: int) -> None:
    key = SigningKey(bytes(32))
    public, digest = bytes(key.verify_key), bytes(range(32))
    signature = key.sign(digest).signature
    for _ in range(count):
        if not verify(public, digest, signature):
            raise RuntimeError("a good signature was refused")

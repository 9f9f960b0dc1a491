"""ledger: payments through four witnesses, real processes on loopback, durable; beside what signature checks alone
allow on this machine, and beside a plain loop that signs and sends each thing by itself."""

from __future__ import annotations

import multiprocessing
import statistics
import time

import msgspec
from msgspec.structs import replace
from nacl.signing import SigningKey

from offgrid_node.keys import verify
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import conditions_noted, quantile, side_by_side
from offgrid_tools.bench.ledger_bytes import finality_at_once, receipt_bytes
from offgrid_tools.bench.ledger_mesh import LANES, WITNESSES, Flood, OurLedger
from offgrid_tools.bench.ledger_plain import PlainLoop
from offgrid_tools.bench.ledger_settling import settle_receipts
from offgrid_tools.bench.ledger_store import FULL as MONTH
from offgrid_tools.bench.ledger_store import QUICK as MONTH_QUICK
from offgrid_tools.bench.ledger_store import measure_store
from offgrid_tools.bench.processes import Meter
from offgrid_tools.bench.reconciling import ITEMS, ITEMS_QUICK, SEEDS, SEEDS_QUICK, measure_stream
from offgrid_tools.bench.spreading import FULL, QUICK, measure_spreading
from offgrid_tools.ledgersim.main import uncollected
from offgrid_tools.ledgersim.slots.plan import draw
from offgrid_tools.ledgersim.slots.play import Play
from offgrid_tools.sim.engine import Trace

SINGLES, SINGLES_QUICK = 300, 60
FLOOD, FLOOD_QUICK = 16 * LANES, 4 * LANES
PAIRS, PAIRS_QUICK = 5, 2
PLAIN, PLAIN_QUICK = 1_500, 300
SEEDS_SIMULATED, SEEDS_SIMULATED_QUICK, OWNERS_SIMULATED, LOSS_SIMULATED = 32, 8, 40, 0.05
CHECKS, CHECKS_QUICK = 20_000, 4_000  # of each process


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
    return [*figures, *sizes(plan), simulated(plan)]


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
    floods, alone = list[Flood](), list[Checks]()
    meter = Meter(ours.pids)

    def flooded() -> float:
        floods.append(ours.flood(count))
        return floods[-1].count / floods[-1].took_s

    def bound() -> float:
        """Transactions a second that this machine's checks would do for, with as many blocks as the last flood had."""
        last = floods[-1]
        needed = len(WITNESSES) + last.blocks_checked / last.count
        alone.append(checks_alone(checks))
        return alone[-1].per_s / needed

    flooded()
    with conditions_noted(plan.folder) as conditions:
        pairs = side_by_side(flooded, bound, plan.rounds(PAIRS, PAIRS_QUICK))
    count = sum(flood.count for flood in floods)
    spent_us = 1e6 * sum(meter.read().values()) / count / len(WITNESSES)
    blocks = sum(flood.blocks for flood in floods) / count
    checked = sum(flood.blocks_checked for flood in floods) / count / len(WITNESSES)
    check_us = 1e6 * statistics.median(checks.cpu_s for checks in alone) * (1 + checked)
    by_cpu = check_us / spent_us  # on a machine on which others work too, the rates say who gets more of it
    both = f"the lesser of {pairs.ratio:.2f} by rate and {by_cpu:.2f} by processor time"
    note = f"{pairs.spread}; {blocks:.3f} blocks for each; {conditions}"
    return [
        Figure("final_per_s_n4", pairs.our_median, "signature checks alone", pairs.their_median, note),
        Figure(
            "final_vs_verify_bound_n4", min(pairs.ratio, by_cpu), "signature checks alone", pairs.their_median, both
        ),
        Figure("cpu_us_per_transaction_and_witness", spent_us, "its signature checks alone", check_us),
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


def sizes(plan: Plan) -> list[Figure]:
    """What a payment, its receipt, what two nodes differ by and what a mesh of many tells itself take on links."""
    plan.say("ledger: bytes of what is settled, of a payment, of a receipt, of nodes that were apart")
    settled = settle_receipts()
    if not settled.paid_once:
        raise RuntimeError(f"not every host has what its receipts add up to: {settled}")
    round_ = finality_at_once()
    hosts = f"{settled.receipts} receipts of {settled.hosts} hosts, {settled.vouchers} vouchers"
    return [
        Figure("settle_10k_receipts_bytes_per_host", settled.bytes_per_host, note=hosts),
        Figure("finality_round_bytes_n4", round_.bytes, note="a payment's blocks until all hold it final, each once"),
        Figure("payment_bytes_n4", round_.bytes + round_.late_bytes, note="with the confirm that comes too late"),
        Figure("offline_receipt_bytes", receipt_bytes()),
        *measure_stream(plan.rounds(ITEMS, ITEMS_QUICK), plan.rounds(SEEDS, SEEDS_QUICK)),
        *measure_spreading(QUICK if plan.quick else FULL),
        measure_store(plan.folder / "month", MONTH_QUICK if plan.quick else MONTH),
    ]


def simulated(plan: Plan) -> Figure:
    """How fast the judge of all this is: seeds of the witness' rules alone, by the processor time that they take."""
    seeds = plan.rounds(SEEDS_SIMULATED, SEEDS_SIMULATED_QUICK)
    plan.say(f"ledger: {seeds} simulated seeds")
    drawn = f"{seeds} seeds of {OWNERS_SIMULATED} owners, {LOSS_SIMULATED:.0%} lost"
    note = f"a message or a timer, handled by one node; {drawn}"
    return Figure("sim_events_per_s_n4", events_per_s(seeds), note=note)


def events_per_s(seeds: int) -> float:
    """Whatever else a seed draws, so many messages are lost. Raises Broken."""
    events, spent_s = 0, 0.0
    for seed in range(seeds):
        drawn = draw(seed, len(WITNESSES), OWNERS_SIMULATED)
        play = Play(seed, replace(drawn, loss=LOSS_SIMULATED), Trace(None))
        began = time.process_time()
        with uncollected():
            play.execute()
        spent_s += time.process_time() - began
        events += play.handled
    return events / spent_s


class Checks(msgspec.Struct, frozen=True):
    per_s: float
    cpu_s: float  # of a processor, for one


def checks_alone(count: int) -> Checks:
    """So many signatures by each of as many processes as there are witnesses: on a machine on which others work too,
    fewer would get less of it than the witnesses do."""
    with multiprocessing.get_context("spawn").Pool(len(WITNESSES)) as pool:
        pool.map(_check, [100] * len(WITNESSES), chunksize=1)
        began = time.perf_counter()
        spent = pool.map(_check, [count] * len(WITNESSES), chunksize=1)
        took_s = time.perf_counter() - began
    return Checks(len(WITNESSES) * count / took_s, sum(spent) / len(WITNESSES) / count)


def _check(count: int) -> float:
    """Seconds of a processor."""
    key = SigningKey(bytes(32))
    public, digest = bytes(key.verify_key), bytes(range(32))
    signature = key.sign(digest).signature
    began = time.process_time()
    for _ in range(count):
        if not verify(public, digest, signature):
            raise RuntimeError("a good signature was refused")
    return time.process_time() - began

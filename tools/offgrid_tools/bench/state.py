"""state: sessions, the store that applications record their events in, beside raw LMDB and `eventsourcing`.

Appends, in this process and without gRPC, as the peers are: a client's request with a batch of 15 real events comes to
the session handlers, which check each event against its schema and seal the batch; it goes through the runtime's inbox,
the machine and the store, is journalled, digested, committed and fsynced, folded into the state, and answered.
Beside that 15 puts of the same events, made before, and their entries in an index by type, in one transaction of LMDB;
and 15 events of `eventsourcing`, as one `Application.save` into SQLite. All on the same disk, turn about.

The rest is in state_million.py (a million events) and state_live.py (a real node and its client).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import conditions_noted, quantile, side_by_side, timed
from offgrid_tools.bench.state_events import BATCH
from offgrid_tools.bench.state_live import measure_live
from offgrid_tools.bench.state_million import measure_million
from offgrid_tools.bench.state_ours import OurStore
from offgrid_tools.bench.state_peers import EventSourcing, RawLmdb

BATCHES_PER_SAMPLE = 200
PAIRS, PAIRS_QUICK = 21, 5
SINGLES, SINGLES_QUICK = 5_000, 1_000
MS = 1_000

Append = Callable[[int], None]


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    return [*measure_appends(plan), *measure_million(plan), *measure_live(plan)]


def measure_appends(plan: Plan) -> Iterator[Figure]:
    with closing(OurStore(plan.folder / "ours")) as ours:
        with closing(RawLmdb(plan.folder / "raw")) as raw:
            yield from beside(plan, ours.append, raw.append, "append_batch15_vs_raw_lmdb", "raw LMDB")
            costs = cpu_us(ours.append), cpu_us(raw.append)
            yield Figure("append_batch15_cpu_us_per_event", costs[0], "raw LMDB", costs[1])
        if why := EventSourcing.missing():
            plan.say(f"state: {EventSourcing.name} is left out: {why}")
        else:
            with closing(EventSourcing(plan.folder / "eventsourcing")) as theirs:
                name = EventSourcing.name
                yield from beside(plan, ours.append, theirs.append, "append_batch15_vs_eventsourcing", name)
        plan.say("state: events one by one, each waited for")
        times = [MS * timed(lambda: ours.append(1)) for _ in range(plan.rounds(SINGLES, SINGLES_QUICK))]
        yield Figure("append_single_p50_ms", quantile(times, 0.5), note="from the request to its durable answer")
        yield Figure("append_single_p999_ms", quantile(times, 0.999), note=f"{len(times)} requests")


def beside(plan: Plan, ours: Append, theirs: Append, name: str, peer: str) -> Iterator[Figure]:
    """The ratio."""
    plan.say(f"state: {BATCHES_PER_SAMPLE} batches of {BATCH} events a sample, ours and {peer} turn about")
    with conditions_noted(plan.folder) as conditions:
        pairs = side_by_side(lambda: speed(ours), lambda: speed(theirs), plan.rounds(PAIRS, PAIRS_QUICK))
    note = f"{pairs.spread}; ours {pairs.our_median:,.0f} events/s; {conditions}"
    yield Figure(name, pairs.ratio, f"{peer}, events/s", pairs.their_median, note)


def speed(append: Append) -> float:
    """Events a second over one sample."""

    def sample() -> None:
        for _ in range(BATCHES_PER_SAMPLE):
            append(BATCH)

    return BATCHES_PER_SAMPLE * BATCH / timed(sample)


def cpu_us(append: Append) -> float:
    """Processor time an event costs, the system's part of it included; it hardly depends on what else is running."""
    began = time.process_time()
    speed(append)
    return (time.process_time() - began) / (BATCHES_PER_SAMPLE * BATCH) * 1e6

"""state: how fast events become durable in a node's journal, beside raw LMDB with the same events.

Ours is what a node does: a writer's batch comes as one request into the runtime's inbox, a machine steps over it and
builds and records each event, they are stamped, packed, chained by digests, committed and fsynced, and the request is
answered; only the machine is a trivial one. Theirs is py-lmdb with default flags: fifteen puts and their entries in an
index by type per transaction, of bytes that are there already. Both write to the same disk, turn about.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random

import lmdb

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Call, DropBlob, Effect, Execute, Fill, Record, Reply, Rows, Stop
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects.errands import (
    Audit,
    Compare,
    Fetch,
    KeepSegment,
    Rebuild,
    Regain,
    Reseal,
    Rewrap,
    Ship,
)
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.storage.logged import LoggedStore
from offgrid_tools.bench.disks import disk_bytes_written
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import conditions_noted, quantile, side_by_side, timed

BATCH = 15
EVENT_BYTES = 181
BATCHES_PER_SAMPLE = 200
PAIRS, PAIRS_QUICK = 21, 5
SINGLES, SINGLES_QUICK = 5_000, 1_000
PACE_S = 0.2  # a batch of 15 each time makes 75 events a second
PACED_BATCHES, PACED_ROUNDS, PACED_ROUNDS_QUICK = 15, 5, 1
STORE_BYTES_MAX = 2 * 1024**3
SEQ_KEY = struct.Struct(">Q")
TYPE_KEY = struct.Struct(">HQ")
ETYPE = EventType.MISSION_CREATED
TEXT = "x" * 116  # brings the event to EVENT_BYTES as it is stored


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    with closing(OurJournal(plan.folder / "ours")) as ours, closing(RawLmdb(plan.folder / "raw")) as raw:
        plan.say(f"state: {BATCHES_PER_SAMPLE} batches of {BATCH} events a sample, ours and raw LMDB turn about")
        with conditions_noted(plan.folder) as conditions:
            pairs = side_by_side(lambda: speed(ours.append), lambda: speed(raw.append), plan.rounds(PAIRS, PAIRS_QUICK))
        note = f"{pairs.spread}; {conditions}"
        figures = [
            Figure("append_batch15_vs_raw_lmdb", pairs.ratio, "raw LMDB, events/s", pairs.their_median, note),
            Figure("append_batch15_per_s", pairs.our_median, note="median of the same samples"),
            Figure("append_batch15_cpu_us_per_event", cpu_us(ours.append), "raw LMDB", cpu_us(raw.append)),
        ]
        plan.say("state: events one by one, each waited for")
        times = [1000 * timed(lambda: ours.append(1)) for _ in range(plan.rounds(SINGLES, SINGLES_QUICK))]
        figures += [
            Figure("append_single_p50_ms", quantile(times, 0.5), note="from the request to its durable answer"),
            Figure("append_single_p999_ms", quantile(times, 0.999), note=f"{len(times)} requests"),
        ]
        return figures + disk_figures(plan, ours)


def disk_figures(plan: Plan, ours: OurJournal) -> list[Figure]:
    """What reaches the disk, as the disk counts it; nothing where it does not say."""
    if disk_bytes_written(plan.folder) is None:
        return []
    rounds = plan.rounds(PACED_ROUNDS, PACED_ROUNDS_QUICK)
    plan.say(f"state: 75 events a second for {rounds * PACED_BATCHES * PACE_S:.0f} s")
    costs: list[float] = []
    for _ in range(rounds):
        before = disk_bytes_written(plan.folder) or 0
        for _ in range(PACED_BATCHES):
            ours.append(BATCH)
            time.sleep(PACE_S)
        costs.append(((disk_bytes_written(plan.folder) or 0) - before) / (PACED_BATCHES * BATCH))
    note = f"by the disk's own count, the least of {rounds} rounds: others write there too"
    return [Figure("disk_bytes_per_event_at_75_per_s", min(costs), note=note)]


def speed(append: Callable[[int], None]) -> float:
    """Events a second over one sample."""

    def sample() -> None:
        for _ in range(BATCHES_PER_SAMPLE):
            append(BATCH)

    return BATCHES_PER_SAMPLE * BATCH / timed(sample)


def cpu_us(append: Callable[[int], None]) -> float:
    """Processor time an event costs, the system's part of it included; it hardly depends on what else is running."""
    began = time.process_time()
    speed(append)
    return (time.process_time() - began) / (BATCHES_PER_SAMPLE * BATCH) * 1e6


class OurJournal:
    """A node's runtime and store with one machine."""

    def __init__(self, folder: Path) -> None:
        store = LoggedStore.open(folder, limit_bytes=STORE_BYTES_MAX)
        rng = Random(0)  # noqa: S311 - the machine asks for none
        self._runtime = Runtime(lambda: {"state": Recorder()}, store, SystemClock(), rng, NoOutlet())

    def append(self, count: int) -> None:
        """`count` events, asked for at once; returns once the answer is there, which comes after the fsync."""
        ticket = self._runtime.ask("state", "bench", [TEXT] * count)
        self._runtime.turn()
        if isinstance(ticket.outcome, Fault):
            raise ticket.outcome
        assert ticket.outcome is not None

    def newest(self) -> bytes:
        """The newest event as it is stored."""
        return next(iter(self._runtime.store.events(reverse=True)))[1]

    def close(self) -> None:
        self._runtime.store.close()


class Recorder:
    """The least machine that there can be: it records what it is asked to, and answers."""

    def load(self, rows: Rows, now: Now) -> None:
        self._count = 0

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        effects: list[Effect] = []
        for asked in inputs:
            assert isinstance(asked, Asked)
            assert isinstance(asked.command, list)
            for text in asked.command:
                self._count += 1
                mission = jobs_pb2.Mission(mission_id=f"m-{self._count:012}", title=text)
                effects.append(Record(state_pb2.Event(etype=ETYPE, subject=mission.mission_id, mission=mission)))
            effects.append(Reply(asked.ticket, jobs_pb2.CreateMissionResponse()))
        return effects

    def deadline_ms(self) -> int | None:
        return None


class NoOutlet:
    """The machine asks for nothing that leaves the node."""

    def call(self, call: Call) -> None: ...

    def execute(self, work: Execute) -> None: ...

    def stop(self, work: Stop) -> None: ...

    def fill(self, work: Fill) -> None: ...

    def ship(self, work: Ship) -> None: ...

    def rebuild(self, work: Rebuild) -> None: ...

    def fetch(self, work: Fetch) -> None: ...

    def drop_blob(self, work: DropBlob) -> None: ...

    def keep_segment(self, work: KeepSegment) -> None: ...

    def compare(self, work: Compare) -> None: ...

    def audit(self, work: Audit) -> None: ...

    def rewrap(self, work: Rewrap) -> None: ...

    def reseal(self, work: Reseal) -> None: ...

    def regain(self, work: Regain) -> None: ...


class SystemClock:
    """As the daemon's."""

    def now(self) -> Now:
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000)


class RawLmdb:
    """The binding alone, as someone would write it who wants events and an index of them by type."""

    def __init__(self, folder: Path) -> None:
        self._env = lmdb.open(str(folder), map_size=STORE_BYTES_MAX, max_dbs=2)
        self._events = self._env.open_db(b"events")
        self._by_type = self._env.open_db(b"by_type")
        self._event = bytes(range(EVENT_BYTES))
        self._seq = 0

    def append(self, count: int) -> None:
        """`count` events in one transaction, fsynced."""
        with self._env.begin(write=True) as txn:
            for _ in range(count):
                self._seq += 1
                txn.put(SEQ_KEY.pack(self._seq), self._event, db=self._events, append=True)
                txn.put(TYPE_KEY.pack(ETYPE, self._seq), b"", db=self._by_type)

    def close(self) -> None:
        self._env.close()

"""market: what clearing a job costs a broker, beside a full book; and a broker that starts with many orders in line.

The real broker machine, without roads and disks: 1,000 hosts with an offer each, jobs of 100 requirement classes, some
of which fit few hosts and some all, and each second's worth of jobs 1 % of the offers changed, all of it in the count.
CPU time, for a machine is never idle.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from random import Random

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.events import CORE, HOST, PeerUp
from offgrid_node.protocol.ids import node_id_from
from offgrid_node.protocol.jobs.awards import QUEUE
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.closing import SERVED, Over
from offgrid_node.protocol.jobs.commands import PostOffers, SubmitJobs
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_tools.bench import pending
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import quantile
from offgrid_tools.sim.crypto import SimSigner

HOSTS, CLASSES, CHANGED_PER_S = 1_000, 100, 10
JOBS_PER_S = 1_000  # at which 1 % of the offers change in the time of as many jobs
JOBS, JOBS_QUICK = 20_000, 3_000
NEW_CLASSES = 200
PENDING = 100_000
ROUNDS, ROUNDS_QUICK = 5, 1
CORE_ID = node_id_from(bytes([7]) * 20)


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    plan.say(f"market: jobs one by one against {HOSTS} offers in {CLASSES} classes")
    rounds = plan.rounds(ROUNDS, ROUNDS_QUICK)
    singles = [cleared_us(plan.rounds(JOBS, JOBS_QUICK), 1) for _ in range(rounds)]
    batches = [cleared_us(plan.rounds(JOBS, JOBS_QUICK), 64) for _ in range(rounds)]
    first_us = [first_order_us() for _ in range(rounds)]
    plan.say(f"market: a broker that starts with {PENDING} orders in line")
    load_ms, first_ms = restarted(PENDING)
    pending.fill(plan.folder, (order(number) for number in range(PENDING)))
    restarts = [pending.restart(plan.folder, PENDING) for _ in range(rounds)]
    if not all(each.awarded for each in restarts):
        raise RuntimeError("a broker that started with orders in line awarded none")
    cpu_s = quantile([each.cpu_seconds for each in restarts], 0.5)
    return [
        Figure("clear_us_at_1000_offers", quantile(singles, 0.5), note=f"CPU, a call for each; {rounds} rounds"),
        Figure("clear_us_at_1000_offers_by_64", quantile(batches, 0.5), note="CPU, 64 jobs of a class in a call"),
        Figure("first_order_us_at_1000_hosts", quantile(first_us, 0.5), note="CPU, a class that nobody named before"),
        Figure("broker_load_ms_at_100k_pending", load_ms, note="rows to a broker that clears"),
        Figure("broker_first_award_ms_at_100k_pending", first_ms, note="from the first offer to its awards"),
        Figure(
            "broker_restart_100k_pending_s",
            quantile([each.seconds for each in restarts], 0.5),
            note=f"from opening its store to its first awards; {cpu_s:.2f} s of CPU; {rounds} starts",
        ),
    ]


class Scene:
    """A broker whose book is full; what it would write or say is thrown away."""

    def __init__(self, queue_max: int = PENDING) -> None:
        settings = JobsSettings(SimSigner("broker"), b"", queue_max=queue_max)
        self.peers, self.post = Peers(), Post(settings)
        self.broker = Broker(settings, self.peers, self.post)
        self.peers.on_up(PeerUp(CORE_ID, "core", frozenset({CORE})))
        self.rng = Random(1)  # noqa: S311 - to be repeatable
        self._seqs: dict[str, int] = {}
        self.now_ms = 0

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    def offer(self, number: int) -> None:
        """A host says all of itself, at a price that it draws."""
        host = node_id_from(number.to_bytes(20, "big"))
        if host not in self._seqs:
            self.peers.on_up(PeerUp(host, f"h{number}", frozenset({HOST})))
        self._seqs[host] = self._seqs.get(host, 0) + 1
        profile = jobs_pb2.HostProfile(
            slots=4, memory_mb=1_024 * (1 + number % 64), cpus=1 + number % 16, labels={"rack": str(number % 100)}
        )
        offer = jobs_pb2.Offer(
            offer_id=1,
            executors=["wasm", "builtin:echo"],
            kinds=["compute"],
            ask_micro=self.rng.randrange(500, 2_000),
            slots=4,
            expiry_ms=3_600_000,
        )
        request = jobs_pb2.PostOffersRequest(host=host, seq=self._seqs[host], profile=profile, offers=[offer])
        self.broker.on_offers(0, PostOffers(request), self.now)

    def submit(self, orders: Sequence[JobOrder], closed: Sequence[Over] = ()) -> None:
        self.broker.on_submit(0, SubmitJobs(CORE_ID, tuple(orders), tuple(closed)), self.now)

    def settle(self) -> None:
        self.post.take(self.now)


def requirements(number: int) -> str:
    """Of a hundred classes: half of them fit one host in a hundred, the others more."""
    if number % 2:
        return f'label.rack == "{number}"'
    return f"memory_mb >= {1_024 * (1 + number // 2)} and cpus > {number % 8}"


def order(number: int, needs: str = "wasm", kind_of: int | None = None) -> JobOrder:
    text = requirements((number if kind_of is None else kind_of) % CLASSES)
    return JobOrder(
        CORE_ID, f"j-{number}", 1, "compute", needs, 1_000, 0, bytes(32), 30_000, 0, 10_000_000, requirements=text
    )


def cleared_us(jobs: int, together: int) -> float:
    """A job's share of the CPU time of all: orders, awards, closed leases, changed offers."""
    scene = Scene()
    for number in range(HOSTS):
        scene.offer(number)
    for number in range(CLASSES):
        scene.submit([order(-1 - number, kind_of=number)])  # each class has been asked for once
    batches = list(_batches(jobs, together))
    over: list[Over] = []
    changed = 0
    gc.collect()
    spent = 0.0
    for done, orders in enumerate(batches, 1):
        began = time.process_time()
        scene.now_ms += together
        scene.submit(orders, over)
        while changed < done * together * CHANGED_PER_S // JOBS_PER_S:
            scene.offer(scene.rng.randrange(HOSTS))
            changed += 1
        spent += time.process_time() - began
        over = [Over(each.job_id, 1, SERVED) for each in orders]
        scene.settle()
    return spent * 1e6 / (len(batches) * together)


def first_order_us() -> float:
    """The median order that names a class of its own: read, matched with every host, sorted, cleared."""
    scene, spent = Scene(), list[float]()
    for number in range(HOSTS):
        scene.offer(number)
    for number in range(NEW_CLASSES):
        text = f'memory_mb >= {number} and cpus > {number % 8} and label.rack != "{number}"'
        began = time.process_time()
        scene.submit([order(number)._replace(requirements=text)])
        spent.append(time.process_time() - began)
        scene.settle()
    return quantile(spent, 0.5) * 1e6


def _batches(jobs: int, together: int) -> Iterator[list[JobOrder]]:
    for number in range(0, jobs, together):
        yield [order(number + each, kind_of=number // together) for each in range(together)]


class Rows:
    """As a store has them, in memory."""

    def __init__(self, values: list[bytes]) -> None:
        self._values = values

    def get(self, table: str, key: bytes) -> bytes | None:
        return None

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        if table == QUEUE:
            for number, value in enumerate(self._values):
                yield number.to_bytes(8, "big"), value


def restarted(waiting: int) -> tuple[float, float]:
    """Milliseconds to load so many waiting orders, and from the first offer to its awards."""
    scene = Scene(waiting)
    rows: list[bytes] = []
    scene.offer(1)
    scene.broker.on_peer_up(CORE_ID)
    scene.submit([order(-1 - number, kind_of=1) for number in range(4)])  # its slots are in use: all others wait
    for number in range(waiting):
        scene.submit([order(number, kind_of=1)])
        for effect in scene.post.take(scene.now):
            if isinstance(effect, Put) and effect.table == QUEUE:
                rows.append(effect.value)
    del scene
    gc.collect()
    fresh = Scene(waiting)
    began = time.perf_counter()
    fresh.broker.load(Rows(rows), fresh.now)
    load_ms = (time.perf_counter() - began) * 1_000
    began = time.perf_counter()
    fresh.offer(1)
    fresh.broker.clear(fresh.now)
    fresh.settle()
    return load_ms, (time.perf_counter() - began) * 1_000

"""Many receipts of many hosts, settled while core, hosts and witnesses die by kill -9 at random moments.

Real processes: four witnesses, a broker, a core that pays, and hosts. Each job names its host, so every host works.
Most kills fall while jobs are done, booked and promised; the others while what was promised last is settled. Hosts
settle by themselves, whenever the settlement interval is over. In the end each job is paid once, every host has what
its jobs come to, and every store and ledger verifies. What it cost on the wire is told as `bench ledger` counts it, for
each settlement of each host: blocks as each author says them once, and vouchers with their answers and with the
questions that a core which was killed asks every payee.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TypeVar

import msgspec

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2, ledger_pb2
from offgrid_node.folder import Folder, open_store
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.ledger.delivery import METHOD
from offgrid_node.protocol.ledger.tables import GIVEN
from offgrid_tools import replaying
from offgrid_tools.soak.audit import audit_stores
from offgrid_tools.soak.audit_money import Money, audit_money, settle_money
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.clients import Writer
from offgrid_tools.soak.kills import Killer, open_ledger
from offgrid_tools.soak.load import Acked
from offgrid_tools.soak.patience import STILL_S, Patience
from offgrid_tools.soak.toll import Say, Toll, at_home

T = TypeVar("T")

WITNESSES = ("w1", "w2", "w3", "w4")
CORE, BROKER = "core", "broker"
START_AT_ONCE = 4
START_MICRO = 1_000_000_000_000
TOKENS_MAX = 10_000_000
BATCH_MAX = 100
NO_HOST = "NoHostsAvailable"
TRIES_MAX = 10  # of a job whose host is down whenever it is asked for
JOBS_SHARE = 0.7  # of the kills fall while jobs are done
POLL_S = 0.5
ANSWER_BYTES = 16  # of a call with a voucher, as `bench ledger` counts it
OPEN_STATES = [
    jobs_pb2.JobState.Name(state).removeprefix("JOB_STATE_").lower()
    for state in jobs_pb2.JobState.values()
    if state and state not in ENDED
]


class Plan(msgspec.Struct, frozen=True):
    """`interval_s` is the settlement interval."""

    seed: int
    kills: int
    receipts: int = 10_000
    hosts: int = 64
    interval_s: int = 120

    @property
    def host_names(self) -> list[str]:
        return [f"h{number:02}" for number in range(self.hosts)]


class Work(Writer):
    """One client of the core: batches of small jobs, each job for a host that it names. A job whose host was down for
    longer than it was retried is asked for again, as a new one."""

    plan: Plan | None = None
    killer: Killer | None = None
    acked: dict[str, Acked] = msgspec.field(default_factory=dict)  # by job
    again: int = 0
    _numbers: dict[str, int] = msgspec.field(default_factory=dict)  # by job, the receipt that it is for
    _asked: int = 0
    _tries: Counter[int] = msgspec.field(default_factory=Counter)
    _patience: Patience | None = None
    _task_id: str = ""

    def begin(self, client: Client) -> None:
        def task() -> str:
            mission = client.missions.create("settling", request_id="settling-m")
            return client.tasks.create(mission.mission_id, "settling", "compute", request_id="settling-t").task_id

        self._task_id = self.insist(task) or ""

    def step(self, client: Client, number: int) -> None:
        """As many as the kills are due: jobs are under way as long as processes die."""
        assert self.plan is not None
        assert self.killer is not None
        due = int(self.plan.receipts * (self.killer.done + 1) / max(1.0, JOBS_SHARE * self.plan.kills))
        failed = self._without_host(client)
        places = [*failed.values(), *range(self._asked, min(self.plan.receipts, due))][:BATCH_MAX]
        if not places:
            if self._asked == self.plan.receipts:
                self._wait_for_ends(client)
            self._stop.wait(POLL_S)
            return
        batch = [self._job(place) for place in places]
        made = self.insist(
            lambda: client.jobs.start(self._task_id, [spec for spec, _ in batch], request_id=f"settling-{number}")
        )
        if made is None:
            return
        for job_id in list(failed)[: len(places)]:
            del self.acked[job_id]
            self.again += 1
        self._asked = max(self._asked, *(place + 1 for place in places))
        self._tries.update(places)
        for job_id, place, (_, content) in zip(made.job_ids, places, batch, strict=True):
            self.acked[job_id] = Acked(job_id, content, dispatched=True)
            self._numbers[job_id] = place

    def _without_host(self, client: Client) -> dict[str, int]:
        """The jobs that found their host down, and the receipts that they were for."""
        jobs = self.insist(lambda: list(client.jobs.list(states=["failed"]))) or ()
        return {
            job.job_id: self._numbers[job.job_id]
            for job in jobs
            if job.error == NO_HOST and job.job_id in self.acked and self._tries[self._numbers[job.job_id]] < TRIES_MAX
        }

    def _wait_for_ends(self, client: Client) -> None:
        """Stops when all jobs have ended, or when for long none has."""
        self._patience = self._patience or Patience()
        jobs = self.insist(lambda: [job.job_id for job in client.jobs.list(states=OPEN_STATES)])
        if jobs and not self._patience.waits_for(jobs):
            self.violations += [f"job {job_id} has not ended, and for {STILL_S:.0f} s none has" for job_id in jobs[:20]]
            self.stop()
        elif jobs == [] and not self._without_host(client):
            self.stop()

    def _job(self, number: int) -> tuple[jobs_pb2.JobSpec, bytes]:
        assert self.plan is not None
        host, content = self.plan.host_names[number % self.plan.hosts], f"{number}".encode()
        spec = jobs_pb2.JobSpec(
            payload=payloads.builtin(input=content),
            requirements=f'host == "{host}"',
            size_tokens=self.rng.randint(1, TOKENS_MAX),
        )
        return spec, content


class Vouchers:
    """How many calls with vouchers the core has made, and their bytes, over its deaths: what it made between the last
    look and its death is not counted."""

    def __init__(self, core: LocalNode) -> None:
        self._core = core
        self._stop = threading.Event()
        self._before = self._now = (0.0, 0.0)

    @property
    def calls(self) -> int:
        return int(self._before[0] + self._now[0])

    @property
    def bytes(self) -> int:
        """With the answers."""
        return int(self._before[1] + self._now[1]) + self.calls * ANSWER_BYTES

    def run(self) -> None:
        while not self._stop.wait(POLL_S):
            self.look()

    def look(self) -> None:
        with suppress(OSError):
            connection = HTTPConnection((self._core.folder / "data" / "metrics.address").read_text(), timeout=5)
            try:
                connection.request("GET", "/metrics")
                page = connection.getresponse().read().decode().splitlines()
            finally:
                connection.close()
            calls = sum(_value(line) for line in page if _is_of_vouchers(line))
            sent = sum(_value(line) for line in page if line.startswith("offgrid_voucher_bytes_total"))
            if calls < self._now[0]:
                self._before = self._before[0] + self._now[0], self._before[1] + self._now[1]
            self._now = calls, sent

    def stop(self) -> None:
        self._stop.set()


def _is_of_vouchers(line: str) -> bool:
    return line.startswith("offgrid_calls_total{") and METHOD.rpartition("/")[2] in line


def _value(line: str) -> float:
    return float(line.rpartition(" ")[2])


def soak_settling(plan: Plan, folder: Path | None, say: Say) -> Toll:
    """See `at_home` for what becomes of the mesh's folder."""
    return at_home("settling", folder, lambda home: _soak(plan, home, say), say)


def _soak(plan: Plan, home: Path, say: Say) -> Toll:
    began, toll = time.monotonic(), Toll()
    roles = {
        **{name: ["core"] for name in WITNESSES},
        CORE: ["core"],
        BROKER: ["broker"],
        **{name: ["host"] for name in plan.host_names},
    }
    settings = {
        "economy__settlement_interval": plan.interval_s,
        "mesh__probe_interval_ms": 1_000 + 50 * plan.hosts,
        "node__log_level": "warning",
    }
    with LocalMesh(home, "settling", roles, **settings) as mesh:
        core = mesh[CORE]
        core.settings = {**core.settings, "metrics.listen": "127.0.0.1:0"}
        mesh.start(START_AT_ONCE)
        mesh.wait_alive()
        mesh.wait_offers(plan.hosts)
        open_ledger(mesh, witnesses=dict.fromkeys(WITNESSES, 0))
        say(f"   {len(roles)} nodes after {time.monotonic() - began:.0f} s")
        with mesh[WITNESSES[0]].client() as client:
            first = client.ledger.block_page().newest + 1
        hosts, victims = plan.host_names, [mesh[name] for name in (*WITNESSES, *plan.host_names)]
        victims += [core] * len(hosts) + [mesh[name] for name in WITNESSES] * (len(hosts) // len(WITNESSES))
        killer = Killer("any", victims, plan.kills, chance(f"{plan.seed}/kill"), say)
        work = Work("work", chance(f"{plan.seed}/work"), lambda: core.client(5.0), plan=plan, killer=killer)
        counted = Vouchers(core)
        threads = [
            threading.Thread(target=run, daemon=True) for run in (work.run, lambda: killer.run(plan.kills), counted.run)
        ]
        for thread in threads:
            thread.start()
        threads[0].join()
        say(f"   {len(work.acked)} jobs have ended after {time.monotonic() - began:.0f} s, {killer.done} kills")
        threads[1].join()
        patience = Patience(max(STILL_S, 2.0 * plan.interval_s))
        money, unsettled = settle_money(mesh, CORE, [], patience, all_paid=True)
        counted.stop()
        threads[2].join()
        counted.look()
        toll.violations += killer.violations + work.violations + unsettled
        block_bytes = _block_bytes(mesh[WITNESSES[0]], first)
        codes = mesh.stop()
        toll.violations += [
            f"{name} did not stop in order: exit code {code}" for name, code in codes.items() if code != 0
        ]
    stores = audit_stores(mesh, work.acked.values())
    toll.violations += stores.broken + audit_money(money, [], stores.accepted) + audit_paid(money, plan)
    toll.violations += _verified([mesh[name] for name in (CORE, WITNESSES[0], hosts[0])])
    ended = _ended(core)
    toll.figures = {
        "kills": killer.done,
        "jobs asked for again": work.again,
        "jobs paid once": sum(bool(booking.tx_id) for booking in money.bookings.bookings),
        "settlements": ended,
        "voucher calls": counted.calls,
        "block bytes of one": block_bytes // max(1, ended),
        "voucher bytes of one": counted.bytes // max(1, ended),
        "bytes of one": (block_bytes + counted.bytes) // max(1, ended),
        "seconds": round(time.monotonic() - began),
        "violations": len(toll.violations),
    }
    for what, count in toll.figures.items():
        say(f"   {what:26} {count:>10,}")
    say(f"   {stores.figures}")
    return toll


def _block_bytes(witness: LocalNode, first: int) -> int:
    with witness.client(30) as client:
        return sum(block.ByteSize() for _, block in client.ledger.blocks(first))


def audit_paid(money: Money, plan: Plan) -> list[str]:
    """Each host has what its jobs come to and nothing more, and each job was paid."""
    earned: Counter[str] = Counter()
    for booking in money.bookings.bookings:
        earned[booking.payee_name] += booking.amount_micro
    broken = [f"job {b.job_id} is not paid" for b in money.bookings.bookings if not b.tx_id and b.amount_micro]
    balances = {balance.name: balance.final_micro for balance in money.balances[CORE].balances}
    for name in plan.host_names:
        got = balances.get(name, 0) - START_MICRO
        if got != earned[name]:
            broken.append(f"{name} has got {got} millionths, its jobs come to {earned[name]}")
    if len(money.bookings.bookings) != plan.receipts:
        broken.append(f"{len(money.bookings.bookings)} jobs are booked, {plan.receipts} were asked for")
    return broken


def _verified(nodes: Sequence[LocalNode]) -> Iterator[str]:
    """What is wrong with the ledgers of these, each worked out anew from its blocks."""
    for node in nodes:
        for finding in replaying.offline(node.folder).findings:
            yield f"{node.name}: {finding.where}: {finding.what}"


def _ended(core: LocalNode) -> int:
    """How many of its holds have, as its rows say."""
    store = open_store(Folder(core.folder).config({}), create=False)
    try:
        return sum(bool(ledger_pb2.GivenHold.FromString(value).ended) for _, value in store.scan(GIVEN))
    finally:
        store.close()

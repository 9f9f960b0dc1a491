"""A real mesh under load whose processes die by kill -9, first one role alone and then all at once, and come back.

All the time clients have jobs done, keep objects and pay each other; one of them dies as well. What was acknowledged
must be there at the end: jobs completed with one accepted result, objects readable, transfers final, the money
conserved; `audit*.py` say what is checked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

import msgspec

from offgrid.client import Client, OffgridError
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.storage.blobs import KEPT
from offgrid_tools.soak.audit import Stores, audit_jobs, audit_stores
from offgrid_tools.soak.audit_money import Money, audit_money, settle_money
from offgrid_tools.soak.audit_objects import audit_deleted, audit_objects, audit_shared, settle_outboxes
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.clients import Writer
from offgrid_tools.soak.clockwork import Clockwork
from offgrid_tools.soak.keeping import Keeping
from offgrid_tools.soak.load import Acked, Load
from offgrid_tools.soak.mortals import Mortal
from offgrid_tools.soak.outside import Outside
from offgrid_tools.soak.patience import STILL_S, Patience
from offgrid_tools.soak.paying import Paid, Paying
from offgrid_tools.soak.toll import Say, Toll, at_home

NODES = {
    "core": ["core"],
    "broker": ["broker"],
    "broker-2": ["broker"],
    "host-a": ["host"],
    "host-b": ["host"],
    "host-c": ["host"],
}
DROP = "drop"
SETTINGS = {
    "host__process__commands": {"sh": "/bin/sh"},
    "host__python__enabled": True,
    "jobs__drop_dir": DROP,
    "node__log_level": "warning",
}
VICTIMS = {"core": ["core"], "broker": ["broker", "broker-2"], "host": ["host-a", "host-b", "host-c"]}
SPOILT = "host-c"  # the one whose disk loses something at each death: every object may lose one host
CLIENTS, MORTALS = 3, 1
KEEPERS, PAYERS = ("core", "broker"), ("core", "broker", "host-a")
LIFE_S, DEATH_S = (0.0, 2.5), (0.0, 1.0)
UNBORN_CHANCE = 0.15  # killed while it starts
START_S = (0.05, 1.0)
SPREAD_S = 120.0  # so long a ledger that is opened may take to be known everywhere


class Plan(msgspec.Struct, frozen=True):
    """`rounds` kills of each role: a quarter of them while the other roles live, so that much work is under way. Each
    client rests for `pause_s` between what it does."""

    seed: int
    rounds: int
    pause_s: float = 0.0

    @property
    def alone(self) -> int:
        return max(1, self.rounds // 4)


class Killer(msgspec.Struct):
    """Kills the nodes of one role, one at a time, at moments that nobody chose."""

    role: str
    nodes: list[LocalNode]
    rounds: int
    rng: Random
    say: Say
    done: int = 0
    spoilt: int = 0
    violations: list[str] = msgspec.field(default_factory=list)

    def run(self, until: int) -> None:
        """Kills until `until` have died in all."""
        try:
            while self.done < until:
                self._round(self.rng.choice(self.nodes), until)
        except Unavailable as fault:
            self.violations.append(f"a node did not come back: {fault.message}")

    def _round(self, node: LocalNode, until: int) -> None:
        tens = self.done // 10
        time.sleep(self.rng.uniform(*LIFE_S))
        node.kill()
        self.done += 1
        if node.name == SPOILT:
            self.spoilt += _lose_one(node, self.rng)
        time.sleep(self.rng.uniform(*DEATH_S))
        node.run("run")
        while self.done < until and self.rng.random() < UNBORN_CHANCE:
            time.sleep(self.rng.uniform(*START_S))
            node.kill()
            self.done += 1
            node.run("run")
        node.wait_ready()
        if self.done // 10 > tens:
            self.say(f"   {self.done:4} of {self.rounds} kills of {self.role}")


def _lose_one(node: LocalNode, rng: Random) -> bool:
    """Its disk loses one of the shards that it keeps for others: it is to be brought again."""
    kept = sorted(node.folder.glob(f"**/{KEPT}/o-*.*"))
    if not kept:
        return False
    rng.choice(kept).unlink()
    return True


class Crowd:
    """All clients of a run: jobs and objects at the core, objects at the broker too, payments between three nodes."""

    def __init__(self, mesh: LocalMesh, seed: int, pause_s: float) -> None:
        def connect(name: str) -> Callable[[], Client]:
            return lambda: mesh[name].client(5.0)

        self.loads = [Load(f"c{n}", chance(f"{seed}/load/{n}"), connect("core")) for n in range(CLIENTS)]
        self.keepings = [
            Keeping(
                f"k-{name}",
                chance(f"{seed}/keep/{name}"),
                connect(name),
                readers=tuple(other for other in NODES if other != name),
            )
            for name in KEEPERS
        ]
        self.payings = [
            Paying(name, chance(f"{seed}/pay/{name}"), connect(name), payees=[to for to in NODES if to != name])
            for name in PAYERS
        ]
        self.mortals = [Mortal(f"x{n}", mesh["core"].folder, chance(f"{seed}/mortal/{n}")) for n in range(MORTALS)]
        self.clockwork = Clockwork("w", chance(f"{seed}/clock"), connect("core"))
        self.outside = Outside(mesh["core"].folder / DROP)
        self.writers: list[Writer] = [*self.loads, *self.keepings, *self.payings, self.clockwork]
        for writer in self.writers:
            writer.pause_s = pause_s

    @property
    def all(self) -> list[Writer | Mortal]:
        return [*self.writers, *self.mortals]

    @property
    def acked(self) -> list[Acked]:
        clients: list[Load | Mortal | Clockwork] = [*self.loads, *self.mortals, self.clockwork]
        return [job for client in clients for job in client.acked]

    @property
    def paid(self) -> list[Paid]:
        return [payment for paying in self.payings for payment in paying.paid]

    @property
    def violations(self) -> list[str]:
        return [violation for writer in [*self.all, self.outside] for violation in writer.violations]


def soak_kills(plan: Plan, folder: Path | None, say: Say) -> Toll:
    """See `at_home` for what becomes of the mesh's folder."""
    return at_home("kills", folder, lambda home: _soak(plan, home, say), say)


def _soak(plan: Plan, home: Path, say: Say) -> Toll:
    began, toll = time.monotonic(), Toll()
    with LocalMesh(home, "soak", NODES, **SETTINGS) as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
        open_ledger(mesh)
        crowd = Crowd(mesh, plan.seed, plan.pause_s)
        killers = [
            Killer(role, [mesh[name] for name in names], plan.rounds, chance(f"{plan.seed}/kill/{role}"), say)
            for role, names in VICTIMS.items()
        ]
        with crowd.outside.at_work():
            _run_together(crowd.all, killers, plan)
            killing_s = time.monotonic() - began
            with mesh["core"].client(30) as core:
                crowd.clockwork.collect(core)
            toll.violations += _settle_jobs(mesh, crowd.acked, Patience())
        toll.violations += [violation for killer in killers for violation in killer.violations] + crowd.violations
        toll.violations += settle_outboxes(mesh, Patience())
        money, unsettled = settle_money(mesh, "core", crowd.paid, Patience())
        settled_s = time.monotonic() - began - killing_s
        toll.violations += unsettled + audit_jobs(mesh["core"], crowd.acked)
        for name, keeping in zip(KEEPERS, crowd.keepings, strict=True):
            toll.violations += audit_objects(mesh[name], keeping.kept) + audit_deleted(mesh[name], keeping.deleted)
            toll.violations += audit_shared(mesh, keeping.kept)
        codes = mesh.stop()
        toll.violations += [
            f"{name} did not stop in order: exit code {code}" for name, code in codes.items() if code != 0
        ]
    stores = audit_stores(mesh, crowd.acked)
    toll.violations += stores.broken + audit_money(money, crowd.paid, stores.accepted)
    toll.figures = {
        **{f"kills of {killer.role}": killer.done for killer in killers},
        "shards lost at a dead host": sum(killer.spoilt for killer in killers),
        "seconds of killing": round(killing_s, 1),
        "seconds to settle": round(settled_s, 1),
        **_figures(crowd, stores, money),
        "violations": len(toll.violations),
    }
    for what, count in toll.figures.items():
        say(f"   {what:26} {count:>10,}")
    say(f"   {stores.figures}")
    return toll


def _figures(crowd: Crowd, stores: Stores, money: Money) -> dict[str, float]:
    """Of what clients had done, and what came of it."""
    keepings = crowd.keepings
    return {
        "kills of clients": sum(mortal.deaths for mortal in crowd.mortals),
        "calls repeated": sum(writer.repeats for writer in crowd.writers),
        "jobs acknowledged": len(crowd.acked),
        "jobs by the clock": len(crowd.clockwork.acked),
        "jobs dropped and answered": crowd.outside.answered,
        "jobs accepted": len(stores.accepted),
        "jobs booked": len(money.bookings.bookings),
        "objects acknowledged": sum(len(keeping.kept) + len(keeping.deleted) for keeping in keepings),
        "objects deleted": sum(len(keeping.deleted) for keeping in keepings),
        "objects shared": sum(bool(kept.reader) for keeping in keepings for kept in keeping.kept),
        "reads amid kills": sum(keeping.used["reads"] for keeping in keepings),
        "bytes read back": sum(len(kept.data) for keeping in keepings for kept in keeping.kept),
        "transfers acknowledged": len(crowd.paid),
        "transfers final": len(money.final),
        "nodes that agree on money": len(money.balances) if money.equal else 0,
    }


def open_ledger(mesh: LocalMesh, witnesses: Mapping[str, int] | None = None) -> None:
    """Until every node knows of it; without `witnesses` all nodes are."""
    with mesh.founder.client() as founder:
        founder.ledger.open(witnesses=witnesses)
    deadline = time.monotonic() + SPREAD_S
    for node in mesh.nodes.values():
        with node.client() as client:
            while not client.ledger.genesis().open:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{node.name} does not hear of the ledger", reason="NotSpread")
                time.sleep(0.1)


def _run_together(writers: Sequence[Writer | Mortal], killers: list[Killer], plan: Plan) -> None:
    clients = [threading.Thread(target=writer.run, daemon=True) for writer in writers]
    for thread in clients:
        thread.start()
    for killer in killers:
        killer.run(plan.alone)
    deaths = [threading.Thread(target=killer.run, args=(plan.rounds,), daemon=True) for killer in killers]
    for thread in deaths:
        thread.start()
    for thread in deaths:
        thread.join()
    for writer in writers:
        writer.stop()
    for thread in clients:
        thread.join()


def _settle_jobs(mesh: LocalMesh, acked: list[Acked], patience: Patience) -> list[str]:
    """Waits until all that was dispatched has ended; says what has not."""
    waiting = {job.job_id for job in acked if job.dispatched}
    with mesh["core"].client() as core:
        while waiting and patience.waits_for(waiting):
            with suppress(OffgridError):  # still coming up
                waiting -= {job.job_id for job in core.jobs.list() if job.state in ENDED}
            time.sleep(0.2)
    return [f"job {job_id} has not ended, and for {STILL_S:.0f} s none has" for job_id in sorted(waiting)[:20]]

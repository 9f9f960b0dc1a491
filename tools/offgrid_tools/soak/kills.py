"""A real mesh under load whose processes die by kill -9, first one role alone and then all at once, and come back.

What was acknowledged must be there at the end, completed, with one accepted result; see `audit.py` for what is
checked.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from offgrid.client import OffgridError
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.soak.audit import audit_jobs, audit_stores
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.load import ENDED, Acked, Load

NODES = {"core": ["core"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
SETTINGS = {"host__process__commands": {"sh": "/bin/sh"}, "node__log_level": "warning"}
VICTIMS = {"core": ["core"], "broker": ["broker"], "host": ["host-a", "host-b", "host-c"]}
CLIENTS = 3
LIFE_S, DEATH_S = (0.0, 2.5), (0.0, 1.0)
UNBORN_CHANCE = 0.15  # killed while it starts
START_S = (0.05, 1.0)
SETTLE_S = 120.0  # after the last kill everything acknowledged must have ended by then

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` kills of each role: a quarter of them while the other roles live, so that much work is under way."""

    seed: int
    rounds: int

    @property
    def alone(self) -> int:
        return max(1, self.rounds // 4)


@dataclass(slots=True)
class Killer:
    """Kills the nodes of one role, one at a time, at moments that nobody chose."""

    role: str
    nodes: list[LocalNode]
    rounds: int
    rng: Random
    say: Say
    done: int = 0
    violations: list[str] = field(default_factory=list)

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


def soak_kills(plan: Plan, folder: Path | None, say: Say) -> list[str]:
    """Returns what was violated, one sentence each; the mesh's folder is kept if anything was, or if it was given."""
    home = folder or Path(tempfile.mkdtemp(prefix="offgrid-soak-"))
    broken = _soak(plan, home, say)
    if broken or folder is not None:
        say(f"   the mesh's folder: {home}")
    else:
        shutil.rmtree(home, ignore_errors=True)
    return broken


def _soak(plan: Plan, home: Path, say: Say) -> list[str]:
    began = time.monotonic()
    with LocalMesh(home, "soak", NODES, **SETTINGS) as mesh:
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
        loads = [
            Load(f"c{number}", chance(f"{plan.seed}/load/{number}"), lambda: mesh["core"].client(5.0))
            for number in range(CLIENTS)
        ]
        killers = [
            Killer(role, [mesh[name] for name in names], plan.rounds, chance(f"{plan.seed}/kill/{role}"), say)
            for role, names in VICTIMS.items()
        ]
        _run_together(loads, killers, plan)
        broken = [violation for killer in killers for violation in killer.violations]
        broken += [violation for load in loads for violation in load.violations]
        killing_s = time.monotonic() - began
        acked = [job for load in loads for job in load.acked]
        broken += _settle(mesh, acked)
        settled_s = time.monotonic() - began - killing_s
        broken += audit_jobs(mesh["core"], acked)
        codes = mesh.stop()
        broken += [f"{name} did not stop in order: exit code {code}" for name, code in codes.items() if code != 0]
    figures, found = audit_stores(mesh, acked)
    kills = Counter({killer.role: killer.done for killer in killers})
    say(f"   {', '.join(f'{count} kills of {role}' for role, count in kills.items())} in {killing_s:.0f} s")
    say(
        f"   {len(acked)} jobs acknowledged ({len(acked) / killing_s:.1f}/s), {sum(load.repeats for load in loads)} "
        f"calls repeated, all ended {settled_s:.1f} s after the last kill"
    )
    say(f"   {figures}")
    return broken + found


def _run_together(loads: list[Load], killers: list[Killer], plan: Plan) -> None:
    clients = [threading.Thread(target=load.run, daemon=True) for load in loads]
    for thread in clients:
        thread.start()
    for killer in killers:
        killer.run(plan.alone)
    deaths = [threading.Thread(target=killer.run, args=(plan.rounds,), daemon=True) for killer in killers]
    for thread in deaths:
        thread.start()
    for thread in deaths:
        thread.join()
    for load in loads:
        load.stop()
    for thread in clients:
        thread.join()


def _settle(mesh: LocalMesh, acked: list[Acked]) -> list[str]:
    """Waits until all that was dispatched has ended; says what has not."""
    waiting = {job.job_id for job in acked if job.dispatched}
    deadline = time.monotonic() + SETTLE_S
    with mesh["core"].client() as core:
        while waiting and time.monotonic() < deadline:
            with suppress(OffgridError):  # still coming up
                waiting -= {job.job_id for job in core.jobs.list() if job.state in ENDED}
            time.sleep(0.2)
    return [f"job {job_id} has not ended {SETTLE_S:.0f} s after the last kill" for job_id in sorted(waiting)[:20]]

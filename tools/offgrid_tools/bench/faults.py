"""faults: how long until a lost host's job runs elsewhere, with real processes at default settings.

Killed: kill -9 of the host that runs the job, from the signal to the moment at which its core has another host at work
on it. Frozen: SIGSTOP, after which its kernel still takes what is sent and nothing comes back. Cut off: each node is in
a network namespace of its own and the host's port is taken off the switch, so that nothing is taken, refused or reset.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import conditions_noted, quantile
from offgrid_tools.namespaces import LACKING, Switch, namespaces

KILLED, KILLED_QUICK = 20, 3  # rounds
FROZEN, FROZEN_QUICK = 10, 2
CUT, CUT_QUICK = 10, 2
HOSTS = 3
NODES = {"core": ["core"], "broker": ["broker"], **{f"host{number}": ["host"] for number in range(HOSTS)}}
JOB_S = 600  # longer than any round
WAIT_S_MAX = 60.0
POLL_S = 0.005
SLEEP = "/bin/sleep"
PROBE_INTERVAL_MS = 1_000  # the default; a mesh on one machine is else made to look more often


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    if sys.platform == "win32" or not Path(SLEEP).exists():
        plan.say("faults: this system has no SIGSTOP or no sleep; nothing is measured")
        return []
    plan.say("faults: starting a core, a broker and three hosts")
    with Town(plan.folder / "faults") as town, conditions_noted(plan.folder) as conditions:
        killed = rounds(plan, "killed", plan.rounds(KILLED, KILLED_QUICK), town.kill)
        frozen = rounds(plan, "frozen", plan.rounds(FROZEN, FROZEN_QUICK), town.freeze)
    return [
        figure("host_killed_to_reassigned_p99_s", killed, str(conditions)),
        figure("host_frozen_to_reassigned_p99_s", frozen, str(conditions)),
        *measure_cut(plan),
    ]


def measure_cut(plan: Plan) -> list[Figure]:
    """Nothing where there are no network namespaces, and it is said why."""
    if LACKING:
        plan.say(f"faults: hosts are not cut off: {LACKING}")
        return []
    plan.say("faults: starting the same, each in a network namespace of its own")
    try:
        with (
            namespaces("hub", *NODES) as (hub, *spaces),
            Town(plan.folder / "cut", Switch(hub, dict(zip(NODES, spaces, strict=True)))) as town,
            conditions_noted(plan.folder) as conditions,
        ):
            cut = rounds(plan, "cut off", plan.rounds(CUT, CUT_QUICK), town.cut_off)
    except Unavailable as fault:
        if fault.reason != "NoNamespaces":
            raise
        plan.say(f"faults: hosts are not cut off: {fault.message}")
        return []
    return [figure("host_cut_off_to_reassigned_p99_s", cut, str(conditions))]


def rounds(plan: Plan, what: str, count: int, one: Callable[[], float]) -> list[float]:
    times = []
    for number in range(count):
        times.append(one())
        plan.say(f"faults: host {what}, round {number + 1} of {count}: {times[-1]:.2f} s")
    return times


def figure(name: str, times: Sequence[float], conditions: str) -> Figure:
    note = f"{len(times)} rounds, p50 {quantile(times, 0.5):.2f} s, most {max(times):.2f} s; {conditions}"
    return Figure(name, quantile(times, 0.99), note=note)


class Town:
    """A core, a broker, and hosts of whom one is lost at a time. Use it in a `with` block."""

    def __init__(self, folder: Path, switch: Switch | None = None) -> None:
        """With a switch its nodes hang on that, each where the switch says."""
        self._mesh = LocalMesh(
            folder,
            "faults",
            NODES,
            mesh__probe_interval_ms=PROBE_INTERVAL_MS,
            host__slots=4,
            host__process__commands={"sleep": SLEEP},
        )
        self._switch = switch
        if switch is not None:
            for name, node in self._mesh.nodes.items():
                node.runner, address = switch.runners[name], f"{switch.addresses[name]}:0"
                node.settings = {**node.settings, "mesh.listen": address, "mesh.door": address}

    def __enter__(self) -> Town:
        try:
            self._mesh.start()
            self._settle()
        except BaseException:
            self._mesh.stop()
            raise
        self._client = self._mesh["core"].client(WAIT_S_MAX)
        mission = self._client.missions.create("faults")
        self._task_id = self._client.tasks.create(mission.mission_id, "faults", "compute").task_id
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._mesh.stop()

    def kill(self) -> float:
        """Seconds from kill -9 of the host at work to another host at work; everything is as before afterwards."""
        with self._at_work() as (host, job_id):
            began = time.perf_counter()
            host.kill()
            took_s = self._until_moved(job_id, host) - began
        host.run("run")
        host.wait_ready()
        self._settle()
        return took_s

    def freeze(self) -> float:
        """The same from SIGSTOP on."""
        if sys.platform == "win32":
            raise NotImplementedError  # measure() asks first
        with self._at_work() as (host, job_id):
            assert host.process is not None
            began = time.perf_counter()
            os.kill(host.process.pid, signal.SIGSTOP)
            try:
                took_s = self._until_moved(job_id, host) - began
            finally:
                os.kill(host.process.pid, signal.SIGCONT)
        self._settle()
        return took_s

    def cut_off(self) -> float:
        """The same from the moment at which the host's port was taken off the switch."""
        assert self._switch is not None
        with self._at_work() as (host, job_id):
            self._switch.cut(host.name)
            began = time.perf_counter()
            try:
                took_s = self._until_moved(job_id, host) - began
            finally:
                self._switch.join(host.name)
        self._settle()
        return took_s

    @contextmanager
    def _at_work(self) -> Iterator[tuple[LocalNode, str]]:
        """A host with a job that runs on it; the job is taken back in the end."""
        job = self._client.jobs.create(
            self._task_id, payloads.command("sleep", [str(JOB_S)], input=secrets.token_bytes(8)), timeout_s=2 * JOB_S
        )
        self._client.jobs.dispatch(job.job_id, "offgrid")
        running = wait_for(self._client, job.job_id, lambda seen: seen.state == jobs_pb2.JOB_STATE_RUNNING)
        time.sleep(0.3)  # what follows must not find it in its first moments
        try:
            yield self._mesh.by_id(running.host), job.job_id
        finally:
            self._client.jobs.cancel([job.job_id])

    def _until_moved(self, job_id: str, lost: LocalNode) -> float:
        wait_for(
            self._client,
            job_id,
            lambda seen: (
                seen.state in (jobs_pb2.JOB_STATE_AWARDED, jobs_pb2.JOB_STATE_RUNNING)
                and seen.host not in ("", lost.node_id)
            ),
        )
        return time.perf_counter()

    def _settle(self) -> None:
        self._mesh.wait_alive()
        self._mesh.wait_offers(HOSTS)


def wait_for(client: Client, job_id: str, reached: Callable[[jobs_pb2.Job], bool]) -> jobs_pb2.Job:
    """The job once it is so; Unavailable when it is not within WAIT_S_MAX."""
    deadline = time.monotonic() + WAIT_S_MAX
    while time.monotonic() < deadline:
        job = client.jobs.get(job_id)
        if reached(job):
            return job
        time.sleep(POLL_S)
    raise Unavailable(f"job {job_id} did not get there within {WAIT_S_MAX:g} s: {job}", reason="TooSlow")

"""memory: what each role's process has in use with 100,000 jobs accepted and not ended, and after many that have.

A host is kept busy with programs that sleep; all other jobs wait in line behind them, at their core and at the broker.
Then the sleepers are taken back, and all others must end well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2
from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.jobs_ours import CALL_S_MAX, ROLES
from offgrid_tools.bench.processes import resident_mib

IN_FLIGHT, IN_FLIGHT_QUICK = 100_000, 2_000
PASSING, PASSING_QUICK = 200_000, 2_000  # small jobs that come and go
SLOTS = 64  # programs at a time: looking after more of them takes a host much of its processor
LOOKS = 4  # at what is in use while they do
BATCH = 256  # what a node takes in one call
STARTED_AT_ONCE = 16
SLEEP_S = 86_400
QUEUED, RUNNING = jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING
WAIT_MS = 86_400_000 // 2  # nothing may end by its time
ENDED_S_MAX = 3_600.0
POLL_S = 0.5
PROBE_MS = 1_000  # the default: this is not about quick deaths

Sizes = Mapping[str, float]  # MiB by role


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    count = plan.rounds(IN_FLIGHT, IN_FLIGHT_QUICK)
    mesh = LocalMesh(
        plan.folder / "line",
        "bench",
        ROLES,
        host__slots=SLOTS,
        host__process__commands={"sleep": "/bin/sleep"},
        jobs__queue_max=2 * IN_FLIGHT,
        mesh__probe_interval_ms=PROBE_MS,
    )
    with mesh:
        begin(mesh)
        return [*in_line(plan, mesh, count), *passing(plan, mesh, plan.rounds(PASSING, PASSING_QUICK))]


def begin(mesh: LocalMesh) -> None:
    mesh.start()
    mesh.wait_alive()
    mesh.wait_offers(1)


def in_line(plan: Plan, mesh: LocalMesh, count: int) -> list[Figure]:
    """So many jobs in flight at once, of which the host's slots are at work on the first."""
    plan.say(f"memory: {count} jobs in line")
    with mesh["core"].client(CALL_S_MAX) as client:
        task_id = new_task(client)
        sleepers = fill(client, task_id)
        for first in range(SLOTS, count, BATCH):
            numbers = range(first, min(first + BATCH, count))
            start(client, task_id, [payloads.builtin("echo", input=b"%d" % number) for number in numbers])
        wait_for(lambda: sizes_settled(mesh), "memory to be at rest")
        sizes, open_now = in_use(mesh), client.mesh.status().jobs_open
        if open_now != count:
            raise RuntimeError(f"{open_now} jobs are open; {count} were accepted, and none could end")
        plan.say(f"memory: {spelled(sizes)}; letting them end")
        client.jobs.cancel(sleepers)
        wait_for(lambda: not client.mesh.status().jobs_open, "all jobs to end")
        ended = states(client, task_id)
    if ended.count(jobs_pb2.JOB_STATE_COMPLETED) != count - SLOTS:
        raise RuntimeError(f"{ended.count(jobs_pb2.JOB_STATE_COMPLETED)} of {count - SLOTS} jobs ended well")
    after = in_use(mesh)
    note = f"{spelled(sizes)}; {SLOTS} at work, the others in line; all ended well"
    return [
        Figure("rss_mb_at_100k_in_flight", max(sizes.values()), note=note),
        Figure("rss_mb_after_100k_in_flight", max(after.values()), note=spelled(after)),
    ]


def fill(client: Client, task_id: str) -> list[str]:
    """Takes all slots of the host, a few at a time: to start programs takes time; the jobs' ids."""
    sleepers: list[str] = []
    while len(sleepers) < SLOTS:
        works = [payloads.command("sleep", [str(SLEEP_S)])] * STARTED_AT_ONCE
        sleepers += start(client, task_id, works)
        wait_for(lambda: QUEUED not in states(client, task_id), f"{len(sleepers)} programs to have a host")
    wait_for(lambda: states(client, task_id).count(RUNNING) == SLOTS, f"{SLOTS} programs to run")
    return sleepers


def passing(plan: Plan, mesh: LocalMesh, count: int) -> list[Figure]:
    """What a role has grown by in the second half of so many jobs that came and went."""
    plan.say(f"memory: {count} jobs that come and go")
    looks: list[Sizes] = []
    with mesh["core"].client(CALL_S_MAX) as client:
        task_id = new_task(client)
        for _ in range(LOOKS):
            works = (payloads.builtin("echo", input=b"%d" % number) for number in range(count // LOOKS))
            for job in client.jobs.map(works, task_id=task_id):
                if job.state != jobs_pb2.JOB_STATE_COMPLETED:
                    raise RuntimeError(f"job {job.job_id} did not end as it should: {job.error} {job.error_detail}")
            looks.append(in_use(mesh))
            plan.say(f"memory: {spelled(looks[-1])}")
    half, last = looks[LOOKS // 2 - 1], looks[-1]
    grown = {role: last[role] - half[role] for role in last}
    note = f"after each quarter: {'; '.join(map(spelled, looks))}"
    return [Figure("rss_mb_grown_by_100k_jobs", max(grown.values()), note=note)]


def new_task(client: Client) -> str:
    return client.tasks.create(client.missions.create("memory").mission_id, "memory", "compute").task_id


def start(client: Client, task_id: str, works: list[jobs_pb2.JobPayload]) -> list[str]:
    """Made and sent by the batch; their ids."""
    ids: list[str] = []
    for first in range(0, len(works), BATCH):
        answer = client.jobs.start(task_id, works[first : first + BATCH], timeout_ms=WAIT_MS)
        ids += answer.job_ids
    return ids


def states(client: Client, task_id: str) -> list[jobs_pb2.JobState.ValueType]:
    return [job.state for job in client.jobs.list(task_id=task_id)]


def in_use(mesh: LocalMesh) -> Sizes:
    return {name: resident_mib(node.process.pid) for name, node in mesh.nodes.items() if node.process}


def sizes_settled(mesh: LocalMesh) -> bool:
    before = in_use(mesh)
    time.sleep(4 * POLL_S)
    return all(abs(size - before[role]) < 1 for role, size in in_use(mesh).items())


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + ENDED_S_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {ENDED_S_MAX:g} s in vain for {what}")
        time.sleep(POLL_S)


def spelled(sizes: Sizes) -> str:
    return ", ".join(f"{role} {size:.0f}" for role, size in sizes.items())

"""What `offgrid smoke` tries of jobs: one at each host, or where there is none by this node's own queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from offgrid.client.errors import OffgridError
from offgrid.client.jobs import ENDED
from offgrid.client.payloads import builtin
from offgrid.v1.common_pb2 import ROLE_BROKER, ROLE_CORE
from offgrid.verdicts import SMOKE_NAME, in_reach, playing
from offgrid_tools.cli.smoke_frame import FAILED, OK, SKIPPED, Line, Seen

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Job

JOBS_S, POLL_S = 8.0, 0.02
SAID = b"hello from offgrid smoke\n"
COMPLETED = "completed"
REQUEST_ID = "offgrid-smoke-1"  # by which the mission and the task of the first run are found again


def jobs(seen: Seen) -> Iterator[Line]:
    if ROLE_CORE not in seen.status.roles:
        yield Line("job", "", SKIPPED, "this node is no core: it sends no jobs")
        return
    brokered = any(map(in_reach, playing(ROLE_BROKER, seen.peers)))
    if brokered and seen.hosts:
        yield from _echoes(seen)
    else:
        yield _own_queue(seen, "no host is alive" if brokered else "no broker is alive")


def _task(seen: Seen) -> str:
    """The task that all runs' jobs are of, in a mission of that name, which nobody has to look after."""
    mission = seen.client.missions.create(SMOKE_NAME, "what `offgrid smoke` tries", request_id=f"{REQUEST_ID}-mission")
    task = seen.client.tasks.create(mission.mission_id, SMOKE_NAME, request_id=f"{REQUEST_ID}-task")
    if mission.status != COMPLETED:
        seen.client.missions.update(mission.mission_id, status=COMPLETED)
    return task.task_id


def _own_queue(seen: Seen, lacking: str) -> Line:
    """What becomes of a job without the mesh, in the mode that is configured."""
    client, payload, within_s = seen.client, builtin("echo", input=SAID, input_name=SMOKE_NAME), seen.left_s(JOBS_S)
    ended = False
    try:
        answer = client.jobs.start(_task(seen), [payload], deadline=timedelta(seconds=within_s))
        seen.job_id, deadline = answer.job_ids[0], time.monotonic() + within_s
        while not (ended := (job := client.jobs.get(seen.job_id)).state in ENDED) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    except OffgridError as error:
        return Line("job", "", FAILED, f"{lacking}: {error.message}", "offgrid peers")
    finally:
        if seen.job_id and not ended:
            _cancel(seen, [seen.job_id])
    if job.result.output == SAID:
        return Line("job", "", OK, f"{lacking}; echo came back from this node's own queue")
    why = f"{job.error} {job.error_detail}".strip() if ended else f"a job was not back within {within_s:.0f} s"
    return Line("job", "", FAILED, f"{lacking}; {why}", "offgrid peers")


def _echoes(seen: Seen) -> Iterator[Line]:
    """A job for each host; what has not come back in time is cancelled."""
    client, payload = seen.client, builtin("echo", input=SAID, input_name=SMOKE_NAME)
    within_s, task_id = seen.left_s(JOBS_S), _task(seen)
    waiting = dict[str, str]()
    for host in seen.hosts:
        only_there, until = f'host == "{host.member.node_id}"', timedelta(seconds=within_s)
        answer = client.jobs.start(task_id, [payload], mode="offgrid", requirements=only_there, deadline=until)
        waiting[answer.job_ids[0]] = host.member.name
    seen.job_id, deadline = next(iter(waiting)), time.monotonic() + within_s
    try:
        while waiting and time.monotonic() < deadline:
            ended = [job for job in map(client.jobs.get, [*waiting]) if job.state in ENDED]
            for job in ended:
                yield _echo(job, waiting.pop(job.job_id))
            if not ended:
                time.sleep(POLL_S)
        for job_id, name in waiting.items():
            yield Line("job", name, FAILED, f"not back within {within_s:.0f} s", f"offgrid job why {job_id}")
    finally:
        if waiting:
            _cancel(seen, [*waiting])


def _cancel(seen: Seen, job_ids: list[str]) -> None:
    with suppress(OffgridError):
        seen.client.jobs.cancel(job_ids, reason="smoke test")


def _echo(job: Job, name: str) -> Line:
    if job.result.output == SAID:
        return Line("job", name, OK, "echo came back, with a receipt" if job.result.HasField("receipt") else "echo")
    why = job.error or ("another output than it should have" if job.result.output else "no output")
    return Line("job", name, FAILED, f"{why} {job.error_detail}".strip(), f"offgrid job why {job.job_id}")

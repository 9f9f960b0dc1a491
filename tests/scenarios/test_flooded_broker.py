"""A broker that has no room for a core's orders: the core brings them when there is, and no job is the worse for it."""

from __future__ import annotations

from road_town import Town

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.table import COMPLETED

JOBS, ROOM = 120, 4
SLOTS = 4  # of all hosts of the town


def test_a_flooded_broker_is_asked_less_and_all_jobs_end_well() -> None:
    town = Town()
    town["broker"].running.jobs.broker._queue._queue_max = ROOM
    told: list[tuple[float, int]] = []
    town.cluster.network.overhear(
        jobs_pb2.SubmitJobsRequest, lambda core, broker, request: told.append((town.now_s, len(request.orders)))
    )
    town.seconds = 1.0
    first = town.create()
    specs = [
        jobs_pb2.JobSpec(payload=town.sound_payload(), size_tokens=1_000, timeout_ms=30_000) for _ in range(JOBS - 1)
    ]
    made = town.ask("RunJobs", jobs_pb2.RunJobsRequest(task_id=first.task_id, jobs=specs))
    assert isinstance(made, jobs_pb2.RunJobsResponse)
    town.dispatch(first)
    began_s = town.now_s
    for job_id in [*made.job_ids, first.job_id]:
        done = town.until(jobs_pb2.Job(job_id=job_id), COMPLETED, within_s=300)
        assert (done.attempt, done.losses) == (1, 0)
    took_s = town.now_s - began_s
    at_once = sum(orders for at_s, orders in told if at_s <= began_s + 1)
    later = sum(orders for at_s, orders in told if at_s > began_s + 1)
    assert at_once >= JOBS - 1, "all of them were brought once"
    assert later < 4 * JOBS, f"{later} orders told of {JOBS} jobs"
    assert took_s < 1.5 * JOBS / SLOTS, "its slots were not left idle"

"""What the simulator counts of the local queue's part in a job's life."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_tools.sim.monitor.evidence import Evidence
from offgrid_tools.sim.monitor.met import Met


def test_moves_between_brokers_and_the_local_queue_are_counted_by_job() -> None:
    met = Met(Evidence(str))
    broker, local = jobs_pb2.ROUTE_OFFGRID, jobs_pb2.ROUTE_FILE_QUEUE
    for route in (broker, broker, local, local, broker, local):
        met.on_job(jobs_pb2.Job(job_id="j-1", route=route, state=jobs_pb2.JOB_STATE_QUEUED))
        met.on_job(jobs_pb2.Job(job_id="j-2", route=local, state=jobs_pb2.JOB_STATE_QUEUED))
    assert met.counts["takeovers by the local queue"] == 2
    assert met.counts["returns from the local queue"] == 1

"""A job's end, awaited for so long as somebody cares to wait."""

from __future__ import annotations

import asyncio

from offgrid.v1 import jobs_pb2
from offgrid_node.gateway.calling import stream
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.services.router import Router


async def job_within(router: Router, job_id: str, within_s: float) -> jobs_pb2.Job:
    """The job once it has ended, or as it is after that time. Raises the Fault that the watch ends with."""
    watch = stream(router, "offgrid.v1.JobService/WatchJob", jobs_pb2.WatchJobRequest(job_id=job_id))
    ready, job = asyncio.Event(), jobs_pb2.Job(job_id=job_id)
    watch.when_ready(ready.set)
    try:
        async with asyncio.timeout(within_s):
            while job.state not in ENDED and not watch.fault:
                await ready.wait()
                ready.clear()
                for message in watch.take():
                    assert isinstance(message, jobs_pb2.WatchJobResponse)
                    job = message.job
    except TimeoutError:
        pass
    finally:
        watch.cancel()
    if watch.fault:
        raise watch.fault
    return job

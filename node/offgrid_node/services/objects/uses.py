"""Whether jobs still need an object as input: by the rows of open jobs, of their payloads and of schedules.

A payload names an object by its id or, once its input is placed, by its manifest; either is looked for as bytes. That
reads every open job, so it belongs into a thread.
"""

from __future__ import annotations

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.jobs.index import maybe_open
from offgrid_node.protocol.jobs.open_jobs import PAYLOADS
from offgrid_node.protocol.jobs.schedules import SCHEDULE_JOBS
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.storage.store import Store


def user_of(store: Store, made: objects_pb2.Object) -> str:
    """One that needs it, for people; "" where nothing does. A job that is made at this very moment is not seen: it
    fails as with any input that cannot be read."""
    root, text = Manifest.decode(made.manifest.signed.body).roots[0], made.object_id.encode()
    for value in maybe_open(store):
        if root in value or text in value:
            job = jobs_pb2.Job.FromString(value)
            if job.state not in ENDED and (root in job.kept_payload or text in job.kept_payload):
                return f"job {job.job_id}"
    for table, what in ((PAYLOADS, "job"), (SCHEDULE_JOBS, "schedule")):
        for key, value in store.scan(table):
            if root in value or text in value:
                return f"{what} {key.decode()}"
    return ""

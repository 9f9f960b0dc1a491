"""How long a core waits: for a host to answer, to run a job, to bring what came of it; for a broker to find a host."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.post import CALL_BYTES_MAX, transfer_ms

START_RETRY_MS = 1_000
# An award whose host has not answered by then is lost: not every node reaches every other. Its payload's time on the
# road comes on top.
START_PATIENCE_MS = 10_000
# At one broker, while there is another: by then, at the default time-out, every host has been free once.
QUEUE_PATIENCE_MS = 30_000
RUN_GRACE_MS = 10_000 + transfer_ms(CALL_BYTES_MAX)  # past its time-out a host has this long to bring what came of it
# A result that this core's own disk refused: hosts say it again twice a minute, and some of those get lost.
AGAIN_PATIENCE_MS = 180_000


def run_ms(job: jobs_pb2.Job) -> int:
    """How long a host has for a job, all told: to fetch its input, to run it, to bring what came of it."""
    return job.timeout_ms + RUN_GRACE_MS + transfer_ms(job.input_bytes)

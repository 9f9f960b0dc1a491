"""A schedule that fires each minute while its core dies: every due time has one job, and no time has two."""

from __future__ import annotations

from collections import Counter

import msgspec

from offgrid.client import Client, payloads
from offgrid.v1 import jobs_pb2
from offgrid_tools.soak.clients import Writer
from offgrid_tools.soak.load import Acked

CONTENT = b"by the clock"
MINUTE_US = 60_000_000
LATE_US = 15_000_000  # a core that was dead at the due time makes the job as it comes back


class Clockwork(Writer):
    """Makes the schedule; what comes of it is asked at the end."""

    made: jobs_pb2.Schedule | None = None
    paused: jobs_pb2.Schedule | None = None
    acked: list[Acked] = msgspec.field(default_factory=list)

    def begin(self, client: Client) -> None:
        payload = payloads.builtin(input=CONTENT)
        task = self.insist(lambda: client.jobs.task_for(payload, title=self.name))
        self.made = self.insist(
            lambda: client.schedules.create(
                "* * * * *", payload, task_id=task or "", catch_up=True, request_id=f"{self.name}-s"
            )
        )

    def step(self, client: Client, number: int) -> None:
        self._stop.wait()

    def collect(self, client: Client) -> None:
        """When the killing is over, and the core is back: from now on no more jobs are made."""
        if self.made is None:
            return
        self.paused = client.schedules.pause(self.made.schedule_id)
        jobs = [*client.jobs.list(task_id=self.made.task_id)]
        self.acked = [Acked(job.job_id, CONTENT, dispatched=True) for job in jobs]
        self.violations += wrong_times(self.made.created_us, self.paused.updated_us, [job.due_us for job in jobs])


def wrong_times(from_us: int, until_us: int, dues_us: list[int]) -> list[str]:
    """What is wrong with the due times of a schedule that was on between these two moments: each full minute is to be
    there once; of the last one its core may not have come to it."""
    first = -(-from_us // MINUTE_US) * MINUTE_US
    wanted, made = set(range(first, until_us - LATE_US, MINUTE_US)), Counter(dues_us)
    return [
        *(f"a schedule has made {count} jobs for {due}" for due, count in sorted(made.items()) if count > 1),
        *(f"a schedule has made no job for {due}" for due in sorted(wanted - made.keys())),
        *(
            f"a schedule has made a job for {due}, which is no time of its own"
            for due in sorted(made)
            if due % MINUTE_US or not first <= due <= until_us
        ),
    ]

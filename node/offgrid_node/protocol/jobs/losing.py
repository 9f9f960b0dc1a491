"""How a job loses its present attempt at a host, and what is held against whom: the next attempt follows from it."""

from __future__ import annotations

from itertools import takewhile

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.closing import BROKEN, EXCUSED
from offgrid_node.protocol.jobs.local_queue import LocalQueue
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import LeaseEnd, OpenJobs
from offgrid_node.protocol.jobs.poison import Poison
from offgrid_node.protocol.jobs.redundant import Redundant
from offgrid_node.protocol.jobs.submitting import Submitting
from offgrid_node.protocol.jobs.terms import LOSSES_MAX
from offgrid_node.protocol.rng import Rng

REFUSED_DELAY_MS, REFUSED_DELAY_MAX_MS = 100, 5_000
FAULT_DELAY_MS, FAULT_DELAY_MAX_MS = 100, 10_000  # eight losses at one host take 32 s: a server begins anew in that


class Losing:
    """Ends attempts that have brought nothing, and sends their jobs out again."""

    def __init__(
        self, jobs: OpenJobs, local: LocalQueue, poison: Poison, redundant: Redundant, submitting: Submitting
    ) -> None:
        self._jobs, self._local, self._poison = jobs, local, poison
        self._redundant, self._submitting = redundant, submitting

    def lose_host(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The attempt is lost with its host: the next one begins at once, unless the job keeps killing hosts."""
        if self._goes_on(entry, outcome, now):
            self._submitting.submit(entry, now, rng)

    def lose_to_fault(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The host lives, and says itself that it could not run the attempt. Where it is the same as before nobody else
        is left: what it lacks (a model's endpoint, a cluster) gets time to come back, longer each time."""
        if not self._goes_on(entry, outcome, now):
            return
        if (again := _in_a_row(entry.job)) > 1:
            delay_ms = FAULT_DELAY_MS << min(again, 7)
            self._jobs.timers.set(entry.job_id, now.mono_ms + min(delay_ms, FAULT_DELAY_MAX_MS))
        else:
            self._submitting.submit(entry, now, rng)

    def ask_another_host(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The host says that the work failed, and another one is to say so too."""
        self._jobs.lose(entry, outcome, now)
        self._submitting.submit(entry, now, rng)

    def lose_and_wait(self, entry: Open, outcome: str, now: Now, end: LeaseEnd = EXCUSED) -> None:
        """The host took nothing on, so nothing is held against the job; the next attempt waits, longer each time. Once
        may be a race; a broker that awards in vain again is not asked the next time."""
        entry.refusals += 1
        self._jobs.lose(entry, outcome, now, end)
        if entry.refusals > 1:
            self._submitting.turn_from_broker(entry)
        delay_ms = REFUSED_DELAY_MS << min(entry.refusals, 6)
        self._jobs.timers.set(entry.job_id, now.mono_ms + min(delay_ms, REFUSED_DELAY_MAX_MS))

    # ---- inside

    def _goes_on(self, entry: Open, outcome: str, now: Now) -> bool:
        """Whether there is a next attempt to be sent. Where this node's own disk had refused the result, neither job
        nor host is to blame for the lost one."""
        job, end = entry.job, EXCUSED if entry.trouble else BROKEN
        job.losses += not entry.trouble
        losses, most = self._redundant.losses(job), job.losses_max or LOSSES_MAX
        if not entry.arriving:  # else the work had ended well before its host was lost
            self._poison.on_lost(job.payload_digest, outcome, most, now)
        if losses > most:
            detail = (
                f"{losses} attempts were lost with their hosts, {most} are allowed (losses_max); the last: {outcome}"
            )
            self._jobs.fail(entry, "AttemptsExhausted", detail, now, BROKEN)
            return False
        self._jobs.lose(entry, outcome, now, end)
        if job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            self._local.add(job)
            return False
        if job.losses > 1:
            self._submitting.turn_from_broker(entry)
        return True


def _in_a_row(job: jobs_pb2.Job) -> int:
    """How many of its latest attempts were at one and the same host."""
    hosts = [attempt.host for attempt in reversed(job.attempts)]
    return len(list(takewhile(lambda host: host == hosts[0], hosts)))

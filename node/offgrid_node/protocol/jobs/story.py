"""A job's own story, for people: what it waits for or who is at it, and how its attempts went, in a few sentences.

Pure words over a job's row and what its core has in mind of it; why each host would or would not get it, its broker
says (`services/jobs/explaining.py` asks there).
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS
from offgrid_node.protocol.jobs.table import AWARDED, COMPLETED, CREATED, ENDED, QUEUED

NAMES_SHOWN = 5
ATTEMPTS_TOLD = 3
ONE_PRICE = 1_000_000


def story_of(job: jobs_pb2.Job, jobs: OpenJobs, now: Now) -> str:
    """`job` is its row; while it is open, what is in memory says more."""
    entry = jobs.get(job.job_id)
    if entry is None or job.state in ENDED:
        return _told(_end_of(job), _attempts(job.attempts[:-1] if job.state == COMPLETED else job.attempts))
    job = entry.job
    if job.state == CREATED:
        return _unsent(job, jobs.dependencies.missing(job.job_id))
    if job.state == QUEUED:
        return _told(_queued(entry, jobs, now), _attempts(job.attempts))
    return _told(_under_way(entry, now), _attempts(job.attempts[:-1]))


def held_up(entry: Open, jobs: OpenJobs) -> str:
    """What keeps an open job from having a host, as far as is known; empty of one that has one."""
    job = entry.job
    if job.state == CREATED and (missing := jobs.dependencies.missing(job.job_id)):
        return f"it waited for {len(missing)} other jobs, {missing[0]} among them"
    if job.state != QUEUED:
        return ""
    if entry.unfound:
        return f"no host was found for it: {entry.unfound}"
    if jobs.waiting.holds(job.broker, job.job_id):
        return f"its order waited at broker {job.broker} for a free slot"
    if jobs.pacing.standing(job.broker, job.job_id, job.priority):
        return f"broker {job.broker} took no more orders"
    return ""


def _end_of(job: jobs_pb2.Job) -> str:
    if job.state == COMPLETED:
        after_s = max(0, job.updated_us - job.created_us) / 1e6
        host = job.host or "this node"
        return f"It has completed at {host}, in attempt {job.attempt}, {after_s:.3f} s after it was made."
    state = jobs_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_").lower()
    return f"It has ended as {state}: {job.error}: {job.error_detail}."


def _unsent(job: jobs_pb2.Job, missing: Sequence[str]) -> str:
    sent = "" if job.mode else " It has not been dispatched."
    if missing:
        more = f" and {len(missing) - NAMES_SHOWN} more" if len(missing) > NAMES_SHOWN else ""
        return f"It waits until these have completed: {', '.join(missing[:NAMES_SHOWN])}{more}.{sent}"
    if job.mode and job.input_job:
        return f"Its input is being put together from the output of job {job.input_job}."
    return sent.strip() or "It is about to be sent."


def _queued(entry: Open, jobs: OpenJobs, now: Now) -> str:
    job, due_ms = entry.job, jobs.timers.due_ms(entry.job.job_id)
    in_s = "" if due_ms is None else f" in {max(0, due_ms - now.mono_ms) / 1e3:.1f} s"
    if job.replicas > 1:
        return f"Its executions are under way; {job.quorum} must agree."
    if job.route == jobs_pb2.ROUTE_FILE_QUEUE:
        why = f": {job.route_reason}" if job.route_reason else ""
        return f"It waits in this node's own queue{why}."
    if entry.tries:
        why = f" ({entry.unfound})" if entry.unfound else ""
        return f"No host was found for it{why}; try {entry.tries} of {len(RETRY_DELAYS_MS)} follows{in_s}."
    if entry.doubtful:
        return f"This core has restarted, and asks broker {job.broker} whether it has awarded attempt {job.attempt}."
    if standing := jobs.pacing.standing(job.broker, job.job_id, job.priority):
        refusals, next_ms = standing
        again_s = max(0, next_ms - now.mono_ms) / 1e3
        return (
            f"Broker {job.broker} takes no more orders for now, {refusals} times in a row; it waits here, uses up no "
            f"try, and some are sent again in {again_s:.1f} s."
        )
    if jobs.waiting.holds(job.broker, job.job_id):
        return f"Its order waits at broker {job.broker} for a free slot."
    if entry.refusals:
        return f"{entry.refusals} hosts would not take it; attempt {job.attempt} follows{in_s}."
    if due_ms is not None and job.losses:
        return f"Its host could not run it; attempt {job.attempt} follows{in_s}."
    return f"Attempt {job.attempt} has been sent to broker {job.broker or 'none'}."


def _under_way(entry: Open, now: Now) -> str:
    job = entry.job
    since_s = max(0, now.utc_us - job.attempts[-1].started_us) / 1e6 if job.attempts else 0.0
    price = f"{job.price_micro / ONE_PRICE:.6f}"
    if entry.trouble:
        return f"Host {job.host} has run attempt {job.attempt}; its result waits: {entry.trouble}."
    if job.state == AWARDED and not entry.confirmed:
        return f"Host {job.host} won attempt {job.attempt}, at {price}, {since_s:.1f} s ago, and has not begun."
    return f"Host {job.host} has run attempt {job.attempt}, at {price}, for {since_s:.1f} s."


def _attempts(attempts: Sequence[jobs_pb2.Attempt]) -> str:
    told = [each for each in attempts if each.outcome][-ATTEMPTS_TOLD:]
    if not told:
        return ""
    each = "; ".join(f"{one.number} at {one.host or 'no host'}: {one.outcome}" for one in told)
    return f"How attempts went: {each}."


def _told(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)

"""What the handlers hand to the jobs machine: requests already checked, signatures already verified."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.closing import Over
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.terms import NO_TERMS, Terms

CANCEL_MAX = 256  # jobs that one CancelJobs takes back
RUN_MAX = 256  # jobs of one RunJobs: as many as one call to a broker takes


class BrokerPreferred(msgspec.Struct, frozen=True):
    """This one is asked first; it need not be a broker, or there."""

    node_id: str


# ---- from the owner of a core; `digest` is 16 bytes of all that the request says but its id


class CreateMission(msgspec.Struct, frozen=True):
    title: str
    description: str
    request_id: str
    digest: bytes


class UpdateMission(msgspec.Struct, frozen=True):
    mission_id: str
    title: str | None
    description: str | None
    status: str | None


class CreateTask(msgspec.Struct, frozen=True):
    mission_id: str
    name: str
    kind: str
    request_id: str
    digest: bytes


class NewJob(NamedTuple):
    """`payload` is the serialised JobPayload as it will be carried; `needs` and `size_tokens` were worked out of it."""

    payload: bytes
    payload_digest: bytes
    needs: str
    size_tokens: int
    timeout_ms: int
    input_name: str
    input_bytes: int  # of the input, wherever it is
    terms: Terms = NO_TERMS
    schedule_id: str = ""
    due_us: int = 0


class CreateJob(msgspec.Struct, frozen=True):
    task: jobs_pb2.Task
    job: NewJob
    request_id: str
    digest: bytes


class RunJobs(msgspec.Struct, frozen=True):
    """Creates and dispatches them, all or none. `jobs` are at most RUN_MAX."""

    task: jobs_pb2.Task
    jobs: tuple[NewJob, ...]
    mode: jobs_pb2.DispatchMode.ValueType
    request_id: str
    digest: bytes


class DispatchJob(msgspec.Struct, frozen=True):
    job_id: str
    mode: jobs_pb2.DispatchMode.ValueType


class CancelJobs(msgspec.Struct, frozen=True):
    """These, or without any the oldest CANCEL_MAX of a task's that have not ended."""

    job_ids: tuple[str, ...]
    task_id: str
    reason: str


class CountJobs(msgspec.Struct, frozen=True):
    """Answered with the task and how many jobs of it are in each state."""

    task: jobs_pb2.Task


class CreateSchedule(msgspec.Struct, frozen=True):
    """`schedule` is without its job."""

    schedule: jobs_pb2.Schedule
    job: jobs_pb2.ScheduledJob
    request_id: str
    digest: bytes


class UpdateSchedule(msgspec.Struct, frozen=True):
    schedule_id: str
    paused: bool | None


class DeleteSchedule(msgspec.Struct, frozen=True):
    schedule_id: str


# ---- between core, broker and host


class PostOffers(msgspec.Struct, frozen=True):
    request: jobs_pb2.PostOffersRequest


class SubmitJobs(msgspec.Struct, frozen=True):
    """Orders signed by `core`, and attempts of its that are over. Those of the orders that are `doubtful` may have been
    awarded before: they are not awarded anew."""

    core: str
    orders: tuple[JobOrder, ...]
    closed: tuple[Over, ...] = ()
    doubtful: frozenset[AttemptKey] = frozenset()


class DeliverAwards(msgspec.Struct, frozen=True):
    broker: str
    awards: tuple[jobs_pb2.Clearing, ...]


class Start(NamedTuple):
    """An order with a payload that has the digest it names."""

    order: JobOrder
    body: bytes  # of the order
    payload: jobs_pb2.JobPayload
    price_micro: int


class StartJobs(msgspec.Struct, frozen=True):
    """`settled` are reports that came with earlier answers."""

    core: str
    starts: tuple[Start, ...]
    settled: tuple[AttemptKey, ...] = ()


class CancelStarts(msgspec.Struct, frozen=True):
    """Attempts of `core` that nobody waits for any more."""

    core: str
    attempts: tuple[AttemptKey, ...]


class ToggleHost(msgspec.Struct, frozen=True):
    """What this host's owner wants of it."""

    state: str


class StopHost(msgspec.Struct, frozen=True):
    """This process is about to stop, in order."""


class RenewLeases(msgspec.Struct, frozen=True):
    """Attempts that `host` still has: a page, or the digest of one that it has said before. It says so again in
    `next_ms`; 0 is a second."""

    host: str
    held: tuple[AttemptKey, ...]
    digest: bytes
    next_ms: int = 0


class Report(NamedTuple):
    """`receipt` is the verified body of the result's receipt; None when the attempt brought no result. The message
    has it whole: it stands alone. What was sealed is open, and what was large is `added`: in this node's blob store, to
    become objects with the acceptance."""

    key: AttemptKey
    message: jobs_pb2.AttemptReport
    receipt: ReceiptBody | None
    added: tuple[ObjectAdded, ...] = ()


class Started(NamedTuple):
    """The answer to a StartJobs, with what was over at once. Of the others its host speaks again in `next_ms`; 0 is a
    second."""

    outcomes: tuple[jobs_pb2.StartOutcome, ...]
    reports: tuple[Report, ...]
    next_ms: int = 0


class Arriving(NamedTuple):
    """An output is on its way here from the host that reports it; with `trouble`, it cannot be kept here, and why."""

    host: str
    key: AttemptKey
    size_bytes: int
    trouble: str = ""


class Dropped(NamedTuple):
    """What came back to the drop folder for a job; checked and bounded."""

    job_id: str
    result: jobs_pb2.JobResult


class ReportResults(msgspec.Struct, frozen=True):
    host: str
    reports: tuple[Report, ...]


class CloseLeases(msgspec.Struct, frozen=True):
    core: str
    leases: tuple[Over, ...]

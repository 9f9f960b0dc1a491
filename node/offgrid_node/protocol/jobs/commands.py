"""What the handlers hand to the jobs machine: requests already checked, signatures already verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.closing import Over
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.terms import NO_TERMS, Terms

CANCEL_MAX = 256  # jobs that one CancelJobs takes back
RUN_MAX = 256  # jobs of one RunJobs: as many as one call to a broker takes

# ---- from the owner of a core; `digest` is 16 bytes of all that the request says but its id


@dataclass(frozen=True, slots=True)
class CreateMission:
    title: str
    description: str
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class UpdateMission:
    mission_id: str
    title: str | None
    description: str | None
    status: str | None


@dataclass(frozen=True, slots=True)
class CreateTask:
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


@dataclass(frozen=True, slots=True)
class CreateJob:
    task: jobs_pb2.Task
    job: NewJob
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class RunJobs:
    """Creates and dispatches them, all or none. `jobs` are at most RUN_MAX."""

    task: jobs_pb2.Task
    jobs: tuple[NewJob, ...]
    mode: jobs_pb2.DispatchMode.ValueType
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class DispatchJob:
    job_id: str
    mode: jobs_pb2.DispatchMode.ValueType


@dataclass(frozen=True, slots=True)
class CancelJobs:
    """These, or without any the oldest CANCEL_MAX of a task's that have not ended."""

    job_ids: tuple[str, ...]
    task_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class CountJobs:
    """Answered with the task and how many jobs of it are in each state."""

    task: jobs_pb2.Task


@dataclass(frozen=True, slots=True)
class CreateSchedule:
    """`schedule` is without its job."""

    schedule: jobs_pb2.Schedule
    job: jobs_pb2.ScheduledJob
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class UpdateSchedule:
    schedule_id: str
    paused: bool | None


@dataclass(frozen=True, slots=True)
class DeleteSchedule:
    schedule_id: str


# ---- between core, broker and host


@dataclass(frozen=True, slots=True)
class PostOffers:
    request: jobs_pb2.PostOffersRequest


@dataclass(frozen=True, slots=True)
class SubmitJobs:
    """Orders signed by `core`, and attempts of its that are over. Those of the orders that are `doubtful` may have been
    awarded before: they are not awarded anew."""

    core: str
    orders: tuple[JobOrder, ...]
    closed: tuple[Over, ...] = ()
    doubtful: frozenset[AttemptKey] = frozenset()


@dataclass(frozen=True, slots=True)
class DeliverAwards:
    broker: str
    awards: tuple[jobs_pb2.Clearing, ...]


class Start(NamedTuple):
    """An order with a payload that has the digest it names."""

    order: JobOrder
    body: bytes  # of the order
    payload: jobs_pb2.JobPayload
    price_micro: int


@dataclass(frozen=True, slots=True)
class StartJobs:
    """`settled` are reports that came with earlier answers."""

    core: str
    starts: tuple[Start, ...]
    settled: tuple[AttemptKey, ...] = ()


@dataclass(frozen=True, slots=True)
class CancelStarts:
    """Attempts of `core` that nobody waits for any more."""

    core: str
    attempts: tuple[AttemptKey, ...]


@dataclass(frozen=True, slots=True)
class ToggleHost:
    """What this host's owner wants of it."""

    state: str


@dataclass(frozen=True, slots=True)
class StopHost:
    """This process is about to stop, in order."""


@dataclass(frozen=True, slots=True)
class RenewLeases:
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


@dataclass(frozen=True, slots=True)
class ReportResults:
    host: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class CloseLeases:
    core: str
    leases: tuple[Over, ...]

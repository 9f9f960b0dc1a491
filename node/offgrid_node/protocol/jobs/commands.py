"""What the handlers hand to the jobs machine: requests already checked, signatures already verified."""

from __future__ import annotations

from dataclasses import dataclass

from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.receipts import ReceiptBody

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


@dataclass(frozen=True, slots=True)
class CreateJob:
    """`payload` is the serialised JobPayload as it will be carried; `needs` and `size_tokens` were worked out of it."""

    task: jobs_pb2.Task
    payload: bytes
    needs: str
    size_tokens: int
    timeout_ms: int
    input_name: str
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class DispatchJob:
    job_id: str
    mode: jobs_pb2.DispatchMode.ValueType


# ---- between core, broker and host


@dataclass(frozen=True, slots=True)
class PostOffer:
    offer: jobs_pb2.Offer


@dataclass(frozen=True, slots=True)
class SubmitJobs:
    """Orders whose signature is `core`'s."""

    core: str
    orders: tuple[tuple[JobOrder, common_pb2.Signed], ...]


@dataclass(frozen=True, slots=True)
class DeliverAwards:
    broker: str
    awards: tuple[jobs_pb2.Clearing, ...]


@dataclass(frozen=True, slots=True)
class Start:
    """An order with a payload that has the digest it names."""

    order: JobOrder
    signed: common_pb2.Signed
    payload: jobs_pb2.JobPayload
    price_micro: int


@dataclass(frozen=True, slots=True)
class StartJobs:
    core: str
    starts: tuple[Start, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """`receipt` is the verified body of the result's receipt; None when the attempt brought no result."""

    key: AttemptKey
    message: jobs_pb2.AttemptReport
    receipt: ReceiptBody | None


@dataclass(frozen=True, slots=True)
class ReportResults:
    host: str
    reports: tuple[Report, ...]


@dataclass(frozen=True, slots=True)
class CloseLeases:
    core: str
    leases: tuple[AttemptKey, ...]

"""What a host has taken on: its leases, starts that are not answered yet, and what each core owes it an answer to."""

from __future__ import annotations

from dataclasses import dataclass, field

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder

ANSWER_BYTES_MAX = 64 * 1024  # of reports that go with an answer: what any link carries well within its time
REPORTS_MAX, REPORT_BYTES_MAX = 2_500, 64 * 1024 * 1024  # that a core has not settled; beyond it, it gets no more work


@dataclass(slots=True)
class Lease:
    """An attempt that was taken on; `report` once its work is over."""

    order: JobOrder
    body: bytes  # of the order
    price_micro: int
    report: jobs_pb2.AttemptReport | None = None
    kept: bool = True  # is a row; what is quick and leaves no traces becomes one with its report
    added: tuple[ObjectAdded, ...] = ()  # a large output and files of this node's own job
    taken_ms: int = 0  # monotonic
    rule: str = ""  # by which it was taken; this node's own local queue asks none

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """Manifest bodies of what its report has left here for its core."""
        return blobs_of(self.report) if self.report is not None else ()

    def row(self) -> jobs_pb2.HostLease:
        return jobs_pb2.HostLease(order=self.body, price_micro=self.price_micro, report=self.report, rule=self.rule)

    @classmethod
    def of_row(cls, row: jobs_pb2.HostLease) -> Lease:
        report = row.report if row.HasField("report") else None
        return cls(JobOrder.decode(row.order), row.order, row.price_micro, report, rule=row.rule)


def blobs_of(report: jobs_pb2.AttemptReport) -> tuple[bytes, ...]:
    """What it says lies at its host, by Manifest bodies: a large output, an archive of files."""
    return tuple(blob for blob in (report.blob, report.files_blob) if blob)


@dataclass(slots=True)
class Held:
    """A start that is not answered yet: its work may be over in a moment. `open` are the attempts of which that is
    not known."""

    ticket: int
    outcomes: list[jobs_pb2.StartOutcome]
    open: dict[ClaimKey, None]  # in their order
    due_ms: int
    room_bytes: int = ANSWER_BYTES_MAX
    reports: list[jobs_pb2.AttemptReport] = field(default_factory=list)


class Unsettled:
    """How many reports each core owes an answer, and of how many bytes."""

    def __init__(self) -> None:
        self._by_core: dict[str, tuple[int, int]] = {}

    def __len__(self) -> int:
        return sum(count for count, _ in self._by_core.values())

    def is_full(self, core: str) -> bool:
        count, size_bytes = self._by_core.get(core, (0, 0))
        return count >= REPORTS_MAX or size_bytes >= REPORT_BYTES_MAX

    def add(self, core: str, report: jobs_pb2.AttemptReport) -> None:
        count, size_bytes = self._by_core.get(core, (0, 0))
        self._by_core[core] = count + 1, size_bytes + len(report.sealed)

    def remove(self, core: str, report: jobs_pb2.AttemptReport) -> None:
        count, size_bytes = self._by_core[core]
        self._by_core[core] = count - 1, size_bytes - len(report.sealed)
        if count == 1:
            del self._by_core[core]

"""What a host has taken on: its leases, and what each core owes it an answer to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.orders import JobOrder

if TYPE_CHECKING:
    from offgrid_node.protocol.jobs.pages import Page

REPORTS_MAX, REPORT_BYTES_MAX = 2_500, 64 * 1024 * 1024  # that a core has not settled; beyond it, it gets no more work


class Lease(msgspec.Struct, eq=False):
    """An attempt that was taken on; `report` once its work is over."""

    order: JobOrder
    body: bytes  # of the order
    price_micro: int
    report: jobs_pb2.AttemptReport | None = None
    page: Page | None = None  # the row that has it; what is quick and leaves no traces gets one with its report
    added: tuple[ObjectAdded, ...] = ()  # a large output and files of this node's own job
    taken_ms: int = 0  # monotonic
    rule: str = ""  # by which it was taken; this node's own local queue asks none

    @property
    def blobs(self) -> tuple[bytes, ...]:
        """Manifest bodies of what its report has left here for its core."""
        return blobs_of(self.report) if self.report is not None else ()

    @property
    def size_bytes(self) -> int:
        """About what its row takes."""
        return len(self.body) + (self.report.ByteSize() if self.report is not None else 0)

    def write(self, row: jobs_pb2.HostLease) -> None:
        row.order, row.price_micro, row.rule = self.body, self.price_micro, self.rule
        if self.report is not None:
            row.report.CopyFrom(self.report)

    @classmethod
    def of_row(cls, row: jobs_pb2.HostLease) -> Lease:
        report = row.report if row.HasField("report") else None
        return cls(JobOrder.decode(row.order), row.order, row.price_micro, report, rule=row.rule)


def blobs_of(report: jobs_pb2.AttemptReport) -> tuple[bytes, ...]:
    """What it says lies at its host, by Manifest bodies: a large output, an archive of files."""
    blob, files_blob = report.blob, report.files_blob
    return tuple(each for each in (blob, files_blob) if each) if blob or files_blob else ()


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

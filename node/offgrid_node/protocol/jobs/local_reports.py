"""Reports of a host to the core in the very same node: nothing is sent, and each receipt stands alone."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.receipts import sign_receipts

LocalReport = tuple[jobs_pb2.AttemptReport, tuple[ObjectAdded, ...]]


class LocalReports:
    """Of one step."""

    def __init__(self, signer: Signer, salt: bytes) -> None:
        self._signer, self._salt = signer, salt
        self._reports: list[LocalReport] = []

    def add(self, report: jobs_pb2.AttemptReport, added: tuple[ObjectAdded, ...]) -> None:
        self._reports.append((report, added))

    def take(self) -> list[LocalReport]:
        """Those since the last call, signed."""
        reports, self._reports = self._reports, []
        done = [report.result.receipt for report, _ in reports if report.HasField("result")]
        signed = sign_receipts([receipt.body for receipt in done], self._signer, self._salt)
        for receipt, whole in zip(done, signed, strict=True):
            receipt.CopyFrom(whole)
        return reports

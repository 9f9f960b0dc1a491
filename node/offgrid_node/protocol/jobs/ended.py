"""What a host says of an attempt that is over: the report for its core, and the event in its own journal.

Both are filled in place, field by field: made of parts they cost four times as much, which counts with thousands a
second.
"""

from __future__ import annotations

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.effects import Executed, Record
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED, ReceiptBody, result_digest


def report_of(end: Executed, lease: Lease, host: str) -> jobs_pb2.AttemptReport:
    """With a receipt that has a body only, where the work ran to its own end."""
    report = jobs_pb2.AttemptReport(job_id=end.job_id, attempt=end.attempt)
    if end.error:
        report.error, report.error_detail = end.error, end.error_detail[:DETAIL_CHARS_MAX]
        return report
    result = report.result
    result.status = COMPLETED if end.exit_code == 0 else FAILED
    result.receipt.body = _body(end, lease, host, result.status)
    result.exit_code = end.exit_code
    if end.output:
        result.output = end.output
    if end.log:
        result.log = end.log
    if end.sealed:
        report.sealed = end.sealed
    if end.blob:
        report.blob = end.blob
    if end.files_blob:
        report.files_blob = end.files_blob
    if end.added is not None:
        result.output_object, result.output_bytes = end.added.body.object_id, end.added.body.size_bytes
    if end.files_added is not None:
        result.files_object, result.files_digest = end.files_added.body.object_id, end.files_digest
        result.files.extend(end.result_files)
    return report


def not_run(lease: Lease, error: str, detail: str) -> jobs_pb2.AttemptReport:
    """Of an attempt of which nothing came."""
    _, job_id, attempt = lease.order.key
    return jobs_pb2.AttemptReport(job_id=job_id, attempt=attempt, error=error, error_detail=detail)


def event_of(etype: EventType, lease: Lease, host: str, outcome: str) -> Record:
    """For the journal; with the receipt's body, where there is one."""
    core, job_id, attempt = lease.order.key
    event = state_pb2.Event(etype=etype, subject=job_id)
    said = event.attempt
    said.job_id, said.attempt, said.core, said.host = job_id, attempt, core, host
    said.price_micro, said.outcome = lease.price_micro, outcome
    if lease.report is not None and lease.report.HasField("result"):
        said.receipt.body = lease.report.result.receipt.body
    return Record(event)


def _body(end: Executed, lease: Lease, host: str, status: str) -> bytes:
    order = lease.order
    return ReceiptBody(
        host,
        order.core,
        order.job_id,
        order.attempt,
        order.payload_digest,
        end.digest or result_digest(end.exit_code, end.output),
        status,
        order.size_tokens,
        end.latency_us,
        lease.price_micro,
        end.executor,
        end.cpu_us,
        end.memory_peak_bytes,
        end.output_bytes,
        end.used_tokens,
    ).encode()

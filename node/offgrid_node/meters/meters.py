"""Everything a node counts, and who tells it: the driver, the router, the client, the journal, the gateway.

What happened to jobs, executions and transfers is read from journal events once they are durable, so no machine counts
anything. The names of jobs and broker errors are promised to users; units are Prometheus' base units (seconds, bytes).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.meters.http import HttpMeters
from offgrid_node.meters.instruments import Counter, Histogram
from offgrid_node.meters.writers import WriterMeters
from offgrid_node.protocol.effects import Call, Record
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.ledger.delivery import METHOD as VOUCHERS_METHOD

FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
WORK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
INPUTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PENDING_MAX = 4_096  # transfers whose end is awaited to be timed; the oldest are let go

# What a host or a core asks of a broker; everything else on the market goes to cores and hosts.
BROKER_METHODS = frozenset(f"offgrid.v1.MarketService/{name}" for name in ("PostOffers", "SubmitJobs", "CloseLeases"))
BROKER_UNAVAILABLE = "BrokerUnavailable"
ROUTES = {jobs_pb2.ROUTE_OFFGRID: "offgrid", jobs_pb2.ROUTE_FILE_QUEUE: "file_queue"}
_ENDS = {EventType.JOB_COMPLETED: "completed", EventType.JOB_FAILED: "failed", EventType.JOB_CANCELLED: "cancelled"}


class Meters:
    """One node's instruments."""

    def __init__(self) -> None:
        self.jobs = Counter(
            "offgrid_jobs_total", "Jobs of this core that ended, by how and by the way they took.", ("status", "route")
        )
        self.job_duration = Histogram(
            "offgrid_job_duration_seconds", "From a job's creation to its end, at its core.", WORK_S, ("status",)
        )
        self.broker_errors = Counter(
            "offgrid_broker_errors_total",
            "Calls to a broker that failed, and dispatches for which no broker was alive.",
            ("reason",),
        )
        self.executions = Counter(
            "offgrid_executions_total", "Attempts that this host carried out, by what came of them.", ("outcome",)
        )
        self.execution_time = Histogram(
            "offgrid_execution_duration_seconds", "What an attempt took on this host, as its receipt says.", WORK_S
        )
        self.commits = Histogram("offgrid_commit_duration_seconds", "What one durable transaction took.", FAST_S)
        self.batch_inputs = Histogram("offgrid_commit_inputs", "Inputs that shared one transaction.", INPUTS)
        self.rpc_time = Histogram(
            "offgrid_rpc_duration_seconds",
            "Calls that this node answered, from their decoding to their answer.",
            FAST_S,
            ("method", "caller"),
        )
        self.rpc_errors = Counter(
            "offgrid_rpc_errors_total", "Calls that this node answered with an error.", ("method", "reason")
        )
        self.calls = Counter("offgrid_calls_total", "Calls that this node made to others.", ("method",))
        self.call_errors = Counter(
            "offgrid_call_errors_total", "Calls of this node to others that failed.", ("method", "reason")
        )
        self.voucher_bytes = Counter(
            "offgrid_voucher_bytes_total",
            "Vouchers that this node has told, and questions of what is held.",
        )
        self.refusals = Counter(
            "offgrid_refused_total",
            "Calls refused before they were read, for who asked or for want of room.",
            ("reason",),
        )
        self.finality = Histogram(
            "offgrid_transfer_finality_seconds", "From a transaction's creation here to its finality.", WORK_S
        )
        for route in ROUTES.values():
            self.jobs.add("completed", route, count=0)
            self.jobs.add("failed", route, count=0)
        self.broker_errors.add(BROKER_UNAVAILABLE, count=0)
        self._transfers: OrderedDict[str, int] = OrderedDict()
        self.writers, self.http = WriterMeters(), HttpMeters()

    def __iter__(self) -> Iterator[Counter | Histogram]:
        yield from (value for value in vars(self).values() if isinstance(value, Counter | Histogram))
        yield from (*self.writers.instruments, *self.http.instruments)

    # ---- told by the driver, the router, the gate and the client

    def on_commit(self, inputs: int, took_s: float) -> None:
        """A batch with something to write was committed."""
        self.batch_inputs.add(inputs)
        self.commits.add(took_s)

    def on_rpc(self, method: str, caller: str, took_s: float, fault: Fault | None) -> None:
        """A call was answered; a stream when it was opened."""
        self.rpc_time.add(took_s, method, caller)
        if fault is not None:
            self.rpc_errors.add(method, fault.reason)
            if fault.reason == BROKER_UNAVAILABLE:
                self.broker_errors.add(fault.reason)

    def on_refused(self, fault: Fault) -> None:
        """A call was refused at the gate."""
        self.refusals.add(fault.reason)

    def on_called(self, call: Call, fault: Fault | None) -> None:
        """A call that this node made has ended."""
        self.calls.add(call.method)
        if call.method == VOUCHERS_METHOD:
            self.voucher_bytes.add(count=call.request.ByteSize())
        if fault is not None:
            self.call_errors.add(call.method, fault.reason)
            if call.method in BROKER_METHODS:
                self.broker_errors.add(fault.reason)

    # ---- told by the journal

    def on_events(self, events: Sequence[Record]) -> None:
        """A `runtime.Watcher`."""
        for event in events:
            match event.etype:
                case EventType.JOB_COMPLETED | EventType.JOB_FAILED | EventType.JOB_CANCELLED:
                    if event.job is not None and not event.job.parent_id:  # executions are no jobs of anybody's
                        self._on_job(event.event)
                case EventType.JOB_EXECUTED:
                    self._on_execution(event.event.attempt)
                case EventType.TX_CREATED | EventType.TX_FINAL:
                    self._on_transfer(event.event)

    def _on_job(self, event: state_pb2.Event) -> None:
        job, status = event.job, _ENDS[EventType(event.etype)]
        self.jobs.add(status, ROUTES.get(job.route, "none"))
        self.job_duration.add(max(0, event.timestamp_us - job.created_us) / 1e6, status)
        if job.error == BROKER_UNAVAILABLE:
            self.broker_errors.add(job.error)

    def _on_execution(self, attempt: jobs_pb2.AttemptEvent) -> None:
        self.executions.add(attempt.outcome)
        if attempt.HasField("receipt"):
            self.execution_time.add(ReceiptBody.decode(attempt.receipt.body).latency_us / 1e6)

    def _on_transfer(self, event: state_pb2.Event) -> None:
        tx_id = event.ledger.tx_id
        if event.etype == EventType.TX_CREATED:
            self._transfers[tx_id] = event.timestamp_us
            if len(self._transfers) > PENDING_MAX:
                self._transfers.popitem(last=False)
        elif (created_us := self._transfers.pop(tx_id, None)) is not None:
            self.on_final(tx_id, created_us, event.timestamp_us)

    def on_final(self, tx_id: str, created_us: int, final_us: int) -> None:
        """A transaction that was created here is final."""
        self.finality.add(max(0, final_us - created_us) / 1e6)

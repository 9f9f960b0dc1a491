"""A member that lies: it claims results of attempts that were awarded to others, signed with its own key, and brings
reports of attempts that are long over. What it sends is well-formed; only the core's own rules can refuse it."""

from __future__ import annotations

from functools import partial

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.large import report_context
from offgrid_node.protocol.jobs.orders import JobOrder
from offgrid_node.protocol.jobs.receipts import COMPLETED, RECEIPTS, ReceiptBody, result_digest
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crypto import SimLetters
from offgrid_tools.sim.engine import MS
from offgrid_tools.sim.process import Process

CALL_TIMEOUT_MS = 2_000
LATE_MAX_US = 1_500 * MS
REPORT_RESULTS = "offgrid.v1.MarketService/ReportResults"
LOOT = b"a lie"


class JobLiar:
    """Overhears every start (`Network.overhear`) and claims to have done the work, sometimes before the host has."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._process = cluster, process
        self.lies = 0
        cluster.network.overhear(jobs_pb2.StartJobsRequest, self.on_start)

    def on_start(self, core: str, host: str, request: jobs_pb2.StartJobsRequest) -> None:
        """A core has told a host to start: the liar knows all that a forged receipt must say."""
        if host == self._process.node_id or not self._process.up or not self._process.running.runtime.machines:
            return
        salt = self._process.running.directory.salt
        for start in request.starts:
            order = JobOrder.decode(start.order)
            body = ReceiptBody(
                node=self._process.node_id,
                core=core,
                job_id=order.job_id,
                attempt=order.attempt,
                payload_digest=order.payload_digest,
                result_digest=result_digest(0, LOOT),
                status=COMPLETED,
                size_tokens=order.size_tokens,
                latency_us=1,
                price_micro=start.price_micro,
                executor="liar/1",
            )
            report = jobs_pb2.AttemptReport(job_id=order.job_id, attempt=order.attempt)
            report.result.status = COMPLETED
            report.sealed = self._seal(core, order)
            report.result.receipt.body = body.encode()
            signature = RECEIPTS.sign([body.encode()], self._process.signer, salt)
            forged = jobs_pb2.ReportResultsRequest(reports=[report], root_signature=signature)
            late_us = self._cluster.engine.rng.randint(0, LATE_MAX_US)
            self._cluster.engine.after(late_us, partial(self._tell, core, forged))

    def _seal(self, core: str, order: JobOrder) -> bytes:
        me, reader = self._process, self._cluster.processes[self._cluster.name_of(core)].signer.public_key
        context = report_context(me.node_id, core, order.job_id, order.attempt)
        secret = jobs_pb2.ResultSecret(output=LOOT)
        return SimLetters(me.signer).seal(reader, context, secret.SerializeToString())

    def _tell(self, core: str, forged: jobs_pb2.ReportResultsRequest) -> None:
        self.lies += 1
        network, me = self._cluster.network, self._process.node_id
        network.call(me, core, REPORT_RESULTS, forged, CALL_TIMEOUT_MS, lambda outcome: None, honest=False)

"""The invariants, checked as things happen: by what leaves a node, by what its journal says, by what users were told.

- acked: what a user was told is done is in the store of the node that told it, then and after every crash;
- one result: a job has one accepted result, and no core tells two hosts, or two attempts, that theirs was it;
- fence: no core accepts a report of an attempt that it has given up;
- signed once: no node signs two different bodies for the same thing (receipt, order, membership, address);
- once: no host runs an attempt twice.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.core import JOBS
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.table import COMPLETED, ENDED
from offgrid_node.protocol.mesh.records import MemberRecord, PeerRecord
from offgrid_node.storage.store import Store


class Violation(Exception):
    """An invariant does not hold: the run has found a bug."""


class Monitor:
    """Sees the whole cluster from outside. Every method raises Violation the moment an invariant breaks."""

    def __init__(self) -> None:
        self._signed: dict[tuple[str, ...], bytes] = {}
        self._accepted: dict[str, tuple[str, int]] = {}
        self._ended: dict[str, bytes] = {}
        self._executed: set[tuple[str, str, int]] = set()
        self._attempt: dict[str, int] = {}
        self._acked: dict[str, dict[str, int]] = {}
        self.results = 0

    # ---- what leaves a node (network.Tap)

    def on_request(self, source: str, target: str, method: str, request: Message) -> None:
        match request:
            case jobs_pb2.SubmitJobsRequest():
                for signed in request.orders:
                    self._order(signed.body)
            case jobs_pb2.StartJobsRequest():
                for start in request.starts:
                    self._order(start.order.body)
            case jobs_pb2.ReportResultsRequest():
                for report in request.reports:
                    if report.HasField("result"):
                        receipt = ReceiptBody.decode(report.result.receipt.body)
                        self._sign("receipt", receipt.node, receipt.job_id, receipt.attempt, report.result.receipt.body)
            case mesh_pb2.SyncMembersRequest():
                self._records(request.members, request.peers)

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None:
        match reply:
            case jobs_pb2.ReportResultsResponse():
                for outcome in reply.outcomes:
                    if outcome.accepted:
                        self._accept(target, outcome)
            case mesh_pb2.SyncMembersResponse():
                self._records(reply.members, reply.peers)

    def _order(self, body: bytes) -> None:
        order = JobOrder.decode(body)
        self._sign("order", order.core, order.job_id, order.attempt, body)
        self._attempt[order.job_id] = max(order.attempt, self._attempt.get(order.job_id, 0))

    def _records(self, members: Iterable[mesh_pb2.MemberProof], peers: Iterable[object]) -> None:
        for proof in members:
            record = MemberRecord.decode(proof.record.body)
            what = "tombstone" if record.removed else "member"
            self._sign(what, record.issuer, record.node_id, record.epoch, proof.record.body)
        for signed in peers:
            body = signed.body  # type: ignore[attr-defined]
            peer = PeerRecord.decode(body)
            self._sign("peer", peer.node_id, "", peer.version, body)

    def _sign(self, what: str, signer: str, subject: str, number: int, body: bytes) -> None:
        known = self._signed.setdefault((what, signer, subject, str(number)), body)
        if known != body:
            raise Violation(f"{signer} signed two different {what}s for {subject}/{number}")

    def _accept(self, host: str, outcome: jobs_pb2.ReportOutcome) -> None:
        mine = host, outcome.attempt
        known = self._accepted.setdefault(outcome.job_id, mine)
        if known != mine:
            raise Violation(f"job {outcome.job_id}: results of {known} and of {mine} were both accepted")

    # ---- what a node does

    def on_execute(self, node: str, key: AttemptKey) -> None:
        if (node, *key) in self._executed:
            raise Violation(f"{node} ran attempt {key[1]} of {key[0]} twice")
        self._executed.add((node, *key))

    def on_events(self, node: str, events: Iterable[state_pb2.Event]) -> None:
        for event in events:
            if event.etype in (EventType.JOB_COMPLETED, EventType.JOB_FAILED):
                facts = event.job.SerializeToString(deterministic=True)
                if self._ended.setdefault(event.subject, facts) != facts:
                    raise Violation(f"job {event.subject} ended twice on {node}")
                if event.job.state == COMPLETED:
                    self.results += 1

    # ---- what users were told

    def on_acked(self, core: str, job: jobs_pb2.Job) -> None:
        """A user holds this answer of the core: from now on it must be in the store."""
        self._acked.setdefault(core, {})[job.job_id] = job.state

    def acked_jobs(self, core: str) -> dict[str, int]:
        return self._acked.get(core, {})

    def check_store(self, core: str, store: Store) -> None:
        """Nothing acked is lost, nor taken back. Called after each crash and at the end."""
        for job_id, state in self._acked.get(core, {}).items():
            value = store.get(JOBS, job_id.encode())
            if value is None:
                raise Violation(f"job {job_id} was acked by {core} and is not in its store")
            job = jobs_pb2.Job.FromString(value)
            if state in ENDED and job.state != state:
                raise Violation(f"job {job_id}: the user was told it had ended, the store of {core} says otherwise")
            if state > job.state == jobs_pb2.JOB_STATE_CREATED:
                raise Violation(f"job {job_id} was acked as dispatched by {core}; its store says it never was")
            accepted = self._accepted.get(job_id)
            if accepted is not None and (job.host, job.attempt) != accepted:
                raise Violation(f"job {job_id}: {accepted} was told of its acceptance, the store names {job.host}")
            if job.attempt < self._attempt.get(job_id, 0):
                raise Violation(f"job {job_id}: an order of attempt {self._attempt[job_id]} left {core} undurable")

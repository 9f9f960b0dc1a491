"""The invariants, checked as things happen: by what leaves a node, by what its journal says, by what users were told.

- durable before visible: whatever a node says, to users or to others, is in its journal or its rows by then;
- acked: what a user was told stays in the store of the node that told it, after every crash and at the end;
- one result: a job has one accepted result, that of its present attempt and its host, and it is what the payload
  must give; it ends once, and a repeated request makes nothing twice;
- fence: the number of a job's attempts never falls and is durable before an order that carries it leaves;
- signed once: no node signs two different bodies for the same thing (receipt, order, membership, address), nor comes
  back from the dead in an old incarnation;
- once: no host runs an attempt twice;
- no machine ever raises, nor does anything that a commit lets go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, jobs_pb2, mesh_pb2, state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.open_jobs import JOBS
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder, payload_digest
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest
from offgrid_node.protocol.jobs.table import COMPLETED, CREATED, ENDED, FAILED
from offgrid_node.protocol.mesh.machine import BOOT_KEY
from offgrid_node.protocol.mesh.records import decode_member, decode_peer
from offgrid_node.protocol.mesh.swim import BOOT_SHIFT
from offgrid_node.storage.store import Store
from offgrid_tools.sim.work import outcome_of, verdict_of

# A job may also end for want of hosts or brokers; whether the run's faults explain that is for the cluster to say.
EXCUSES = ("NoHostsAvailable", "BrokerUnavailable", "AttemptsExhausted")


class Violation(Exception):
    """An invariant does not hold: the run has found a bug."""


class Monitor:
    """Sees the whole cluster from outside. Every method raises Violation the moment an invariant breaks."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self._name_of = name_of
        self._stores: dict[str, Store] = {}
        self._seen_seq: dict[str, int] = {}
        self._signed: dict[tuple[str, ...], bytes] = {}
        self._said: dict[tuple[str, ...], str] = {}  # durable facts: (fact, node, job, attempt) → detail
        self._accepted: dict[str, tuple[str, int]] = {}
        self._with_result: dict[tuple[str, str, int], bool] = {}
        self._ended: dict[str, bytes] = {}
        self._executed: dict[tuple[str, str, int], bool] = {}
        self._attempt: dict[str, int] = {}
        self._requests: dict[tuple[str, str], str] = {}
        self._incarnation: dict[str, int] = {}
        self._former: dict[str, int] = {}  # the last incarnation of the life before this one
        self._acked: dict[str, dict[str, int]] = {}
        self._payloads: dict[bytes, jobs_pb2.JobPayload] = {}
        self._verdicts: dict[bytes, str] = {}
        self.excused: list[tuple[str, str]] = []  # (job, error) of those that ended for want of hosts or brokers
        self.results = 0

    def watch(self, node: str, store: Store) -> None:
        self._stores[node], self._seen_seq[node] = store, store.journal_seq

    def expect(self, payload: jobs_pb2.JobPayload) -> None:
        """A user is about to ask for this work: the monitor knows what must come of it."""
        digest = payload_digest(payload.SerializeToString(deterministic=True))
        self._payloads[digest], self._verdicts[digest] = payload, verdict_of(payload)

    def expect_end(self, digest: bytes, verdict: str) -> None:
        """This payload's work ends otherwise than `work.py` says."""
        self._verdicts[digest] = verdict

    @property
    def executions(self) -> list[tuple[str, str, int]]:
        """(host, job, attempt) of all that was ever started, in order."""
        return list(self._executed)

    # ---- what leaves a node (network.Tap)

    def on_request(self, source: str, target: str, method: str, request: Message) -> None:
        match request:
            case mesh_pb2.PingRequest():
                self._alive(source, request.news[0])
            case jobs_pb2.SubmitJobsRequest():
                for signed in request.orders:
                    self._order(source, signed.body, "")
            case jobs_pb2.StartJobsRequest():
                for start in request.starts:
                    self._order(source, start.order.body, target)
            case jobs_pb2.DeliverAwardsRequest():
                for award in request.awards:
                    self._must_have_said(source, "awarded", (award.job_id, award.attempt), award.host)
            case jobs_pb2.ReportResultsRequest():
                for report in request.reports:
                    self._report(source, report)
            case mesh_pb2.SyncMembersRequest():
                self._records(request.members, request.peers)

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None:
        match reply:
            case mesh_pb2.PingResponse():
                self._alive(source, reply.news[0])
            case jobs_pb2.ReportResultsResponse():
                for outcome in reply.outcomes:
                    if outcome.accepted:
                        self._accept(source, target, outcome)
            case jobs_pb2.StartJobsResponse():
                for started in reply.outcomes:
                    if started.accepted:
                        self._must_have_said(source, "taken", (started.job_id, started.attempt))
            case jobs_pb2.SubmitJobsResponse():
                for clearing in reply.clearings:
                    key = clearing.job_id, clearing.attempt
                    if clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED:
                        self._must_have_said(source, "awarded", key, clearing.host)
                    elif clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
                        self._must_have_said(source, "queued", key)
            case mesh_pb2.SyncMembersResponse():
                self._records(reply.members, reply.peers)

    def _alive(self, node: str, news: mesh_pb2.LivenessNews) -> None:
        if news.node_id != node:
            return
        durable = int.from_bytes(self._stores[node].get("meta", BOOT_KEY) or b"", "big")
        if news.incarnation >> BOOT_SHIFT > durable:
            raise Violation(f"{self._name_of(node)} speaks in a life that its disk does not know")
        if news.incarnation < self._incarnation.get(node, 0) or news.incarnation == self._former.get(node):
            raise Violation(f"{self._name_of(node)} came back in an older incarnation")
        self._incarnation[node] = news.incarnation

    def _order(self, core: str, body: bytes, host: str) -> None:
        order = JobOrder.decode(body)
        self._sign("order", order.core, order.job_id, order.attempt, body)
        job = self._job(core, order.job_id)
        if job is None or job.attempt < order.attempt:
            raise Violation(f"an order of attempt {order.attempt} of {order.job_id} left before it was durable")
        if host and job.attempt == order.attempt and job.host != host:
            raise Violation(f"attempt {order.attempt} of {order.job_id} is started by a host that it is not awarded to")

    def _report(self, host: str, report: jobs_pb2.AttemptReport) -> None:
        self._must_have_said(host, "executed", (report.job_id, report.attempt))
        self._with_result[host, report.job_id, report.attempt] = report.HasField("result")
        if report.HasField("result"):
            receipt = ReceiptBody.decode(report.result.receipt.body)
            self._sign("receipt", receipt.node, receipt.job_id, receipt.attempt, report.result.receipt.body)

    def _records(self, members: Iterable[mesh_pb2.MemberProof], peers: Iterable[common_pb2.Signed]) -> None:
        for proof in members:
            record = decode_member(proof.record.body)
            what = "tombstone" if record.removed else "member"
            self._sign(what, record.issuer or "root", record.node_id, record.epoch, proof.record.body)
        for signed in peers:
            peer = decode_peer(signed.body)
            self._sign("peer", peer.node_id, "", peer.version, signed.body)

    def _sign(self, what: str, signer: str, subject: str, number: int, body: bytes) -> None:
        known = self._signed.setdefault((what, signer, subject, str(number)), body)
        if known != body:
            raise Violation(f"{self._name_of(signer)} signed two different {what}s for {subject}/{number}")

    def _accept(self, core: str, host: str, outcome: jobs_pb2.ReportOutcome) -> None:
        job_id, mine = outcome.job_id, (host, outcome.attempt)
        job = self._job(core, job_id)
        if job is None:
            raise Violation(f"a report on {job_id} was accepted by a core that does not know the job")
        if not self._with_result.get((host, job_id, outcome.attempt)):
            if (host, job_id, outcome.attempt) not in self._with_result:
                raise Violation(f"a forged report on {job_id} was accepted")
            if job.attempt <= outcome.attempt and job.state not in ENDED:
                raise Violation(f"{job_id}: an attempt was given back, which is not durable")
            return
        known = self._accepted.setdefault(job_id, mine)
        if known != mine:
            raise Violation(f"job {job_id}: results of two attempts were accepted: {known[1]} and {mine[1]}")
        if job.state not in ENDED or (job.host, job.attempt) != mine:
            raise Violation(f"job {job_id}: a host was told of its acceptance, the store says otherwise")

    def _must_have_said(self, node: str, fact: str, key: AttemptKey, detail: str = "") -> None:
        known = self._said.get((fact, node, key[0], str(key[1])))
        if known is None or (detail and known != detail):
            raise Violation(f"{self._name_of(node)} says of {key[0]}/{key[1]} that it is {fact}; its disk does not")

    def _job(self, core: str, job_id: str) -> jobs_pb2.Job | None:
        value = self._stores[core].get(JOBS, job_id.encode())
        return None if value is None else jobs_pb2.Job.FromString(value)

    # ---- what a node does

    def on_start(self, node: str) -> None:
        """A new life begins."""
        if node in self._incarnation:
            self._former[node] = self._incarnation[node]

    def on_runtime_fault(self, fault: Fault, cause: BaseException | None) -> None:
        if isinstance(cause, Violation):  # found by what an effect or a callback set off
            raise cause
        if fault.reason in ("MachineFailed", "SettleFailed"):
            raise Violation(fault.message) from cause

    def on_execute(self, node: str, key: AttemptKey) -> None:
        self._must_have_said(node, "taken", key)
        if (node, *key) in self._executed:
            raise Violation(f"{self._name_of(node)} ran attempt {key[1]} of {key[0]} twice")
        self._executed[node, *key] = True

    def on_commit(self, node: str) -> None:
        """Whatever the journal has gained; a commit that failed may have been applied all the same."""
        store = self._stores[node]
        for seq, data in store.events(self._seen_seq[node]):
            self._seen_seq[node] = seq
            event = state_pb2.Event.FromString(data)
            match event.WhichOneof("data"):
                case "job":
                    self._on_job_event(node, event)
                case "attempt":
                    self._on_attempt_event(node, event.etype, event.attempt)

    def _on_attempt_event(self, node: str, etype: int, facts: jobs_pb2.AttemptEvent) -> None:
        key, detail = (facts.job_id, str(facts.attempt)), facts.outcome
        match etype:
            case EventType.JOB_QUEUED:
                self._said["queued", node, *key] = ""
            case EventType.JOB_AWARDED if detail == "taken":
                self._said["taken", node, *key] = detail
            case EventType.JOB_AWARDED:
                self._said["awarded", node, *key] = facts.host
            case EventType.JOB_EXECUTED:
                self._said["executed", node, *key] = detail

    def _on_job_event(self, node: str, event: state_pb2.Event) -> None:
        job = event.job
        if job.job_id in self._ended:
            raise Violation(f"job {job.job_id} had ended, and its journal goes on with {event.type}")
        if job.attempt < self._attempt.get(job.job_id, 0):
            raise Violation(f"job {job.job_id} fell back from attempt {self._attempt[job.job_id]} to {job.attempt}")
        self._attempt[job.job_id] = job.attempt
        if event.etype == EventType.JOB_CREATED and job.request_id:
            made = self._requests.setdefault((node, job.request_id), job.job_id)
            if made != job.job_id:
                raise Violation(f"request {job.request_id} made two jobs")
        if job.state in ENDED:
            self._ended[job.job_id] = job.SerializeToString(deterministic=True)
            self._check_end(job)

    def _check_end(self, job: jobs_pb2.Job) -> None:
        payload = self._payloads.get(job.payload_digest)
        if payload is None:
            raise Violation(f"job {job.job_id} is not what any user asked for")
        if job.error in EXCUSES:
            self.excused.append((job.job_id, job.error))
            return
        verdict = self._verdicts[job.payload_digest]
        if job.error != verdict or (job.state == FAILED) != bool(job.error):
            raise Violation(f"job {job.job_id} must end with {verdict!r}, not with {job.error!r}")
        if job.result.HasField("receipt"):
            receipt, outcome = ReceiptBody.decode(job.result.receipt.body), outcome_of(payload)
            if receipt.result_digest != result_digest(outcome.exit_code, outcome.output):
                raise Violation(f"job {job.job_id}: its accepted result is not that of its payload")
            if (receipt.node, receipt.attempt, receipt.job_id) != (job.host, job.attempt, job.job_id):
                raise Violation(f"job {job.job_id}: its receipt is another's")
        elif job.state == COMPLETED:
            raise Violation(f"job {job.job_id} is completed and has no receipt")
        self.results += 1

    # ---- what users were told

    def on_acked(self, core: str, job: jobs_pb2.Job) -> None:
        """A user holds this answer of the core: from now on it must be in the store."""
        self._acked.setdefault(core, {})[job.job_id] = job.state
        self._check_acked(core, job.job_id, job.state)

    def on_shown(self, core: str, job: jobs_pb2.Job) -> None:
        """A user has asked for the whole job, output and all."""
        self.on_acked(core, job)
        payload = self._payloads.get(job.payload_digest)
        if job.state == COMPLETED and (payload is None or job.result.output != outcome_of(payload).output):
            raise Violation(f"job {job.job_id}: the user did not get its output")

    def check_store(self, core: str) -> None:
        """Nothing acked is lost, nor taken back. Called after each crash and at the end."""
        for job_id, state in self._acked.get(core, {}).items():
            self._check_acked(core, job_id, state)

    def _check_acked(self, core: str, job_id: str, state: int) -> None:
        job = self._job(core, job_id)
        if job is None:
            raise Violation(f"job {job_id} was acked and is not in the store")
        if state in ENDED and job.state != state:
            raise Violation(f"job {job_id}: the user was told that it had ended, the store says otherwise")
        if state > job.state == CREATED:
            raise Violation(f"job {job_id} was acked as dispatched, the store says it never was")
        accepted = self._accepted.get(job_id)
        if accepted is not None and (job.host, job.attempt) != accepted:
            raise Violation(f"job {job_id}: attempt {accepted[1]} was accepted, the store names another")

"""Rules of jobs.

- one result: a job has one accepted result, that of its present attempt and its host, and it is what the payload
  must give; it ends once, and a repeated request makes nothing twice;
- fence: the number of a job's attempts never falls and is durable before an order that carries it leaves. Only a broker
  may be asked for a host for a job that is being made: if that is lost it never comes to be;
- signed once: receipts and orders;
- once: no host runs an attempt twice; one that leaves no traces, not once it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder, payload_digest
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest, verify_receipt
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, CREATED, ENDED, FAILED
from offgrid_tools.sim.crypto import sim_verify
from offgrid_tools.sim.monitor.chains import Chains
from offgrid_tools.sim.monitor.deadly import DeadlyRules
from offgrid_tools.sim.monitor.drops import Drops
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.redundant import Executions
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules, Written
from offgrid_tools.sim.monitor.terms import Terms
from offgrid_tools.sim.work import outcome_of, verdict_of

# A job may also end for want of hosts or brokers; whether the run's faults explain that is for the cluster to say.
EXCUSES = ("NoHostsAvailable", "BrokerUnavailable", "AttemptsExhausted")


class JobRules(Rules):
    """Of what cores, brokers and hosts say of jobs, and of what users were told."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.chains = Chains()
        self._accepted: dict[str, tuple[str, int]] = {}
        self._with_result: dict[tuple[str, str, int], bool] = {}
        self._ended: set[str] = set()
        self._executed: dict[tuple[str, str, int], bool] = {}
        self._attempt: dict[str, int] = {}
        self._started_at: dict[tuple[str, str, int], str] = {}  # (core, job, attempt): the host that was told to
        self._requests: dict[tuple[str, str], str] = {}
        self._acked: dict[str, dict[str, int]] = {}
        self._payloads: dict[bytes, jobs_pb2.JobPayload] = {}
        self._verdicts: dict[bytes, str] = {}
        self.excused: list[tuple[str, str]] = []  # (job, error) of those that ended for want of hosts or brokers
        self.results = 0
        self.false_hosts: set[str] = set()  # they do their work wrong
        # Attempts that a false broker has awarded: to a core that has restarted it may name another winner, or say that
        # the order waits still, until somebody else awards it.
        self._misled: set[tuple[str, str, int]] = set()
        self.false_brokers: set[str] = set()  # they award what they like
        self.executions_of = Executions(evidence, self._job)
        self.terms = Terms(evidence, self._job)
        self.drops = Drops(evidence)
        self.deadly = DeadlyRules(evidence)
        self.on_cost: Callable[[str, jobs_pb2.Job], None] = lambda core, job: None  # told of each accepted result
        self.on_row: Callable[[str, jobs_pb2.Job], None] = lambda core, job: None  # told of each row of a job

    def requests(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.SubmitJobsRequest: self._submitted,
            jobs_pb2.StartJobsRequest: self._started,
            jobs_pb2.DeliverAwardsRequest: self._awarded,
            jobs_pb2.ReportResultsRequest: self._reported,
        }

    def replies(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.SubmitJobsResponse: self._cleared,
            jobs_pb2.StartJobsResponse: self._taken,
            jobs_pb2.ReportResultsResponse: self._judged,
        }

    def events(self) -> Mapping[str, Journaled]:
        return {"job": self._on_job_event, "attempt": self._on_attempt_event}

    def rows(self) -> Mapping[str, Written]:
        return {JOBS: self._on_job_row}

    def _on_job_row(self, core: str, key: bytes, value: bytes | None) -> None:
        if value is not None:
            self.on_row(core, jobs_pb2.Job.FromString(value))

    # ---- what users ask for

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

    # ---- what leaves a node

    def _submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        for body in request.orders:
            self._order(core, body, "")

    def _started(self, core: str, host: str, request: jobs_pb2.StartJobsRequest) -> None:
        for start in request.starts:
            self._order(core, start.order, host)

    def _awarded(self, broker: str, core: str, request: jobs_pb2.DeliverAwardsRequest) -> None:
        for award in request.awards:
            self._evidence.must_be_durable("awarded", broker, award.job_id, award.attempt, award.host)

    def _reported(self, host: str, core: str, request: jobs_pb2.ReportResultsRequest) -> None:
        for report in request.reports:
            self._report(host, report)

    def _cleared(self, broker: str, core: str, reply: jobs_pb2.SubmitJobsResponse) -> None:
        for clearing in reply.clearings:
            key = clearing.job_id, clearing.attempt
            # An award is durable at its core before anything follows from it; a broker may forget it.
            if clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
                self._evidence.must_be_durable("queued", broker, *key)

    def _taken(self, host: str, core: str, reply: jobs_pb2.StartJobsResponse) -> None:
        for started in reply.outcomes:
            key = started.job_id, started.attempt
            if started.accepted and not self._evidence.is_durable("executed", host, *key):
                self._evidence.must_be_durable("taken", host, *key)
        for report in reply.reports:
            self._report(host, report)

    def _judged(self, core: str, host: str, reply: jobs_pb2.ReportResultsResponse) -> None:
        for outcome in reply.outcomes:
            if outcome.accepted:
                self._accept(core, host, outcome)

    def _order(self, core: str, body: bytes, host: str) -> None:
        order = JobOrder.decode(body)
        self._evidence.sign("order", order.core, order.job_id, order.attempt, body)
        job = self._job(core, order.job_id)
        if job is None and not host and order.attempt == 1:
            return
        if job is None or job.attempt < order.attempt:
            raise Violation(f"an order of attempt {order.attempt} of {order.job_id} left before it was durable")
        self.terms.on_order(core, job)
        key = core, order.job_id, order.attempt
        if host and job.broker in self.false_brokers:
            self._misled.add(key)
        if host and key in self._misled:
            self._started_at[key] = host
        first = self._started_at.setdefault(key, host) if host else ""
        if first != host or (host and job.attempt == order.attempt and job.host not in ("", host)):
            raise Violation(f"attempt {order.attempt} of {order.job_id} is started by a host that it is not awarded to")

    def _report(self, host: str, report: jobs_pb2.AttemptReport) -> None:
        self._evidence.must_be_durable("executed", host, report.job_id, report.attempt)
        self._with_result[host, report.job_id, report.attempt] = report.HasField("result")
        if report.HasField("result"):
            receipt = ReceiptBody.decode(report.result.receipt.body)
            self._evidence.sign("receipt", receipt.node, receipt.job_id, receipt.attempt, report.result.receipt.body)

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

    def _job(self, core: str, job_id: str) -> jobs_pb2.Job | None:
        value = self._evidence.row(core, JOBS, job_id.encode())
        return None if value is None else jobs_pb2.Job.FromString(value)

    # ---- what a node does

    def on_execute(self, node: str, key: AttemptKey, *, traces: bool) -> None:
        if traces:
            self._evidence.must_be_durable("taken", node, *key)
        again = (node, *key) in self._executed if traces else self._evidence.is_durable("executed", node, *key)
        if again:
            raise Violation(f"{self._evidence.name_of(node)} ran attempt {key[1]} of {key[0]} twice")
        self._executed[node, *key] = True

    def _on_attempt_event(self, node: str, event: state_pb2.Event) -> None:
        facts = event.attempt
        key, detail = (facts.job_id, facts.attempt), facts.outcome
        match event.etype:
            case EventType.JOB_QUEUED:
                self._evidence.durable("queued", node, *key)
            case EventType.JOB_AWARDED if detail == "taken":
                self._evidence.durable("taken", node, *key, detail)
            case EventType.JOB_AWARDED:
                self._evidence.durable("awarded", node, *key, facts.host)
            case EventType.JOB_EXECUTED:
                self._evidence.durable("executed", node, *key, detail)

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
        if not job.parent_id:
            self._note(job)
        elif event.etype == EventType.JOB_CREATED:
            self.executions_of.on_made(node, job)
        if job.state in ENDED:
            self._ended.add(job.job_id)
            self._check_signed(job)
            if job.parent_id:
                self.executions_of.on_end(node, job, self.on_cost)
            else:
                self._check_end(node, job)

    def _check_signed(self, job: jobs_pb2.Job) -> None:
        """What the job says that it came to stands alone: its host has signed it."""
        if job.result.HasField("receipt"):
            key = self._evidence.keys.get(ReceiptBody.decode(job.result.receipt.body).node, b"")
            try:
                verify_receipt(job.result.receipt, key, sim_verify, self._evidence.salt)
            except Fault as fault:
                raise Violation(f"job {job.job_id} is ended by a receipt that proves nothing: {fault}") from fault

    def _note(self, job: jobs_pb2.Job) -> None:
        digest = job.payload_digest
        if digest not in self._payloads and (filled := self.chains.filled(job)) is not None:
            self._payloads[digest], self._verdicts[digest] = filled, verdict_of(filled)
        if digest in self._payloads:
            self.chains.note(job, self._payloads[digest])

    def _check_end(self, core: str, job: jobs_pb2.Job) -> None:
        payload = self._payloads.get(job.payload_digest)
        if payload is None and not self.chains.is_waiting(job):
            raise Violation(f"job {job.job_id} is not what any user asked for")
        if self.deadly.is_deadly(job):
            self.deadly.check_end(job)
            return
        if job.error in EXCUSES:
            self.excused.append((job.job_id, job.error))
            return
        if job.error == "ResultsDisagree":
            self.excused.append((job.job_id, self.executions_of.why_split(job, self.false_hosts, EXCUSES)))
            return
        if self._is_deceived(job) or self.terms.judges(core, job):
            return
        verdict = self._verdicts[job.payload_digest]
        if self.drops.judges(core, job, verdict):
            self.results += 1
            return
        if job.error != verdict or (job.state == FAILED) != bool(job.error):
            raise Violation(f"job {job.job_id} must end with {verdict!r}, not with {job.error!r}")
        if payload is not None and job.result.HasField("receipt"):
            receipt, outcome = ReceiptBody.decode(job.result.receipt.body), outcome_of(payload)
            honest = result_digest(outcome.exit_code, outcome.output)
            if receipt.result_digest != honest:
                raise Violation(f"job {job.job_id}: its accepted result is not that of its payload")
            if job.result_of:
                self.executions_of.on_agreed(core, job, honest, self.on_cost)
            elif (receipt.node, receipt.attempt, receipt.job_id) != (job.host, job.attempt, job.job_id):
                raise Violation(f"job {job.job_id}: its receipt is another's")
            else:
                self.executions_of.on_done_here(core, job, honest)
                self.on_cost(core, job)
        elif job.state == COMPLETED:
            raise Violation(f"job {job.job_id} is completed and has no receipt")
        self.results += 1

    def _is_deceived(self, job: jobs_pb2.Job) -> bool:
        """Whether a false host alone says what came of it: nobody can know better."""
        return job.host in self.false_hosts and not job.result_of and job.result.HasField("receipt")

    # ---- what users were told

    def on_acked(self, core: str, job: jobs_pb2.Job) -> None:
        """A user holds this answer of the core: from now on it must be in the store."""
        self._acked.setdefault(core, {})[job.job_id] = job.state
        self._check_acked(core, job.job_id, job.state)

    def on_taken_back(self, core: str, job_ids: Iterable[str]) -> None:
        """A user was told that these are cancelled."""
        for job_id in job_ids:
            self._acked.setdefault(core, {})[job_id] = CANCELLED
            self._check_acked(core, job_id, CANCELLED)

    def on_shown(self, core: str, job: jobs_pb2.Job) -> None:
        """A user has asked for the whole job, output and all."""
        self.on_acked(core, job)
        payload = self._payloads.get(job.payload_digest)
        apart = bool(job.result.output_object)  # a large output is read as the object that it is
        right = payload is not None and (apart or job.result.output == outcome_of(payload).output)
        if job.state == COMPLETED and not right and not self._is_deceived(job):
            raise Violation(f"job {job.job_id}: the user did not get its output")

    def check_store(self, node: str) -> None:
        """Nothing acked is lost, nor taken back."""
        self.executions_of.check_store(node)
        self.terms.check_store(node)
        self.drops.check_store(node)
        for job_id, state in self._acked.get(node, {}).items():
            self._check_acked(node, job_id, state)

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

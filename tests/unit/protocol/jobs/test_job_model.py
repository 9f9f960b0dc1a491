"""A job's life, told in a dozen lines, beside the core that lives it. Whatever comes late, twice, in another order or
not at all, and whenever the core begins anew from its rows, both say the same of every job after every step."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from job_bench import OTHER, OWNER, WORKER, CoreBench, award

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered, Raise
from offgrid_node.protocol.events import CostIncurred
from offgrid_node.protocol.jobs.commands import Report, ReportResults, Started
from offgrid_node.protocol.jobs.open_jobs import SAID_MS
from offgrid_node.protocol.jobs.post import Tag
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED, ReceiptBody, result_digest, sign_receipts
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.jobs.terms import LOSSES_MAX

HOSTS = {"worker": WORKER, "other": OTHER}
JOBS, WAITS_MAX = 2, 36  # waits that are shorter in all than a core is patient with a start (START_PATIENCE_MS)
STEPS = 40
QUEUED, HELD, OVER = "queued", "held", "over"
LOST = "HostRestarted"  # what hosts report: the next attempt
CLAIM = "ExecutionFailed"  # that too; or the end, of whoever says so of a job second


@dataclass
class Model:
    """What is promised of a job."""

    attempt: int = 1
    state: str = QUEUED
    host: str = ""
    said: bool = False  # that it is held is on disk
    losses: int = 0
    doubtful: bool = False
    claimed: bool = False  # that the work fails, by one host alone so far
    accepted: tuple[int, str] | None = None
    paid: int = 0

    def award(self, attempt: int, host: str, down: bool) -> None:
        if (self.state, self.attempt) == (QUEUED, attempt):
            self.state, self.host, self.said, self.doubtful = HELD, host, False, False
            if down:
                self.lose(host_lost=False)

    def lose(self, *, host_lost: bool) -> None:
        self.losses += host_lost
        self.state = OVER if self.losses > LOSSES_MAX else QUEUED
        if self.state == QUEUED:
            self.attempt, self.host, self.doubtful = self.attempt + 1, "", False

    def report(self, attempt: int, host: str, what: str) -> bool | None:
        """Whether it is accepted; None where it is not answered."""
        if self.state == QUEUED and attempt == self.attempt:
            return None
        if self.state == OVER:
            return self.accepted == (attempt, host)
        if (self.state, self.attempt, self.host) != (HELD, attempt, host):
            return False
        if what == LOST:
            self.lose(host_lost=True)
        elif what == CLAIM and not self.claimed:
            self.claimed = True
            self.lose(host_lost=False)
        else:
            self.state, self.accepted, self.paid = OVER, (attempt, host), int(what in (COMPLETED, FAILED))
        return True

    def restart(self) -> None:
        if self.state == HELD and not self.said:
            self.state, self.host = QUEUED, ""
        self.doubtful = self.state == QUEUED


numbers = st.integers(0, JOBS - 1)
back = st.integers(-1, 3)  # how far behind the present attempt a message is; -1: one that there is not yet
hosts = st.sampled_from(sorted(HOSTS))


class JobLife(RuleBasedStateMachine):
    """Any message may come at any time, as often as it likes."""

    @initialize()
    def begin(self) -> None:
        self.bench = CoreBench()
        self.ids = [self.bench.submitted() for _ in range(JOBS)]
        self.models = [Model() for _ in range(JOBS)]
        self.down: set[str] = set()
        self.waits = 0

    def _attempt(self, number: int, behind: int) -> int:
        return max(1, self.models[number].attempt - behind)

    @rule(number=numbers, behind=back, host=hosts)
    def award(self, number: int, behind: int, host: str) -> None:
        attempt = self._attempt(number, behind)
        self.bench.clears(award(self.ids[number], HOSTS[host].node_id, attempt=attempt))
        self.models[number].award(attempt, host, host in self.down)

    @rule(number=numbers, behind=back)
    def wait_in_line(self, number: int, behind: int) -> None:
        self._says(number, behind, jobs_pb2.CLEARING_KIND_QUEUED)
        if self.models[number].attempt == self._attempt(number, behind):
            self.models[number].doubtful = False

    @rule(number=numbers, behind=back)
    def forget(self, number: int, behind: int) -> None:
        """Only to a core that has restarted, and of what it may have been told."""
        model = self.models[number]
        if model.state == QUEUED and model.doubtful:
            attempt = self._attempt(number, behind)
            self._says(number, behind, jobs_pb2.CLEARING_KIND_FORGOTTEN)
            if attempt == model.attempt:
                model.lose(host_lost=False)

    def _says(self, number: int, behind: int, kind: jobs_pb2.ClearingKind.ValueType) -> None:
        attempt = self._attempt(number, behind)
        self.bench.clears(jobs_pb2.Clearing(job_id=self.ids[number], attempt=attempt, kind=kind))

    @rule(number=numbers, behind=back, host=hosts, takes=st.booleans())
    def answer_start(self, number: int, behind: int, host: str, takes: bool) -> None:
        model, attempt = self.models[number], self._attempt(number, behind)
        key = self.ids[number], attempt
        outcome = jobs_pb2.StartOutcome(job_id=key[0], attempt=attempt, accepted=takes, refusal="" if takes else "busy")
        tag = Tag("StartJobs", HOSTS[host].node_id, (key,))
        answer = Answered(tag, tag.node, Started((outcome,), ()), None)
        self.bench.core.launching.on_started(tag, answer, self.bench.now, self.bench.rng)
        self.bench.settle()
        if not takes and (model.state, model.attempt, model.host) == (HELD, attempt, host):
            model.lose(host_lost=False)

    @rule(number=numbers, behind=back, host=hosts, what=st.sampled_from((COMPLETED, FAILED, LOST, LOST, CLAIM, CLAIM)))
    def report(self, number: int, behind: int, host: str, what: str) -> None:
        attempt = self._attempt(number, behind)
        report = self._report(number, attempt, host, what)
        command = ReportResults(HOSTS[host].node_id, (report,))
        self.bench.core.reports.on_reports(9, command, self.bench.now, self.bench.rng)
        self.bench.settle()
        outcomes = self.bench.replied(jobs_pb2.ReportResultsResponse).outcomes
        expected = self.models[number].report(attempt, host, what)
        assert [outcome.accepted for outcome in outcomes] == ([] if expected is None else [expected])

    def _report(self, number: int, attempt: int, host: str, what: str) -> Report:
        job, message = self.bench.row(self.ids[number]), jobs_pb2.AttemptReport(job_id=self.ids[number])
        message.attempt = attempt
        if what in (LOST, CLAIM):
            message.error = what
            return Report((job.job_id, attempt), message, None)
        body = ReceiptBody(
            node=HOSTS[host].node_id,
            core=OWNER.node_id,
            job_id=job.job_id,
            attempt=attempt,
            payload_digest=job.payload_digest,
            result_digest=result_digest(int(what == FAILED), b""),
            status=what,
            size_tokens=job.size_tokens,
            latency_us=1,
            price_micro=5,
            executor="test/1",
        )
        message.result.status, message.result.exit_code = what, int(what == FAILED)
        message.result.receipt.CopyFrom(sign_receipts([body.encode()], HOSTS[host], b"")[0])
        return Report((job.job_id, attempt), message, body)

    @rule(host=hosts)
    def host_dies(self, host: str) -> None:
        self.bench.down(HOSTS[host])
        self.down.add(host)
        for model in self.models:
            if (model.state, model.host) == (HELD, host):
                model.lose(host_lost=True)

    @rule(host=hosts)
    def host_comes_back(self, host: str) -> None:
        self.bench.up(HOSTS[host])
        self.down.discard(host)

    @rule(number=numbers)
    def cancel(self, number: int) -> None:
        taken = self.bench.cancel(self.ids[number]).job_ids
        assert bool(taken) == (self.models[number].state != OVER)
        self.models[number].state = OVER

    @precondition(lambda self: self.waits < WAITS_MAX)
    @rule()
    def wait(self) -> None:
        self.waits += 1
        self.bench.wait(SAID_MS)
        for model in self.models:
            model.said = True

    @rule()
    def restart(self) -> None:
        self.bench.restart()
        for model in self.models:
            model.restart()

    @invariant()
    def both_say_the_same(self) -> None:
        for job_id, model in zip(self.ids, self.models, strict=True):
            job = self.bench.job(job_id)
            assert (job.state in ENDED) == (model.state == OVER)
            assert job.attempt == model.attempt
            if model.state != OVER:
                assert job.host == (HOSTS[model.host].node_id if model.host else "")
            assert self._paid(job_id) == model.paid

    def _paid(self, job_id: str) -> int:
        raised = (effect.event for effect in self.bench.effects if isinstance(effect, Raise))
        return sum(1 for event in raised if isinstance(event, CostIncurred) and event.job_id == job_id)


TestJobLife = JobLife.TestCase
TestJobLife.settings = settings(stateful_step_count=STEPS, suppress_health_check=list(HealthCheck))

"""What hosts report, as their core takes it: the fence stands here, and behind it the one accepted result of a job.

Only a report of the present attempt, by the host that it was awarded to, for the payload and the price of its award, is
accepted; the same report again is accepted again. Whatever is refused is unpaid, and its host may forget it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.bounds import REFUSAL_CHARS_MAX
from offgrid_node.protocol.jobs.closing import REFUTED
from offgrid_node.protocol.jobs.commands import Arriving, Report, ReportResults
from offgrid_node.protocol.jobs.failures import claims_of, is_unconfirmed
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.large import OUTPUT_LOST
from offgrid_node.protocol.jobs.open_job import FINAL_ERRORS, Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.patience import AGAIN_PATIENCE_MS, RUN_GRACE_MS
from offgrid_node.protocol.jobs.poison import DEATHS, Poison
from offgrid_node.protocol.jobs.post import Post, transfer_ms
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import AWARDED, QUEUED, RUNNING
from offgrid_node.protocol.rng import Rng

TIMEOUT_SHARE = 0.9  # of its time-out that a job must have had: clocks differ a little


class LoseHost(Protocol):
    """The present attempt is lost with its host."""

    def __call__(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None: ...


class Reports:
    """Decides each report, and says to its host what became of it."""

    def __init__(
        self,
        settings: JobsSettings,
        jobs: OpenJobs,
        post: Post,
        host: Host,
        lose_host: LoseHost,
        lose_to_fault: LoseHost,
        ask_another: LoseHost,
        brokers: Callable[[], Iterable[str]],
        poison: Poison,
    ) -> None:
        """`host` is this node's own host part, whose reports come in the same step. `lose_host` blames the host for the
        lost attempt, as does `lose_to_fault`, where it told so itself and lives; `ask_another` does not, not yet.
        `brokers` are those that may know it."""
        self._settings, self._jobs, self._post, self._host = settings, jobs, post, host
        self._lose_host, self._lose_to_fault, self._ask_another = lose_host, lose_to_fault, ask_another
        self._brokers, self._poison = brokers, poison

    def on_reports(self, ticket: int, command: ReportResults, now: Now, rng: Rng) -> None:
        """What comes too early for a core that is new to its own past is not answered: it comes again."""
        known = [report for report in command.reports if not self.comes_too_early(command.host, report)]
        outcomes = [self.take(command.host, report, now, rng) for report in known]
        self._post.reply(ticket, jobs_pb2.ReportResultsResponse(outcomes=outcomes))

    def comes_too_early(self, host: str, report: Report) -> bool:
        """The attempt is not known to be awarded yet, or was not when its output might have been fetched."""
        entry = self._jobs.current(report.key)
        if entry is None:
            return False
        job = entry.job
        unfetched = _leaves_blobs(report.message) and job.host == host
        return job.state == QUEUED or (unfetched and job.state in (AWARDED, RUNNING))

    def on_arriving(self, event: Arriving, now: Now) -> None:
        """An output gets the time that it needs on its way here; once for an attempt, lest it never ends. Each time
        that this node's own disk does not take it, its host is given the time to bring it again: the work is done, and
        nobody else is to blame."""
        entry = self._jobs.current(event.key)
        if entry is None or entry.job.host != event.host or entry.job.state not in (AWARDED, RUNNING):
            return
        if event.trouble and not entry.trouble:
            self._jobs.tell_trouble(entry, event.trouble, now)
        if not entry.arriving or event.trouble:
            entry.arriving = True
            self._jobs.confirm(entry, now)
            patience_ms = AGAIN_PATIENCE_MS if event.trouble else RUN_GRACE_MS
            self._jobs.timers.set(entry.job_id, now.mono_ms + patience_ms + transfer_ms(event.size_bytes))

    def on_local_report(
        self, report: jobs_pb2.AttemptReport, added: tuple[ObjectAdded, ...], now: Now, rng: Rng
    ) -> None:
        """From this node's own host part, in the same step."""
        body = ReceiptBody.decode(report.result.receipt.body) if report.HasField("result") else None
        if body is not None:
            body.tell(report.result.receipt.facts)
        checked = Report((report.job_id, report.attempt), report, body, added)
        if self.comes_too_early(self._settings.node_id, checked):
            self._host.report_later((self._settings.node_id, *checked.key), now)
            return
        outcome = self.take(self._settings.node_id, checked, now, rng)
        for each in added if not outcome.accepted else ():
            self._post.drop_blob(each.body.object_id)
        self._host.forget((self._settings.node_id, report.job_id, report.attempt), now)

    def take(self, host: str, report: Report, now: Now, rng: Rng) -> jobs_pb2.ReportOutcome:
        """The same, as its host is told."""
        refusal = self.refusal_of(host, report, now, rng)
        job_id, attempt = report.key
        return jobs_pb2.ReportOutcome(job_id=job_id, attempt=attempt, accepted=not refusal, refusal=refusal)

    def refusal_of(self, host: str, report: Report, now: Now, rng: Rng) -> str:
        """Takes the report, whatever follows from it; or says why not."""
        refusal, entry = self._refusal(host, report), self._jobs.get(report.key[0])
        if refusal or entry is None:
            return refusal
        message = report.message
        if report.receipt is not None:
            self._jobs.complete(entry, message.result, report.added, now)
            self._refuted(entry.job, now)
            self._poison.on_result(entry.job.payload_digest)
        elif early := _early(entry.job, message.error, now):
            self._lose_host(entry, early, now, rng)
        elif is_unconfirmed(entry.job, message.error, self._settings.node_id):
            self._ask_another(entry, f"{message.error}: {message.error_detail}", now, rng)
        elif message.error in FINAL_ERRORS:
            self._jobs.fail(entry, message.error, message.error_detail, now)
        else:
            lose = self._lose_host if message.error in DEATHS else self._lose_to_fault
            lose(entry, f"{message.error}: {message.error_detail}", now, rng)
            if message.error == OUTPUT_LOST:
                return message.error_detail[:REFUSAL_CHARS_MAX] or OUTPUT_LOST
        return ""

    def _refuted(self, job: jobs_pb2.Job, now: Now) -> None:
        """A result is there: hosts that claimed there was none to be had are told of, to whoever gave them the job."""
        for key in claims_of(job) if len(job.attempts) > 1 else ():
            for broker in self._brokers():
                self._jobs.close(broker, key, now, REFUTED)

    def _refusal(self, host: str, report: Report) -> str:
        """Why a report is not accepted; empty when it is. The fence stands here."""
        job_id, attempt = report.key
        entry = self._jobs.get(job_id)
        if entry is None:
            return self._refusal_of_ended(job_id, attempt, host)
        job = entry.job
        if attempt != job.attempt or job.state not in (AWARDED, RUNNING):
            return f"attempt {attempt} is over; the present one is {job.attempt}"
        if host != job.host:
            return "the attempt was awarded to another host"
        if _leaves_blobs(report.message):
            return "its output was not taken over"
        receipt = report.receipt
        if receipt is not None:
            if receipt.payload_digest != job.payload_digest:
                return "the receipt is for another payload"
            if receipt.size_tokens != job.size_tokens:
                return "the receipt is for work of another size"
            if receipt.price_micro != job.price_micro:
                return "the receipt's price is not the award's"
        return ""

    def _refusal_of_ended(self, job_id: str, attempt: int, host: str) -> str:
        """What was accepted is accepted again."""
        ended = self._jobs.ended(job_id)
        if ended is None:
            return "the job is not this core's"
        if ended.accepted and (ended.attempt, ended.host) == (attempt, host):
            return ""
        return f"the job has ended, as {jobs_pb2.JobState.Name(ended.state)}: nobody waits for this"


def _leaves_blobs(report: jobs_pb2.AttemptReport) -> bool:
    """Whether something of it still lies at its host."""
    return bool(report.blob or report.files_blob)


def _early(job: jobs_pb2.Job, error: str, now: Now) -> str:
    """Why a host cannot have found that the job takes too long; empty where it may have. So no host ends jobs
    unpunished that it does not care to run. Where this node's clock was set back, the job is run once more."""
    had_ms = (now.utc_us - job.attempts[-1].started_us) // 1_000 if job.attempts else job.timeout_ms
    if error != "JobTimeout" or had_ms >= TIMEOUT_SHARE * job.timeout_ms:
        return ""
    return f"Implausible: its host says JobTimeout after {had_ms} ms of {job.timeout_ms}"

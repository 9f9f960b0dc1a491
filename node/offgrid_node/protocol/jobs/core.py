"""The core's part: it owns its jobs, numbers their attempts, and alone accepts a result.

An attempt's number is durable before any order that carries it leaves, and only a report of the present attempt by
the host it was awarded to is accepted; whatever dies, doubles or comes late, a job has one accepted result.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.errors import AlreadyExists, Corrupt, Exhausted, FailedPrecondition, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.ids import NODE_ID
from offgrid_node.protocol.jobs.bounds import PRICE_MAX, REFUSAL_CHARS_MAX
from offgrid_node.protocol.jobs.commands import CreateJob, DeliverAwards, DispatchJob, Report, ReportResults, Start
from offgrid_node.protocol.jobs.host import Host, price_of
from offgrid_node.protocol.jobs.open_jobs import JOBS, Open, OpenJobs
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_BYTES_MAX, CALL_TIMEOUT_MAX_MS, Post, Tag, transfer_ms
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.requests import Requests
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS, JobsSettings
from offgrid_node.protocol.jobs.table import AWARDED, CREATED, QUEUED, RUNNING, move
from offgrid_node.protocol.rng import Rng

LOSSES_MAX = 8  # hosts that may die under one job before it is taken for the cause
REFUSED_DELAY_MS, REFUSED_DELAY_MAX_MS = 100, 5_000
POLL_MS = 5_000  # a queued order is said again this often: its broker may have restarted
START_RETRY_MS = 1_000
# An award whose host has not answered by then is lost: not every node reaches every other. Its payload's time on the
# road comes on top.
START_PATIENCE_MS = 10_000
RUN_GRACE_MS = 10_000 + transfer_ms(CALL_BYTES_MAX)  # past its time-out a host has this long to bring what came of it
QUEUE_RETRY_MS = 1_000
ROUTE_REASONS = {
    "disabled": "the mesh is switched off for this job (mode disabled)",
    "no broker": "no broker of the mesh is alive",
    "broker": "a broker is alive",
    "wait": "no broker of the mesh is alive, and this node cannot run it itself; it waits for one",
}


class Core:
    """Drives each open job from dispatch to its one accepted result, or to a named failure."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post, host: Host, requests: Requests) -> None:
        """`host` is this node's own host part: the local queue is worked by it."""
        self._settings, self._peers, self._post = settings, peers, post
        self._host, self._requests = host, requests
        self._jobs = OpenJobs(settings, post)
        self._local: OrderedDict[str, None] = OrderedDict()

    def load(self, rows: Rows, now: Now) -> None:
        self._jobs.load(rows)
        for entry in self._jobs:
            job = entry.job
            if job.state == CREATED:
                continue
            if job.route == jobs_pb2.ROUTE_OFFGRID:
                self._jobs.timers.set(job.job_id, now.mono_ms)
            elif job.state == QUEUED:
                self._local[job.job_id] = None

    # ---- questions

    @property
    def open_jobs(self) -> int:
        return len(self._jobs)

    def deadline_ms(self) -> int | None:
        return self._jobs.timers.next_ms()

    # ---- from the owner

    def on_create(self, ticket: int, command: CreateJob, now: Now, rng: Rng) -> None:
        try:
            made = self._requests.made(command.request_id, command.digest)
            entry = self._jobs.get(made)
            job = entry.job if entry is not None else self._requests.row(JOBS, jobs_pb2.Job, made)
        except (AlreadyExists, Corrupt) as fault:
            self._post.reply(ticket, fault)
            return
        if job is None and len(self._jobs) >= self._settings.queue_max:
            text = f"{len(self._jobs)} jobs of this node have not ended, and it holds no more at once"
            self._post.reply(ticket, Exhausted(text, reason="QueueFull", retry_ms=QUEUE_RETRY_MS))
            return
        if job is None:
            job = self._jobs.create(command, now, rng)
            self._requests.remember(command.request_id, command.digest, job.job_id)
        self._post.reply(ticket, jobs_pb2.CreateJobResponse(job=job))

    def on_dispatch(self, ticket: int, command: DispatchJob, now: Now, rng: Rng) -> None:
        entry = self._jobs.get(command.job_id)
        if entry is None:
            fault = FailedPrecondition(f"job {command.job_id} has ended", reason="JobEnded")
            self._post.reply(ticket, fault)
            return
        job, reason = entry.job, "it was dispatched before"
        if job.state == CREATED:
            mode = command.mode or self._settings.mode
            brokers = self._peers.with_role(BROKER)
            if mode == jobs_pb2.DISPATCH_MODE_OFFGRID and not brokers:
                why = f"{ROUTE_REASONS['no broker']}; mode offgrid uses nothing else"
                self._post.reply(ticket, Unavailable(why, reason="BrokerUnavailable", retry_ms=2_000))
                return
            job.mode = mode
            move(job, "dispatch")
            job.attempt = 1
            job.route, reason = self._route(job, bool(brokers))
            if job.route == jobs_pb2.ROUTE_OFFGRID:
                self._submit(entry, now, rng)
            else:
                self._to_local_queue(entry)
            self._jobs.keep(job, now, EventType.JOB_DISPATCHED)
        self._post.reply(ticket, jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason=reason))

    def _route(self, job: jobs_pb2.Job, broker_alive: bool) -> tuple[jobs_pb2.Route.ValueType, str]:
        """Which way a job goes, and why. What this node could not run itself is worth waiting for a broker."""
        if job.mode == jobs_pb2.DISPATCH_MODE_DISABLED:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["disabled"]
        if broker_alive:
            return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["broker"]
        if job.needs in self._settings.executors:
            return jobs_pb2.ROUTE_FILE_QUEUE, ROUTE_REASONS["no broker"]
        return jobs_pb2.ROUTE_OFFGRID, ROUTE_REASONS["wait"]

    # ---- from brokers

    def on_submitted(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        if isinstance(answer.reply, jobs_pb2.SubmitJobsResponse):
            asked = set(tag.keys)
            for clearing in answer.reply.clearings:
                if (clearing.job_id, clearing.attempt) in asked:
                    self._on_clearing(tag.node, clearing, now, rng)
            return
        for key in tag.keys:
            entry = self._jobs.current(key)
            if entry is not None and entry.job.state == QUEUED and entry.job.broker == tag.node:
                entry.avoided.add(tag.node)
                self._find_another_broker(entry, now, rng)

    def on_awards(self, ticket: int, command: DeliverAwards, now: Now, rng: Rng) -> None:
        for clearing in command.awards:
            self._on_clearing(command.broker, clearing, now, rng)
        self._post.reply(ticket, jobs_pb2.DeliverAwardsResponse())

    def _on_clearing(self, broker: str, clearing: jobs_pb2.Clearing, now: Now, rng: Rng) -> None:
        """Only the broker that was asked last is listened to, so that no other can award, or end, what waits there."""
        key = clearing.job_id, clearing.attempt
        entry = self._jobs.current(key)
        awarded = clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED
        waits = entry is not None and entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_OFFGRID
        if entry is None or not waits or entry.job.broker != broker:
            same = entry is not None and (entry.job.broker, entry.job.host) == (broker, clearing.host)
            if awarded and not same:
                # Of an older attempt, of a broker that we turned from, or too late: the local queue has the job.
                self._jobs.close(broker, key)
            return
        if awarded and not _sound(clearing):
            entry.avoided.add(broker)
            self._find_another_broker(entry, now, rng)
        elif awarded:
            self._on_award(entry, broker, clearing, now)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
            entry.tries = 0
            entry.avoided.clear()
            self._jobs.timers.set(entry.job.job_id, now.mono_ms + POLL_MS)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_NO_HOST:
            self._try_later(entry, "NoHostsAvailable", clearing.detail, now)
        else:
            self._try_later(entry, "NoHostsAvailable", f"the broker refused: {clearing.detail}", now)

    def _on_award(self, entry: Open, broker: str, clearing: jobs_pb2.Clearing, now: Now) -> None:
        job = entry.job
        self._jobs.award(entry, "award", broker, clearing.host, clearing.price_micro, now)
        if self._peers.is_down(job.host):  # the broker has not heard yet, and the mesh will not say it to us again
            self._lose_and_wait(entry, "refused: its host is not alive", now)
        else:
            self._send_start(entry, now)

    # ---- to and from hosts

    def on_started(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        """Whoever is not answered for is asked again after a moment; if the host is dead the mesh will tell."""
        outcomes = {}
        if isinstance(answer.reply, jobs_pb2.StartJobsResponse):
            outcomes = {(outcome.job_id, outcome.attempt): outcome for outcome in answer.reply.outcomes}
        for key in tag.keys:
            entry = self._jobs.current(key)
            if entry is None or entry.job.host != tag.node or entry.job.state not in (AWARDED, RUNNING):
                continue
            outcome = outcomes.get(key)
            if outcome is None:
                if not entry.confirmed:
                    self._jobs.timers.set(entry.job.job_id, now.mono_ms + START_RETRY_MS)
            elif outcome.accepted:
                self._jobs.confirm(entry, now)
                self._jobs.timers.set(entry.job.job_id, now.mono_ms + entry.job.timeout_ms + RUN_GRACE_MS)
            else:
                self._lose_and_wait(entry, f"refused: {outcome.refusal[:REFUSAL_CHARS_MAX]}", now)

    def on_reports(self, ticket: int, command: ReportResults, now: Now, rng: Rng) -> None:
        outcomes = [self._on_report(command.host, report, now, rng) for report in command.reports]
        self._post.reply(ticket, jobs_pb2.ReportResultsResponse(outcomes=outcomes))

    def on_local_report(self, report: jobs_pb2.AttemptReport, now: Now, rng: Rng) -> None:
        """From this node's own host part, in the same step."""
        body = ReceiptBody.decode(report.result.receipt.body) if report.HasField("result") else None
        self._on_report(self._settings.node_id, Report((report.job_id, report.attempt), report, body), now, rng)
        self._host.forget((self._settings.node_id, report.job_id, report.attempt))

    def _on_report(self, host: str, report: Report, now: Now, rng: Rng) -> jobs_pb2.ReportOutcome:
        job_id, attempt = report.key
        refusal = self._refusal(host, report)
        outcome = jobs_pb2.ReportOutcome(job_id=job_id, attempt=attempt, accepted=not refusal, refusal=refusal)
        entry = self._jobs.get(job_id)
        if refusal or entry is None:
            return outcome
        if report.receipt is not None:
            self._jobs.complete(entry, report.message.result, now)
        elif report.message.error == "JobTimeout":
            self._jobs.fail(entry, "JobTimeout", report.message.error_detail, now)
        elif report.message.error in ("ExecutionFailed", "OutputTooLarge"):
            self._jobs.fail(entry, report.message.error, report.message.error_detail, now)
        else:
            self._lose_host(entry, f"{report.message.error}: {report.message.error_detail}", now, rng)
        return outcome

    def _refusal(self, host: str, report: Report) -> str:
        """Why a report is not accepted; empty when it is. The fence stands here."""
        job_id, attempt = report.key
        entry = self._jobs.get(job_id)
        if entry is None:
            return "" if self._jobs.ended_by(job_id, attempt, host) else "the job has ended, or is not this core's"
        job = entry.job
        if attempt != job.attempt or job.state not in (AWARDED, RUNNING):
            return f"attempt {attempt} is over; the present one is {job.attempt}"
        if host != job.host:
            return "the attempt was awarded to another host"
        if report.receipt is not None:
            if report.receipt.payload_digest != job.payload_digest:
                return "the receipt is for another payload"
            if report.receipt.price_micro != job.price_micro:
                return "the receipt's price is not the award's"
        return ""

    # ---- from the mesh, and time

    def on_peer_up(self, node_id: str, roles: frozenset[int], now: Now) -> None:
        """A broker has come: whoever could not find a host tries again at once, and afresh, for its book fills yet."""
        if BROKER not in roles:
            return
        for entry in self._jobs:
            if entry.tries and entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_OFFGRID:
                entry.tries = 0
                self._jobs.timers.set(entry.job.job_id, now.mono_ms)

    def on_peer_down(self, node_id: str, now: Now, rng: Rng) -> None:
        for entry in self._jobs:
            job = entry.job
            if job.host == node_id and job.state in (AWARDED, RUNNING):
                self._lose_host(entry, "HostDied: its host was seen dead", now, rng)
            elif job.broker == node_id and job.state == QUEUED and job.route == jobs_pb2.ROUTE_OFFGRID:
                self._submit(entry, now, rng)

    def on_wake(self, now: Now, rng: Rng) -> None:
        for job_id in self._jobs.timers.take_due(now.mono_ms):
            entry = self._jobs.get(job_id)
            if entry is None:
                continue
            state = entry.job.state
            if state == QUEUED:
                self._submit(entry, now, rng)
            elif entry.confirmed:
                self._lose_host(entry, "LeaseExpired: nothing was heard past its time-out", now, rng)
            elif entry.answer_by_ms is not None and entry.answer_by_ms <= now.mono_ms:
                self._lose_host(entry, "Unreachable: its host does not answer this core", now, rng)
            else:
                self._send_start(entry, now)  # not answered yet; or this core restarted: is it still running there?

    # ---- ends of a step

    def pump_local_queue(self, now: Now) -> None:
        """Starts queued jobs on this node while it has slots."""
        settings = self._settings
        while self._local and self._host.slots_free:
            job_id, _ = self._local.popitem(last=False)
            entry = self._jobs.get(job_id)
            if entry is None or entry.job.state != QUEUED:
                continue
            job = entry.job
            if job.needs not in settings.executors:
                offered = ", ".join(settings.executors) or "nothing"
                detail = f"the job needs {job.needs!r}; this node's own executors offer {offered}"
                self._jobs.fail(entry, "NoHostsAvailable", detail, now)
                continue
            price_micro = price_of(settings.price_micro, job.size_tokens)
            self._jobs.award(entry, "start", "", settings.node_id, price_micro, now)
            payload = self._jobs.payload(entry, now)
            if payload is not None:
                order, signed = self._jobs.order(job)
                self._host.take(Start(order, signed, jobs_pb2.JobPayload.FromString(payload), price_micro))

    # ---- inside

    def _submit(self, entry: Open, now: Now, rng: Rng) -> None:
        """Sends the present attempt's order to a broker; the timer says it again should no answer come."""
        brokers = [broker for broker in self._peers.with_role(BROKER) if broker not in entry.avoided]
        if not brokers:
            self._try_later(entry, "BrokerUnavailable", "no broker of the mesh answers", now)
            return
        job = entry.job
        job.broker = job.broker if job.broker in brokers else rng.choice(brokers)
        self._post.add("SubmitJobs", job.broker, entry.key, self._jobs.order(job)[1])
        self._jobs.timers.set(job.job_id, now.mono_ms + 2 * POLL_MS)

    def _find_another_broker(self, entry: Open, now: Now, rng: Rng) -> None:
        if set(self._peers.with_role(BROKER)) - entry.avoided:
            self._submit(entry, now, rng)
        else:
            self._try_later(entry, "BrokerUnavailable", "no broker of the mesh answers", now)

    def _try_later(self, entry: Open, error: str, detail: str, now: Now) -> None:
        """Three retries; then the local queue where the mode allows it and brokers are the trouble, else failure."""
        entry.avoided.clear()
        if entry.tries < len(RETRY_DELAYS_MS):
            self._jobs.timers.set(entry.job.job_id, now.mono_ms + RETRY_DELAYS_MS[entry.tries])
            entry.tries += 1
        elif error == "BrokerUnavailable" and entry.job.mode == jobs_pb2.DISPATCH_MODE_AUTO:
            self._to_local_queue(entry)
            self._jobs.keep(entry.job, now, EventType.JOB_DISPATCHED)
        else:
            self._jobs.fail(entry, error, detail, now)

    def _to_local_queue(self, entry: Open) -> None:
        entry.job.route = jobs_pb2.ROUTE_FILE_QUEUE
        entry.job.broker = ""
        self._jobs.timers.cancel(entry.job.job_id)
        self._local[entry.job.job_id] = None

    def _send_start(self, entry: Open, now: Now) -> None:
        job = entry.job
        if job.host == self._settings.node_id and job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            return
        payload = self._jobs.payload(entry, now)
        if payload is None:
            return
        start = jobs_pb2.StartJob(order=self._jobs.order(job)[1], payload=payload, price_micro=job.price_micro)
        self._post.add("StartJobs", job.host, entry.key, start)
        if entry.answer_by_ms is None:
            # Of a job that runs, its report may come even if no answer does.
            patience_ms = START_PATIENCE_MS if job.state == AWARDED else job.timeout_ms + RUN_GRACE_MS
            entry.answer_by_ms = now.mono_ms + patience_ms + transfer_ms(len(payload))
        # The end of this call sets the next one's time: never are two under way. Should even its end get lost:
        self._jobs.timers.set(job.job_id, now.mono_ms + CALL_TIMEOUT_MAX_MS + START_RETRY_MS)

    def _lose_host(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The attempt is lost with its host: the next one begins at once, unless the job keeps killing hosts."""
        entry.losses += 1
        if entry.losses > LOSSES_MAX:
            self._jobs.fail(
                entry, "AttemptsExhausted", f"{entry.losses} hosts were lost under it; the last: {outcome}", now
            )
            return
        self._jobs.lose(entry, outcome, now)
        if entry.job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            self._local[entry.job.job_id] = None
        else:
            self._submit(entry, now, rng)

    def _lose_and_wait(self, entry: Open, outcome: str, now: Now) -> None:
        """The host took nothing on, so nothing is held against the job; the next attempt waits, longer each time."""
        entry.refusals += 1
        self._jobs.lose(entry, outcome, now)
        delay = REFUSED_DELAY_MS << min(entry.refusals, 6)
        self._jobs.timers.set(entry.job.job_id, now.mono_ms + min(delay, REFUSED_DELAY_MAX_MS))


def _sound(clearing: jobs_pb2.Clearing) -> bool:
    """Whether an award names a node, and a price that a receipt can carry."""
    return NODE_ID.match(clearing.host) is not None and clearing.price_micro <= PRICE_MAX

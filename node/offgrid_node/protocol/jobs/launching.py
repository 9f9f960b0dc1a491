"""How an attempt that was awarded sets out for its host: the start is said until the host answers or is given up."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.jobs.bounds import REFUSAL_CHARS_MAX
from offgrid_node.protocol.jobs.closing import REFUSED
from offgrid_node.protocol.jobs.commands import Started
from offgrid_node.protocol.jobs.losing import Losing
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.patience import START_PATIENCE_MS, START_RETRY_MS, run_ms
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Post, Starting, Tag, transfer_ms
from offgrid_node.protocol.jobs.renewals import Renewals
from offgrid_node.protocol.jobs.reports import Reports
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import AWARDED, RUNNING
from offgrid_node.protocol.rng import Rng

START_BYTES = 400  # of a start and its answer, beside the payload


class Launching:
    """Starts on their way to hosts, and what hosts answer."""

    def __init__(
        self,
        settings: JobsSettings,
        jobs: OpenJobs,
        peers: Peers,
        post: Post,
        losing: Losing,
        reports: Reports,
        renewals: Renewals,
    ) -> None:
        self._settings, self._jobs, self._peers, self._post = settings, jobs, peers, post
        self._losing, self._reports, self._renewals = losing, reports, renewals

    def start(self, entry: Open, now: Now) -> None:
        job = entry.job
        if job.host == self._settings.node_id and job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            return
        payload = self._jobs.payload(entry, now)
        if payload is None:
            return
        start = Starting(self._jobs.order_body(entry), payload, job.price_micro)
        self._post.add("StartJobs", job.host, entry.key, start)
        slow_ms = self._peers.pace(job.host).longer_ms(len(payload) + START_BYTES)
        if entry.answer_by_ms is None:
            # Of a job that runs, its report may come even if no answer does.
            patience_ms = START_PATIENCE_MS if job.state == AWARDED else run_ms(job)
            entry.answer_by_ms = now.mono_ms + patience_ms + transfer_ms(len(payload)) + 2 * slow_ms
        # The end of this call sets the next one's time: never are two under way. Should even its end get lost:
        self._jobs.timers.set(entry.job_id, now.mono_ms + CALL_TIMEOUT_MAX_MS + START_RETRY_MS + slow_ms)

    def on_started(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        """Whoever is not answered for is asked again after a moment; if the host is dead the mesh will tell."""
        if not isinstance(answer.reply, Started):
            self._settle(tag, tag.keys, {}, now)
            return
        over = self._take_reports(tag.node, answer.reply, now, rng)
        left = [key for key in tag.keys if key not in over]
        if left:
            outcomes = {(outcome.job_id, outcome.attempt): outcome for outcome in answer.reply.outcomes}
            self._settle(tag, left, outcomes, now, answer.reply.next_ms)

    def on_due(self, entry: Open, now: Now, rng: Rng) -> None:
        """The time of an attempt that has a host is over, be it for an answer or for the work."""
        if entry.confirmed:
            why = "nothing was heard past its time-out"
            if entry.trouble:
                why = f"its host has not brought its result again, of which {entry.trouble}"
            self._losing.lose_host(entry, f"LeaseExpired: {why}", now, rng)
        elif entry.answer_by_ms is not None and entry.answer_by_ms <= now.mono_ms:
            self._losing.lose_host(entry, "Unreachable: its host does not answer this core", now, rng)
        else:
            self.start(entry, now)  # not answered yet; or this core restarted: is it still running there?

    # ---- inside

    def _take_reports(self, host: str, started: Started, now: Now, rng: Rng) -> set[AttemptKey]:
        """Of work that was over before its start was answered."""
        over = set[AttemptKey]()
        for report in started.reports:
            if not self._reports.comes_too_early(host, report):
                self._reports.refusal_of(host, report, now, rng)
                self._post.settling.add(host, report.key, now.mono_ms)
                over.add(report.key)
        return over

    def _settle(
        self,
        tag: Tag,
        keys: Sequence[AttemptKey],
        outcomes: dict[AttemptKey, jobs_pb2.StartOutcome],
        now: Now,
        next_ms: int = 0,
    ) -> None:
        for key in keys:
            entry = self._jobs.current(key)
            if entry is not None and entry.job.host == tag.node and entry.job.state in (AWARDED, RUNNING):
                self._on_outcome(entry, outcomes.get(key), now, next_ms)

    def _on_outcome(self, entry: Open, outcome: jobs_pb2.StartOutcome | None, now: Now, next_ms: int) -> None:
        """None is no answer."""
        if outcome is None:
            if not entry.confirmed:
                self._jobs.timers.set(entry.job_id, now.mono_ms + START_RETRY_MS)
        elif outcome.accepted:
            self._jobs.confirm(entry, now)
            self._renewals.begin(entry, now, next_ms)
            self._jobs.timers.set(entry.job_id, now.mono_ms + run_ms(entry.job))
        else:
            self._losing.lose_and_wait(entry, f"refused: {outcome.refusal[:REFUSAL_CHARS_MAX]}", now, REFUSED)

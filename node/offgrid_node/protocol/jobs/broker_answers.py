"""What brokers say of a core's orders: awarded, queued, forgotten, refused.

Only the broker that was asked last is listened to, so that no other can award, or end, what waits there.
"""

from __future__ import annotations

from collections.abc import Iterable

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.ids import NODE_ID
from offgrid_node.protocol.jobs.bounds import PRICE_MAX
from offgrid_node.protocol.jobs.commands import DeliverAwards
from offgrid_node.protocol.jobs.launching import Launching
from offgrid_node.protocol.jobs.losing import Losing
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.redundant import Redundant
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.submitting import Submitting
from offgrid_node.protocol.jobs.table import QUEUED
from offgrid_node.protocol.rng import Rng


class BrokerAnswers:
    """Reads each clearing, and sets its job on the way that follows."""

    def __init__(
        self,
        settings: JobsSettings,
        jobs: OpenJobs,
        peers: Peers,
        post: Post,
        submitting: Submitting,
        launching: Launching,
        losing: Losing,
        redundant: Redundant,
    ) -> None:
        self._settings, self._jobs, self._peers, self._post = settings, jobs, peers, post
        self._submitting, self._launching, self._losing = submitting, launching, losing
        self._redundant = redundant
        self._epochs: dict[str, int] = {}  # of brokers, as they last said

    def on_submitted(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        if isinstance(answer.fault, Exhausted) and answer.fault.retry_ms:
            self._jobs.pacing.refused(tag.node, answer.fault.retry_ms, now, rng)
            for entry in self._waiting_for(tag.node, tag.keys):
                self._submitting.submit(entry, now, rng)  # nothing is wrong with the job, and no try is used up
            return
        unanswered: Iterable[AttemptKey] = tag.keys
        if isinstance(answer.reply, jobs_pb2.SubmitJobsResponse):
            unanswered = self._take(tag, answer.reply, now, rng)
        for entry in self._waiting_for(tag.node, unanswered):
            self._submitting.submit_elsewhere(entry, tag.node, now, rng)

    def on_awards(self, ticket: int, command: DeliverAwards, now: Now, rng: Rng) -> None:
        self._post.closing.heard(command.broker, 1)  # whoever awards late has a queue
        for clearing in command.awards:
            self._on_clearing(command.broker, (clearing.job_id, clearing.attempt), clearing, now, rng)
        self._post.reply(ticket, jobs_pb2.DeliverAwardsResponse())

    # ---- inside

    def _waiting_for(self, broker: str, keys: Iterable[AttemptKey]) -> Iterable[Open]:
        """Those of them that still wait for this broker's word, looked up one by one as they are taken."""
        entries = (self._jobs.current(key) for key in keys)
        return (entry for entry in entries if entry is not None and _is_asked(entry, broker))

    def _take(self, tag: Tag, reply: jobs_pb2.SubmitJobsResponse, now: Now, rng: Rng) -> list[AttemptKey]:
        """The keys that the reply says nothing of. What was not asked is not heard."""
        self._pace(tag.node, reply, now, rng)
        self._post.closing.heard(tag.node, reply.queued)
        self._on_epoch(tag.node, reply.broker_epoch, now)
        asked, answered = set(tag.keys), set[AttemptKey]()
        for clearing in reply.clearings:
            key = clearing.job_id, clearing.attempt
            if key in asked:
                answered.add(key)
                self._on_clearing(tag.node, key, clearing, now, rng)
        return [key for key in tag.keys if key not in answered] if answered != asked else []

    def _pace(self, broker: str, reply: jobs_pb2.SubmitJobsResponse, now: Now, rng: Rng) -> None:
        retries = [each.retry_ms for each in reply.clearings if each.retry_ms]
        if retries:
            in_part = len(retries) < len(reply.clearings)
            self._jobs.pacing.refused(broker, max(retries), now, rng, in_part=in_part)
        else:
            self._jobs.pacing.taken(broker, now)

    def _on_epoch(self, broker: str, epoch: int, now: Now) -> None:
        """One that has begun anew since may have forgotten what waits there: it is told again, at once."""
        if epoch and self._epochs.get(broker, epoch) != epoch:
            self._jobs.waiting.hurry(broker, now.mono_ms)
        self._epochs[broker] = epoch or self._epochs.get(broker, 0)

    def _on_clearing(self, broker: str, key: AttemptKey, clearing: jobs_pb2.Clearing, now: Now, rng: Rng) -> None:
        entry = self._jobs.current(key)
        if entry is None or not _is_asked(entry, broker):
            if _is_vain(entry, broker, clearing):
                self._jobs.close(broker, key, now)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED:
            self._on_award(entry, broker, clearing, now, rng)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
            self._submitting.on_queued(entry, clearing.fresh, now)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_FORGOTTEN and entry.doubtful:
            self._submitting.on_forgotten(entry, now, rng)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_NO_HOST:
            self._submitting.try_later(entry, "NoHostsAvailable", clearing.detail, now)
        elif clearing.retry_ms and self._jobs.pacing.holds(broker):
            self._submitting.submit(entry, now, rng)
        else:
            self._submitting.try_later(entry, "NoHostsAvailable", f"the broker refused: {clearing.detail}", now)

    def _on_award(self, entry: Open, broker: str, clearing: jobs_pb2.Clearing, now: Now, rng: Rng) -> None:
        host, price_micro = clearing.host, clearing.price_micro
        if not _is_sound(host, price_micro):
            self._submitting.submit_elsewhere(entry, broker, now, rng)
        elif why := self._too_dear(entry.job, price_micro):
            self._jobs.close(broker, entry.key, now)
            self._submitting.try_later(entry, "NoHostsAvailable", why, now)
        else:
            self._submitting.on_awarded(entry, now)
            self._take_award(entry, broker, host, price_micro, now)

    def _too_dear(self, job: jobs_pb2.Job, price_micro: int) -> str:
        """Why it is; empty when it is not."""
        most = price_of(job.price_max_micro or self._settings.price_max_micro, job.size_tokens)
        if price_micro <= most:
            return ""
        whose = "its price_max_micro" if job.price_max_micro else "jobs.price_max_micro"
        return f"the award's price is {price_micro} millionths; {whose} allows {most}"

    def _take_award(self, entry: Open, broker: str, host: str, price_micro: int, now: Now) -> None:
        job, tries = entry.job, entry.tries
        self._jobs.award(entry, "award", broker, host, price_micro, now)
        if self._peers.is_down(host):  # the broker has not heard yet, and the mesh will not say it to us again
            self._losing.lose_and_wait(entry, "refused: its host is not alive", now)
        elif job.parent_id and host in self._redundant.hosts_of_others(job):
            why = "turned down: its host has another execution of the same job"
            self._jobs.lose(entry, why, now)  # whom to avoid, the next attempt's order says anew
            entry.tries = tries
            self._submitting.try_later(entry, "NoHostsAvailable", why, now)
        else:
            self._launching.start(entry, now)
            self._redundant.on_award(job)


def _is_asked(entry: Open, broker: str) -> bool:
    """Whether the job waits for this broker's word."""
    job = entry.job
    return job.state == QUEUED and job.route == jobs_pb2.ROUTE_OFFGRID and job.broker == broker


def _is_vain(entry: Open | None, broker: str, clearing: jobs_pb2.Clearing) -> bool:
    """Whether a broker that is not listened to keeps a lease, or a place in its queue, that nobody wants: of an older
    attempt, of a broker that we turned from, or too late: it has ended, or the local queue has the job."""
    if clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
        return entry is None
    same = entry is not None and (entry.job.broker, entry.job.host) == (broker, clearing.host)
    return clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED and not same


def _is_sound(host: str, price_micro: int) -> bool:
    """Whether an award names a node, and a price that a receipt can carry."""
    return NODE_ID.match(host) is not None and price_micro <= PRICE_MAX

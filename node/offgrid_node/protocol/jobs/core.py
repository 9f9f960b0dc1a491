"""The core's part: it owns its jobs, numbers their attempts, and alone accepts a result.

An attempt's number is durable before any order that carries it leaves, and only a report of the present attempt by
the host it was awarded to is accepted; whatever dies, doubles or comes late, a job has one accepted result. The way of
an attempt: it finds a broker (`submitting.py`), which answers (`broker_answers.py`); it sets out for its host
(`launching.py`), and its report is judged (`reports.py`) or it is lost (`losing.py`). What this node does itself waits
in `local_queue.py`.
"""

from __future__ import annotations

from functools import partial

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.broker_answers import BrokerAnswers
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.launching import Launching
from offgrid_node.protocol.jobs.local_queue import LocalQueue
from offgrid_node.protocol.jobs.losing import Losing
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.poison import Poison
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.redundant import Redundant, is_parent
from offgrid_node.protocol.jobs.renewals import Renewals
from offgrid_node.protocol.jobs.reports import Reports
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.stops import Stops
from offgrid_node.protocol.jobs.story import held_up
from offgrid_node.protocol.jobs.submitting import Submitting
from offgrid_node.protocol.jobs.table import AWARDED, CREATED, QUEUED, RUNNING
from offgrid_node.protocol.rng import Rng

RETURN_MAX, RETURN_STEP_MS = 256, 50  # of the local queue, when a broker comes back: a long one is no long step
REASON_LOCAL = "no broker of the mesh answered"
REASON_RETURNED = "a broker is back; it waited in the local queue until then"


class Core:
    """Drives each open job from dispatch to its one accepted result, or to a named failure."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post, host: Host) -> None:
        """`host` is this node's own host part: the local queue is worked by it."""
        self._settings, self._peers, self._post, self._host = settings, peers, post, host
        self.jobs = self._jobs = OpenJobs(settings, post)
        self.local = LocalQueue(settings, self._jobs, host)
        self._poison = poison = Poison(post)
        self.redundant = Redundant(self._jobs, post, self)
        self.stops = Stops(post)
        self.renewals = Renewals(settings.node_id, self._jobs, post, peers.pace)
        self._submitting = submitting = Submitting(self._jobs, peers, post, poison, self.to_local_queue)
        self._losing = losing = Losing(self._jobs, self.local, poison, self.redundant, submitting)
        brokers = partial(peers.with_role, BROKER)
        self.reports = Reports(
            settings,
            self._jobs,
            post,
            host,
            losing.lose_host,
            losing.lose_to_fault,
            losing.ask_another_host,
            brokers,
            poison,
        )
        self.launching = Launching(settings, self._jobs, peers, post, losing, self.reports, self.renewals)
        self.broker_answers = BrokerAnswers(
            settings, self._jobs, peers, post, submitting, self.launching, losing, self.redundant
        )
        self._return_ms: int | None = None  # when more of the local queue goes back to the mesh

    def load(self, rows: Rows, now: Now) -> None:
        self._jobs.load(rows, now)
        self._submitting.begin(now)
        self._poison.load(rows)
        self.redundant.load(rows)
        for entry in self._jobs:
            look = entry.look
            if look.state == CREATED or (not entry.packed and is_parent(entry.job)):
                continue
            if look.route == jobs_pb2.ROUTE_OFFGRID:
                self._jobs.timers.set(entry.job_id, now.mono_ms)
            elif look.state == QUEUED:
                self.local.add(entry.job)

    # ---- questions

    @property
    def open_jobs(self) -> int:
        return len(self._jobs)

    def broker_to_ask(self, job: jobs_pb2.Job) -> str:
        """Who can say most of the job's chances: its own broker, or any that is alive; "" when none is."""
        brokers = self._peers.with_role(BROKER)
        return job.broker if job.broker in brokers else next(iter(brokers), "")

    def preferred_broker(self, node_id: str) -> None:
        """Jobs that are sent from now on go there first."""
        self._submitting.preferred = node_id

    def deadline_ms(self) -> int | None:
        dues = (self._jobs.deadline_ms(), self.stops.deadline_ms(), self.renewals.deadline_ms(), self._return_ms)
        return min((due for due in dues if due is not None), default=None)

    def send(self, entry: Open, now: Now, rng: Rng) -> None:
        """The present attempt sets out by the job's route; the caller keeps the job."""
        if is_parent(entry.job):
            self.redundant.begin(entry)
        elif entry.job.route == jobs_pb2.ROUTE_OFFGRID:
            self._submitting.submit(entry, now, rng, kept_later=True)
        else:
            self._to_local_queue(entry)

    def take_back(self, entry: Open, why: str, now: Now) -> None:
        """Ends the job; whatever is under way for it is stopped, and not paid."""
        self._stop(entry, now)
        self._jobs.cancel(entry, why[:DETAIL_CHARS_MAX], now)

    def _stop(self, entry: Open, now: Now) -> None:
        """Nobody waits for the present attempt any more."""
        job, own = entry.job, self._settings.node_id
        self.local.discard(job)
        if job.state in (AWARDED, RUNNING) and job.host == own:
            self._host.cancel((own, *entry.key), now)
        elif job.state in (AWARDED, RUNNING) and not self._peers.is_down(job.host):
            self.stops.add(job.host, entry.key, now)

    def to_local_queue(self, entry: Open, now: Now) -> None:
        """From here on this node works on it, by itself, until a broker comes back."""
        entry.job.route_reason = REASON_LOCAL
        entry.job.ClearField("waiting")
        self._to_local_queue(entry)
        self._jobs.keep(entry.job, now, EventType.JOB_DISPATCHED)

    # ---- from the mesh, and time

    def on_peer_up(self, node_id: str, roles: frozenset[int], now: Now) -> None:
        """A broker has come: whoever could not find a host tries again at once, and afresh, for its book fills yet; who
        is in doubt asks it, and what waits there is said again."""
        if BROKER not in roles:
            return
        self._jobs.waiting.hurry(node_id, now.mono_ms)
        self._return_ms = now.mono_ms
        for entry in self._jobs:
            look = entry.look
            waits = entry.tries or (entry.doubtful and look.broker == node_id)
            if waits and look.state == QUEUED and look.route == jobs_pb2.ROUTE_OFFGRID:
                entry.tries = 0
                self._jobs.timers.set(entry.job_id, now.mono_ms)

    def on_peer_down(self, node_id: str, now: Now, rng: Rng) -> None:
        self._jobs.pacing.forget(node_id)
        self.renewals.on_peer_down(node_id)
        self.stops.on_host_down(node_id)
        for entry in self._jobs:
            look = entry.look
            if look.host == node_id and look.state in (AWARDED, RUNNING):
                self._losing.lose_host(entry, "HostDied: its host was seen dead", now, rng)
            elif look.broker == node_id and look.state == QUEUED and look.route == jobs_pb2.ROUTE_OFFGRID:
                self._submitting.submit(entry, now, rng)

    def begin(self, now: Now) -> None:
        """Opens the step: whose deadline has passed has ended, whatever else the step brings."""
        self._jobs.begin(now)
        for job_id in self._jobs.deadlines.take_passed(now):
            if (late := self._jobs.get(job_id)) is not None:
                self._stop(late, now)
                self._jobs.expire(late, held_up(late, self._jobs), now)

    def on_wake(self, now: Now, rng: Rng) -> None:
        self._return_to_mesh(now, rng)
        for silent in self.renewals.take_expired(now):
            self._losing.lose_host(silent, "LeaseExpired: its host renewed nothing", now, rng)
        self.stops.on_wake(now)
        self._submitting.on_wake(now, rng)
        for job_id in self._jobs.timers.take_due(now.mono_ms):
            entry = self._jobs.get(job_id)
            if entry is None:
                continue
            if entry.job.state == QUEUED:
                self._submitting.submit(entry, now, rng)
            else:
                self.launching.on_due(entry, now, rng)

    # ---- inside

    def _return_to_mesh(self, now: Now, rng: Rng) -> None:
        """A broker has come back: it gets what waits in the local queue and would rather have gone to it, a part at a
        time. The attempt keeps its number: it was not started, and whoever awards it is heard only if asked last."""
        if self._return_ms is None or now.mono_ms < self._return_ms:
            return
        self._return_ms = None
        if not self._peers.with_role(BROKER):
            return
        returning = self.local.take_auto(RETURN_MAX, self.redundant.may_return)
        for entry in returning:
            entry.job.route, entry.job.route_reason = jobs_pb2.ROUTE_OFFGRID, REASON_RETURNED
            entry.tries = 0
            self.send(entry, now, rng)
            self._jobs.keep(entry.job, now, EventType.JOB_DISPATCHED)
        if len(returning) == RETURN_MAX:
            self._return_ms = now.mono_ms + RETURN_STEP_MS

    def _to_local_queue(self, entry: Open) -> None:
        self._jobs.leave_broker(entry.job)
        entry.job.route = jobs_pb2.ROUTE_FILE_QUEUE
        entry.job.broker = ""
        self._jobs.timers.cancel(entry.job_id)
        self.local.add(entry.job)

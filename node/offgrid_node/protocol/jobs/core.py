"""The core's part: it owns its jobs, numbers their attempts, and alone accepts a result.

An attempt's number is durable before any order that carries it leaves, and only a report of the present attempt by
the host it was awarded to is accepted; whatever dies, doubles or comes late, a job has one accepted result. What hosts
report is judged in `reports.py`, what this node does itself waits in `local_queue.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.ids import NODE_ID
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX, PRICE_MAX, REFUSAL_CHARS_MAX
from offgrid_node.protocol.jobs.closing import BROKEN, EXCUSED, REFUSED
from offgrid_node.protocol.jobs.commands import DeliverAwards, Started
from offgrid_node.protocol.jobs.doubts import Doubts
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.local_queue import LocalQueue
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import LeaseEnd, OpenJobs
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.patience import START_PATIENCE_MS, START_RETRY_MS, run_ms
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.poison import Poison
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Post, Starting, Tag, transfer_ms
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.redundant import Redundant, is_parent
from offgrid_node.protocol.jobs.renewals import Renewals
from offgrid_node.protocol.jobs.reports import Reports
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS, JobsSettings
from offgrid_node.protocol.jobs.stops import Stops
from offgrid_node.protocol.jobs.table import AWARDED, CREATED, QUEUED, RUNNING
from offgrid_node.protocol.jobs.terms import LOSSES_MAX
from offgrid_node.protocol.jobs.turning import Turning
from offgrid_node.protocol.rng import Rng

REFUSED_DELAY_MS, REFUSED_DELAY_MAX_MS = 100, 5_000
RETURN_MAX, RETURN_STEP_MS = 256, 50  # of the local queue, when a broker comes back: a long one is no long step
REASON_LOCAL = "no broker of the mesh answered"
REASON_RETURNED = "a broker is back; it waited in the local queue until then"
SUBMIT_RETRY_MS = 10_000  # should even the end of a call get lost


class Core:
    """Drives each open job from dispatch to its one accepted result, or to a named failure."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post, host: Host) -> None:
        """`host` is this node's own host part: the local queue is worked by it."""
        self._settings, self._peers, self._post, self._host = settings, peers, post, host
        self.jobs = self._jobs = OpenJobs(settings, post)
        self.local = LocalQueue(settings, self._jobs, host)
        self._poison = Poison(post)
        brokers = partial(peers.with_role, BROKER)
        self.reports = Reports(
            settings, self._jobs, post, host, self._lose_host, self._ask_another_host, brokers, self._poison
        )
        self.stops = Stops(post)
        self._doubts = Doubts(self._jobs, peers)
        self._turning = Turning(self._jobs, peers)
        self._epochs: dict[str, int] = {}  # of brokers, as they last said
        self.redundant = Redundant(self._jobs, post, self)
        self.renewals = Renewals(settings.node_id, self._jobs, post)
        self._return_ms: int | None = None  # when more of the local queue goes back to the mesh

    def load(self, rows: Rows, now: Now) -> None:
        self._jobs.load(rows, now)
        self._doubts.begin(now)
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

    def deadline_ms(self) -> int | None:
        dues = (self._jobs.deadline_ms(), self.stops.deadline_ms(), self.renewals.deadline_ms(), self._return_ms)
        return min((due for due in dues if due is not None), default=None)

    def send(self, entry: Open, now: Now, rng: Rng) -> None:
        """The present attempt sets out by the job's route; the caller keeps the job."""
        if is_parent(entry.job):
            self.redundant.begin(entry)
        elif entry.job.route == jobs_pb2.ROUTE_OFFGRID:
            self._submit(entry, now, rng, kept_later=True)
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
        self._to_local_queue(entry)
        self._jobs.keep(entry.job, now, EventType.JOB_DISPATCHED)

    # ---- from brokers

    def on_submitted(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        if isinstance(answer.fault, Exhausted) and answer.fault.retry_ms:
            self._jobs.pacing.refused(tag.node, answer.fault.retry_ms, now, rng)
            for key in tag.keys:
                if (refused := self._jobs.current(key)) is not None:
                    self._wait_for_room(refused, tag.node, now, rng)
            return
        if isinstance(answer.reply, jobs_pb2.SubmitJobsResponse):
            retries = [each.retry_ms for each in answer.reply.clearings if each.retry_ms]
            if retries:
                in_part = len(retries) < len(answer.reply.clearings)
                self._jobs.pacing.refused(tag.node, max(retries), now, rng, in_part=in_part)
            else:
                self._jobs.pacing.taken(tag.node, now)
            self._post.closing.heard(tag.node, answer.reply.queued)
            self._on_epoch(tag.node, answer.reply.broker_epoch, now)
            asked, answered = set(tag.keys), set[AttemptKey]()
            for clearing in answer.reply.clearings:
                key = clearing.job_id, clearing.attempt
                if key in asked:
                    answered.add(key)
                    self._on_clearing(tag.node, key, clearing, now, rng)
            unanswered = tuple(key for key in tag.keys if key not in answered) if answered != asked else ()
        else:
            unanswered = tag.keys
        for key in unanswered:
            entry = self._jobs.current(key)
            if entry is not None and entry.job.state == QUEUED and entry.job.broker == tag.node:
                entry.avoided |= {tag.node}
                self._find_another_broker(entry, now, rng)

    def _on_epoch(self, broker: str, epoch: int, now: Now) -> None:
        """One that has begun anew since may have forgotten what waits there: it is told again, at once."""
        if epoch and self._epochs.get(broker, epoch) != epoch:
            self._jobs.waiting.hurry(broker, now.mono_ms)
        self._epochs[broker] = epoch or self._epochs.get(broker, 0)

    def on_awards(self, ticket: int, command: DeliverAwards, now: Now, rng: Rng) -> None:
        self._post.closing.heard(command.broker, 1)  # whoever awards late has a queue
        for clearing in command.awards:
            self._on_clearing(command.broker, (clearing.job_id, clearing.attempt), clearing, now, rng)
        self._post.reply(ticket, jobs_pb2.DeliverAwardsResponse())

    def _on_clearing(self, broker: str, key: AttemptKey, clearing: jobs_pb2.Clearing, now: Now, rng: Rng) -> None:
        """Only the broker that was asked last is listened to, so that no other can award, or end, what waits there."""
        entry = self._jobs.current(key)
        awarded = clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED
        waits = entry is not None and entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_OFFGRID
        if entry is None or not waits or entry.job.broker != broker:
            same = entry is not None and (entry.job.broker, entry.job.host) == (broker, clearing.host)
            gone = entry is None and clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED
            if gone or (awarded and not same):
                # Of an older attempt, of a broker that we turned from, or too late: it has ended, or the local queue
                # has the job.
                self._jobs.close(broker, key, now)
        elif awarded:
            self._on_award(entry, broker, clearing.host, clearing.price_micro, now, rng)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_FORGOTTEN and entry.doubtful:  # once for a start of this core
            self._doubts.give_up(entry, now)
            self._submit(entry, now, rng)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
            self._turning.on_answer(entry, now, awarded=False)
            entry.doubtful = False
            entry.tries = 0
            entry.avoided = frozenset()
            self._wait_there(entry, clearing.fresh, now)
        elif clearing.kind == jobs_pb2.CLEARING_KIND_NO_HOST:
            self._try_later(entry, "NoHostsAvailable", clearing.detail, now)
        elif clearing.retry_ms and self._jobs.pacing.holds(broker):
            self._wait_for_room(entry, broker, now, rng)
        else:
            self._try_later(entry, "NoHostsAvailable", f"the broker refused: {clearing.detail}", now)

    def _price_max(self, job: jobs_pb2.Job) -> int:
        return price_of(job.price_max_micro or self._settings.price_max_micro, job.size_tokens)

    def _on_award(self, entry: Open, broker: str, host: str, price_micro: int, now: Now, rng: Rng) -> None:
        job, tries = entry.job, entry.tries
        if not _sound(host, price_micro):
            entry.avoided |= {broker}
            self._find_another_broker(entry, now, rng)
            return
        if price_micro > (most := self._price_max(job)):
            self._jobs.close(broker, entry.key, now)
            whose = "its price_max_micro" if job.price_max_micro else "jobs.price_max_micro"
            detail = f"the award's price is {price_micro} millionths; {whose} allows {most}"
            self._try_later(entry, "NoHostsAvailable", detail, now)
            return
        self._turning.on_answer(entry, now, awarded=True)
        self._jobs.award(entry, "award", broker, host, price_micro, now)
        if self._peers.is_down(host):  # the broker has not heard yet, and the mesh will not say it to us again
            self._lose_and_wait(entry, "refused: its host is not alive", now)
        elif job.parent_id and host in self.redundant.hosts_of_others(job):
            why = "turned down: its host has another execution of the same job"
            self._jobs.lose(entry, why, now)  # whom to avoid, the next attempt's order says anew
            entry.tries = tries
            self._try_later(entry, "NoHostsAvailable", why, now)
        else:
            self._send_start(entry, now)
            self.redundant.on_award(job)

    # ---- to and from hosts

    def on_started(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        """Whoever is not answered for is asked again after a moment; if the host is dead the mesh will tell."""
        over = set[AttemptKey]()
        if isinstance(answer.reply, Started):
            for report in answer.reply.reports:
                if not self.reports.comes_too_early(tag.node, report):
                    self.reports.refusal_of(tag.node, report, now, rng)
                    self._post.settling.add(tag.node, report.key, now.mono_ms)
                    over.add(report.key)
        left = [key for key in tag.keys if key not in over]
        if not left:
            return
        outcomes = {}
        if isinstance(answer.reply, Started):
            outcomes = {(outcome.job_id, outcome.attempt): outcome for outcome in answer.reply.outcomes}
        for key in left:
            entry = self._jobs.current(key)
            if entry is None or entry.job.host != tag.node or entry.job.state not in (AWARDED, RUNNING):
                continue
            outcome = outcomes.get(key)
            if outcome is None:
                if not entry.confirmed:
                    self._jobs.timers.set(entry.job.job_id, now.mono_ms + START_RETRY_MS)
            elif outcome.accepted:
                self._jobs.confirm(entry, now)
                self.renewals.begin(entry, now)
                self._jobs.timers.set(entry.job.job_id, now.mono_ms + run_ms(entry.job))
            else:
                self._lose_and_wait(entry, f"refused: {outcome.refusal[:REFUSAL_CHARS_MAX]}", now, REFUSED)

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
                self._lose_host(entry, "HostDied: its host was seen dead", now, rng)
            elif look.broker == node_id and look.state == QUEUED and look.route == jobs_pb2.ROUTE_OFFGRID:
                self._submit(entry, now, rng)

    def begin(self, now: Now) -> None:
        """Opens the step: whose deadline has passed has ended, whatever else the step brings."""
        self._jobs.begin(now)
        for job_id in self._jobs.deadlines.take_passed(now):
            if (late := self._jobs.get(job_id)) is not None:
                self._stop(late, now)
                self._jobs.expire(late, now)

    def on_wake(self, now: Now, rng: Rng) -> None:
        self._return_to_mesh(now, rng)
        for silent in self.renewals.take_expired(now):
            self._lose_host(silent, "LeaseExpired: its host renewed nothing", now, rng)
        self.stops.on_wake(now)
        self._ask_again(now, rng)
        for job_id in self._jobs.pacing.take_due(now):
            if (patient := self._jobs.get(job_id)) is not None:
                self._say_order(patient)
                self._jobs.timers.set(job_id, now.mono_ms + SUBMIT_RETRY_MS)
        for job_id in self._jobs.timers.take_due(now.mono_ms):
            entry = self._jobs.get(job_id)
            if entry is None:
                continue
            state = entry.job.state
            if state == QUEUED:
                self._submit(entry, now, rng)
            elif entry.confirmed:
                why = entry.trouble or "nothing was heard past its time-out"
                self._lose_host(entry, f"LeaseExpired: {why}", now, rng)
            elif entry.answer_by_ms is not None and entry.answer_by_ms <= now.mono_ms:
                self._lose_host(entry, "Unreachable: its host does not answer this core", now, rng)
            else:
                self._send_start(entry, now)  # not answered yet; or this core restarted: is it still running there?

    # ---- inside

    def _ask_again(self, now: Now, rng: Rng) -> None:
        """What waits at brokers is said there once more, or to another one."""
        stay, turned = self._turning.take_due(now)
        for entry in stay:
            self._say_order(entry)
        for entry in turned:
            self._submit(entry, now, rng)

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

    def _submit(self, entry: Open, now: Now, rng: Rng, *, kept_later: bool = False) -> None:
        """Sends the present attempt's order to a broker; the timer says it again should no answer come.

        Which broker it is, is durable before the order leaves: that one is asked first by a core that restarts. With
        `kept_later` the caller writes the row."""
        if why := self._poison.refusal(entry.job.payload_digest, now):
            if kept_later:  # its row is to be written first
                self._jobs.timers.set(entry.job.job_id, now.mono_ms)
            else:
                self._jobs.fail(entry, "AttemptsExhausted", why, now)
            return
        brokers: Sequence[str] = self._peers.with_role(BROKER)
        if entry.avoided:
            brokers = [broker for broker in brokers if broker not in entry.avoided]
        if not brokers:
            self._try_later(entry, "BrokerUnavailable", "no broker of the mesh answers", now)
            return
        job = entry.job
        if entry.doubtful and job.broker not in brokers and self._doubts.keeps_waiting(entry, now):
            return
        self._jobs.waiting.discard(job.broker, job.job_id)
        pacing = self._jobs.pacing
        pacing.discard(job.broker, job.job_id, job.priority)
        if pacing.holds(job.broker) and not entry.doubtful:  # one that takes orders goes before one that does not
            brokers = [broker for broker in brokers if not pacing.holds(broker)] or brokers
        if job.broker not in brokers:
            job.broker = brokers[0] if len(brokers) == 1 else rng.choice(brokers)
            if not kept_later:
                self._jobs.keep(job, now)
        if pacing.holds(job.broker):
            self._jobs.timers.cancel(job.job_id)
            pacing.add(job.broker, job.job_id, job.priority)
            return
        self._say_order(entry)
        self._jobs.timers.set(job.job_id, now.mono_ms + SUBMIT_RETRY_MS)

    def _say_order(self, entry: Open) -> None:
        if entry.doubtful:
            self._post.doubt(entry.key)
        self._post.add("SubmitJobs", entry.job.broker, entry.key, self._jobs.order_body(entry))

    def _wait_for_room(self, entry: Open, broker: str, now: Now, rng: Rng) -> None:
        """It was refused for load: nothing is wrong with the job, and no try is used up."""
        if entry.job.state == QUEUED and entry.job.route == jobs_pb2.ROUTE_OFFGRID and entry.job.broker == broker:
            self._submit(entry, now, rng)

    def _wait_there(self, entry: Open, fresh: bool, now: Now) -> None:
        """Its broker holds the order in its queue. If it has only just learnt of it, though we thought it knew, it may
        have forgotten others as well."""
        job, waiting = entry.job, self._jobs.waiting
        if fresh and waiting.holds(job.broker, job.job_id):
            waiting.hurry(job.broker, now.mono_ms)
        waiting.add(job.broker, job.job_id, now.mono_ms)
        self._jobs.timers.cancel(job.job_id)

    def _find_another_broker(self, entry: Open, now: Now, rng: Rng) -> None:
        if set(self._peers.with_role(BROKER)) - entry.avoided:
            self._submit(entry, now, rng)
        else:
            self._try_later(entry, "BrokerUnavailable", "no broker of the mesh answers", now)

    def _try_later(self, entry: Open, error: str, detail: str, now: Now) -> None:
        """Three retries, each at another broker than the one before it if there is one: no broker can end a job alone.
        Then the local queue where the mode allows it and brokers are the trouble, else failure."""
        self._turning.on_answer(entry, now, awarded=False)
        self._turn_from_broker(entry)
        self._jobs.waiting.discard(entry.job.broker, entry.job.job_id)
        if entry.tries < len(RETRY_DELAYS_MS):
            self._jobs.timers.set(entry.job.job_id, now.mono_ms + RETRY_DELAYS_MS[entry.tries])
            entry.tries += 1
        elif error == "BrokerUnavailable" and entry.job.mode == jobs_pb2.DISPATCH_MODE_AUTO:
            if entry.doubtful:
                self._doubts.give_up(entry, now)
            self.to_local_queue(entry, now)
        else:
            self._jobs.fail(entry, error, detail, now)

    def _turn_from_broker(self, entry: Open) -> None:
        """What it said led nowhere: the next order goes to another one, if there is one. Of a doubtful attempt only it
        can tell."""
        others = any(broker != entry.job.broker for broker in self._peers.with_role(BROKER))
        entry.avoided = frozenset({entry.job.broker} if others and not entry.doubtful else ())

    def _to_local_queue(self, entry: Open) -> None:
        self._jobs.waiting.discard(entry.job.broker, entry.job.job_id)
        entry.job.route = jobs_pb2.ROUTE_FILE_QUEUE
        entry.job.broker = ""
        self._jobs.timers.cancel(entry.job.job_id)
        self.local.add(entry.job)

    def _send_start(self, entry: Open, now: Now) -> None:
        job = entry.job
        if job.host == self._settings.node_id and job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            return
        payload = self._jobs.payload(entry, now)
        if payload is None:
            return
        start = Starting(self._jobs.order_body(entry), payload, job.price_micro)
        self._post.add("StartJobs", job.host, entry.key, start)
        if entry.answer_by_ms is None:
            # Of a job that runs, its report may come even if no answer does.
            patience_ms = START_PATIENCE_MS if job.state == AWARDED else run_ms(job)
            entry.answer_by_ms = now.mono_ms + patience_ms + transfer_ms(len(payload))
        # The end of this call sets the next one's time: never are two under way. Should even its end get lost:
        self._jobs.timers.set(job.job_id, now.mono_ms + CALL_TIMEOUT_MAX_MS + START_RETRY_MS)

    def _lose_host(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The attempt is lost with its host: the next one begins at once, unless the job keeps killing hosts."""
        job = entry.job
        job.losses += 1
        losses, most = self.redundant.losses(job), job.losses_max or LOSSES_MAX
        self._poison.on_lost(job.payload_digest, outcome, most, now)
        if losses > most:
            detail = f"{losses} hosts were lost under it, {most} are allowed (losses_max); the last: {outcome}"
            self._jobs.fail(entry, "AttemptsExhausted", detail, now, BROKEN)
            return
        self._jobs.lose(entry, outcome, now, BROKEN)
        if job.route == jobs_pb2.ROUTE_FILE_QUEUE:
            self.local.add(job)
            return
        if job.losses > 1:
            self._turn_from_broker(entry)
        self._submit(entry, now, rng)

    def _ask_another_host(self, entry: Open, outcome: str, now: Now, rng: Rng) -> None:
        """The host says that the work failed, and another one is to say so too."""
        self._jobs.lose(entry, outcome, now)
        self._submit(entry, now, rng)

    def _lose_and_wait(self, entry: Open, outcome: str, now: Now, end: LeaseEnd = EXCUSED) -> None:
        """The host took nothing on, so nothing is held against the job; the next attempt waits, longer each time. Once
        may be a race; a broker that awards in vain again is not asked the next time."""
        entry.refusals += 1
        self._jobs.lose(entry, outcome, now, end)
        if entry.refusals > 1:
            self._turn_from_broker(entry)
        delay = REFUSED_DELAY_MS << min(entry.refusals, 6)
        self._jobs.timers.set(entry.job.job_id, now.mono_ms + min(delay, REFUSED_DELAY_MAX_MS))


def _sound(host: str, price_micro: int) -> bool:
    """Whether an award names a node, and a price that a receipt can carry."""
    return NODE_ID.match(host) is not None and price_micro <= PRICE_MAX

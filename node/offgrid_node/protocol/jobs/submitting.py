"""How the present attempt of a job finds a broker: which one is asked, when it is asked again, and when nobody is left.

What brokers answer is read in `broker_answers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX
from offgrid_node.protocol.jobs.doubts import Doubts
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.poison import Poison
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.settings import RETRY_DELAYS_MS
from offgrid_node.protocol.jobs.turning import Turning
from offgrid_node.protocol.jobs.waiting import ORDER_BYTES
from offgrid_node.protocol.rng import Rng

SUBMIT_RETRY_MS = 10_000  # should even the end of a call get lost


class Submitting:
    """Orders on their way to brokers, and those that wait there."""

    def __init__(
        self, jobs: OpenJobs, peers: Peers, post: Post, poison: Poison, to_local_queue: Callable[[Open, Now], None]
    ) -> None:
        """`to_local_queue` takes a job for which no broker is left."""
        self._jobs, self._peers, self._post = jobs, peers, post
        self._poison, self._to_local_queue = poison, to_local_queue
        self.preferred = ""  # a broker that goes before the others, if it may be asked
        self._doubts = Doubts(jobs, peers)
        self._turning = Turning(jobs, peers)

    def begin(self, now: Now) -> None:
        """The core begins."""
        self._doubts.begin(now)

    def submit(self, entry: Open, now: Now, rng: Rng, *, kept_later: bool = False) -> None:
        """Sends the present attempt's order to a broker; the timer says it again should no answer come.

        Which broker it is, is durable before the order leaves: that one is asked first by a core that restarts. With
        `kept_later` the caller writes the row."""
        job, pacing = entry.job, self._jobs.pacing
        if self._poison.bars_any and (why := self._poison.refusal(job.payload_digest, now)):
            self._keep_in(entry, why, now, kept_later=kept_later)
            return
        brokers = self._brokers_for(entry)
        if not brokers:
            self.try_later(entry, "BrokerUnavailable", "no broker of the mesh answers", now)
            return
        if entry.doubtful and job.broker not in brokers and self._doubts.keeps_waiting(entry, now):
            return
        self._jobs.leave_broker(job)
        self._choose(entry, brokers, now, rng, kept_later=kept_later)
        if pacing and pacing.holds(job.broker):
            self._jobs.timers.cancel(entry.job_id)
            pacing.add(job.broker, entry.job_id, job.priority)
        else:
            self._send_order(entry, now)

    def submit_elsewhere(self, entry: Open, broker: str, now: Now, rng: Rng) -> None:
        """This broker was of no use: to another one, if there is one."""
        entry.avoided |= {broker}
        self.submit(entry, now, rng)

    def try_later(self, entry: Open, error: str, detail: str, now: Now) -> None:
        """Three retries, each at another broker than the one before it if there is one: no broker can end a job alone.
        Then the local queue where the mode allows it and brokers are the trouble, else failure."""
        self._turning.on_answer(entry, now, awarded=False)
        self.turn_from_broker(entry)
        self._jobs.leave_broker(entry.job)
        entry.unfound = detail[:DETAIL_CHARS_MAX]
        if entry.tries < len(RETRY_DELAYS_MS):
            self._jobs.timers.set(entry.job_id, now.mono_ms + RETRY_DELAYS_MS[entry.tries])
            entry.tries += 1
            if error == "NoHostsAvailable":
                self._tell_wait(entry, now)
        elif error == "BrokerUnavailable" and entry.job.mode == jobs_pb2.DISPATCH_MODE_AUTO:
            if entry.doubtful:
                self._doubts.give_up(entry, now)
            self._to_local_queue(entry, now)
        else:
            self._jobs.fail(entry, error, detail, now)

    def turn_from_broker(self, entry: Open) -> None:
        """What it said led nowhere: the next order goes to another one, if there is one. Of a doubtful attempt only it
        can tell."""
        others = any(broker != entry.job.broker for broker in self._peers.with_role(BROKER))
        entry.avoided = frozenset({entry.job.broker} if others and not entry.doubtful else ())

    # ---- what its broker said of it

    def on_awarded(self, entry: Open, now: Now) -> None:
        self._turning.on_answer(entry, now, awarded=True)

    def on_queued(self, entry: Open, fresh: bool, now: Now) -> None:
        """Its broker holds the order in its queue. If it has only just learnt of it, though we thought it knew, it may
        have forgotten others as well."""
        self._turning.on_answer(entry, now, awarded=False)
        entry.doubtful, entry.tries, entry.unfound, entry.avoided = False, 0, "", frozenset()
        job, waiting = entry.job, self._jobs.waiting
        self._jobs.tell_wait(entry, "", now)
        if fresh and waiting.holds(job.broker, entry.job_id):
            waiting.hurry(job.broker, now.mono_ms)
        waiting.add(job.broker, entry.job_id, now.mono_ms)
        self._jobs.pacing.discard(job.broker, entry.job_id, job.priority)
        self._jobs.timers.cancel(entry.job_id)

    def on_forgotten(self, entry: Open, now: Now, rng: Rng) -> None:
        """Of a doubtful attempt; so once for a start of this core."""
        self._doubts.give_up(entry, now)
        self.submit(entry, now, rng)

    # ---- time

    def on_wake(self, now: Now, rng: Rng) -> None:
        """What waits at brokers is said there once more, or to another one; a paced line moves on."""
        stay, turned = self._turning.take_due(now)
        for entry in stay:
            self._say_order(entry)
        for entry in turned:
            self.submit(entry, now, rng)
        for job_id in self._jobs.pacing.take_due(now):
            if (patient := self._jobs.get(job_id)) is not None:
                self._send_order(patient, now)

    # ---- inside

    def _tell_wait(self, entry: Open, now: Now) -> None:
        """The first time, and where it is for another reason than the last time."""
        if not entry.job.waiting.endswith(entry.unfound):
            left_ms = sum(RETRY_DELAYS_MS[entry.tries - 1 :])
            self._jobs.tell_wait(entry, f"up to {left_ms / 1e3:g} s for a host: {entry.unfound}", now)

    def _keep_in(self, entry: Open, why: str, now: Now, *, kept_later: bool) -> None:
        """Its payload is barred."""
        if kept_later:  # its row is to be written first
            self._jobs.timers.set(entry.job_id, now.mono_ms)
        else:
            self._jobs.fail(entry, "AttemptsExhausted", why, now)

    def _brokers_for(self, entry: Open) -> Sequence[str]:
        brokers: Sequence[str] = self._peers.with_role(BROKER)
        return [broker for broker in brokers if broker not in entry.avoided] if entry.avoided else brokers

    def _choose(self, entry: Open, brokers: Sequence[str], now: Now, rng: Rng, *, kept_later: bool) -> None:
        """The broker it had, if that may be asked; else the preferred one; one that takes orders goes before one that
        does not."""
        job, pacing = entry.job, self._jobs.pacing
        if pacing and pacing.holds(job.broker) and not entry.doubtful:
            brokers = [broker for broker in brokers if not pacing.holds(broker)] or brokers
        if job.broker not in brokers:
            preferred = self.preferred if self.preferred in brokers else ""
            job.broker = preferred or (brokers[0] if len(brokers) == 1 else rng.choice(brokers))
            if not kept_later:
                self._jobs.keep(job, now)

    def _send_order(self, entry: Open, now: Now) -> None:
        self._say_order(entry)
        slow_ms = self._peers.pace(entry.job.broker).longer_ms(ORDER_BYTES)
        self._jobs.timers.set(entry.job_id, now.mono_ms + SUBMIT_RETRY_MS + slow_ms)

    def _say_order(self, entry: Open) -> None:
        if entry.doubtful:
            self._post.doubt(entry.key)
        body = self._jobs.order_body(entry)
        self._post.add("SubmitJobs", entry.job.broker, entry.key, body)

"""Turns from a broker at which an order waits and waits: it may be wedged, or lie, or merely have no free host.

Which of these it is, nobody at the core can see. So an order whose patience is over is taken elsewhere as a trial, with
another number. Each that is awarded there at once says that its first broker had no excuse, and lets one more follow,
twice as many each round; one that has to wait there as well says that the queue is honest. Each order's own patience
doubles with each turn: those of a long queue keep their places.
"""

from __future__ import annotations

from collections import Counter

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.patience import QUEUE_PATIENCE_MS
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX

DOUBLINGS_MAX = 8  # of an order's patience: two hours
TRIAL = 1  # order of each broker and round, until more are known to be in vain


class Turning:
    """Which of the orders that wait are said again where they wait, and which are taken to another broker."""

    def __init__(self, jobs: OpenJobs, peers: Peers) -> None:
        self._jobs, self._peers = jobs, peers
        self._most: dict[str, int] = {}  # that may turn from a broker in one round

    def take_due(self, now: Now) -> tuple[list[Open], list[Open]]:
        """Those to be said again, and those that have turned and are to be sent out anew."""
        brokers, left, stay, turned = set(self._peers.with_role(BROKER)), Counter[str](), [], []
        for job_id in self._jobs.waiting.take_due(now.mono_ms):
            entry = self._jobs.get(job_id)
            if entry is None:
                continue
            broker = entry.look.broker
            is_over = brokers - {broker} and self._is_over(entry, broker, now)
            if is_over and left[broker] < self._most.get(broker, TRIAL):
                left[broker] += 1
                self._turn(entry, broker, now)
                turned.append(entry)
            else:
                stay.append(entry)
        return stay, turned

    def on_answer(self, entry: Open, now: Now, *, awarded: bool) -> None:
        """Another broker has spoken, of an order that may be a trial."""
        broker, entry.turned_from = entry.turned_from, ""
        if broker and awarded:
            self._most[broker] = min(self._most.get(broker, TRIAL) + 1, CALL_ITEMS_MAX)
            self._jobs.waiting.hurry(broker, now.mono_ms)
        elif broker:
            self._most.pop(broker, None)

    # ---- inside

    def _is_over(self, entry: Open, broker: str, now: Now) -> bool:
        patience_ms = QUEUE_PATIENCE_MS << min(entry.turns, DOUBLINGS_MAX)
        return now.mono_ms >= self._jobs.waiting.since_ms(broker, entry.job_id) + patience_ms

    def _turn(self, entry: Open, broker: str, now: Now) -> None:
        """Should that one award it all the same, it is an attempt of the past."""
        job = entry.job
        self._jobs.waiting.discard(broker, job.job_id)
        job.attempts.add(number=job.attempt, started_us=now.utc_us)
        self._jobs.lose(entry, "Waited: its broker kept it waiting, another one is asked", now)
        entry.turns, entry.turned_from, entry.avoided = entry.turns + 1, broker, frozenset({broker})

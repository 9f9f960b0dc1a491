"""Hosts that are to stop work of this core: attempts whose jobs were cancelled, or expired, while they were under way.

Said at once, and again until the host has answered or is dead. Not durable: what a core forgets here, it does not know
as wanted when the host renews its leases, within seconds of the core's return (tests/scenarios/test_taken_back.py).
"""

from __future__ import annotations

from itertools import islice

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.errors import FailedPrecondition, NotFound, PermissionDenied
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MAX_MS, Post, Tag
from offgrid_node.protocol.timers import Timers

RETRY_MS, RETRY_MAX_MS = 1_000, 30_000
LEFT_MAX = 16_384  # of one host: what it has forgotten to answer must not fill the memory


class Stops:
    """What each host has not answered yet."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._left: dict[str, dict[AttemptKey, None]] = {}
        self._tries: dict[str, int] = {}
        self._behind: set[str] = set()  # hosts that have missed a call: what is left for them is said again, in parts
        self._timers: Timers[str] = Timers()

    def deadline_ms(self) -> int | None:
        return self._timers.next_ms()

    def add(self, host: str, key: AttemptKey, now: Now) -> None:
        left = self._left.setdefault(host, {})
        left[key] = None
        if len(left) > LEFT_MAX:
            del left[next(iter(left))]
        self._say(host, key, now)

    def on_answered(self, tag: Tag, answer: Answered, now: Now) -> None:
        left = self._left.get(tag.node)
        if left is None:
            return
        gone = isinstance(answer.fault, PermissionDenied | NotFound | FailedPrecondition)  # no member, or no host now
        if answer.fault is None or gone:
            self._tries.pop(tag.node, None)
            for key in tag.keys:
                left.pop(key, None)
            if not left:
                self.on_host_down(tag.node)
            elif tag.node in self._behind:
                self._timers.set(tag.node, now.mono_ms)
            return
        self._behind.add(tag.node)
        tries = self._tries[tag.node] = self._tries.get(tag.node, 0) + 1
        self._timers.set(tag.node, now.mono_ms + min(RETRY_MAX_MS, RETRY_MS << min(tries - 1, 8)))

    def on_host_down(self, host: str) -> None:
        """What it was at is over with it."""
        self._left.pop(host, None)
        self._tries.pop(host, None)
        self._behind.discard(host)
        self._timers.cancel(host)

    def on_wake(self, now: Now) -> None:
        for host in self._timers.take_due(now.mono_ms):
            for key in list(islice(self._left[host], CALL_ITEMS_MAX)):
                self._say(host, key, now)

    def _say(self, host: str, key: AttemptKey, now: Now) -> None:
        self._post.add("CancelStarts", host, key, jobs_pb2.LeaseKey(job_id=key[0], attempt=key[1]))
        # Should even the end of the call get lost.
        self._timers.set(host, now.mono_ms + CALL_TIMEOUT_MAX_MS + RETRY_MS)

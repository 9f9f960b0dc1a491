"""Payloads under which hosts were lost, counted over all jobs of a core: beyond a number its jobs are sent out no more.

One job stops by itself when it has lost too many hosts (`losses_max`), but the next job with the same payload would
begin a new count, and take as many again. So the core counts by the payload's digest. Hosts that are lost together are
one loss: a payload kills where it runs, one host after another, while power and switches take many at once. A result,
whatever it is, clears the payload. Counts are in memory, as the jobs' own are in their rows; a payload that is barred
is a row, for an hour.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.terms import LOSSES_MAX

BARRED = "core_poison"  # payload digest → UTC microseconds
BARRED_US = 3_600 * 1_000_000
TOGETHER_MS = 5_000  # as long as it takes to see that a host is frozen
DEATHS = frozenset({"HostDied", "HostRestarted", "LeaseExpired"})  # ends of attempts
SUSPECTS_MAX = 1_024  # payloads; the one that lost a host longest ago is forgotten first


class Poison:
    """How many hosts in a row were lost under each payload."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._losses: OrderedDict[bytes, tuple[int, int]] = OrderedDict()  # how many, the last one when
        self._barred: dict[bytes, int] = {}

    def load(self, rows: Rows) -> None:
        self._barred = {digest: int.from_bytes(value, "big") for digest, value in rows.scan(BARRED)}

    def on_lost(self, digest: bytes, outcome: str, allowed: int, now: Now) -> None:
        """An attempt with it was lost, in a job that allows for so many."""
        if outcome.partition(":")[0] not in DEATHS:
            return
        losses, last_ms = self._losses.pop(digest, (0, -TOGETHER_MS))
        if now.mono_ms - last_ms >= TOGETHER_MS:
            losses, last_ms = losses + 1, now.mono_ms
        self._losses[digest] = losses, last_ms
        if len(self._losses) > SUSPECTS_MAX:
            self._losses.popitem(last=False)
        if losses > max(allowed, LOSSES_MAX):
            self._bar(digest, now)

    @property
    def bars_any(self) -> bool:
        """Whether `refusal` has to be asked at all."""
        return bool(self._barred)

    def on_result(self, digest: bytes) -> None:
        """A host has brought what came of it."""
        if self._losses:
            self._losses.pop(digest, None)

    def refusal(self, digest: bytes, now: Now) -> str:
        """Why it is not sent out; empty when it is. A clock that was set back keeps nobody in for ever."""
        if digest not in self._barred:
            return ""
        left_us = BARRED_US - abs(now.utc_us - self._barred[digest])
        if left_us <= 0:
            del self._barred[digest]
            self._losses.pop(digest, None)
            self._post.delete_late(BARRED, digest, now)
            return ""
        minutes = -(-left_us // 60_000_000)
        return f"hosts go down under this very payload, in whatever job; it is sent out again in {minutes} min"

    def _bar(self, digest: bytes, now: Now) -> None:
        self._barred[digest] = now.utc_us
        self._post.put_bytes(BARRED, digest, now.utc_us.to_bytes(8, "big"))
        if len(self._barred) > SUSPECTS_MAX:
            oldest = min(self._barred, key=self._barred.__getitem__)
            del self._barred[oldest]
            self._post.delete(BARRED, oldest)

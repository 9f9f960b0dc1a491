"""Which attempts a host has done with, so that a late copy of a start never makes it run one twice.

Per job of each core the highest attempt is kept, durable, for as many jobs as FENCES_MAX in all. Beyond that the core
with the most of them gives: of its own, the one settled first. So none can push another's out, however much it cancels.
A start that is later still would find its fence gone, but then the core, too, refuses what comes of it.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.post import Post

FENCES = "host_fences"
FENCES_MAX = 65_536  # jobs; at a thousand a second a copy may be a minute late


class Fence:
    """The highest settled attempt per job of each core: no core can fence another's work out."""

    def __init__(self, post: Post, fences_max: int = FENCES_MAX) -> None:
        self._post, self._fences_max = post, fences_max
        self._highest: dict[str, OrderedDict[str, int]] = {}  # by core and job, the one settled first in front
        self._kept = self._count = 0

    def load(self, rows: Rows) -> None:
        found = sorted((value[4:], key.decode(), int.from_bytes(value[:4], "big")) for key, value in rows.scan(FENCES))
        for _, text, attempt in found:
            core, _, job_id = text.partition("/")
            self._highest.setdefault(core, OrderedDict())[job_id] = attempt
        self._kept = len(found)
        self._count = int.from_bytes(found[-1][0], "big") if found else 0

    def highest(self, core: str, job_id: str) -> int:
        """0 when nothing of the job was settled here, as far as is remembered."""
        jobs = self._highest.get(core)
        return jobs.get(job_id, 0) if jobs is not None else 0

    def settle(self, key: ClaimKey, now: Now) -> None:
        """This attempt is over here, for ever. Written late, together with the end of its lease."""
        core, job_id, attempt = key
        if attempt <= self.highest(core, job_id):
            return
        jobs = self._highest.setdefault(core, OrderedDict())
        self._count += 1
        self._kept += job_id not in jobs
        jobs[job_id] = attempt
        jobs.move_to_end(job_id)
        value = attempt.to_bytes(4, "big") + self._count.to_bytes(8, "big")
        self._post.put_late(FENCES, f"{core}/{job_id}".encode(), value, now)
        if self._kept > self._fences_max:
            self._forget_one(now)

    def _forget_one(self, now: Now) -> None:
        core, jobs = max(self._highest.items(), key=lambda entry: len(entry[1]))
        job_id, _ = jobs.popitem(last=False)
        self._kept -= 1
        if not jobs:
            del self._highest[core]
        self._post.delete_late(FENCES, f"{core}/{job_id}".encode(), now)

"""Which attempts a host has done with, so that a late copy of a start never makes it run one twice.

Per job the highest attempt is kept, durable, for as many jobs as FENCES_MAX; the one settled first is forgotten first.
A start that is later still would find its fence gone, but then the core, too, refuses what comes of it.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import Post

FENCES = "host_fences"
FENCES_MAX = 65_536  # jobs; at a thousand a second a copy may be a minute late


class Fence:
    """The highest settled attempt per job."""

    def __init__(self, post: Post, fences_max: int = FENCES_MAX) -> None:
        self._post, self._fences_max = post, fences_max
        self._highest: OrderedDict[str, int] = OrderedDict()
        self._count = 0

    def load(self, rows: Rows) -> None:
        found = sorted((value[4:], key.decode(), int.from_bytes(value[:4], "big")) for key, value in rows.scan(FENCES))
        self._highest = OrderedDict((job_id, attempt) for _, job_id, attempt in found)
        self._count = int.from_bytes(found[-1][0], "big") if found else 0

    def highest(self, job_id: str) -> int:
        """0 when nothing of the job was settled here, as far as is remembered."""
        return self._highest.get(job_id, 0)

    def settle(self, key: AttemptKey) -> None:
        """This attempt is over here, for ever."""
        job_id, attempt = key
        if attempt <= self.highest(job_id):
            return
        self._count += 1
        self._highest[job_id] = attempt
        self._highest.move_to_end(job_id)
        self._post.put_bytes(FENCES, job_id.encode(), attempt.to_bytes(4, "big") + self._count.to_bytes(8, "big"))
        if len(self._highest) > self._fences_max:
            oldest, _ = self._highest.popitem(last=False)
            self._post.delete(FENCES, oldest.encode())

"""Leases that are kept alive, at the core: hosts say once a second what they still have, and hear what nobody wants.

SWIM says within seconds that a host is dead. This says what SWIM cannot: that a host which lives has lost an attempt,
or that it has one which its core gave up while the two could not speak. (Leases as Gray and Cheriton 1989 have them,
renewed in one message for all, as Chubby's KeepAlive does.) The host's side is in `heartbeat.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.commands import RenewLeases
from offgrid_node.protocol.jobs.heartbeat import RENEW_MS, renew_ms
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import Post, leases_of
from offgrid_node.protocol.jobs.table import AWARDED, RUNNING
from offgrid_node.protocol.pace import Paces, all_free

LEASE_MS = 15_000  # fifteen calls may be lost in a row; a host that is dead is known to be so long before
SLOW_LEASES = 5  # of those behind slow roads so many may be lost
PAUSED_MS = 3 * RENEW_MS  # a core that looks so much later than it meant to was itself away
PAGES_MAX = 16  # remembered of a host: more than it can have running, by SLOTS_MAX and CALL_ITEMS_MAX
PRUNED = 2  # attempts that have ended, dropped for each one that begins

Page = tuple[AttemptKey, ...]


class Renewals:
    """When each attempt under way was last heard of, the longest ago first."""

    def __init__(self, node_id: str, jobs: OpenJobs, post: Post, paces: Paces = all_free) -> None:
        self._node_id, self._jobs, self._post, self._paces = node_id, jobs, post, paces
        self._heard: OrderedDict[AttemptKey, int] = OrderedDict()
        self._slow: dict[AttemptKey, int] = {}  # behind slow roads, and when each will have been silent for too long
        self._pages: dict[str, OrderedDict[bytes, Page]] = {}
        self._look_ms: int | None = None

    def __len__(self) -> int:
        return len(self._heard) + len(self._slow)

    def deadline_ms(self) -> int | None:
        return self._look_ms

    def begin(self, entry: Open, now: Now) -> None:
        """Its host has said that it runs the present attempt: from now on it is to say so again."""
        if entry.job.host == self._node_id:
            return
        self._prune(PRUNED)
        self._hear(entry.job.host, entry.key, now)
        if self._look_ms is None:
            self._look_ms = now.mono_ms + RENEW_MS

    def on_renew(self, ticket: int, command: RenewLeases, now: Now) -> None:
        pages = self._pages.setdefault(command.host, OrderedDict())
        page = command.held or pages.get(command.digest)
        if page is None:
            self._post.reply(ticket, jobs_pb2.RenewLeasesResponse(resend=True))
            return
        unwanted = [key for key in page if not self._renew(command.host, key, now)]
        left = tuple(key for key in page if key not in set(unwanted)) if unwanted else page
        pages.pop(command.digest, None)
        if left == page:  # else the host says another page next
            pages[command.digest] = page
        if len(pages) > PAGES_MAX:
            pages.popitem(last=False)
        self._post.reply(ticket, jobs_pb2.RenewLeasesResponse(unwanted=leases_of(unwanted)))

    def on_peer_down(self, node_id: str) -> None:
        self._pages.pop(node_id, None)

    def take_expired(self, now: Now) -> list[Open]:
        """Attempts whose host has kept silent about them for too long; each is told of once."""
        if self._look_ms is None or now.mono_ms < self._look_ms:
            return []
        late_ms, self._look_ms = now.mono_ms - self._look_ms, now.mono_ms + RENEW_MS
        if late_ms > PAUSED_MS:  # it was this node that heard nothing
            self._heard = OrderedDict.fromkeys(self._heard, now.mono_ms)
        expired = self._take_slow(now)
        self._prune(len(self._heard))
        while self._heard and (first := next(iter(self._heard.items())))[1] + LEASE_MS <= now.mono_ms:
            del self._heard[first[0]]
            if (entry := self._under_way(first[0])) is not None:
                expired.append(entry)
        if not self:
            self._look_ms = None
        return expired

    # ---- inside

    def _renew(self, host: str, key: AttemptKey, now: Now) -> bool:
        """Whether the attempt is still wanted of this host. Of one that waits for its award nobody knows yet: a core
        that is new to its own past asks its broker."""
        entry = self._jobs.current(key)
        if entry is None:
            return False
        if entry.job.state not in (AWARDED, RUNNING):
            return True
        if entry.job.host != host:
            return False
        if key in self._heard or key in self._slow:
            self._hear(host, key, now)
        return True

    def _hear(self, host: str, key: AttemptKey, now: Now) -> None:
        pace = self._paces(host)
        if pace.free:
            self._slow.pop(key, None)
            self._heard[key] = now.mono_ms
            self._heard.move_to_end(key)
        else:
            self._heard.pop(key, None)
            self._slow[key] = now.mono_ms + LEASE_MS + SLOW_LEASES * renew_ms(pace)

    def _take_slow(self, now: Now) -> list[Open]:
        over = [key for key, due_ms in self._slow.items() if due_ms <= now.mono_ms or self._under_way(key) is None]
        for key in over:
            del self._slow[key]
        return [entry for key in over if (entry := self._under_way(key)) is not None]

    def _under_way(self, key: AttemptKey) -> Open | None:
        entry = self._jobs.current(key)
        return entry if entry is not None and entry.job.state in (AWARDED, RUNNING) else None

    def _prune(self, most: int) -> None:
        """Drops what has ended from the front: whatever runs is renewed, so that little stays behind it."""
        while most and self._heard and self._under_way(first := next(iter(self._heard))) is None:
            del self._heard[first]
            most -= 1

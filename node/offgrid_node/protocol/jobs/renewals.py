"""Leases that are kept alive, at the core: hosts say once a second what they still have, and hear what nobody wants.

SWIM says within seconds that a host is dead. This says what SWIM cannot: that a host which lives has lost an attempt,
or that it has one which its core gave up while the two could not speak. (Leases as Gray and Cheriton 1989 have them,
renewed in one message for all, as Chubby's KeepAlive does.) A host says when its next word comes, and is waited for by
that: how slow the road is, its two ends may see otherwise. The host's side is in `heartbeat.py`.
"""

from __future__ import annotations

from collections import OrderedDict

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs.commands import RenewLeases
from offgrid_node.protocol.jobs.heartbeat import LEASE_MS, NEXT_MS_MAX, RENEW_MS, renew_ms, silence_ms
from offgrid_node.protocol.jobs.open_job import Open
from offgrid_node.protocol.jobs.open_jobs import OpenJobs
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import Post, leases_of
from offgrid_node.protocol.jobs.table import AWARDED, RUNNING
from offgrid_node.protocol.pace import Paces, all_free

PAUSED_MS = 3 * RENEW_MS  # a core that looks so much later than it meant to was itself away
PAGES_MAX = 16  # remembered of a host: more than it can have running, by SLOTS_MAX and CALL_ITEMS_MAX
PRUNED = 2  # attempts that have ended, dropped for each one that begins

Page = tuple[AttemptKey, ...]


class Renewals:
    """When each attempt under way was last heard of, the longest ago first."""

    def __init__(self, node_id: str, jobs: OpenJobs, post: Post, paces: Paces = all_free) -> None:
        self._node_id, self._jobs, self._post, self._paces = node_id, jobs, post, paces
        self._heard: OrderedDict[AttemptKey, int] = OrderedDict()
        self._slow: dict[AttemptKey, int] = {}  # whose word comes seldom: when each was silent for too long
        self._pages: dict[str, OrderedDict[bytes, Page]] = {}
        self._look_ms: int | None = None

    def __len__(self) -> int:
        return len(self._heard) + len(self._slow)

    def deadline_ms(self) -> int | None:
        return self._look_ms

    def begin(self, entry: Open, now: Now, next_ms: int = 0) -> None:
        """Its host has said that it runs the present attempt, and says so again in `next_ms`."""
        if entry.job.host == self._node_id:
            return
        self._prune(PRUNED)
        self._hear(entry.key, self._silence_ms(entry.job.host, next_ms), now)
        if self._look_ms is None:
            self._look_ms = now.mono_ms + RENEW_MS

    def on_renew(self, ticket: int, command: RenewLeases, now: Now) -> None:
        pages = self._pages.setdefault(command.host, OrderedDict())
        page = command.held or pages.get(command.digest)
        if page is None:
            self._post.reply(ticket, jobs_pb2.RenewLeasesResponse(resend=True))
            return
        silence_ms = self._silence_ms(command.host, command.next_ms)
        unwanted = [key for key in page if not self._renew(command.host, key, silence_ms, now)]
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
            self._slow = {key: due_ms + late_ms for key, due_ms in self._slow.items()}
        expired = self._take_slow(now)
        self._prune(len(self._heard))
        while self._heard and (first := next(iter(self._heard.items())))[1] + LEASE_MS <= now.mono_ms:
            key, heard_ms = first
            del self._heard[key]
            if (entry := self._under_way(key)) is None:
                continue
            if due_ms := self._due_by_road(entry.job.host, heard_ms, now):
                self._slow[key] = due_ms
            else:
                expired.append(entry)
        if not self:
            self._look_ms = None
        return expired

    # ---- inside

    def _silence_ms(self, host: str, next_ms: int) -> int:
        """How long it may be silent, by what it says itself, and by the road to it as this node sees it."""
        return silence_ms(max(min(next_ms, NEXT_MS_MAX), renew_ms(self._paces(host))))

    def _due_by_road(self, host: str, heard_ms: int, now: Now) -> int:
        """When one that has promised to speak each second is given up, now that the road to it has become slow; 0 where
        it has not, or that is over."""
        due_ms = heard_ms + self._silence_ms(host, 0)
        return due_ms if due_ms > now.mono_ms else 0

    def _renew(self, host: str, key: AttemptKey, silence_ms: int, now: Now) -> bool:
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
            self._hear(key, silence_ms, now)
        return True

    def _hear(self, key: AttemptKey, silence_ms: int, now: Now) -> None:
        due_ms = max(now.mono_ms + silence_ms, self._slow.pop(key, 0))  # an older word may come last
        if due_ms == now.mono_ms + LEASE_MS:
            self._heard[key] = now.mono_ms
            self._heard.move_to_end(key)
        else:
            self._heard.pop(key, None)
            self._slow[key] = due_ms

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

"""A host's heartbeat: once a second, or as often as a slow road allows, it says to each core what it still has of that
core's, and hears what nobody wants.

Each word says when the next one comes, and that is when it comes, whatever becomes of the road: its ends may see it
otherwise, and it may change between two words. A word that was not answered may not have been heard, so the one before
it holds. Small on the wire: keys go in pages in a fixed order, and a page that the core has heard before is its digest
alone. What is over within a second is never said, but to a core that would hear of the rest much later. The core's
side, and why, is in `renewals.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.orders import AttemptKey, ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MS, Post, Tag, leases_of
from offgrid_node.protocol.pace import Pace

RENEW_MS, NEXT_MS_MAX = 1_000, 3_600_000  # between two words
RENEW_BYTES, RENEW_SHARE = 60, 100  # of a slow road's time one part is for the heartbeats of one host
LEASE_MS = 15_000  # fifteen calls may be lost in a row; a host that is dead is known to be so long before
SLOW_LEASES = 5  # of words that are far apart so many may be lost
DIGEST_BYTES = 8


def renew_ms(pace: Pace) -> int:
    """How often it is said, by the road between host and core."""
    return min(max(RENEW_MS, pace.apart_ms(RENEW_BYTES, RENEW_SHARE)), NEXT_MS_MAX)


def silence_ms(every_ms: int) -> int:
    """How long a core waits for a host that has last said that it speaks so often."""
    return LEASE_MS + (SLOW_LEASES * every_ms if every_ms > RENEW_MS else 0)


def digest_of_page(keys: Iterable[AttemptKey]) -> bytes:
    """Of attempts in their order. A host that finds two pages with one digest harms itself alone."""
    whole = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"og.renew.v1")
    for job_id, attempt in keys:
        name = job_id.encode()
        whole.update(len(name).to_bytes(2, "big") + name + attempt.to_bytes(4, "big"))
    return whole.digest()


class _Word(msgspec.Struct):
    """One that is under way: `left` of its pages are not answered yet. It says that the next comes in `next_ms`."""

    left: int
    next_ms: int
    missed: bool = False


class _Told(msgspec.Struct):
    """A core that is told of leases, and has heard something at `heard_ms`. `next_ms`: in how long after that it waits
    for another word, by the last that it is known to have heard whole, which was said at `whole_ms`. `open` are the
    words under way, by when they were said."""

    said_ms: int
    heard_ms: int
    next_ms: int
    whole_ms: int = -1
    open: dict[int, _Word] = msgspec.field(default_factory=dict)

    def due_ms(self, pace: Pace, now: Now) -> int:
        """Of the next word: as the road allows now, or as the core was told while it was another one. What is not
        answered is said again soon then; a core that has heard nothing for long waits no more."""
        every_ms, patience_ms = renew_ms(pace), 2 * CALL_TIMEOUT_MS + pace.longer_ms(RENEW_BYTES)
        if now.mono_ms < self.heard_ms + silence_ms(self.next_ms):
            every_ms, patience_ms = min(every_ms, self.next_ms), CALL_TIMEOUT_MS
        return self.said_ms + (max(every_ms, patience_ms) if self.open else every_ms)

    def promises(self, next_ms: int, now: Now) -> None:
        """With a lease that the words under way do not name: they are no reason to wait longer than that."""
        self.heard_ms, self.next_ms = now.mono_ms, min(self.next_ms, next_ms)
        for word in self.open.values():
            word.next_ms = min(word.next_ms, next_ms)

    def says(self, pages: int, next_ms: int, now: Now) -> None:
        self.said_ms, self.open[now.mono_ms] = now.mono_ms, _Word(pages, next_ms)

    def on_end(self, said_ms: int, now: Now, *, heard: bool) -> None:
        """Of the call with a page of the word that was said then."""
        self.heard_ms = now.mono_ms if heard else self.heard_ms
        if (word := self.open.get(said_ms)) is None:  # of leases that have all ended since
            return
        word.left, word.missed = word.left - 1, word.missed or not heard
        if not word.left:
            del self.open[said_ms]
            if not word.missed and said_ms > self.whole_ms:
                self.next_ms, self.whole_ms = word.next_ms, said_ms


class Heartbeat:
    """What a host says, and to whom."""

    def __init__(self, node_id: str, peers: Peers, post: Post) -> None:
        self._node_id, self._peers, self._post = node_id, peers, post
        self._due_ms: int | None = None
        self._known: dict[str, set[bytes]] = {}  # digests that a core has answered for
        self._told: dict[str, _Told] = {}

    def deadline_ms(self) -> int | None:
        return self._due_ms

    def watch(self, now: Now) -> None:
        """There is a lease."""
        if self._due_ms is None:
            self._due_ms = now.mono_ms + RENEW_MS

    def promise_ms(self, core: str, now: Now) -> int:
        """A lease of that core's was taken on: in how long it is said at the latest."""
        next_ms = renew_ms(self._peers.pace(core))
        told = self._told.setdefault(core, _Told(now.mono_ms, now.mono_ms, next_ms))
        told.promises(next_ms, now)
        return next_ms

    def on_wake(self, leases: Mapping[ClaimKey, Lease], now: Now) -> None:
        if self._due_ms is None or now.mono_ms < self._due_ms:
            return
        self._due_ms = now.mono_ms + RENEW_MS if leases else None
        held: dict[str, list[tuple[int, AttemptKey]]] = {}
        for key, lease in leases.items():
            if key[0] != self._node_id:
                held.setdefault(key[0], []).append((lease.taken_ms, key[1:]))
        self._known = {core: known for core, known in self._known.items() if core in held}
        self._told = {core: told for core, told in self._told.items() if core in held}
        for core, taken in held.items():
            told = self._told.setdefault(core, _Told(now.mono_ms - RENEW_MS, now.mono_ms, RENEW_MS))
            pace = self._peers.pace(core)
            if not self._peers.is_alive(core) or told.due_ms(pace, now) > now.mono_ms:
                continue
            next_ms = renew_ms(pace)
            since_ms = now.mono_ms - (RENEW_MS if next_ms == RENEW_MS else 0)
            if keys := sorted(key for taken_ms, key in taken if taken_ms <= since_ms):
                self._say(core, told, keys, next_ms, now)

    def on_answered(self, tag: Tag, answer: Answered, now: Now) -> list[ClaimKey]:
        """What its core does not want any more."""
        known, digest = self._known.setdefault(tag.node, set()), digest_of_page(tag.keys)
        heard = isinstance(answer.reply, jobs_pb2.RenewLeasesResponse) and not answer.reply.resend
        if (told := self._told.get(tag.node)) is not None:
            told.on_end(tag.said_ms, now, heard=heard)
        if not isinstance(answer.reply, jobs_pb2.RenewLeasesResponse) or answer.reply.resend:
            known.discard(digest)
            return []
        known.add(digest)
        asked = set(tag.keys)
        unwanted = [(lease.job_id, lease.attempt) for lease in answer.reply.unwanted]
        return [(tag.node, *key) for key in unwanted if key in asked]

    # ---- inside

    def _say(self, core: str, told: _Told, keys: list[AttemptKey], next_ms: int, now: Now) -> None:
        known = self._known.get(core, set())
        pages = [tuple(keys[start : start + CALL_ITEMS_MAX]) for start in range(0, len(keys), CALL_ITEMS_MAX)]
        digests = [digest_of_page(page) for page in pages]
        for page, digest in zip(pages, digests, strict=True):
            request = jobs_pb2.RenewLeasesRequest(digest=digest, next_ms=unless_usual(next_ms))
            if digest not in known:
                request.held.extend(leases_of(page))
            self._post.call(core, "RenewLeases", request, Tag("RenewLeases", core, page, now.mono_ms))
        self._known[core] = known.intersection(digests)
        told.says(len(pages), next_ms, now)


def unless_usual(next_ms: int) -> int:
    """As it is said: a second need not be."""
    return next_ms if next_ms > RENEW_MS else 0

"""A host's heartbeat: once a second, or as often as a slow road allows, it says to each core what it still has of that
core's, and hears what nobody wants.

Small on the wire: keys go in pages in a fixed order, and a page that the core has heard before is its digest alone.
What is over within a second is never said. The core's side, and why, is in `renewals.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.orders import AttemptKey, ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MS, Post, Tag, leases_of
from offgrid_node.protocol.pace import Pace

RENEW_MS = 1_000
RENEW_BYTES, RENEW_SHARE = 60, 100  # of a slow road's time one part is for the heartbeats of one host
DIGEST_BYTES = 8


def renew_ms(pace: Pace) -> int:
    """How often it is said, by the road between host and core."""
    return max(RENEW_MS, pace.apart_ms(RENEW_BYTES, RENEW_SHARE))


def digest_of_page(keys: Iterable[AttemptKey]) -> bytes:
    """Of attempts in their order. A host that finds two pages with one digest harms itself alone."""
    whole = hashlib.blake2b(digest_size=DIGEST_BYTES, person=b"og.renew.v1")
    for job_id, attempt in keys:
        name = job_id.encode()
        whole.update(len(name).to_bytes(2, "big") + name + attempt.to_bytes(4, "big"))
    return whole.digest()


class Heartbeat:
    """What a host says, and to whom."""

    def __init__(self, node_id: str, peers: Peers, post: Post) -> None:
        self._node_id, self._peers, self._post = node_id, peers, post
        self._due_ms: int | None = None
        self._known: dict[str, set[bytes]] = {}  # digests that a core has answered for
        self._asked_ms: dict[str, int] = {}  # cores with a call under way, since when
        self._said_ms: dict[str, int] = {}

    def deadline_ms(self) -> int | None:
        return self._due_ms

    def watch(self, now: Now) -> None:
        """There is a lease."""
        if self._due_ms is None:
            self._due_ms = now.mono_ms + RENEW_MS

    def on_wake(self, leases: Mapping[ClaimKey, Lease], now: Now) -> None:
        if self._due_ms is None or now.mono_ms < self._due_ms:
            return
        self._due_ms = now.mono_ms + RENEW_MS if leases else None
        held: dict[str, list[AttemptKey]] = {}
        for key, lease in leases.items():
            if key[0] != self._node_id and lease.taken_ms + renew_ms(self._peers.pace(key[0])) <= now.mono_ms:
                held.setdefault(key[0], []).append(key[1:])
        self._known = {core: known for core, known in self._known.items() if core in held}
        self._said_ms = {core: said_ms for core, said_ms in self._said_ms.items() if core in held}
        for core, keys in held.items():
            asked_ms, pace = self._asked_ms.get(core), self._peers.pace(core)
            patience_ms = 2 * CALL_TIMEOUT_MS + pace.longer_ms(RENEW_BYTES)
            waits = asked_ms is not None and now.mono_ms < asked_ms + patience_ms
            early = now.mono_ms < self._said_ms.get(core, now.mono_ms - renew_ms(pace)) + renew_ms(pace)
            if self._peers.is_alive(core) and not waits and not early:
                self._say(core, sorted(keys), now)

    def on_answered(self, tag: Tag, answer: Answered) -> list[ClaimKey]:
        """What its core does not want any more."""
        self._asked_ms.pop(tag.node, None)
        known, digest = self._known.setdefault(tag.node, set()), digest_of_page(tag.keys)
        if not isinstance(answer.reply, jobs_pb2.RenewLeasesResponse) or answer.reply.resend:
            known.discard(digest)
            return []
        known.add(digest)
        asked = set(tag.keys)
        unwanted = [(lease.job_id, lease.attempt) for lease in answer.reply.unwanted]
        return [(tag.node, *key) for key in unwanted if key in asked]

    def _say(self, core: str, keys: list[AttemptKey], now: Now) -> None:
        known, pages = self._known.get(core, set()), set()
        for start in range(0, len(keys), CALL_ITEMS_MAX):
            page = tuple(keys[start : start + CALL_ITEMS_MAX])
            digest = digest_of_page(page)
            pages.add(digest)
            request = jobs_pb2.RenewLeasesRequest(digest=digest)
            if digest not in known:
                request.held.extend(leases_of(page))
            self._post.call(core, "RenewLeases", request, Tag("RenewLeases", core, page))
        self._known[core] = known & pages
        self._asked_ms[core] = self._said_ms[core] = now.mono_ms

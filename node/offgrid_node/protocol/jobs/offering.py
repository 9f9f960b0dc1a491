"""A host's standing offer: when it is said, to whom, and with which number.

It is said to every broker when it changes, and every OFFER_REFRESH_MS: a broker that restarted, or missed a change,
knows it after that. Its numbers rise for ever: the upper half is the host's epoch, durable before the first of it.
"""

from __future__ import annotations

from collections.abc import Collection

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.settings import JobsSettings

META, EPOCH_KEY = "meta", b"host_epoch"
OFFER_REFRESH_MS = 3_000  # a broker that restarted, or missed a change, knows the offer after this at the latest
OFFER_RETRY_MS = 100  # doubled up to the refresh: a broker refuses until gossip has told it of this host


class Offering:
    """What a host says to brokers of itself."""

    def __init__(self, settings: JobsSettings, peers: Peers, post: Post) -> None:
        self._settings, self._peers, self._post = settings, peers, post
        self._seq = 0
        self._due = False
        self._due_ms: int | None = None
        self._faults = 0
        self.paused = False  # by the host's owner

    def load(self, rows: Rows, now: Now) -> None:
        epoch = int.from_bytes(rows.get(META, EPOCH_KEY) or b"\0", "big") + 1
        self._seq = epoch << 32
        self._due_ms = now.mono_ms

    def deadline_ms(self) -> int | None:
        return self._due_ms

    def hurry(self) -> None:
        """The offer goes out with this very step: it changed, or somebody thinks otherwise."""
        self._due = True

    def on_wake(self, now: Now) -> None:
        if self._due_ms is not None and now.mono_ms >= self._due_ms:
            self._due = True
            self._due_ms = now.mono_ms + OFFER_REFRESH_MS

    def on_peer_up(self, roles: frozenset[int], node_id: str) -> None:
        self._due = self._due or BROKER in roles or node_id == self._settings.node_id

    def on_offered(self, answer: Answered, now: Now) -> None:
        """Nobody may wait a whole refresh for a host whose first offer came too early."""
        if answer.fault is None:
            self._faults = 0
            return
        self._faults += 1
        self._due_ms = now.mono_ms + min(OFFER_REFRESH_MS, OFFER_RETRY_MS << min(self._faults, 8))

    def say(self, running: Collection[ClaimKey]) -> None:
        """Closes the step: says the offer where it is due; only a host makes offers. `running` are the attempts that
        it holds."""
        if not self._due:
            return
        self._due = False
        settings = self._settings
        if not settings.executors or not self._peers.has_role(settings.node_id, HOST):
            return
        if self._seq & 0xFFFFFFFF == 0:
            self._post.put_bytes(META, EPOCH_KEY, (self._seq >> 32).to_bytes(8, "big"))
        self._seq += 1
        offer = jobs_pb2.Offer(
            host=settings.node_id,
            seq=self._seq,
            slots=0 if self.paused else settings.slots,
            executors=settings.executors,
            kinds=settings.kinds,
            price_micro=settings.price_micro,
            labels=settings.labels,
            held=[f"{core}/{job_id}/{attempt}" for core, job_id, attempt in sorted(running)],
        )
        for broker in self._peers.with_role(BROKER):
            self._post.call(broker, "PostOffer", jobs_pb2.PostOfferRequest(offer=offer), Tag("PostOffer", broker, ()))

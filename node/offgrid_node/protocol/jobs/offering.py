"""What a host tells brokers of itself: what it is, what it offers, and which attempts it holds.

Each broker is told what has changed since the word that it took last, or all where it took another; at most one word is
under way to a broker at a time. An empty word every OFFER_REFRESH_MS keeps the offers standing. A broker hears from
cores when what it awarded itself has ended; of what another one awarded only the host can tell it (`on_freed`). Words
have numbers that rise for ever: the upper half is the host's epoch, durable before the first of it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Rows
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.bounds import EXPIRY_MAX_MS
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Post, Tag
from offgrid_node.protocol.jobs.requirements import parse
from offgrid_node.protocol.jobs.rules import Standing
from offgrid_node.protocol.jobs.settings import JobsSettings

META, EPOCH_KEY = "meta", b"host_epoch"
OFFER_REFRESH_MS = 3_000  # so long at most until a broker that missed something hears of it
OFFER_RETRY_MS = 100  # doubled up to the refresh: a broker refuses until gossip has told it of this host
FREED_MS = 200  # between two words because of a slot that is free again: half of what a broker takes for ever
OFFER_STANDS_MS = 15_000  # after the last word: five of them may get lost
EMPTY_BYTES = 60  # of a word that says nothing new, with its answer
RETRY_SHARE, RETRY_DOUBLINGS = 10, 8  # of a slow road's time one part is for words that were not taken, and then less


class Word(msgspec.Struct, frozen=True):
    """All that there was to say at one time. `held` are attempts, as they are said."""

    seq: int
    profile: jobs_pb2.HostProfile
    offers: dict[int, jobs_pb2.Offer]
    held: frozenset[str]
    paused: bool

    def since(self, base: Word | None) -> jobs_pb2.PostOffersRequest:
        """What has changed; all of it where there is no base."""
        request = jobs_pb2.PostOffersRequest(host=self.profile.host, seq=self.seq, paused=self.paused)
        if base is None:
            request.profile.CopyFrom(self.profile)
            request.offers.extend(self.offers.values())
            request.held.extend(sorted(self.held))
            return request
        request.base_seq = base.seq
        if self.profile != base.profile:
            request.profile.CopyFrom(self.profile)
        request.offers.extend(offer for number, offer in self.offers.items() if offer != base.offers.get(number))
        request.withdrawn.extend(number for number in base.offers if number not in self.offers)
        request.held.extend(sorted(self.held - base.held))
        request.released.extend(sorted(base.held - self.held))
        return request


class Told(msgspec.Struct):
    """What one broker has taken, and what is under way to it until `under_way_ms` at the latest."""

    taken: Word | None = None
    saying: Word | None = None
    under_way_ms: int = 0
    due_ms: int = 0
    said_ms: int = 0
    not_before_ms: int = 0  # its credit was used up
    again: bool = False  # there is more to say as soon as that has ended
    faults: int = 0
    epoch: int = 0
    stands_ms: int = 0  # how long its offers were said to stand


class Offering:
    """Says what there is to say to each broker, when it changes or is due."""

    def __init__(
        self,
        settings: JobsSettings,
        peers: Peers,
        post: Post,
        offers: Callable[[Now], Sequence[jobs_pb2.Offer]],
    ) -> None:
        """`offers` are what stands now, by the owner's rules."""
        self._settings, self._peers, self._post = settings, peers, post
        self._offers = offers
        self._seq = 0
        self._told: dict[str, Told] = {}
        self._hurried = False
        self._due_ms: int | None = None
        self.paused = False  # by the host's owner

    def load(self, rows: Rows, now: Now) -> None:
        epoch = int.from_bytes(rows.get(META, EPOCH_KEY) or b"\0", "big") + 1
        self._seq = epoch << 32
        self._due_ms = now.mono_ms

    def deadline_ms(self) -> int | None:
        return self._due_ms

    def hurry(self) -> None:
        """What is said has changed, or somebody thinks otherwise: all are told with this very step."""
        self._hurried = True

    def on_freed(self, key: ClaimKey, now: Now) -> None:
        """An attempt has ended: with several brokers each that was told of it hears so soon, most often from this host
        alone. Until then it believes the slot taken, and work may wait there in vain."""
        if len(self._told) < 2:
            return
        name = _said(key)
        for told in self._told.values():
            heard, due_ms = told.saying or told.taken, max(now.mono_ms, told.said_ms + FREED_MS)
            if heard is not None and name in heard.held and due_ms < told.due_ms:
                self._set_due(told, due_ms)

    def on_wake(self, now: Now) -> None:
        if self._due_ms is not None and now.mono_ms >= self._due_ms:
            self._due_ms = now.mono_ms  # `say` sets the next one

    def on_peer_up(self, roles: frozenset[int], node_id: str) -> None:
        if BROKER in roles:
            self._told.pop(node_id, None)  # a new life, perhaps
        if BROKER in roles or node_id == self._settings.node_id:
            self._hurried = True

    def on_offered(self, broker: str, answer: Answered, now: Now) -> None:
        """Nobody may wait a whole refresh for a host whose first word came too early, or was not taken."""
        told = self._told.get(broker)
        if told is None or told.saying is None:
            return
        said, told.saying = told.saying, None
        reply = answer.reply
        if isinstance(reply, jobs_pb2.PostOffersResponse):
            same = told.taken is None or reply.broker_epoch == told.epoch
            told.epoch, told.taken = reply.broker_epoch, said if same and reply.seq == said.seq else None
            if not reply.credit:
                told.not_before_ms = now.mono_ms + min(reply.retry_ms, OFFER_REFRESH_MS)
        elif answer.fault is not None and answer.fault.retry_ms:
            told.not_before_ms = now.mono_ms + min(answer.fault.retry_ms, OFFER_REFRESH_MS)
        if told.taken is said:
            told.faults = 0
            if told.again:
                self._set_due(told, now.mono_ms)
            return
        told.faults += 1
        retry_ms = min(OFFER_REFRESH_MS, OFFER_RETRY_MS << min(told.faults, 8))
        slow_ms = self._peers.pace(broker).apart_ms(EMPTY_BYTES, RETRY_SHARE) << min(told.faults - 1, RETRY_DOUBLINGS)
        self._set_due(told, now.mono_ms + max(retry_ms, slow_ms))

    def say(self, running: Collection[ClaimKey], now: Now) -> None:
        """Closes the step; only a host makes offers. `running` are the attempts that it holds."""
        hurried, self._hurried = self._hurried, False
        if not hurried and (self._due_ms is None or now.mono_ms < self._due_ms):
            return
        settings = self._settings
        if not settings.executors or not self._peers.has_role(settings.node_id, HOST):
            self._due_ms = now.mono_ms + OFFER_REFRESH_MS
            return
        brokers = self._peers.with_role(BROKER)
        for gone in self._told.keys() - set(brokers):
            del self._told[gone]
        word: Word | None = None
        for broker in brokers:
            told = self._told.setdefault(broker, Told())
            if hurried:
                told.due_ms = now.mono_ms
            if told.due_ms <= now.mono_ms and self._may_say(told, now):
                word = word or self._word(running, now)
                self._say(broker, told, word, now)
        self._due_ms = min((max(told.due_ms, told.not_before_ms) for told in self._told.values()), default=None)
        if self._due_ms is None:
            self._due_ms = now.mono_ms + OFFER_REFRESH_MS

    # ---- inside

    def _may_say(self, told: Told, now: Now) -> bool:
        """What is under way ends first, and then sets the time; should its end get lost, not for ever."""
        if told.saying is not None and now.mono_ms < told.under_way_ms:
            told.due_ms, told.again = told.under_way_ms, True
            return False
        return now.mono_ms >= told.not_before_ms

    def _say(self, broker: str, told: Told, word: Word, now: Now) -> None:
        refresh_ms = self._refresh_ms(broker)
        stands_ms = refresh_ms * OFFER_STANDS_MS // OFFER_REFRESH_MS
        request = word.since(told.taken if stands_ms == told.stands_ms else None)
        for offer in request.offers:
            offer.expiry_ms = stands_ms
        self._post.call(broker, "PostOffers", request, Tag("PostOffers", broker, ()))
        told.saying, told.under_way_ms, told.again = word, now.mono_ms + CALL_TIMEOUT_MAX_MS, False
        told.said_ms, told.due_ms, told.stands_ms = now.mono_ms, now.mono_ms + refresh_ms, stands_ms

    def _refresh_ms(self, broker: str) -> int:
        """A slow road carries an empty word more seldom; a host that dies there is known to be dead by its silence."""
        slow_ms = min(
            self._peers.pace(broker).apart_ms(EMPTY_BYTES), EXPIRY_MAX_MS * OFFER_REFRESH_MS // OFFER_STANDS_MS
        )
        return max(OFFER_REFRESH_MS, slow_ms)

    def _set_due(self, told: Told, due_ms: int) -> None:
        told.due_ms = due_ms
        self._due_ms = due_ms if self._due_ms is None else min(self._due_ms, due_ms)

    def _word(self, running: Collection[ClaimKey], now: Now) -> Word:
        if self._seq & 0xFFFFFFFF == 0:
            self._post.put_bytes(META, EPOCH_KEY, (self._seq >> 32).to_bytes(8, "big"))
        self._seq += 1
        offers = {offer.offer_id: offer for offer in self._offers(now)}
        held = frozenset(map(_said, running))
        return Word(self._seq, profile_of(self._settings, self._peers), offers, held, self.paused)


def _said(key: ClaimKey) -> str:
    core, job_id, attempt = key
    return f"{core}/{job_id}/{attempt}"


def profile_of(settings: JobsSettings, peers: Peers) -> jobs_pb2.HostProfile:
    """What this node is, with all that only the running node knows."""
    profile = jobs_pb2.HostProfile()
    profile.CopyFrom(settings.profile)
    profile.host, profile.slots = settings.node_id, settings.slots
    profile.name, profile.failure_domain = peers.known_as(settings.node_id)
    del profile.executors[:]
    profile.executors.extend(settings.executors)
    if not profile.labels:
        profile.labels.update(settings.labels)
    if not profile.models:
        profile.models.extend(sorted(each[4:] for each in settings.executors if each.startswith("llm:")))
    return profile


def unmet(requirements: str, settings: JobsSettings, peers: Peers) -> str:
    """What of the requirements this node is not; empty where it is all of it."""
    if not requirements:
        return ""
    try:
        required = parse(requirements)
    except InvalidRequest as fault:
        return fault.message
    return required.why_not(profile_of(settings, peers))


def offers_of(standings: Sequence[Standing], settings: JobsSettings) -> list[jobs_pb2.Offer]:
    """What the owner's rules offer now, as brokers are told."""
    return [
        jobs_pb2.Offer(
            offer_id=each.offer_id,
            executors=each.executors,
            kinds=settings.kinds,
            ask_micro=each.ask_micro,
            slots=each.slots,
            owners=each.owners,
            barred=each.barred,
            barred_until_us=each.barred_until_us,
            expiry_ms=OFFER_STANDS_MS,
        )
        for each in standings
    ]

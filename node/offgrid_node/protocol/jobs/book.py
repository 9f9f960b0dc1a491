"""The book: what live hosts offer, and for each class of jobs who could run it, best first (`classes.py`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.classes import CLASSES_MAX, Classes, ClassKey, Seat
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder

CHANGED_MAX = 20_000  # hosts remembered as changed, those that have left among them; beyond it classes are made anew
ATTEMPT_DIGITS_MAX = 10  # of an attempt that a host names


class Use(msgspec.Struct):
    """A slot in use: since when, and under which offer, as far as this broker awarded it; 0: only its host says so."""

    since_ms: int
    offer_id: int = 0


class Bid(msgspec.Struct, eq=False):
    """One offer of one host, as it takes part in auctions. `used` counts what this broker awarded under it."""

    standing: Standing
    offer: jobs_pb2.Offer
    score: int
    executors: frozenset[str]
    kinds: frozenset[str]
    owners: frozenset[str]
    barred: frozenset[str]
    ask_micro: int
    slots: int
    used: int = 0

    @property
    def room(self) -> int:
        """How many more jobs it would take now."""
        return max(0, min(self.standing.free, self.slots - self.used))


class Standing(msgspec.Struct):
    """A host in the book. `seq` is the newest word of its present life; `free` its free slots, none while it takes no
    work: paused, or not alive. `handicap` is what its score has on top of its ask."""

    host: str
    profile: jobs_pb2.HostProfile = msgspec.field(default_factory=jobs_pb2.HostProfile)
    offers: dict[int, jobs_pb2.Offer] = msgspec.field(default_factory=dict)
    seq: int = 0
    alive: bool = False
    paused: bool = False
    handicap: int = 0
    said_bytes: int = 0  # of its profile and its offers, as it has said them
    held: set[ClaimKey] = msgspec.field(default_factory=set)
    used: dict[ClaimKey, Use] = msgspec.field(default_factory=dict)
    free: int = 0
    bids: list[Bid] = msgspec.field(default_factory=list)

    @property
    def is_open(self) -> bool:
        """Whether it takes part at all."""
        return self.alive and not self.paused

    @property
    def slots_free(self) -> int:
        return max(0, self.profile.slots - len(self.used))

    def recount(self) -> None:
        """After anything but an award or its end has changed."""
        self.free = self.slots_free if self.is_open else 0
        counts: dict[int, int] = {}
        for use in self.used.values():
            counts[use.offer_id] = counts.get(use.offer_id, 0) + 1
        for bid in self.bids:
            bid.used = counts.get(bid.offer.offer_id, 0)

    def take(self, bid: Bid) -> None:
        """A slot goes under this bid of its; `hold` says to what."""
        bid.used += 1
        self.free -= 1

    def hold(self, key: ClaimKey, bid: Bid, now_ms: int) -> None:
        self.used[key] = Use(now_ms, bid.offer.offer_id)

    def give_back(self, key: ClaimKey) -> None:
        use = self.used.pop(key, None)
        if use is None:
            return
        for bid in self.bids:
            if bid.offer.offer_id == use.offer_id:
                bid.used -= 1
        self.free = self.slots_free if self.is_open else 0

    def rebid(self) -> None:
        """Makes its bids anew of its offers and its handicap."""
        self.bids = [
            Bid(
                self,
                offer,
                offer.ask_micro + self.handicap,
                frozenset(offer.executors),
                frozenset(offer.kinds),
                frozenset(offer.owners),
                frozenset(offer.barred),
                offer.ask_micro,
                offer.slots,
            )
            for _, offer in sorted(self.offers.items())
        ]
        self.recount()


class Book:
    """Hosts by id, and classes of jobs over them."""

    def __init__(self, classes_max: int = CLASSES_MAX) -> None:
        self._standings: dict[str, Standing] = {}
        self.classes = Classes(self._standings, classes_max)
        self._changed: OrderedDict[str, int] = OrderedDict()  # host → number of its last change, oldest first
        self._changes = 0

    def __len__(self) -> int:
        return len(self._standings)

    def __iter__(self) -> Iterator[Standing]:
        """By host id."""
        return iter([self._standings[host] for host in sorted(self._standings)])

    @property
    def is_anybody_alive(self) -> bool:
        return any(standing.alive for standing in self._standings.values())

    def get(self, host: str) -> Standing | None:
        return self._standings.get(host)

    def add(self, standing: Standing) -> None:
        self._standings[standing.host] = standing

    def remove(self, host: str) -> None:
        if self._standings.pop(host, None) is not None:
            self.has_changed(host)

    def has_changed(self, host: str) -> None:
        """Its bids, its profile or whether it takes part: buckets look at it again when they are used next."""
        self._changes += 1
        self._changed[host] = self._changes
        self._changed.move_to_end(host)
        if len(self._changed) > CHANGED_MAX:
            self._changed.clear()
            self.classes.clear()

    @property
    def slots_free(self) -> int:
        """Of all hosts that take part."""
        return sum(standing.free for standing in self._standings.values())

    def seats(self, order: JobOrder) -> list[Seat]:
        """The bids that fit the order's class, best first, busy ones among them. Not to be changed. Raises
        InvalidRequest for requirements that cannot be read, where the class is new."""
        return self.classes.seats(order.core, class_of(order), self._changed, self._changes)

    def check_class(self, order: JobOrder, now_ms: int) -> None:
        """Raises Exhausted where the order's class is a new one, and its core has made too many lately."""
        self.classes.check(order.core, class_of(order), now_ms)


def class_of(order: JobOrder) -> ClassKey:
    return order.kind, order.needs, order.requirements


def held_keys(texts: Iterable[str]) -> Iterator[ClaimKey]:
    """The attempts that a host names, "<core>/<job id>/<attempt>"; what is no such name is left out."""
    for text in texts:
        core, _, rest = text.partition("/")
        job_id, _, attempt = rest.rpartition("/")
        if job_id and attempt.isdecimal() and attempt.isascii() and len(attempt) <= ATTEMPT_DIGITS_MAX:
            yield core, job_id, int(attempt)

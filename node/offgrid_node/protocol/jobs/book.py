"""The book: what live hosts offer, and for each class of jobs who could run it, best first.

A class is a kind, a need and a text of requirements. Its bucket holds the bids of all hosts that fit, sorted by score;
it is made when the first job of the class comes, and brought up to date when the next one does, by the hosts that have
changed in between: a job looks at the front of one list, however many hosts there are. Who is busy just now is skipped
there, so an award moves nothing.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.requirements import parse

CLASSES_MAX = 256  # of jobs, the least recently used one goes; each may name every host
CHANGED_MAX = 20_000  # hosts remembered as changed, those that have left among them; beyond it buckets are made anew
ATTEMPT_DIGITS_MAX = 10  # of an attempt that a host names
NOBODY: frozenset[str] = frozenset()

ClassKey = tuple[str, str, str]  # kind, needs, requirements


@dataclass(slots=True)
class Use:
    """A slot in use: since when, and under which offer, as far as this broker awarded it; 0: only its host says so."""

    since_ms: int
    offer_id: int = 0


@dataclass(slots=True, eq=False)
class Bid:
    """One offer of one host, as it takes part in auctions. `used` counts what this broker awarded under it."""

    standing: Standing
    offer: jobs_pb2.Offer
    score: int
    executors: frozenset[str]
    kinds: frozenset[str]
    owners: frozenset[str]
    ask_micro: int
    slots: int
    used: int = 0

    @property
    def room(self) -> int:
        """How many more jobs it would take now."""
        return max(0, min(self.standing.free, self.slots - self.used))


class Seat(NamedTuple):
    """A bid's place in a bucket. `barred` are cores that it is not for: they have had their share, or its host
    denies them, or has another offer of the same for them."""

    score: int
    host: str
    offer_id: int
    bid: Bid
    barred: frozenset[str]

    def takes(self, core: str) -> bool:
        owners = self.bid.owners
        return (not owners or core in owners) and core not in self.barred


@dataclass(slots=True)
class Standing:
    """A host in the book. `seq` is the newest word of its present life; `free` its free slots, none while it takes no
    work: paused, or not alive. `handicap` is what its score has on top of its ask."""

    host: str
    profile: jobs_pb2.HostProfile = field(default_factory=jobs_pb2.HostProfile)
    offers: dict[int, jobs_pb2.Offer] = field(default_factory=dict)
    seq: int = 0
    alive: bool = False
    paused: bool = False
    handicap: int = 0
    held: set[ClaimKey] = field(default_factory=set)
    used: dict[ClaimKey, Use] = field(default_factory=dict)
    free: int = 0
    bids: list[Bid] = field(default_factory=list)

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
                offer.ask_micro,
                offer.slots,
            )
            for _, offer in sorted(self.offers.items())
        ]
        self.recount()


@dataclass(slots=True)
class Bucket:
    """The bids that fit one class, best first. `fits` is asked of a host's profile; `seen` is the last change of the
    book that it knows."""

    kind: str
    needs: str
    fits: Callable[[jobs_pb2.HostProfile], bool]
    seats: list[Seat] = field(default_factory=list)
    of_host: dict[str, tuple[Seat, ...]] = field(default_factory=dict)
    seen: int = 0

    def replace(self, host: str, standing: Standing | None) -> None:
        """The host has changed, or is gone."""
        for seat in self.of_host.pop(host, ()):
            del self.seats[bisect_left(self.seats, seat[:3])]
        if standing is None or not standing.is_open:
            return
        bids = [bid for bid in standing.bids if self.kind in bid.kinds and self.needs in bid.executors]
        if bids and self.fits(standing.profile):
            own = self.of_host[host] = tuple(
                Seat(bid.score, host, bid.offer.offer_id, bid, barred) for bid, barred in with_barred(bids)
            )
            for seat in own:
                insort(self.seats, seat)


def with_barred(bids: Iterable[Bid]) -> Iterator[tuple[Bid, frozenset[str]]]:
    """Those of a host's bids for one class that have slots, each with the cores that it is not for. `bids` are in the
    order of their numbers: one without slots denies those behind it."""
    bids = list(bids)
    named = NOBODY.union(*(bid.owners for bid in bids if bid.slots)) if len(bids) > 1 else NOBODY
    denied = NOBODY
    for bid in bids:
        if bid.slots:
            barred = denied if bid.owners else denied | named
            yield bid, barred.union(bid.offer.barred) if bid.offer.barred else barred
        else:
            denied |= bid.owners


class Book:
    """Hosts by id, and buckets by class."""

    def __init__(self, classes_max: int = CLASSES_MAX) -> None:
        self._classes_max = classes_max
        self._standings: dict[str, Standing] = {}
        self._buckets: OrderedDict[ClassKey, Bucket] = OrderedDict()
        self._changed: OrderedDict[str, int] = OrderedDict()  # host → number of its last change, oldest first
        self._changes = 0

    def __len__(self) -> int:
        return len(self._standings)

    def __iter__(self) -> Iterator[Standing]:
        """By host id."""
        return iter([self._standings[host] for host in sorted(self._standings)])

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
            self._buckets.clear()

    @property
    def slots_free(self) -> int:
        """Of all hosts that take part."""
        return sum(standing.free for standing in self._standings.values())

    def seats(self, order: JobOrder) -> list[Seat]:
        """The bids that fit the order's class, best first, busy ones among them. Not to be changed."""
        key = order.kind, order.needs, order.requirements
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = self._made(*key)
        else:
            self._buckets.move_to_end(key)
            if bucket.seen != self._changes:
                self._refresh(bucket)
        return bucket.seats

    # ---- inside

    def _made(self, kind: str, needs: str, requirements: str) -> Bucket:
        if len(self._buckets) >= self._classes_max:
            self._buckets.popitem(last=False)
        bucket = Bucket(kind, needs, parse(requirements).holds, seen=self._changes)
        for host, standing in self._standings.items():
            bucket.replace(host, standing)
        return bucket

    def _refresh(self, bucket: Bucket) -> None:
        for host, number in reversed(self._changed.items()):
            if number <= bucket.seen:
                break
            bucket.replace(host, self._standings.get(host))
        bucket.seen = self._changes


def held_keys(texts: Iterable[str]) -> Iterator[ClaimKey]:
    """The attempts that a host names, "<core>/<job id>/<attempt>"; what is no such name is left out."""
    for text in texts:
        core, _, rest = text.partition("/")
        job_id, _, attempt = rest.rpartition("/")
        if job_id and attempt.isdecimal() and attempt.isascii() and len(attempt) <= ATTEMPT_DIGITS_MAX:
            yield core, job_id, int(attempt)

"""Classes of jobs: for each the bids of all hosts that fit, best first; made and kept within a core's budget.

A class is a kind, a need and a text of requirements. Its bucket is made when the first job of the class comes, and
brought up to date when the next one does, by the hosts that have changed in between: a job looks at the front of one
list, however many hosts there are. Who is busy just now is skipped there, so an award moves nothing. All classes of a
kind and a need share the seats of that one without requirements, and only ask each host whether it fits.

A new class is a look at every host, so a core that names a new one with each job would be a broker's whole work. Each
core has looks to spend, so many a second (a token bucket), and so many classes at a time; those of the core that has
most of them make room for others'.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.jobs.requirements import parse

if TYPE_CHECKING:
    from offgrid_node.protocol.jobs.book import Bid, Standing

CLASSES_MAX = 1_024  # of all cores
CLASSES_OF_CORE_MAX = 256  # as many as it may have kinds of orders waiting
SEATS_MAX = 500_000  # of all classes together, some 60 bytes each
LOOKS_PER_S = 100_000  # of one core, at hosts, for new classes: a tenth of a processor
LOOKS_MAX = 300_000  # at once
LOOKS_TO_EXPLAIN = 3  # at a host: what it costs to say in words why it would not get a job
LOOKS_TO_READ = 100  # what it costs to read a text of requirements, in looks at hosts
CORES_REMEMBERED = 1_024  # with what they have left to spend; who has spent nothing lately is forgotten first

Barred = tuple[
    frozenset[str], ...
]  # cores, in sets that are the bids' own: put together they would be many times those
ClassKey = tuple[str, str, str]  # kind, needs, requirements
Fits = Callable[[jobs_pb2.HostProfile], bool]


class Seat(NamedTuple):
    """A bid's place in a bucket. `barred` are cores that it is not for: they have had their share, or its host
    denies them, or has another offer of the same for them."""

    score: int
    host: str
    offer_id: int
    bid: Bid
    barred: Barred = ()

    def takes(self, core: str) -> bool:
        owners = self.bid.owners
        return (not owners or core in owners) and not any(core in cores for cores in self.barred)


class Bucket(msgspec.Struct):
    """Seats in one class, best first; `seen` is the last change of the book that it knows."""

    seats: list[Seat] = msgspec.field(default_factory=list)
    of_host: dict[str, tuple[Seat, ...]] = msgspec.field(default_factory=dict)
    seen: int = 0

    def replace(self, host: str, own: tuple[Seat, ...]) -> None:
        """The host has these seats now, and no others."""
        for seat in self.of_host.pop(host, ()):
            del self.seats[bisect_left(self.seats, seat[:3])]
        if own:
            self.of_host[host] = own
            for seat in own:
                insort(self.seats, seat)


class Purse(msgspec.Struct):
    """What a core may still spend, as of `at_ms`, and its classes, the least recently used first."""

    looks: float
    at_ms: int
    classes: OrderedDict[ClassKey, None] = msgspec.field(default_factory=OrderedDict)

    def fill(self, now_ms: int) -> None:
        passed_ms = max(0, now_ms - self.at_ms)
        self.looks = min(LOOKS_MAX, self.looks + passed_ms * LOOKS_PER_S / 1_000)
        self.at_ms = max(now_ms, self.at_ms)


class Classes:
    """Buckets by class, over the standings and the changes of one book."""

    def __init__(self, standings: dict[str, Standing], classes_max: int = CLASSES_MAX) -> None:
        self._standings, self._classes_max = standings, classes_max
        self._buckets: dict[ClassKey, tuple[Fits, Bucket]] = {}
        self._bases: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._maker: dict[ClassKey, str] = {}
        self._purses: OrderedDict[str, Purse] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def clear(self) -> None:
        self._buckets.clear()
        self._bases.clear()
        self._maker.clear()
        for purse in self._purses.values():
            purse.classes.clear()

    def retry_ms(self, core: str, key: ClassKey, now_ms: int) -> int:
        """When the core may have this class made; 0: now, or it is there."""
        if key in self._buckets:
            return 0
        purse = self._purse(core, now_ms)
        purse.fill(now_ms)
        return 0 if purse.looks > 0 else 1 + int(-purse.looks * 1_000 / LOOKS_PER_S)

    def check(self, core: str, key: ClassKey, now_ms: int) -> None:
        """Raises Exhausted for a core that has spent what it may on new classes."""
        if retry_ms := self.retry_ms(core, key, now_ms):
            text = f"{core} names new kinds of jobs faster than this broker compares them with its hosts"
            raise Exhausted(text, reason="ClassFlood", retry_ms=retry_ms)

    def spend(self, core: str, looks: int, now_ms: int) -> None:
        """For what is asked besides. Raises Exhausted for a core that has spent what it may."""
        purse = self._purse(core, now_ms)
        purse.fill(now_ms)
        if purse.looks <= 0:
            text = f"{core} asks faster than this broker looks at its hosts"
            raise Exhausted(text, reason="ClassFlood", retry_ms=1 + int(-purse.looks * 1_000 / LOOKS_PER_S))
        purse.looks -= looks

    def seats(self, core: str, key: ClassKey, changed: OrderedDict[str, int], changes: int) -> list[Seat]:
        """Raises InvalidRequest for requirements that cannot be read. `changed` are hosts by their last change."""
        found = self._buckets.get(key)
        if found is None:
            found = self._make(core, key, changed, changes)
        else:
            self._purses[self._maker[key]].classes.move_to_end(key)
            if found[1].seen != changes:
                self._refresh(key, *found, changed, changes)
        return found[1].seats

    # ---- inside

    def _make(self, core: str, key: ClassKey, changed: OrderedDict[str, int], changes: int) -> tuple[Fits, Bucket]:
        purse = self._purse(core, 0)
        purse.looks -= LOOKS_TO_READ
        kind, needs, text = key
        requirement = parse(text)
        purse.looks -= len(self._standings)
        base = self._base(kind, needs, changed, changes)
        while len(purse.classes) >= CLASSES_OF_CORE_MAX:
            self._forget(core)
        while self._buckets and (len(self._buckets) >= self._classes_max or self._is_wide()):
            self._forget(max(self._purses, key=lambda each: len(self._purses[each].classes)))
        bucket = Bucket(seen=changes)
        if text:
            of_host, fits, standings = bucket.of_host, requirement.holds, self._standings
            for host, own in base.of_host.items():
                if fits(standings[host].profile):
                    of_host[host] = own
            bucket.seats = [seat for seat in base.seats if seat.host in of_host]
        else:
            bucket = base
        found = self._buckets[key] = requirement.holds, bucket
        self._maker[key] = core
        purse.classes[key] = None
        return found

    def _base(self, kind: str, needs: str, changed: OrderedDict[str, int], changes: int) -> Bucket:
        """The class without requirements, up to date."""
        base = self._bases.get((kind, needs))
        if base is None:
            base = self._bases[kind, needs] = _whole(kind, needs, self._standings.values(), changes)
            if len(self._bases) > self._classes_max:
                self._bases.popitem(last=False)
            return base
        self._bases.move_to_end((kind, needs))
        if base.seen != changes:
            for host in _since(base.seen, changed):
                base.replace(host, _own(kind, needs, self._standings.get(host)))
            base.seen = changes
        return base

    def _refresh(self, key: ClassKey, fits: Fits, bucket: Bucket, changed: OrderedDict[str, int], changes: int) -> None:
        base = self._base(*key[:2], changed, changes)
        if bucket is not base:
            for host in _since(bucket.seen, changed):
                own = base.of_host.get(host, ())
                bucket.replace(host, own if own and fits(self._standings[host].profile) else ())
            bucket.seen = changes

    def _is_wide(self) -> bool:
        return sum(len(bucket.seats) for _, bucket in self._buckets.values()) > SEATS_MAX

    def _forget(self, core: str) -> None:
        """The class of its that was not used for longest."""
        key, _ = self._purses[core].classes.popitem(last=False)
        del self._buckets[key], self._maker[key]

    def _purse(self, core: str, now_ms: int) -> Purse:
        purse = self._purses.get(core)
        if purse is None:
            purse = self._purses[core] = Purse(LOOKS_MAX, now_ms)
            if len(self._purses) > CORES_REMEMBERED:
                self._forget_core(next(iter(self._purses)))
        self._purses.move_to_end(core)
        return purse

    def _forget_core(self, core: str) -> None:
        while self._purses[core].classes:
            self._forget(core)
        del self._purses[core]


def with_barred(bids: Iterable[Bid]) -> Iterator[tuple[Bid, Barred]]:
    """Those of a host's bids for one class that have slots, each with the cores that it is not for. `bids` are in the
    order of their numbers: one without slots denies those behind it."""
    bids = list(bids)
    named: Barred = ()
    if len(bids) > 1:  # who has had the share that is named is left to the offers for all
        named = tuple(_served(bid) for bid in bids if bid.owners and bid.slots)
    denied: Barred = ()
    for bid in bids:
        if bid.slots:
            barred = denied if bid.owners else denied + named
            yield bid, (*barred, bid.barred) if bid.barred else barred
        elif bid.owners:
            denied = (*denied, bid.owners)


def _served(bid: Bid) -> frozenset[str]:
    """Whom an offer for named cores is for now."""
    return bid.owners - bid.barred if bid.barred else bid.owners


def _whole(kind: str, needs: str, standings: Iterable[Standing], changes: int) -> Bucket:
    """Of all hosts: sorted once."""
    bucket = Bucket(seen=changes)
    for standing in standings:
        own = _own(kind, needs, standing)
        if own:
            bucket.of_host[standing.host] = own
            bucket.seats += own
    bucket.seats.sort()
    return bucket


def _own(kind: str, needs: str, standing: Standing | None) -> tuple[Seat, ...]:
    """A host's seats among those of a kind and a need."""
    if standing is None or not standing.is_open:
        return ()
    bids = [bid for bid in standing.bids if kind in bid.kinds and needs in bid.executors]
    if not bids:
        return ()
    return tuple(Seat(bid.score, standing.host, bid.offer.offer_id, bid, barred) for bid, barred in with_barred(bids))


def _since(seen: int, changed: OrderedDict[str, int]) -> Iterator[str]:
    """Hosts that have changed after that."""
    for host, number in reversed(changed.items()):
        if number <= seen:
            break
        yield host

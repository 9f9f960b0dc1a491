"""Which of this node's own objects are gone, or nearly so, by who of their hosts is alive now.

Objects that lie in the same way on the same hosts stand and fall together, so they are counted as one kind: a host that
comes or goes costs a judgement of each kind, and an object that changes costs one of its own. After a start the rows
are walked over once, a page at a time; an object that the walk has yet to come to is counted by the walk. Objects on
their way to hosts are the outbox's to tell of (`delivery.py`), the journal's segments the journal's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum

import msgspec

from offgrid.v1 import objects_pb2
from offgrid.verdicts import hosts_to_spare
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.errors import Corrupt, Fault
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.sound import sound

KINDS_MAX = 10_000  # some 600 bytes each; three copies on 40 hosts are 9,880
NAMED_MAX = 4  # objects of each kind whose ids are remembered, and of each risk that are told
AWAY_MAX = 16
WALK_ROWS, WALK_PAUSE_MS = 256, 20
FINDING_MS = 10_000  # after a start hosts that nobody has heard of yet may be about to be found

_DURABLE = objects_pb2.OBJECT_STATE_DURABLE


class Risk(IntEnum):
    """The worst that is so of an object."""

    NONE = 0
    DEGRADED = 1  # hosts in reach keep less of it than is wanted
    AT_RISK = 2  # one more host lost may end it, although more than one copy's worth was promised
    GONE = 3  # hosts in reach keep too little of it to give it back


class Kind(msgspec.Struct, frozen=True):
    """How an object lies: `holders` have so many of its parts each, copies or shards, `needed` of which give it back
    and `wanted` of which are to be there. `spared`: it was promised to survive the loss of a host; where one copy is
    the wish it was not. `local`: this node has all of it as well."""

    holders: tuple[tuple[str, int], ...]
    needed: int
    wanted: int
    spared: bool
    local: bool

    def risk(self, is_alive: Callable[[str], bool]) -> Risk:
        held = [parts for node_id, parts in self.holders if is_alive(node_id)]
        if not self.local:
            spare = hosts_to_spare(held, self.needed)
            if spare is None:
                return Risk.GONE
            if not spare and self.spared:
                return Risk.AT_RISK
        return Risk.DEGRADED if sum(held) < self.wanted else Risk.NONE


class Told(msgspec.Struct, frozen=True):
    """How many objects are at each risk, each counted once; the ids of some that are gone and at risk; hosts out of
    reach that keep parts of those. `unjudged` ones lie in more ways than are counted at once."""

    gone: int = 0
    at_risk: int = 0
    degraded: int = 0
    gone_ids: tuple[str, ...] = ()
    at_risk_ids: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    unjudged: int = 0


class _Counted(msgspec.Struct):
    count: int
    risk: Risk
    some: dict[bytes, None]  # ids of up to NAMED_MAX of them


class Risks:
    """Counts kinds, and judges them when asked."""

    def __init__(self, draft: Draft, hosts: Hosts) -> None:
        self._draft, self._hosts = draft, hosts
        self._kinds: dict[Kind, _Counted] = {}
        self._full, self._unjudged = False, 0
        self._next: bytes | None = b""  # where the walk goes on; None: it is over
        self._walk_ms = self._found_ms = 0
        self._judged = False  # since a host came or went
        self._summed: Told | None = None  # since one did, or an object changed
        self._unheard = False  # hosts that keep what is at risk, of which some may be about to be found
        self._batch: dict[bytes, Kind | None] = {}  # what was written and may not be committed, as it is counted

    def load(self, now: Now) -> None:
        self._found_ms = now.mono_ms + FINDING_MS
        self._page(now)

    # ---- questions

    def deadline_ms(self) -> int | None:
        return self._walk_ms if self._next is not None else None

    def told(self, now: Now) -> Told | None:
        """None: it is not known yet, since the node was started a moment ago."""
        if self._next is not None:
            return None
        if self._summed is None:
            self._summed = self._sum()
        return None if self._unheard and now.mono_ms < self._found_ms else self._summed

    def of(self, row: objects_pb2.ObjectRow, now: Now) -> Risk:
        """NONE as well of what is not judged: see `kind_of`, and FINDING_MS."""
        kind = kind_of(row)
        if kind is None or (
            now.mono_ms < self._found_ms and not all(self._hosts.was_heard(n) for n, _ in kind.holders)
        ):
            return Risk.NONE
        return kind.risk(self._hosts.is_alive)

    # ---- inputs

    def on_hosts_changed(self) -> None:
        """A host has come, or gone."""
        self._judged, self._summed = False, None

    def open_step(self, now: Now) -> None:
        """Before anything is written in it: the walk reads committed rows, which nothing is ahead of then."""
        if self._draft.is_clean:
            self._batch.clear()
            if self._full and len(self._kinds) <= KINDS_MAX // 2:
                self._kinds.clear()
                self._full, self._unjudged, self._next, self._summed = False, 0, b"", None
            if self._next is not None and now.mono_ms >= self._walk_ms:
                self._page(now)

    def close_step(self) -> None:
        for key in self._draft.changed(OBJECTS):
            if self._next is not None and key >= self._next:
                continue
            before = self._batch[key] if key in self._batch else self._committed(key)
            after = self._batch[key] = self._drafted(key)
            if before != after:
                self._count(before, key, -1)
                self._count(after, key, 1)

    # ---- inside

    def _sum(self) -> Told:
        if not self._judged:
            for kind, counted in self._kinds.items():
                counted.risk = kind.risk(self._hosts.is_alive)
            self._judged = True
        counts, some, away = dict.fromkeys(Risk, 0), dict[Risk, list[bytes]](), set[str]()
        for kind, counted in self._kinds.items():
            counts[counted.risk] += counted.count
            if counted.risk >= Risk.AT_RISK:
                some.setdefault(counted.risk, []).extend(counted.some)
                away.update(node_id for node_id, _ in kind.holders if not self._hosts.is_alive(node_id))
        self._unheard = not all(map(self._hosts.was_heard, away))
        return Told(
            counts[Risk.GONE],
            counts[Risk.AT_RISK],
            counts[Risk.DEGRADED],
            _first(some.get(Risk.GONE, ())),
            _first(some.get(Risk.AT_RISK, ())),
            tuple(sorted(away)[:AWAY_MAX]),
            self._unjudged,
        )

    def _page(self, now: Now) -> None:
        start, self._next, self._walk_ms = self._next or b"", None, now.mono_ms + WALK_PAUSE_MS
        for looked, (key, value) in enumerate(sound(self._draft.committed, OBJECTS, start)):
            if looked == WALK_ROWS:
                self._next = key
                return
            self._count(kind_of(objects_pb2.ObjectRow.FromString(value)), key, 1)

    def _committed(self, key: bytes) -> Kind | None:
        try:
            value = self._draft.rows.get(OBJECTS, key) if self._draft.rows is not None else None
        except Corrupt:
            return None
        return kind_of(objects_pb2.ObjectRow.FromString(value)) if value else None

    def _drafted(self, key: bytes) -> Kind | None:
        row = self._draft.row(OBJECTS, key, objects_pb2.ObjectRow)
        return kind_of(row) if row is not None else None

    def _count(self, kind: Kind | None, key: bytes, more: int) -> None:
        if kind is None:
            return
        self._summed = None
        counted = self._kinds.get(kind)
        if counted is None:
            self._full = self._full or len(self._kinds) >= KINDS_MAX
            if self._full:  # until they are counted anew: else one that never was could be taken off
                self._unjudged += more
                return
            counted = self._kinds[kind] = _Counted(0, kind.risk(self._hosts.is_alive), {})
        counted.count += more
        if more < 0:
            counted.some.pop(key, None)
        elif len(counted.some) < NAMED_MAX:
            counted.some[key] = None
        if not counted.count:
            del self._kinds[kind]


def kind_of(row: objects_pb2.ObjectRow) -> Kind | None:
    """None of one that is not durable or has not taken its place yet, of a segment of the journal, and where the epoch
    cannot be read."""
    made = row.object
    if made.state != _DURABLE or row.replaces or is_segment(made.manifest):
        return None
    try:
        epoch = Epoch.decode(row.epoch.body)
    except Fault:
        return None
    laid = [len(parts) for parts in epoch.shards.values()]
    if epoch.layout:
        wanted, spared = len(epoch.layout), bool(hosts_to_spare(laid, epoch.needed))
    else:
        wanted, spared = min(row.copies_wanted, len(laid)), row.copies_wanted > 1
    return Kind(
        tuple(sorted((ack.node_id, len(ack.shards) or 1) for ack in made.acks)),
        epoch.needed,
        wanted,
        spared or made.required_milli > max(epoch.weights.values(), default=0),
        made.local,
    )


def _first(keys: Iterable[bytes]) -> tuple[str, ...]:
    return tuple(key.decode() for key in sorted(keys)[:NAMED_MAX])

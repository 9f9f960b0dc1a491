"""Why an object lies, or would lie, where it does: what is said of every host, by the looks that place it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Set
from enum import IntEnum
from typing import NamedTuple

import msgspec

from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.looks import Looks
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.preference import Facts, Host, Policy, Refusal, refusal


class Outcome(IntEnum):
    """The values of offgrid.v1.PlacementOutcome."""

    GETS = 1
    HOLDS = 2
    NOT_NEEDED = 3
    NOT_ALIVE = 4
    STORAGE_OFF = 5
    DRAINED = 6
    NO_ROOM = 7
    OWNER = 8
    NOT_CHOSEN = 9
    FAILING = 10


REFUSED = {
    Refusal.NOT_ALIVE: Outcome.NOT_ALIVE,
    Refusal.NOT_CHOSEN: Outcome.NOT_CHOSEN,
    Refusal.STORAGE_OFF: Outcome.STORAGE_OFF,
    Refusal.DRAINED: Outcome.DRAINED,
    Refusal.NO_ROOM: Outcome.NO_ROOM,
}


class Placed(msgspec.Struct, frozen=True):
    """An object as delivery sees it, or one that might be put: without id and epoch then. `part_bytes` is what a copy
    or a shard takes at a host."""

    parcel: Parcel
    part_bytes: int
    policy: Policy

    @property
    def parts(self) -> str:
        """How many are wanted, for people."""
        return f"{self.parcel.shards_total} shards" if self.parcel.coded else f"{self.parcel.copies} copies"


class Verdict(msgspec.Struct, frozen=True):
    """What `host` would get now, what it has acked, and why; of copies both are shard 0."""

    host: Host
    gets: tuple[int, ...]
    holds: tuple[int, ...]
    outcome: Outcome
    reason: str


class _Failure(NamedTuple):
    of_this: bool
    why: str


def explain(placed: Placed, hosts: Hosts, now_ms: int) -> list[Verdict]:
    """Of every host: first those that hold it or would get something, then by what they are called."""
    parcel, known = placed.parcel, hosts.all()
    heard = {host.node_id for host in known}
    among = [*known, *(hosts.get(node, 0) for node in parcel.held if node not in heard)]
    gets = Looks(hosts, placed.policy).plan(parcel, now_ms)
    left = parcel.failing(hosts).union(n for n in parcel.failed if parcel.waits(n, now_ms, hosts) is not None)
    parts: Counter[str] = Counter()
    for host in among:
        parts[host.fails_with] += len({*gets.get(host.node_id, ()), *_held(placed, host)})
    verdicts = [
        _verdict(placed, host, gets.get(host.node_id, ()), parts[host.fails_with], _failure(placed, host, hosts, left))
        for host in among
    ]
    return sorted(verdicts, key=lambda said: (not said.holds, not said.gets, said.outcome, said.host.node_id))


def _failure(placed: Placed, host: Host, hosts: Hosts, left: Set[str]) -> _Failure | None:
    """The last that was brought there; `left` are hosts that are not tried now, since this very object failed there."""
    object_id, why = hosts.failure(host.node_id) or ("", "")
    of_this = host.node_id in left or (bool(why) and object_id == placed.parcel.object_id)
    return _Failure(of_this, why) if of_this or why else None


def _held(placed: Placed, host: Host) -> tuple[int, ...]:
    return placed.parcel.held.get(host.node_id, ())


# ---- in words


def _verdict(placed: Placed, host: Host, gets: tuple[int, ...], parts: int, failure: _Failure | None) -> Verdict:
    holds, refused = _held(placed, host), refusal(host, placed.part_bytes)
    if gets:
        outcome, reason = Outcome.GETS, f"{_where(placed, host, parts)}; {_PREFERRED[placed.policy](host.facts)}"
    elif refused:
        outcome, reason = REFUSED[refused], _why_refused(placed, host, refused)
    elif holds:
        outcome, reason = Outcome.HOLDS, f"{_where(placed, host, parts)}; what is held stays"
    elif failure is not None and failure.of_this:
        outcome, reason = Outcome.FAILING, f"{_failed(failure)}; it is tried again later"
    else:
        outcome, reason = Outcome.NOT_NEEDED, _why_not(placed, host, parts)
    if failure is not None and outcome is Outcome.NOT_NEEDED:
        reason = f"{reason}; the last that was brought there failed: {failure.why}"
    if holds and outcome not in (Outcome.HOLDS, Outcome.GETS):
        reason = f"{reason}; {_stays(outcome)}"
    return Verdict(host, gets, holds, outcome, reason)


def _failed(failure: _Failure) -> str:
    return f"what was brought there failed: {failure.why}" if failure.why else "what was brought there failed"


def _stays(outcome: Outcome) -> str:
    if outcome is Outcome.DRAINED:
        return "what it holds is to go elsewhere"
    return "what it holds counts" if outcome is not Outcome.NOT_ALIVE else "what it holds is out of reach"


def _where(placed: Placed, host: Host, parts: int) -> str:
    if not host.domain:
        return "fails with no other host"
    return f"in domain {host.domain}, with {parts} of {placed.parts}"


def _why_refused(placed: Placed, host: Host, refused: Refusal) -> str:
    if refused is Refusal.NO_ROOM:
        what = "a shard" if placed.parcel.coded else "a copy"
        return f"no room: {what} needs {placed.part_bytes} bytes, it has {host.facts.room_bytes} for this node"
    return _REFUSED[refused]


_REFUSED = {
    Refusal.NOT_ALIVE: "not alive",
    Refusal.NOT_CHOSEN: "not among this node's storage.hosts, as far as those have answered",
    Refusal.STORAGE_OFF: "keeps nothing for others: storage.enabled is off there",
    Refusal.DRAINED: "drained: its owner empties it",
}


def _why_not(placed: Placed, host: Host, parts: int) -> str:
    if host.domain and parts:
        return f"domain {host.domain} has its part already: {parts}"
    preferred = _PREFERRED[placed.policy](host.facts)
    return f"{placed.parts} are laid, and others come first by {_BY[placed.policy]}; {preferred}"


def _room(facts: Facts) -> str:
    return "its room is not known yet" if facts.room_bytes is None else f"{facts.room_bytes} bytes free for this node"


def _distance(facts: Facts) -> str:
    return "its distance is not known yet" if facts.round_trip_ms is None else f"{facts.round_trip_ms} ms away"


def _speed(facts: Facts) -> str:
    return "its speed is not known yet" if facts.bytes_per_s is None else f"takes {facts.bytes_per_s} bytes a second"


_PREFERRED: Mapping[Policy, Callable[[Facts], str]] = {
    Policy.BALANCED: _room,
    Policy.LATENCY: _distance,
    Policy.BANDWIDTH: _speed,
}
_BY = {Policy.BALANCED: "free space", Policy.LATENCY: "distance", Policy.BANDWIDTH: "speed"}

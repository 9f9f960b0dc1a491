"""Why an object lies, or would lie, where it does: what is said of every host, by the very functions that place it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.placement import assign, choose
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


REFUSED = {
    Refusal.NOT_ALIVE: Outcome.NOT_ALIVE,
    Refusal.STORAGE_OFF: Outcome.STORAGE_OFF,
    Refusal.DRAINED: Outcome.DRAINED,
    Refusal.NO_ROOM: Outcome.NO_ROOM,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object, or one that might be put: `object_id` is "" then. `part_bytes` is what a copy or a shard takes at a
    host. `laid` says for shards which host is to hold them, `held` who has acked which; of copies all are shard 0."""

    object_id: str
    code: Code
    part_bytes: int
    copies: int
    required_milli: int
    policy: Policy
    laid: Mapping[int, str] = field(default_factory=dict)
    held: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def coded(self) -> bool:
        return self.code.total > 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `host` would get now, what it has acked, and why; of copies both are shard 0."""

    host: Host
    gets: tuple[int, ...]
    holds: tuple[int, ...]
    outcome: Outcome
    reason: str


def explain(wanted: Wanted, hosts: Sequence[Host]) -> list[Verdict]:
    """Of every host: first those that hold it or would get something, then by what they are called."""
    known = {host.node_id: host for host in hosts}
    unheard = (Host(node, 0, "", alive=False) for node in wanted.held if node not in known)
    among = [*hosts, *unheard]
    gets = _shards(wanted, among) if wanted.coded else _copies(wanted, among)
    parts = Counter(host.fails_with for host in among for _ in (*gets.get(host.node_id, ()), *_held(wanted, host)))
    verdicts = [_verdict(wanted, host, gets.get(host.node_id, ()), parts[host.fails_with]) for host in among]
    return sorted(verdicts, key=lambda said: (not said.holds, not said.gets, said.outcome, said.host.node_id))


def _held(wanted: Wanted, host: Host) -> tuple[int, ...]:
    return wanted.held.get(host.node_id, ())


def _copies(wanted: Wanted, hosts: Sequence[Host]) -> dict[str, tuple[int, ...]]:
    held = [host for host in hosts if _held(wanted, host)]
    others = [host for host in hosts if not _held(wanted, host)]
    chosen = choose(
        wanted.object_id,
        others,
        held,
        wanted.required_milli,
        wanted.copies,
        copy_bytes=wanted.part_bytes,
        policy=wanted.policy,
    )
    return {host.node_id: (0,) for host in chosen}


def _shards(wanted: Wanted, hosts: Sequence[Host]) -> dict[str, tuple[int, ...]]:
    """What a living host is to hold stays there, and what was acked too."""
    alive = {host.node_id for host in hosts if host.alive}
    acked = {shard: node for node, shards in wanted.held.items() for shard in shards}
    stays = {shard: node for shard, node in wanted.laid.items() if node in alive} | acked
    laid = assign(
        wanted.object_id, hosts, wanted.code.total, stays, shard_bytes=wanted.part_bytes, policy=wanted.policy
    )
    gets: dict[str, list[int]] = {}
    for shard, node in enumerate(laid):
        if node and acked.get(shard) != node:
            gets.setdefault(node, []).append(shard)
    return {node: tuple(shards) for node, shards in gets.items()}


# ---- in words


def _verdict(wanted: Wanted, host: Host, gets: tuple[int, ...], parts: int) -> Verdict:
    holds, refused = _held(wanted, host), refusal(host, wanted.part_bytes)
    if gets:
        outcome, reason = Outcome.GETS, f"{_where(wanted, host, parts)}; {_PREFERRED[wanted.policy](host.facts)}"
    elif refused:
        outcome, reason = REFUSED[refused], _why_refused(wanted, host, refused)
    elif holds:
        outcome, reason = Outcome.HOLDS, f"{_where(wanted, host, parts)}; what is held stays"
    else:
        outcome, reason = Outcome.NOT_NEEDED, _why_not(wanted, host, parts)
    if holds and outcome not in (Outcome.HOLDS, Outcome.GETS):
        reason = f"{reason}; {_stays(outcome)}"
    return Verdict(host, gets, holds, outcome, reason)


def _stays(outcome: Outcome) -> str:
    if outcome is Outcome.DRAINED:
        return "what it holds is to go elsewhere"
    return "what it holds counts" if outcome is not Outcome.NOT_ALIVE else "what it holds is out of reach"


def _where(wanted: Wanted, host: Host, parts: int) -> str:
    if not host.domain:
        return "fails with no other host"
    of_all = f" of {wanted.code.total} shards" if wanted.coded else f" of {wanted.copies} copies"
    return f"in domain {host.domain}, with {parts}{of_all}"


def _why_refused(wanted: Wanted, host: Host, refused: Refusal) -> str:
    if refused is Refusal.NO_ROOM:
        what = "a shard" if wanted.coded else "a copy"
        return f"no room: {what} needs {wanted.part_bytes} bytes, it has {host.facts.room_bytes} for this node"
    return _REFUSED[refused]


_REFUSED = {
    Refusal.NOT_ALIVE: "not alive",
    Refusal.STORAGE_OFF: "keeps nothing for others: storage.enabled is off there",
    Refusal.DRAINED: "drained: its owner empties it",
}


def _why_not(wanted: Wanted, host: Host, parts: int) -> str:
    if host.domain and parts:
        return f"domain {host.domain} has its part already: {parts}"
    what = f"{wanted.code.total} shards" if wanted.coded else f"{wanted.copies} copies"
    return f"{what} are laid, and others come first by {_BY[wanted.policy]}; {_PREFERRED[wanted.policy](host.facts)}"


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

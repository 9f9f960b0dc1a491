"""Which hosts hold an object: hosts that fail apart first, then by rendezvous hashing.

Every host has a score for every object, made of both names; the best come first (Thaler and Ravishankar 1998, highest
random weight). So copies spread evenly, every node works out the same order, and a host more or less moves no others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from offgrid_node.protocol.quorum.enough import enough
from offgrid_node.protocol.quorum.records import MEMBERS_MAX, Member


@dataclass(frozen=True, slots=True)
class Host:
    """`domain` names what it fails together with; "" is nothing but itself."""

    node_id: str
    weight_milli: int
    domain: str
    alive: bool


def members_of(hosts: Iterable[Host]) -> tuple[Member, ...]:
    """The members of an epoch: all hosts, living ones before others where there are more than an epoch may name."""
    named = sorted(hosts, key=lambda host: (not host.alive, -host.weight_milli, host.node_id))[:MEMBERS_MAX]
    return tuple(Member(host.node_id, host.weight_milli) for host in sorted(named, key=lambda host: host.node_id))


def order(object_id: str, candidates: Iterable[Host], held: Iterable[Host]) -> list[Host]:
    """The candidates, the next to take first: those whose domain holds fewest copies so far, then by score."""
    copies = Counter(_domain(host) for host in held)
    ranked: list[tuple[int, bytes, Host]] = []
    for host in sorted(candidates, key=lambda host: _score(object_id, host.node_id)):
        domain = _domain(host)
        ranked.append((copies[domain], _score(object_id, host.node_id), host))
        copies[domain] += 1
    return [host for _, _, host in sorted(ranked, key=lambda entry: entry[:2])]


def choose(
    object_id: str, candidates: Iterable[Host], held: Sequence[Host], required_milli: int, copies: int
) -> list[Host]:
    """Candidates to be given a copy now, beside those that hold one or are being given one: as many as it takes to
    weigh `required_milli` and to be `copies`, or all."""
    weights = {host.node_id: host.weight_milli for host in held}
    count = len(held)
    chosen = []
    for host in order(object_id, candidates, held):
        if count >= copies and enough(weights, weights, required_milli):
            break
        chosen.append(host)
        weights[host.node_id], count = host.weight_milli, count + 1
    return chosen


def assign(object_id: str, hosts: Sequence[Host], shards: int, held: Mapping[int, str]) -> tuple[str, ...]:
    """For each shard the host that is to hold it, "" where there is no host at all. What is `held` by one of `hosts`
    stays; the rest goes where the domain, then the host, has fewest shards of the object, then by score."""
    known = {host.node_id: host for host in hosts}
    laid = {shard: node for shard, node in held.items() if node in known and shard < shards}
    at_host = Counter(laid.values())
    in_domain = Counter(_domain(known[node]) for node in laid.values())
    ranked = sorted(hosts, key=lambda host: _score(object_id, host.node_id))
    for shard in range(shards):
        if shard in laid or not ranked:
            continue
        best = min(ranked, key=lambda host: (in_domain[_domain(host)], at_host[host.node_id]))
        laid[shard] = best.node_id
        at_host[best.node_id] += 1
        in_domain[_domain(best)] += 1
    return tuple(laid.get(shard, "") for shard in range(shards))


def outgrown(
    members: Collection[Member],
    hosts: Collection[Host],
    acked: Collection[str],
    failing: Collection[str],
    required: int,
) -> bool:
    """Whether `members` cannot bring the acks that are required while the hosts of now can: time for the next epoch.

    A host that keeps failing is not counted on, whether it is a member or not.
    """
    able = {host.node_id for host in hosts if host.alive and host.node_id not in failing}
    now = {member.node_id: member.weight_milli for member in members}
    anew = {member.node_id: member.weight_milli for member in members_of(hosts)}
    return not enough(able.union(acked), now, required) and enough(able, anew, required)


def _domain(host: Host) -> str:
    return f"domain {host.domain}" if host.domain else host.node_id


def _score(object_id: str, node_id: str) -> bytes:
    return hashlib.blake2b(f"{object_id}/{node_id}".encode(), digest_size=8, person=b"og.place.v1").digest()

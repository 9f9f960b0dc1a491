"""Which hosts hold an object: those that fail apart first, then by the policy.

No domain, and within it no host, gets more of an object than the least that the room of all allows; what is held
already stays where it is. So a host more moves nothing, a host less what it held. `preference.py` says who is
preferred and who gets nothing new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from math import inf

from offgrid_node.protocol.objects.preference import Host, Policy, Preference, refusal
from offgrid_node.protocol.quorum.enough import enough
from offgrid_node.protocol.quorum.records import MEMBERS_MAX, Member


def members_of(hosts: Iterable[Host]) -> tuple[Member, ...]:
    """The members of an epoch: all hosts, living ones before others where there are more than an epoch may name."""
    named = sorted(hosts, key=lambda host: (not host.alive, -host.weight_milli, host.node_id))[:MEMBERS_MAX]
    return tuple(Member(host.node_id, host.weight_milli) for host in sorted(named, key=lambda host: host.node_id))


def order(
    object_id: str, candidates: Iterable[Host], held: Iterable[Host], policy: Policy = Policy.BALANCED
) -> list[Host]:
    """The candidates, the next to take first: those whose domain holds fewest copies so far, then by policy."""
    copies = Counter(host.fails_with for host in held)
    among = list(candidates)
    preference = Preference(policy, object_id, among)
    ranked: list[tuple[int, tuple[float, float], Host]] = []
    for rank, _, host in sorted((preference.rank(host), host.node_id, host) for host in among):
        ranked.append((copies[host.fails_with], rank, host))
        copies[host.fails_with] += 1
    return [host for _, _, host in sorted(ranked, key=lambda entry: entry[:2])]


def choose(
    object_id: str,
    candidates: Iterable[Host],
    held: Sequence[Host],
    required_milli: int,
    copies: int,
    *,
    copy_bytes: int = 0,
    policy: Policy = Policy.BALANCED,
) -> list[Host]:
    """Candidates to be given a copy now, beside those that hold one or are being given one: as many as it takes to
    weigh `required_milli` and to be `copies`, or all that can take one. What a drained host holds is to go elsewhere,
    so it is none of the copies, and weighs nothing."""
    weights = {host.node_id: host.weight_milli for host in held if not host.facts.drained}
    count = len(weights)
    if count >= copies and enough(weights, weights, required_milli):
        return []
    able, chosen = [host for host in candidates if refusal(host, copy_bytes) is None], []
    for host in order(object_id, able, held, policy):
        if count >= copies and enough(weights, weights, required_milli):
            break
        chosen.append(host)
        weights[host.node_id], count = host.weight_milli, count + 1
    return chosen


def assign(
    object_id: str,
    hosts: Sequence[Host],
    shards: int,
    held: Mapping[int, str],
    *,
    together: int = 1,
    shard_bytes: int = 0,
    policy: Policy = Policy.BALANCED,
) -> tuple[str, ...]:
    """For each shard the host that is to hold it, "" where no host can take it.

    Of `hosts` at most MEMBERS_MAX are used. What is `held` by one of them stays, unless that one is drained and
    another can take it. The rest goes where the domain, then the host, has fewest shards of the object, then by policy;
    to none that gets nothing new, and to each only as many as it has room for. So many shards may lie `together` in a
    domain before it matters how many do.
    """
    known = {host.node_id: host for host in hosts}
    held = {shard: node for shard, node in held.items() if node in known and shard < shards}
    laid = {shard: node for shard, node in held.items() if not known[node].facts.drained}
    turns = _Turns(object_id, hosts, Counter(laid.values()), together, shard_bytes, policy)
    open_shards = [shard for shard in range(shards) if shard not in laid]
    for shard in sorted(open_shards, key=lambda shard: shard in held):  # what nobody has before what only moves
        laid[shard] = turns.take() or held.get(shard, "")
    return tuple(laid[shard] for shard in range(shards))


class _Turns:
    """Whose turn it is to take one shard more. In a heap each domain stands by how many it would have, from `together`
    on, then by what its next host has and where that one ranks; in the domain's own heap its hosts, while they have
    room."""

    def __init__(
        self,
        object_id: str,
        hosts: Sequence[Host],
        at_host: Mapping[str, int],
        together: int,
        shard_bytes: int,
        policy: Policy,
    ) -> None:
        self._together = together
        self._room = {host.node_id: _room(host, shard_bytes) for host in hosts}
        self._used = sum(1 for count in at_host.values() if count)
        preference = Preference(policy, object_id, hosts)
        ranked = sorted(hosts, key=lambda host: (preference.rank(host), host.node_id))
        in_domain: Counter[str] = Counter()
        self._hosts: dict[str, list[tuple[int, int, str]]] = {}
        for place, host in enumerate(ranked):
            domain, count = host.fails_with, at_host.get(host.node_id, 0)
            in_domain[domain] += count
            if self._room[host.node_id] > 0:
                heappush(self._hosts.setdefault(domain, []), (count, place, host.node_id))
        self._has = in_domain
        self._domains = [(self._would_have(domain), queue[0], domain) for domain, queue in self._hosts.items()]
        heapify(self._domains)

    def take(self) -> str:
        """The host; "" when none can."""
        while self._domains:
            _, (count, place, node_id), domain = heappop(self._domains)
            queue = self._hosts[domain]
            heappop(queue)
            takes = count > 0 or self._used < MEMBERS_MAX  # an epoch names no more
            if takes:
                self._used += count == 0
                self._has[domain] += 1
                self._room[node_id] -= 1
                if self._room[node_id] > 0:
                    heappush(queue, (count + 1, place, node_id))
            if queue:
                heappush(self._domains, (self._would_have(domain), queue[0], domain))
            if takes:
                return node_id
        return ""

    def _would_have(self, domain: str) -> int:
        return max(self._has[domain] + 1, self._together)


def _room(host: Host, shard_bytes: int) -> float:
    """How many shards more it can take."""
    if refusal(host, 0) is not None:
        return 0
    room = host.facts.room_bytes
    return inf if room is None or not shard_bytes else room // shard_bytes


def outgrown(
    members: Collection[Member],
    hosts: Collection[Host],
    acked: Collection[str],
    useless: Collection[str],
    required: int,
) -> bool:
    """Whether `members` cannot bring the acks that are required while the hosts of now can: time for the next epoch.

    A host that keeps failing or can take nothing is not counted on, whether it is a member or not.
    """
    able = {host.node_id for host in hosts if host.alive and host.node_id not in useless}
    if enough(able.union(acked), {member.node_id: member.weight_milli for member in members}, required):
        return False
    return enough(able, {member.node_id: member.weight_milli for member in members_of(hosts)}, required)

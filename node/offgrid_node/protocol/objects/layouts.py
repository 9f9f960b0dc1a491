"""Which host is to hold which shard of a coded object from now on, when those of its layout die, fail or come.

A shard stays where it is unless its host is lost. Only where even all acks of a layout would not weigh what is
required, while another layout's would weigh more, shards move away from hosts that hold too many: so an object that
began on the one host known goes on to others once they come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from offgrid_node.protocol.objects.placement import assign
from offgrid_node.protocol.objects.preference import Host, Policy
from offgrid_node.protocol.quorum.survival import survival_milli


def laid_anew(
    object_id: str,
    needed: int,
    present: Sequence[str],
    stays: Mapping[int, str],
    hosts: Sequence[Host],
    required_milli: int,
    *,
    shard_bytes: int = 0,
    policy: Policy = Policy.BALANCED,
) -> tuple[str, ...]:
    """For each shard the host that is to hold it. `stays` names shards that need not move; of `hosts` those that are
    alive may take more. A shard that no host can take is left where it is."""
    best, survived, shards = tuple(present), -1, len(present)
    for together, among, kept in _attempts(stays, hosts, shards, needed):
        laid = assign(object_id, among, shards, kept, together=together, shard_bytes=shard_bytes, policy=policy)
        other = _filled(laid, present)
        if (weight := survived_milli(other, needed, hosts)) > survived:
            best, survived = other, weight
        if survived >= required_milli:
            break
    return best


def _attempts(
    stays: Mapping[int, str], hosts: Sequence[Host], shards: int, needed: int
) -> Iterator[tuple[int, list[Host], Mapping[int, str]]]:
    """How many shards may lie together in a domain, hosts, and what stays with them: whatever moves least first, then
    heavier and heavier hosts alone. Where few of the hosts fail apart, as many to a domain as may be lost; in the end
    each host for itself, since it is hosts that have to weigh what is required."""
    for together in sorted({1, max(1, shards - needed), shards}):
        for least in sorted({host.weight_milli for host in hosts} or {0}):
            among = [host for host in hosts if host.weight_milli >= least]
            named = {host.node_id for host in among}
            kept = {shard: node for shard, node in stays.items() if node in named}
            for fewer in (kept, _fair(kept, among, shards), {}):
                yield together, among, fewer


def survived_milli(layout: Sequence[str], needed: int, hosts: Sequence[Host]) -> int:
    """What must be lost before the object is, once all of its shards at `hosts` are acked."""
    weights = {host.node_id: host.weight_milli for host in hosts}
    shards: dict[str, list[int]] = {}
    for shard, node in enumerate(layout):
        shards.setdefault(node, []).append(shard)
    held = {node: tuple(mine) for node, mine in shards.items() if node in weights}
    return survival_milli(held, weights, held, needed)


def _filled(layout: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    return tuple(node or before for node, before in zip(layout, present, strict=True))


def _fair(stays: Mapping[int, str], hosts: Sequence[Host], shards: int) -> dict[int, str]:
    """Those that would stay if no host had more than its equal part."""
    most = -(-shards // max(1, sum(host.alive for host in hosts)))
    count: Counter[str] = Counter()
    fair = {}
    for shard, node in sorted(stays.items()):
        count[node] += 1
        if count[node] <= most:
            fair[shard] = node
    return fair

"""Of whose shards a missing one is made anew, and with what coefficients.

A shard is a sum over any k others (`code.py`). Those who keep them stand in a row, and each adds its part to what the
one behind it gives: so one shard's worth comes into whoever makes it anew, not k (Li, Li, Lee and Hu, "Repair
Pipelining for Erasure-Coded Storage", 2017). Nodes that keep several are preferred: they add all of them in one place.
Where the host that had the very shard before is alive still, it alone will do. Of copies each is the sum of any one
other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from zlib import crc32

from offgrid_node.protocol.objects.code import rows_for
from offgrid_node.protocol.objects.errands import SumPart
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.parcels import Parcel

SAME = bytes([1])


class Sources:
    """Decides, and changes nothing."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts

    def suffice(self, parcel: Parcel, layout: Sequence[str], now_ms: int) -> bool:
        """Whether the shards can be laid so before anybody has the bytes: what stays gives the others back, and nobody
        drops a shard for it. A host drops what an epoch takes away once it acks that, so whoever gives one up and is
        alive must have no place any more: then it keeps all until it is told otherwise."""
        stays = 0
        for shard, (before, after) in enumerate(zip(parcel.layout, layout, strict=True)):
            held = shard in parcel.held.get(before, ())
            if held and before == after:
                stays += self._is_fit(parcel, before, now_ms)
            elif held and before in layout and self._hosts.is_alive(before):
                return False
        return stays >= parcel.shards_needed

    def sums(self, parcel: Parcel, node_id: str, now_ms: int) -> Mapping[int, tuple[SumPart, ...]] | None:
        """For each shard that the node is to hold and has not acked, whose parts it is the sum of; None where too few
        of those who keep others are fit to be asked."""
        if not parcel.coded:
            return self._copy(parcel, node_id, now_ms)
        mine = parcel.held.get(node_id, ())
        missing = [shard for shard, node in enumerate(parcel.layout) if node == node_id and shard not in mine]
        kept = self._kept(parcel, now_ms)
        made: dict[int, tuple[SumPart, ...]] = {}
        for shard in missing:
            before = parcel.former.get(shard, "")
            if before != node_id and not parcel.suspects.get(before) and self._is_fit(parcel, before, now_ms):
                made[shard] = (SumPart(before, bytes([shard]), SAME),)
            elif sum(map(len, kept.values())) >= parcel.shards_needed:
                made[shard] = _sum_of(parcel, shard, node_id, kept)
            else:
                return None
        return made

    def _copy(self, parcel: Parcel, node_id: str, now_ms: int) -> Mapping[int, tuple[SumPart, ...]] | None:
        others = [node for node in parcel.held if node != node_id and self._is_fit(parcel, node, now_ms)]
        if not others:
            return None
        nearest = min(others, key=lambda node: (parcel.suspects.get(node, 0), _draw(parcel, 0, node)))
        return {0: (SumPart(nearest, b"", SAME),)}

    def _kept(self, parcel: Parcel, now_ms: int) -> dict[str, tuple[int, ...]]:
        return {node: shards for node, shards in parcel.held.items() if self._is_fit(parcel, node, now_ms)}

    def _is_fit(self, parcel: Parcel, node_id: str, now_ms: int) -> bool:
        return self._hosts.is_alive(node_id) and parcel.unfit.get(node_id, (0, 0))[0] <= now_ms


def _sum_of(parcel: Parcel, shard: int, node_id: str, kept: Mapping[str, tuple[int, ...]]) -> tuple[SumPart, ...]:
    """The node itself comes first, so that what it keeps takes no road; others take turns from shard to shard."""

    def order(node: str) -> tuple[int, bool, int, int]:
        return parcel.suspects.get(node, 0), node != node_id, -len(kept[node]), _draw(parcel, shard, node)

    used = [(node, held) for node in sorted(kept, key=order) for held in kept[node]][: parcel.shards_needed]
    used.sort(key=lambda pair: pair[0] != node_id)
    have = tuple(held for _, held in used)
    (coefficients,) = rows_for(parcel.shards_needed, parcel.shards_total, have, (shard,))
    parts: dict[str, tuple[list[int], list[int]]] = {}
    for (node, held), coefficient in zip(used, coefficients, strict=True):
        shards, factors = parts.setdefault(node, ([], []))
        shards.append(held)
        factors.append(coefficient)
    return tuple(SumPart(node, bytes(shards), bytes(factors)) for node, (shards, factors) in parts.items())


def _draw(parcel: Parcel, shard: int, node_id: str) -> int:
    """Evenly spread: over many sums every node is asked first as often as any other."""
    return crc32(f"{parcel.object_id}/{shard}/{node_id}".encode())


def suspected(sums: Mapping[int, Sequence[SumPart]]) -> Counter[str]:
    """Once for each sum that they gave a part of."""
    return Counter(part.node for parts in sums.values() for part in parts)

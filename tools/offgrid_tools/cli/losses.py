"""What an object survives, in words: the loss of so many hosts, or of which of them, as its acks vouch for."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from math import comb
from typing import TYPE_CHECKING

from offgrid.verdicts import hosts_to_spare

if TYPE_CHECKING:
    from offgrid.v1.objects_pb2 import Object

FATAL_SHOWN = 3  # sets of hosts whose loss loses it
SETS_MAX = 10_000  # that are looked through for those


def survives(made: Object, names: Mapping[str, str]) -> str:
    """Of those hosts that have acked, since only they have vouched, and are alive: others may be lost already."""
    from offgrid.v1.objects_pb2 import OBJECT_STATE_DAMAGED

    if made.state == OBJECT_STATE_DAMAGED:
        return "no loss: the copy here is damaged, and its hosts have too little to make it anew"
    held = {ack.node_id: len(ack.shards) or 1 for ack in made.acks if not ack.away}
    away = len(made.acks) - len(held)
    none = "no loss: it cannot be read while all of its hosts are away" if away else "no loss yet: no host has acked"
    words = words_of(held, made.shards_needed or 1, names) if held else none
    if held and away:
        words = f"{words}; {away} more {'is' if away == 1 else 'are'} away"
    return f"{words}; of all of them, while this node keeps its own copy" if held and made.local else words


def needs(made: Object, node_id: str) -> bool:
    """Whether it can be had of those in reach and that host, and without that host no longer."""
    held = {ack.node_id: len(ack.shards) or 1 for ack in made.acks if not ack.away or ack.node_id == node_id}
    needed, own = made.shards_needed or 1, held.get(node_id, 0)
    return not made.local and sum(held.values()) >= needed > sum(held.values()) - own


def words_of(held: Mapping[str, int], needed: int, names: Mapping[str, str]) -> str:
    """`held`: how many shards each host has; `needed` of all shards give the object back."""
    sure = hosts_to_spare(held.values(), needed)
    if sure is None:
        return f"no loss: its hosts hold {sum(held.values())} shards, and {needed} are needed"
    hosts = f"{len(held)} hosts" if len(held) > 1 else "one host"
    if not sure and len(held) == 1:
        return "no loss: one host keeps it"
    said = f"loss of any {sure} of its {hosts}" if sure else f"loss of none of its {hosts} for sure"
    if sure == len(held) - 1 and needed == 1:
        return said
    together = comb(len(held), sure + 1)
    if together > SETS_MAX:
        return said
    fatal = _fatal(held, needed, sure + 1)
    if len(fatal) == together or len(fatal) > FATAL_SHOWN:
        return said
    return said + "".join(f"; not of {_listed(sorted(names.get(node, node) for node in nodes))}" for nodes in fatal)


def _fatal(held: Mapping[str, int], needed: int, count: int) -> list[tuple[str, ...]]:
    """Sets of `count` hosts whose loss loses it; no more are looked for than can be shown."""
    total, found = sum(held.values()), list[tuple[str, ...]]()
    for nodes in combinations(sorted(held, key=lambda node: (-held[node], node)), count):
        if total - sum(held[node] for node in nodes) < needed:
            found.append(nodes)
        if len(found) > FATAL_SHOWN:
            break
    return found


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]} together" if len(names) > 1 else names[0]

"""What is to be done for a parcel now, decided anew at each look from what is so now: whom to bring what, whether the
quorum needs another epoch, whether all that is wanted is there.

A dead host may come back with all that it holds, so what it has acked counts for `repair_after_ms`, and only then goes
elsewhere. What it has not acked goes elsewhere at once, while the object is not durable.
"""

from __future__ import annotations

from collections.abc import Collection, Set

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.layouts import laid_anew
from offgrid_node.protocol.objects.parcels import Parcel, Terms
from offgrid_node.protocol.objects.placement import choose, members_of, outgrown
from offgrid_node.protocol.objects.preference import Host, Policy, refusal
from offgrid_node.protocol.quorum.enough import enough
from offgrid_node.protocol.quorum.records import MEMBERS_MAX, Member


class NextEpoch(msgspec.Struct, frozen=True):
    """Its members with their weights and, of a coded object, the host of each shard."""

    members: tuple[tuple[str, int], ...]
    layout: tuple[str, ...] = ()


class Look(msgspec.Struct, frozen=True):
    """`ship`: hosts to be brought what they have not acked. `hopeful`: what is under way will do. `roomless`: living
    hosts take nothing of it. `complete`: all that is wanted was acked, by hosts that are not lost and weigh enough."""

    ship: tuple[str, ...] = ()
    epoch: NextEpoch | None = None
    hopeful: bool = False
    roomless: bool = False
    complete: bool = False


class Looks:
    """Decides, and changes nothing."""

    def __init__(self, hosts: Hosts, policy: Policy) -> None:
        self._hosts, self._policy = hosts, policy

    def first(self, parcel: Parcel) -> NextEpoch:
        """The first epoch, with the hosts of now."""
        hosts = self._hosts.all()
        if not parcel.coded:
            return _copies_at(members_of(hosts))
        return self._shards_at(parcel, self._lay(parcel, ("",) * parcel.shards_total, {}, hosts))

    def look(self, parcel: Parcel, claimed: Set[str], now_ms: int) -> Look:
        """`claimed`: hosts whose acks are being counted in this very batch."""
        return (self._look_at_shards if parcel.coded else self._look_at_copies)(parcel, claimed, now_ms)

    def plan(self, parcel: Parcel, now_ms: int) -> dict[str, tuple[int, ...]]:
        """What each living host would be brought now, or is being brought: of copies shard 0. Where another epoch comes
        first, under that one; a parcel that has none yet gets its first."""
        following = self.look(parcel, frozenset(), now_ms).epoch if parcel.epoch else self.first(parcel)
        if following is not None:
            terms = Terms(dict(following.members), following.layout, parcel.terms.promised_milli)
            parcel = replace(parcel, terms=terms)
        if not parcel.coded:
            coming = (node for node in parcel.flights if self._hosts.is_alive(node) and parcel.lacks(node))
            return dict.fromkeys((*self.look(parcel, frozenset(), now_ms).ship, *coming), (0,))
        gets: dict[str, tuple[int, ...]] = {}
        for shard, node in enumerate(parcel.layout):
            if node and shard not in parcel.held.get(node, ()) and self._hosts.is_alive(node):
                gets[node] = (*gets.get(node, ()), shard)
        return gets

    # ---- shards

    def _look_at_shards(self, parcel: Parcel, claimed: Set[str], now_ms: int) -> Look:
        stays = {
            shard: node
            for shard, node in enumerate(parcel.layout)
            if node and self._may_stay(parcel, shard, node, claimed, now_ms)
        }
        missing = {node for node in parcel.weights if parcel.lacks(node)}
        ship = (node for node in sorted(missing - claimed) if self._may_try(parcel, node, now_ms))
        return Look(
            ship=tuple(ship),
            epoch=self._other_layout(parcel, stays),
            hopeful=bool(missing & claimed),
            roomless=any(
                refusal(host, parcel.size_bytes) for host in self._hosts.all() if host.alive and not all(parcel.layout)
            ),
            complete=not missing
            and all(parcel.layout)
            and len(stays) == len(parcel.layout)
            and parcel.terms.promised_milli >= parcel.required_milli,
        )

    def _other_layout(self, parcel: Parcel, stays: dict[int, str]) -> NextEpoch | None:
        wanted = self._shards_at(parcel, self._laid(parcel, stays))
        heavier = not parcel.durable and dict(wanted.members) != parcel.weights
        return wanted if wanted.layout != parcel.layout or heavier else None

    def _may_stay(self, parcel: Parcel, shard: int, node: str, claimed: Set[str], now_ms: int) -> bool:
        host = self._host(parcel, node)
        if node in claimed or shard in parcel.held.get(node, ()):
            return not self._hosts.is_lost(node, now_ms)
        if node in parcel.failing(self._hosts):
            return False
        return host.alive or (parcel.durable and not self._hosts.is_lost(node, now_ms))

    def _laid(self, parcel: Parcel, stays: dict[int, str]) -> tuple[str, ...]:
        failing, known = parcel.failing(self._hosts), {host.node_id: host for host in self._hosts.all()}
        hosts = [host for host in known.values() if host.alive and host.node_id not in failing]
        full = not any(host.facts.drained for host in hosts if host.node_id in parcel.weights)
        if full and len(stays) == len(parcel.layout) and parcel.terms.promised_milli >= parcel.required_milli:
            return parcel.layout
        able = {host.node_id for host in hosts}
        hosts += [replace(self._host(parcel, node), alive=False) for node in {*stays.values()} - able]
        return self._lay(parcel, parcel.layout, stays, sorted(hosts, key=lambda host: host.node_id))

    def _lay(
        self, parcel: Parcel, present: tuple[str, ...], stays: dict[int, str], hosts: list[Host]
    ) -> tuple[str, ...]:
        return laid_anew(
            parcel.object_id,
            parcel.shards_needed,
            present,
            stays,
            hosts,
            parcel.required_milli,
            shard_bytes=parcel.size_bytes,
            policy=self._policy,
        )

    def _shards_at(self, parcel: Parcel, layout: tuple[str, ...]) -> NextEpoch:
        nodes = sorted({*layout} - {""})
        return NextEpoch(tuple((node, self._weight_now(parcel, node)) for node in nodes), layout)

    # ---- copies

    def _look_at_copies(self, parcel: Parcel, claimed: Set[str], now_ms: int) -> Look:
        vouched = {*parcel.held, *(claimed & parcel.weights.keys())}
        sound = {node for node in vouched if not self._hosts.is_lost(node, now_ms)}
        coming = {node for node in parcel.flights if self._hosts.is_alive(node)}
        held = [self._host(parcel, node) for node in sorted(sound | coming)]
        taken = vouched | parcel.flights.keys()
        able = [
            self._host(parcel, node)
            for node in parcel.weights
            if node not in taken and self._may_try(parcel, node, now_ms)
        ]
        size, policy = parcel.size_bytes, self._policy
        chosen = choose(
            parcel.object_id, able, held, parcel.required_milli, parcel.copies, copy_bytes=size, policy=policy
        )
        staying = {node for node in sound if not self._host(parcel, node).facts.drained}
        placed = {host.node_id for host in (*held, *chosen) if not host.facts.drained}
        here = len(staying & parcel.held.keys())
        return Look(
            ship=tuple(host.node_id for host in chosen),
            epoch=self._other_members(parcel, vouched, staying, placed, here),
            roomless=any(refusal(host, size) for host in able),
            hopeful=_enough((*held, *chosen), parcel.required_milli),
            complete=here >= parcel.copies and self._weighs_enough(parcel, staying),
        )

    def _other_members(
        self, parcel: Parcel, vouched: Set[str], staying: Set[str], placed: Set[str], here: int
    ) -> NextEpoch | None:
        """Those of now, where the present ones cannot bring what is required, or not as many copies as are wanted. What
        lost and drained hosts acked counts until as many others have."""
        hosts = self._hosts.all()
        members = [Member(node, weight) for node, weight in parcel.weights.items()]
        if not parcel.durable:
            if not outgrown(members, hosts, vouched, self._useless(parcel, hosts), parcel.required_milli):
                return None
        elif here >= parcel.copies and self._weighs_enough(parcel, staying):
            leaving = (vouched - staying) | self._drained_unasked(parcel)
            kept = [member for member in members if member.node_id not in leaving]
            return _copies_at(kept) if len(kept) < len(members) else None
        elif self._are_enough(parcel, placed) or not self._others(parcel, hosts):
            return None
        anew = _with(members_of(hosts), [member for member in members if member.node_id in vouched])
        return _copies_at(anew) if {member.node_id for member in anew} != {*parcel.weights} else None

    def _drained_unasked(self, parcel: Parcel) -> set[str]:
        """Hosts that keep it, have never acked it and are drained: no epoch that names them lets them drop it."""
        drained = {node for node in parcel.unasked if self._host(parcel, node).facts.drained}
        return drained - parcel.flights.keys() - parcel.held.keys()

    def _useless(self, parcel: Parcel, hosts: Collection[Host]) -> set[str]:
        """Those that keep failing, or take nothing of it."""
        return parcel.failing(self._hosts).union(host.node_id for host in hosts if refusal(host, parcel.size_bytes))

    def _others(self, parcel: Parcel, hosts: Collection[Host]) -> set[str]:
        """Those that may take some of it and are no members."""
        return {host.node_id for host in hosts} - self._useless(parcel, hosts) - parcel.weights.keys()

    def _are_enough(self, parcel: Parcel, nodes: Set[str]) -> bool:
        return len(nodes) >= parcel.copies and self._weighs_enough(parcel, nodes)

    def _weighs_enough(self, parcel: Parcel, nodes: Set[str]) -> bool:
        return enough(nodes, parcel.weights, parcel.required_milli)

    # ---- both

    def _host(self, parcel: Parcel, node_id: str) -> Host:
        return self._hosts.get(node_id, parcel.weights.get(node_id, 0))

    def _weight_now(self, parcel: Parcel, node_id: str) -> int:
        known = self._hosts.weight_milli(node_id)
        return parcel.weights.get(node_id, 0) if known is None else known

    def _may_try(self, parcel: Parcel, node_id: str, now_ms: int) -> bool:
        alive = self._hosts.is_alive(node_id) and node_id not in parcel.flights
        if parcel.journal and not self._hosts.pace(node_id).free:
            return False
        return alive and parcel.waits(node_id, now_ms, self._hosts) is None


def _copies_at(members: Collection[Member]) -> NextEpoch:
    return NextEpoch(tuple((member.node_id, member.weight_milli) for member in members))


def _with(members: Collection[Member], kept: Collection[Member]) -> list[Member]:
    """As many of `members` as an epoch may name beside those `kept`."""
    named = {member.node_id for member in kept}
    room = MEMBERS_MAX - len(named)
    others = [member for member in members if member.node_id not in named][:room]
    now = {member.node_id: member for member in members}
    both = [*(now.get(member.node_id, member) for member in kept), *others]
    return sorted(both, key=lambda member: member.node_id)


def _enough(hosts: Collection[Host], required_milli: int) -> bool:
    weights = {host.node_id: host.weight_milli for host in hosts}
    return enough(weights, weights, required_milli)

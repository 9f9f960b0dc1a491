"""What comes when all is settled: hosts die for good, first as many as `info` says that may be lost, then more.

First everything must read back. Then whatever still has shards enough must, and of the rest the error must name what is
missing; nobody may be given anything else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.monitor.promises import Promise
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users import ObjectUser

SETTLED_S = 1  # on clean roads


class Aftermath:
    """`gone` are hosts that are bad for good, from the beginning."""

    def __init__(self, cluster: Cluster, keepers: Sequence[ObjectUser], gone: Collection[str]) -> None:
        self._cluster, self._keepers, self._rng = cluster, keepers, cluster.engine.rng
        self._gone = {cluster.processes[name].node_id for name in gone}

    def lose_what_may_be_lost(self) -> None:
        """As many hosts as every promise allows, a whole failure domain first where that is so few."""
        promises = self._promises()
        for host in self._in_some_order():
            if host.node_id not in self._gone and all(
                not promise.allows(self._gone) or promise.allows({*self._gone, host.node_id}) for promise in promises
            ):
                self._lose(host)
        sure = {promise.object_id for promise in promises if promise.allows(self._gone) or self._is_at_hand(promise)}
        for keeper in self._keepers:
            keeper.read_again(sure)

    def lose_more(self) -> None:
        """Until something is lost: of a coded object all but one shard too few, maybe. Of what is left at hosts that
        nobody counts on nobody can say whether it is found. What was on its way from a host when it died may come."""
        promises = [promise for promise in self._promises() if not promise.local]
        for host in self._in_some_order():
            if any(map(self._is_lost, promises)):
                break
            self._lose(host)
            self._cluster.run_for(SETTLED_S)
        lost = {promise.object_id for promise in promises if self._is_lost(promise)}
        sure = {promise.object_id for promise in self._promises() if self._is_at_hand(promise)}
        self._cluster.monitor.met.counts["objects lost beyond the promise"] += len(lost)
        for keeper in self._keepers:
            keeper.read_again(sure, lost)

    def _is_at_hand(self, promise: Promise) -> bool:
        """Living hosts that are counted on have shards enough, or its owner has all of it."""
        return promise.local or promise.left(self._gone) >= promise.needed

    def _is_lost(self, promise: Promise) -> bool:
        """Whoever is alive has too few shards, on anybody's count."""
        found, copies = set[str](), 0
        for process in self._cluster.processes.values():
            names = () if process.dead else self._cluster.monitor.evidence.names(process.node_id)
            mine = {name for name in names if name.partition(".")[0] == promise.object_id}
            found |= mine
            copies += promise.object_id in mine
        return len(found) < promise.needed and not copies

    def _promises(self) -> list[Promise]:
        rules = self._cluster.monitor.promises
        return [promise for keeper in self._keepers for promise in rules.of(keeper.node)]

    def _in_some_order(self) -> list[Process]:
        """Living hosts, those of one domain after each other."""
        owners = {keeper.node for keeper in self._keepers}
        hosts = [each for each in self._cluster.hosts if not each.dead and each.node_id not in owners]
        domains = sorted({each.spec.domain or each.spec.name for each in hosts})
        self._rng.shuffle(domains)
        return sorted(hosts, key=lambda each: domains.index(each.spec.domain or each.spec.name))

    def _lose(self, host: Process) -> None:
        self._cluster.monitor.met.counts["hosts lost at the end"] += 1
        self._gone.add(host.node_id)
        host.die(refuses=self._rng.random() < 0.5)

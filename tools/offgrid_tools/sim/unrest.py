"""Misfortunes that it takes a market to feel: brokers that stay away while others take their orders over, that go down
one after another, nodes that halt for longer than a lease lasts, roads that carry one way only between halves of it, or
that some nodes take for slow ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.awards import QUEUE
from offgrid_node.protocol.jobs.heartbeat import LEASE_MS
from offgrid_node.protocol.pace import Pace
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.process import Process

AWAY_US = (10 * SECOND, 16 * SECOND)  # beyond what a core waits for a broker (SUBMIT_RETRY_MS)
ROUND_GAP_US, ROUND_DOWN_US = (100 * MS, 3 * SECOND), (50 * MS, 2 * SECOND)
RADIO = Pace(frame_us=20_000, byte_us=1_500, wait_ms=100, frame_bytes=230)  # LoRa at SF7
FREEZE_US = (200 * MS, (LEASE_MS + 6_000) * MS)

Mend = Callable[[Callable[[], object]], None]


class Unrest:
    """`mend` undoes something some time later, unless all was healed before; `over` says whether it was."""

    def __init__(self, cluster: Cluster, mend: Mend, over: Callable[[], bool]) -> None:
        self._cluster, self._engine, self._mend, self._over = cluster, cluster.engine, mend, over

    @property
    def misfortunes(self) -> tuple[Callable[[], None], ...]:
        return (
            *(self.broker_away, self.round_of_brokers, self.half_deaf),
            *(self.freeze, self.freeze, self.host_killed, self.slow_roads),
        )

    def broker_away(self) -> None:
        """The broker with the longest line is gone, for so long that another one has to take it over."""
        lines = [
            (len(list(each.store.scan(QUEUE))), each)
            for each in self._cluster.with_role(BROKER)
            if each.up and each.running.runtime.machines
        ]
        if lines:
            self._down(max(lines, key=lambda line: line[0])[1], self._engine.rng.randint(*AWAY_US))

    def round_of_brokers(self) -> None:
        """One after another, as a careful owner updates them."""
        after_us = 0
        for broker in self._cluster.with_role(BROKER):
            self._engine.after(after_us, partial(self._down, broker, self._engine.rng.randint(*ROUND_DOWN_US)))
            after_us += self._engine.rng.randint(*ROUND_GAP_US)

    def host_killed(self) -> None:
        """One that is at work."""
        busy = [each for each in self._cluster.with_role(HOST) if each.up and each.at_work]
        if busy:
            self._down(self._engine.rng.choice(busy), self._engine.rng.randint(*ROUND_DOWN_US))

    def half_deaf(self) -> None:
        """Some hear nothing of the others, who hear all that they say."""
        rng, faults = self._engine.rng, self._cluster.network.faults
        nodes = [process.node_id for process in self._cluster.processes.values()]
        deaf = set(rng.sample(nodes, rng.randint(1, len(nodes) // 2)))
        cuts = {(source, target): True for source in nodes for target in nodes if source not in deaf and target in deaf}
        faults.cuts.update(cuts)
        self._mend(lambda: [faults.cuts.pop(pair, None) for pair in cuts])

    def freeze(self) -> None:
        """Halted, and on again: longer than leases and offers last, now and then."""
        process = self._engine.rng.choice(list(self._cluster.processes.values()))
        process.freeze()
        self._engine.after(self._engine.rng.randint(*FREEZE_US), process.thaw)

    def slow_roads(self) -> None:
        """To some, as when their cable is out and a radio is left; whoever calls them may not know."""
        rng, faults = self._engine.rng, self._cluster.network.faults
        nodes = [process.node_id for process in self._cluster.processes.values()]
        for node in rng.sample(nodes, rng.randint(1, len(nodes) // 2)):
            faults.paces[node] = RADIO
            self._mend(partial(faults.paces.pop, node, None))

    def _down(self, process: Process, down_us: int) -> None:
        if process.up and not self._over():
            process.crash(refuses=self._engine.rng.random() < 0.7)
            self._engine.after(down_us, lambda: None if process.up else process.start())

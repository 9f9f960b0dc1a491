"""A broker that lies: it awards orders to whoever comes to its mind, twice, or at absurd prices, has hosts that can do
them do them for next to nothing, says that nobody wants them, that it never heard of them or that they wait, and means
for ever, and brings awards of orders that other brokers were asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs.bounds import PRICE_MAX
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS
from offgrid_tools.sim.process import Process

SUBMIT = "offgrid.v1.MarketService/SubmitJobs"
DELIVER = "offgrid.v1.MarketService/DeliverAwards"
LIE_CHANCE, POACH_CHANCE = 0.5, 0.2
LATE_MAX_US = 1_500 * MS
CALL_TIMEOUT_MS = 2_000
PRICES = (0, 1, 2_000, PRICE_MAX, PRICE_MAX + 1)
STARVE_CHANCE, STARVING_PRICES = 0.5, (0, 1)  # that an award is of a host that could do it, for less than it asks

Clearings = list[jobs_pb2.Clearing]


class LyingBroker:
    """Stands before the process (`Network.liars`); now and then the honest broker behind it answers."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._rng, self._process = cluster, cluster.engine.rng, process
        self.lies = 0
        self._held: set[ClaimKey] = set()
        cluster.network.liars[process.node_id] = self
        cluster.monitor.jobs.false_brokers.add(process.node_id)
        cluster.network.overhear(jobs_pb2.SubmitJobsRequest, self._on_submitted)

    def answer(self, source: str, method: str, request: bytes) -> Message | None:
        if method != SUBMIT or not self._process.running.runtime.machines:
            return None
        orders = [JobOrder.decode(body) for body in jobs_pb2.SubmitJobsRequest.FromString(request).orders]
        if self._rng.random() > LIE_CHANCE and self._held.isdisjoint(order.key for order in orders):
            return None
        self.lies += 1
        return jobs_pb2.SubmitJobsResponse(clearings=[clearing for order in orders for clearing in self._lie(order)])

    def _lie(self, order: JobOrder) -> Clearings:
        if order.key in self._held:
            return [self._said(order, jobs_pb2.CLEARING_KIND_QUEUED)]
        simple = jobs_pb2.CLEARING_KIND_NO_HOST, jobs_pb2.CLEARING_KIND_FORGOTTEN, jobs_pb2.CLEARING_KIND_REFUSED
        lies: Sequence[Callable[[], Clearings]] = (
            lambda: [self._award(order)],
            lambda: [self._award(order), self._award(order)],
            lambda: [self._award(order._replace(attempt=order.attempt + self._rng.choice((-1, 1))))],
            lambda: self._hold(order),
            lambda: [self._said(order, self._rng.choice(simple))],
            list,  # says nothing of it
        )
        return self._rng.choice(lies)()

    def _hold(self, order: JobOrder) -> Clearings:
        """It waits here, whenever somebody asks."""
        self._held.add(order.key)
        return self._lie(order)

    def _award(self, order: JobOrder) -> jobs_pb2.Clearing:
        nodes, starves = list(self._cluster.processes.values()), self._rng.random() < STARVE_CHANCE
        able = [node for node in nodes if HOST in node.spec.roles and order.needs in node.spec.executors]
        clearing = self._said(order, jobs_pb2.CLEARING_KIND_AWARDED)
        clearing.host = self._rng.choice(able if starves and able else nodes).node_id
        clearing.price_micro = self._rng.choice(STARVING_PRICES if starves else PRICES)
        return clearing

    def _said(self, order: JobOrder, kind: jobs_pb2.ClearingKind.ValueType) -> jobs_pb2.Clearing:
        return jobs_pb2.Clearing(job_id=order.job_id, attempt=max(0, order.attempt), kind=kind, detail="a lie")

    def _on_submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        """A core has asked a broker, maybe another one: this one brings it an award as well, but of what it holds."""
        me = self._process
        if self._rng.random() > POACH_CHANCE or not me.up or not me.running.runtime.machines or core == me.node_id:
            return
        orders = [JobOrder.decode(body) for body in request.orders]
        awards = [self._award(order) for order in orders if order.key not in self._held]
        poached = jobs_pb2.DeliverAwardsRequest(awards=awards)
        late_us = self._rng.randint(0, LATE_MAX_US)
        self._cluster.engine.after(late_us, partial(self._tell, core, poached))

    def _tell(self, core: str, poached: jobs_pb2.DeliverAwardsRequest) -> None:
        self.lies += 1
        network, me = self._cluster.network, self._process.node_id
        network.call(me, core, DELIVER, poached, CALL_TIMEOUT_MS, lambda outcome: None, honest=False)

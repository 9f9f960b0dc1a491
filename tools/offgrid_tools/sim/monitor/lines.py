"""Rules of who goes first, and of what a host without rivals is paid.

- of alike orders that wait at a broker the more urgent one is awarded first;
- whom nobody could underbid is paid the reserve, whatever it asks: only so is its ask of no use to it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_tools.sim.engine import MS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules

TAKEN = "taken"  # in a host's event of the same type
STEP_US = 20 * MS  # what was decided in one step may leave it in any order

Alike = tuple[Any, ...]


class LineRules(Rules):
    """What brokers say of the orders that cores send."""

    def __init__(self, evidence: Evidence, now_us: Callable[[], int]) -> None:
        self._evidence, self._now_us = evidence, now_us
        self._orders: dict[ClaimKey, JobOrder] = {}
        self._lines: dict[tuple[str, Alike], dict[ClaimKey, int]] = defaultdict(dict)  # waiting, and since when
        self._awarded: set[tuple[str, ClaimKey]] = set()
        self._over: set[tuple[str, ClaimKey]] = set()  # closed by their cores: their orders may arrive after that
        self._offer: dict[str, set[str]] = defaultdict(set)  # hosts that ever offered it, by executor

    def requests(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.PostOffersRequest: self._told,
            jobs_pb2.SubmitJobsRequest: self._submitted,
            jobs_pb2.CloseLeasesRequest: self._closed,
            jobs_pb2.DeliverAwardsRequest: self._delivered,
        }

    def replies(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.SubmitJobsResponse: self._cleared}

    def events(self) -> Mapping[str, Journaled]:
        return {"attempt": self._on_attempt}

    def _on_attempt(self, node: str, event: state_pb2.Event) -> None:
        """Of an award, its core may hear much later."""
        said = event.attempt
        if event.etype == EventType.JOB_AWARDED and said.outcome != TAKEN:
            self._leave(node, (said.core, said.job_id, said.attempt))

    def _told(self, host: str, broker: str, request: jobs_pb2.PostOffersRequest) -> None:
        for offer in request.offers:
            for executor in offer.executors:
                self._offer[executor].add(host)

    def _submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        for lease in request.closed:
            self._close(broker, (core, lease.job_id, lease.attempt))
        for body in request.orders:
            order = JobOrder.decode(body)
            self._orders[order.key] = order
            for earlier in range(1, order.attempt):  # what came between may have gone to other brokers
                self._close(broker, (core, order.job_id, earlier))

    def _closed(self, core: str, broker: str, request: jobs_pb2.CloseLeasesRequest) -> None:
        for lease in request.leases:
            self._close(broker, (core, lease.job_id, lease.attempt))

    def _delivered(self, broker: str, core: str, request: jobs_pb2.DeliverAwardsRequest) -> None:
        for award in request.awards:
            self._award(broker, (core, award.job_id, award.attempt), award)

    def _cleared(self, broker: str, core: str, reply: jobs_pb2.SubmitJobsResponse) -> None:
        for clearing in reply.clearings:
            key = core, clearing.job_id, clearing.attempt
            if clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED:
                self._award(broker, key, clearing)
            elif clearing.kind != jobs_pb2.CLEARING_KIND_QUEUED:
                self._leave(broker, key)
            elif key in self._orders and (broker, key) not in self._awarded and (broker, key) not in self._over:
                self._line(broker, key).setdefault(key, self._now_us())

    def on_start(self, node: str) -> None:
        """A broker that begins anew may award at once what it knows, before it has said anything."""
        for (broker, _), line in self._lines.items():
            if broker == node:
                line.update(dict.fromkeys(line, self._now_us()))

    def _award(self, broker: str, key: ClaimKey, award: jobs_pb2.Clearing) -> None:
        order = self._orders.get(key)
        if order is None or (broker, key) in self._awarded:
            return
        self._awarded.add((broker, key))
        self._leave(broker, key)
        for other, since_us in self._line(broker, key).items():
            if self._orders[other].priority > order.priority and self._now_us() - since_us > STEP_US:
                raise Violation(f"{order.job_id} was awarded while {other[1]} waited, which is more urgent")
        if self._rivals(broker, order.needs) == {award.host}:
            most = price_of(order.price_max_micro, order.size_tokens)
            if order.price_max_micro and award.price_micro != most:
                raise Violation(f"{order.job_id} has one host alone, and pays {award.price_micro} instead of {most}")

    def _line(self, broker: str, key: ClaimKey) -> dict[ClaimKey, int]:
        order = self._orders[key]
        alike = order.core, order.kind, order.needs, order.requirements, order.price_max_micro, order.avoid
        return self._lines[broker, alike]

    def _rivals(self, broker: str, needs: str) -> set[str]:
        """Hosts that the broker may know of. What it offers itself goes over no network."""
        itself = {broker} if needs in self._evidence.executors.get(broker, ()) else set()
        return self._offer[needs] | itself

    def _close(self, broker: str, key: ClaimKey) -> None:
        """For its core: whether the broker hears of the order or of its end first, nobody can say."""
        self._over.add((broker, key))
        self._leave(broker, key)

    def _leave(self, broker: str, key: ClaimKey) -> None:
        if key in self._orders:
            self._line(broker, key).pop(key, None)

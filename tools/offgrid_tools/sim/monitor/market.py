"""Rules of the market, as its messages show it from outside.

- an award is never dearer than its order allows, nor cheaper than what its host asks;
- what changes is taken only on top of the very word that it changes;
- a broker that begins anew says another epoch, a higher one;
- a host gets nothing once its offers have run out, nor while its broker's own journal says that it is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.offering import OFFER_STANDS_MS
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_tools.sim.engine import MS
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules

STEP_US = 50 * MS  # what was decided in the step that found a host dead leaves with it
GRACE_US = 1_000 * MS  # between a broker's answer to a host and the step in which it gives an award


class MarketRules(Rules):
    """Of what hosts tell brokers, and brokers tell cores. Hosts ask the same all their lives."""

    def __init__(self, evidence: Evidence, now_us: Callable[[], int]) -> None:
        self._evidence, self._now_us = evidence, now_us
        self._bases: dict[tuple[str, str, int], int] = {}  # (host, broker, word): the word that it changes, or 0
        self._taken: dict[tuple[str, str], tuple[int, int]] = {}  # (host, broker): the last one taken, and when
        self._epochs: dict[str, int] = {}  # the highest that each broker has said
        self._anew: set[str] = set()  # who has begun anew, and said none since
        self._dead: dict[tuple[str, str], int] = {}  # (host, broker): since when, as the broker's journal says
        self._asks: dict[str, int] = {}
        self._orders: dict[ClaimKey, JobOrder] = {}
        self._waited: set[tuple[str, ClaimKey]] = set()
        self._awarded: set[tuple[str, ClaimKey]] = set()

    def requests(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.PostOffersRequest: self._told,
            jobs_pb2.SubmitJobsRequest: self._submitted,
            jobs_pb2.DeliverAwardsRequest: self._delivered,
        }

    def replies(self) -> Mapping[type[Message], Passed]:
        return {jobs_pb2.PostOffersResponse: self._heard, jobs_pb2.SubmitJobsResponse: self._cleared}

    def events(self) -> Mapping[str, Journaled]:
        return {"peer": self._on_peer}

    def on_start(self, node: str) -> None:
        """A broker's book is in memory only, and a host counts its words from further up."""
        self._anew.add(node)
        for pair in [pair for pair in self._taken if node in pair]:
            del self._taken[pair]
        for pair in [pair for pair in self._dead if node == pair[1]]:
            del self._dead[pair]

    def _on_peer(self, node: str, event: state_pb2.Event) -> None:
        pair = event.peer.node_id, node
        if event.etype == EventType.PEER_DEAD:
            self._dead[pair] = self._now_us()
        else:
            self._dead.pop(pair, None)

    # ---- hosts and brokers

    def _told(self, host: str, broker: str, request: jobs_pb2.PostOffersRequest) -> None:
        self._bases[host, broker, request.seq] = request.base_seq
        for offer in request.offers:
            if offer.slots:
                self._asks[host] = min(offer.ask_micro, self._asks.get(host, offer.ask_micro))

    def _check_epoch(self, broker: str, epoch: int) -> None:
        if broker in self._evidence.dishonest:  # it has forgotten its former lives
            return
        last, anew = self._epochs.get(broker, 0), broker in self._anew
        if epoch < last or (anew and epoch == last):
            name = self._evidence.name_of(broker)
            raise Violation(f"{name} says epoch {epoch}, and had said {last}" + " before it began anew" * anew)
        self._epochs[broker] = epoch
        self._anew.discard(broker)

    def _heard(self, broker: str, host: str, reply: jobs_pb2.PostOffersResponse) -> None:
        self._check_epoch(broker, reply.broker_epoch)
        last, _ = self._taken.get((host, broker), (0, 0))
        base = self._bases.get((host, broker, reply.seq), 0)
        if base and last and reply.seq != last and base != last:
            names = self._evidence.name_of(broker), self._evidence.name_of(host)
            raise Violation(f"{names[0]} took a change of {names[1]}'s word {base} on top of {last}")
        if reply.seq:
            self._taken[host, broker] = reply.seq, self._now_us()

    # ---- cores and brokers

    def _submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        for body in request.orders:
            order = JobOrder.decode(body)
            self._orders[order.key] = order

    def _delivered(self, broker: str, core: str, request: jobs_pb2.DeliverAwardsRequest) -> None:
        for award in request.awards:
            self._award(broker, core, award)

    def _cleared(self, broker: str, core: str, reply: jobs_pb2.SubmitJobsResponse) -> None:
        self._check_epoch(broker, reply.broker_epoch)
        for clearing in reply.clearings:
            key = core, clearing.job_id, clearing.attempt
            if clearing.kind == jobs_pb2.CLEARING_KIND_QUEUED:
                self._waited.add((broker, key))
            elif clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED:
                if (broker, key) not in self._awarded | self._waited:
                    self._check_stands(broker, clearing)
                self._award(broker, core, clearing)

    def _check_stands(self, broker: str, award: jobs_pb2.Clearing) -> None:
        """Of an award that was made just now: one from the queue may have been made in an earlier life."""
        heard = self._taken.get((award.host, broker))
        if heard is not None and self._now_us() - heard[1] > OFFER_STANDS_MS * MS + GRACE_US:
            host = self._evidence.name_of(award.host)
            raise Violation(f"{award.job_id} was awarded to {host}, of which its broker had long heard nothing")

    def _award(self, broker: str, core: str, award: jobs_pb2.Clearing) -> None:
        key = core, award.job_id, award.attempt
        order, ask = self._orders.get(key), self._asks.get(award.host)
        if order is None or (broker, key) in self._awarded:
            return
        self._awarded.add((broker, key))
        dead_us = self._dead.get((award.host, broker))
        if dead_us is not None and self._now_us() - dead_us > STEP_US:
            host = self._evidence.name_of(award.host)
            raise Violation(f"{award.job_id} was awarded to {host}, which its broker's journal says is dead")
        most = price_of(order.price_max_micro, order.size_tokens)
        if order.price_max_micro and award.price_micro > most:
            raise Violation(f"{award.job_id} was awarded for {award.price_micro}, and pays {most} at most")
        least = price_of(ask or 0, order.size_tokens)
        if award.price_micro < least:
            raise Violation(f"{award.job_id} was awarded for {award.price_micro}; its host asks {least}")

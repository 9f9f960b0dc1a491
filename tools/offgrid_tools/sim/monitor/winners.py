"""The rule of winners: a broker names one host for an attempt, for as long as it lives and the attempt's core has not
closed it. Whoever won may have begun, also where it was seen dead since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Passed, Rules


class WinnerRules(Rules):
    """By what brokers say to cores, and cores to brokers."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._winners: dict[str, dict[ClaimKey, str]] = {}  # by broker
        self._over: set[tuple[str, ClaimKey]] = set()  # an order may arrive after its end did

    def requests(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.SubmitJobsRequest: self._submitted,
            jobs_pb2.CloseLeasesRequest: lambda core, broker, request: self._close(core, broker, request.leases),
            jobs_pb2.DeliverAwardsRequest: lambda broker, core, request: self._named(broker, core, request.awards),
        }

    def replies(self) -> Mapping[type[Message], Passed]:
        return {
            jobs_pb2.SubmitJobsResponse: lambda broker, core, reply: self._named(broker, core, reply.clearings),
        }

    def on_start(self, node: str) -> None:
        """What a broker has not written down is forgotten, whether it restarts or builds its machines anew."""
        self._winners.pop(node, None)

    def _submitted(self, core: str, broker: str, request: jobs_pb2.SubmitJobsRequest) -> None:
        self._close(core, broker, request.closed)
        for body in request.orders:
            order = JobOrder.decode(body)
            self._over.update((broker, (*order.key[:2], earlier)) for earlier in range(1, order.attempt))

    def _close(self, core: str, broker: str, leases: Iterable[jobs_pb2.ClosedLease]) -> None:
        self._over.update((broker, (core, lease.job_id, lease.attempt)) for lease in leases)

    def _named(self, broker: str, core: str, clearings: Iterable[jobs_pb2.Clearing]) -> None:
        winners = self._winners.setdefault(broker, {})
        for each in clearings:
            key = core, each.job_id, each.attempt
            if each.kind != jobs_pb2.CLEARING_KIND_AWARDED or (broker, key) in self._over:
                continue
            if winners.setdefault(key, each.host) != each.host:
                names = [self._evidence.name_of(node) for node in (broker, winners[key], each.host)]
                raise Violation(
                    f"{names[0]} named {names[1]} for attempt {each.attempt} of {each.job_id}, and then {names[2]}"
                )

"""Handlers of MarketService, what core, broker and host say to each other: bounded, verified, handed to the machine.

A signature is checked against the signer's present key in this mesh; what an answer of another node says is bounded
just as well (`check_answer`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs import bounds, commands
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import check_payload, needs_of
from offgrid_node.protocol.jobs.orders import ORDER_KIND, JobOrder, payload_digest
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED, ReceiptBody, result_digest, verify_receipt
from offgrid_node.protocol.signing import digest_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.paging import decode_token, take_page

Outcome = TypeVar("Outcome", jobs_pb2.StartOutcome, jobs_pb2.ReportOutcome)


class Members(Protocol):
    """What the handlers need to know of members: their keys, to check signatures, and who may be a host."""

    @property
    def salt(self) -> bytes: ...

    def current_key(self, node_id: str) -> bytes | None: ...

    def may_have_role(self, node_id: str, role: int) -> bool: ...


class MarketHandlers:
    """One method per RPC of MarketService."""

    def __init__(self, runtime: Runtime, self_id: str, members: Callable[[], Members], verify: Verifier) -> None:
        self._runtime, self._self_id, self._members, self._verify = runtime, self_id, members, verify

    def post_offer(self, caller: Caller, request: jobs_pb2.PostOfferRequest) -> Ticket:
        offer = request.offer
        if offer.host != caller.node_id:
            raise PeerFault(f"{caller.node_id} posted an offer in the name of {offer.host!r}", reason="ForgedOffer")
        bounds.check_offer("offer", offer)
        return self._ask(caller, commands.PostOffer(offer), request.ByteSize())

    def submit_jobs(self, caller: Caller, request: jobs_pb2.SubmitJobsRequest) -> Ticket:
        _items("orders", len(request.orders))
        orders = tuple((self._order(signed, caller.node_id), signed) for signed in request.orders)
        return self._ask(caller, commands.SubmitJobs(caller.node_id, orders), request.ByteSize())

    def deliver_awards(self, caller: Caller, request: jobs_pb2.DeliverAwardsRequest) -> Ticket:
        _items("awards", len(request.awards))
        check_clearings("awards", request.awards, self._members())
        return self._ask(caller, commands.DeliverAwards(caller.node_id, tuple(request.awards)), request.ByteSize())

    def start_jobs(self, caller: Caller, request: jobs_pb2.StartJobsRequest) -> Ticket:
        _items("starts", len(request.starts))
        for index, start in enumerate(request.starts):
            bounds.check_price(f"starts[{index}].price_micro", start.price_micro)
        starts = tuple(self._start(start, caller.node_id) for start in request.starts)
        return self._ask(caller, commands.StartJobs(caller.node_id, starts), request.ByteSize())

    def report_results(self, caller: Caller, request: jobs_pb2.ReportResultsRequest) -> Ticket:
        _items("reports", len(request.reports))
        for index, report in enumerate(request.reports):
            bounds.check_report(f"reports[{index}]", report)
        reports = tuple(self._report(report, caller.node_id) for report in request.reports)
        return self._ask(caller, commands.ReportResults(caller.node_id, reports), request.ByteSize())

    def close_leases(self, caller: Caller, request: jobs_pb2.CloseLeasesRequest) -> Ticket:
        _items("leases", len(request.leases))
        leases = tuple((lease.job_id, lease.attempt) for lease in request.leases)
        return self._ask(caller, commands.CloseLeases(caller.node_id, leases))

    def list_offers(self, caller: Caller, request: jobs_pb2.ListOffersRequest) -> Message:
        """In the order of the hosts' ids, which are the places that a token names."""
        broker, start = self._runtime.machine("jobs", JobsMachine).broker, decode_token(request.page_token)
        book = ((entry.offer.host.encode(), entry) for entry in broker.book())
        entries, token = take_page((row for row in book if row[0] >= start), request.page_size)
        return jobs_pb2.ListOffersResponse(entries=entries, queued=broker.queued, next_page_token=token)

    # ---- checks

    def _order(self, signed: common_pb2.Signed, core: str) -> JobOrder:
        """The order, if it is the caller's own and signed by its key in this mesh."""
        order = JobOrder.decode(signed.body)
        bounds.check_order("order", order)
        if order.core != core:
            raise PeerFault(f"{core} brought an order of {order.core}", reason="ForgedOrder")
        members = self._members()
        digest = digest_of(ORDER_KIND, members.salt, signed.body)
        if not self._verify(members.current_key(core) or b"", digest, signed.signature):
            raise PeerFault(f"order {order.job_id}: the signature is not {core}'s", reason="BadSignature")
        return order

    def _start(self, start: jobs_pb2.StartJob, core: str) -> commands.Start:
        order = self._order(start.order, core)
        if len(start.payload) != order.payload_bytes or payload_digest(start.payload) != order.payload_digest:
            raise PeerFault(f"order {order.job_id}: the payload is not the one that was ordered", reason="WrongPayload")
        try:
            payload = jobs_pb2.JobPayload.FromString(start.payload)
        except DecodeError as error:
            raise PeerFault(f"order {order.job_id}: the payload is none", reason="MalformedPayload") from error
        check_payload(payload)
        if needs_of(payload) != order.needs:
            raise PeerFault(
                f"order {order.job_id}: needs {order.needs!r} but carries another job", reason="WrongPayload"
            )
        return commands.Start(order, start.order, payload, start.price_micro)

    def _report(self, report: jobs_pb2.AttemptReport, host: str) -> commands.Report:
        key = report.job_id, report.attempt
        if not report.HasField("result"):
            if not report.error:
                raise InvalidRequest.field("reports", f"{report.job_id}: neither a result nor an error")
            return commands.Report(key, report, None)
        return commands.Report(key, report, self._receipt(report, host))

    def _receipt(self, report: jobs_pb2.AttemptReport, host: str) -> ReceiptBody:
        members, result = self._members(), report.result
        body = verify_receipt(result.receipt, members.current_key(host) or b"", self._verify, members.salt)
        claims = {
            "host": (body.node, host),
            "core": (body.core, self._self_id),
            "job": (body.job_id, report.job_id),
            "attempt": (body.attempt, report.attempt),
            "status": (body.status, result.status),
            "result": (body.result_digest, result_digest(result.exit_code, result.output)),
        }
        for what, (signed, said) in claims.items():
            if signed != said:
                raise PeerFault(f"receipt {report.job_id}: it is for another {what}", reason="ReboundReceipt")
        if (result.exit_code == 0) != (result.status == COMPLETED) or result.status not in (
            COMPLETED,
            FAILED,
        ):
            raise PeerFault(f"receipt {report.job_id}: status and exit code disagree", reason="MalformedReceipt")
        return body

    def _ask(self, caller: Caller, command: object, size_bytes: int = 0) -> Ticket:
        return self._runtime.ask("jobs", caller.node_id, command, size_bytes=size_bytes)


def check_clearings(field: str, clearings: Sequence[jobs_pb2.Clearing], members: Members) -> None:
    """Raises InvalidRequest for a clearing that is out of bounds, or awards a job to somebody who cannot be a host."""
    for index, clearing in enumerate(clearings):
        bounds.check_clearing(f"{field}[{index}]", clearing)
        awarded = clearing.kind == jobs_pb2.CLEARING_KIND_AWARDED
        if awarded and not members.may_have_role(clearing.host, HOST):
            raise InvalidRequest.field(f"{field}[{index}].host", f"{clearing.host!r} is no host of this mesh")


def check_answer(answer: Message, members: Members) -> None:
    """Raises InvalidRequest for an answer of another node that is out of bounds."""
    match answer:
        case jobs_pb2.SubmitJobsResponse():
            _items("clearings", len(answer.clearings))
            check_clearings("clearings", answer.clearings, members)
        case jobs_pb2.StartJobsResponse():
            _check_outcomes(answer.outcomes)
        case jobs_pb2.ReportResultsResponse():
            _check_outcomes(answer.outcomes)


def _check_outcomes(outcomes: Sequence[Outcome]) -> None:
    _items("outcomes", len(outcomes))
    for index, outcome in enumerate(outcomes):
        bounds.check_outcome(f"outcomes[{index}]", outcome)


def _items(field: str, count: int) -> None:
    if count > CALL_ITEMS_MAX:
        raise InvalidRequest.field(field, f"{count} entries; at most {CALL_ITEMS_MAX} are allowed in one call")

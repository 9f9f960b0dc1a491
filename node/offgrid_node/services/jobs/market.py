"""Handlers of MarketService, what core, broker and host say to each other: bounded, verified, handed to the machine.

A signature is checked against the signer's present key in this mesh; what an answer of another node says is bounded
just as well (`check_answer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs import bounds, commands
from offgrid_node.protocol.jobs.closing import Over
from offgrid_node.protocol.jobs.heartbeat import DIGEST_BYTES, digest_of_page
from offgrid_node.protocol.jobs.large import OUTPUT_LOST
from offgrid_node.protocol.jobs.leases import blobs_of
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import check_payload, needs_of
from offgrid_node.protocol.jobs.orders import ORDERS, AttemptKey, JobOrder, payload_digest
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import (
    COMPLETED,
    FAILED,
    RECEIPTS,
    Proof,
    ReceiptBody,
    proofs_of,
    result_digest,
)
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, asked, ticket_of
from offgrid_node.services.jobs.adoption import Adoption, Taken
from offgrid_node.services.jobs.inputs import check_file_references, check_reference
from offgrid_node.services.jobs.progress import ProgressHub
from offgrid_node.services.paging import decode_token, take_page

CLAIMED = ("host", "core", "job", "attempt", "status")  # by a report, and signed in its receipt

Outcome = TypeVar("Outcome", jobs_pb2.StartOutcome, jobs_pb2.ReportOutcome)


class Members(Protocol):
    """What the handlers need to know of members: their keys, to check signatures, and who may be a host."""

    @property
    def salt(self) -> bytes: ...

    def current_key(self, node_id: str) -> bytes | None: ...

    def may_have_role(self, node_id: str, role: int) -> bool: ...


class MarketHandlers:
    """One method per RPC of MarketService."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        members: Callable[[], Members],
        verify: Verifier,
        adoption: Adoption,
        progress: ProgressHub,
    ) -> None:
        """`adoption` opens what hosts report; `progress` hears what work under way says."""
        self._runtime, self._self_id, self._members, self._verify = runtime, self_id, members, verify
        self._adoption, self._progress = adoption, progress

    def post_offers(self, caller: Caller, request: jobs_pb2.PostOffersRequest) -> Ticket:
        if request.host != caller.node_id:
            raise PeerFault(f"{caller.node_id} posted offers in the name of {request.host!r}", reason="ForgedOffer")
        bounds.check_offers(request)
        return self._ask(caller, commands.PostOffers(request), request.ByteSize())

    def submit_jobs(self, caller: Caller, request: jobs_pb2.SubmitJobsRequest) -> Ticket:
        _items("orders", len(request.orders))
        orders = self._orders(request.orders, request.root_signature, caller.node_id)
        doubtful = frozenset(attempts_of("doubtful", request.doubtful))
        command = commands.SubmitJobs(caller.node_id, orders, _closed("closed", request.closed), doubtful)
        return self._ask(caller, command, request.ByteSize())

    def deliver_awards(self, caller: Caller, request: jobs_pb2.DeliverAwardsRequest) -> Ticket:
        _items("awards", len(request.awards))
        check_clearings("awards", request.awards, self._members())
        return self._ask(caller, commands.DeliverAwards(caller.node_id, tuple(request.awards)), request.ByteSize())

    def start_jobs(self, caller: Caller, request: jobs_pb2.StartJobsRequest) -> Ticket:
        _items("starts", len(request.starts))
        bodies = [start.order for start in request.starts]
        orders = self._orders(bodies, request.root_signature, caller.node_id)
        starts = tuple(
            _start(f"starts[{index}]", start, order)
            for index, (start, order) in enumerate(zip(request.starts, orders, strict=True))
        )
        command = commands.StartJobs(caller.node_id, starts, attempts_of("settled", request.settled))
        return self._ask(caller, command, request.ByteSize())

    def cancel_starts(self, caller: Caller, request: jobs_pb2.CancelStartsRequest) -> Ticket:
        return self._ask(caller, commands.CancelStarts(caller.node_id, attempts_of("attempts", request.attempts)))

    def renew_leases(self, caller: Caller, request: jobs_pb2.RenewLeasesRequest) -> Ticket:
        held = attempts_of("held", request.held)
        if len(request.digest) != DIGEST_BYTES or (held and digest_of_page(held) != request.digest):
            raise InvalidRequest.field("digest", f"is not the {DIGEST_BYTES} bytes of this page")
        return self._ask(caller, commands.RenewLeases(caller.node_id, held, request.digest, request.next_ms))

    def started(self, host: str, answer: jobs_pb2.StartJobsResponse) -> commands.Started:
        """What a host answers to StartJobs, checked as what it reports by itself. Raises InvalidRequest, PeerFault."""
        _check_outcomes(answer.outcomes)
        _items("reports", len(answer.reports))
        for index, report in enumerate(answer.reports):
            bounds.check_report(f"reports[{index}]", report)
            if blobs_of(report):
                raise InvalidRequest.field(f"reports[{index}].blob", "what lies at the host is reported by itself")
        receipts = self._receipts(answer.reports, answer.root_signature, host)
        reports = self._checked(host, answer.reports, receipts, {})
        return commands.Started(tuple(answer.outcomes), reports, answer.next_ms)

    def report_results(self, caller: Caller, request: jobs_pb2.ReportResultsRequest) -> Ticket:
        _items("reports", len(request.reports))
        for index, report in enumerate(request.reports):
            bounds.check_report(f"reports[{index}]", report)
        receipts = self._receipts(request.reports, request.root_signature, caller.node_id)
        if any(blobs_of(report) for report in request.reports):
            return ticket_of(self._take_over(caller, request, receipts))
        return self._report(caller, request, receipts, {})

    def report_progress(self, caller: Caller, request: jobs_pb2.ReportProgressRequest) -> Message:
        return self._progress.report(caller.node_id, request)

    def close_leases(self, caller: Caller, request: jobs_pb2.CloseLeasesRequest) -> Ticket:
        return self._ask(caller, commands.CloseLeases(caller.node_id, _closed("leases", request.leases)))

    def list_offers(self, caller: Caller, request: jobs_pb2.ListOffersRequest) -> Message:
        """In the order of the hosts' ids, which are the places that a token names."""
        broker, start = self._runtime.machine("jobs", JobsMachine).broker, decode_token(request.page_token)
        book = ((entry.profile.host.encode(), entry) for entry in broker.entries())
        entries, token = take_page((row for row in book if row[0] >= start), request.page_size)
        return jobs_pb2.ListOffersResponse(entries=entries, queued=broker.queued, next_page_token=token)

    def explain_order(self, caller: Caller, request: jobs_pb2.ExplainOrderRequest) -> Message:
        """From memory, as the book is now; the order is the caller's own, so it needs no signature."""
        order = JobOrder.decode(request.order)
        _check_order("order", order, caller.node_id)
        return self._runtime.machine("jobs", JobsMachine).broker.explain(order)

    # ---- checks

    def _orders(self, bodies: Sequence[bytes], signature: bytes, core: str) -> tuple[JobOrder, ...]:
        """The orders, if they are the caller's own and signed by its key in this mesh."""
        orders = tuple(JobOrder.decode(body) for body in bodies)
        for index, order in enumerate(orders):
            _check_order(f"orders[{index}]", order, core)
        members = self._members()
        ORDERS.check(bodies, signature, members.current_key(core) or b"", self._verify, members.salt)
        return orders

    def _receipts(self, reports: Sequence[jobs_pb2.AttemptReport], signature: bytes, host: str) -> list[Proof | None]:
        """What a whole receipt says for each report that has a result, if the host's key signed them in this mesh."""
        members = self._members()
        has_result = [report.HasField("result") for report in reports]
        bodies = [report.result.receipt.body for report, has in zip(reports, has_result, strict=True) if has]
        paths = RECEIPTS.check_paths(bodies, signature, members.current_key(host) or b"", self._verify, members.salt)
        proofs = iter(proofs_of(bodies, signature, paths))
        return [next(proofs) if has else None for has in has_result]

    def _take_over(
        self, caller: Caller, request: jobs_pb2.ReportResultsRequest, receipts: Sequence[Proof | None]
    ) -> Flow[Message]:
        """Large outputs first: they are durable here before the machine hears of the reports. What is not awaited from
        this host any more is not fetched, nor is anything under a receipt for something else; what can never be had
        ends the attempt. Whatever no row names in the end is dropped."""
        host, taken = caller.node_id, dict[int, Taken]()
        try:
            with ExitStack() as vouched:
                for index, (report, receipt) in enumerate(zip(request.reports, receipts, strict=True)):
                    if receipt is None or not blobs_of(report):
                        continue
                    _check_claims(report, ReceiptBody.decode(receipt.body), host, self._self_id)
                    if not self._is_awaited(host, report):
                        continue
                    try:
                        vouched.enter_context(self._adoption.vouch(host, report))
                        taken[index] = yield from self._adoption.take(host, report)
                    except (PeerFault, InvalidRequest) as fault:
                        report.ClearField("result")
                        report.ClearField("blob")
                        report.ClearField("files_blob")
                        report.error, report.error_detail = OUTPUT_LOST, fault.message[: bounds.DETAIL_CHARS_MAX]
                answer: Message = yield asked(self._report(caller, request, receipts, taken))
                return answer
        finally:
            for _, objects in taken.values():
                for added in objects:
                    self._adoption.drop(added)

    def _is_awaited(self, host: str, report: jobs_pb2.AttemptReport) -> bool:
        """As far as can be said now; the machine decides."""
        entry = self._runtime.machine("jobs", JobsMachine).core.jobs.current((report.job_id, report.attempt))
        return entry is not None and entry.job.host == host

    def _report(
        self,
        caller: Caller,
        request: jobs_pb2.ReportResultsRequest,
        receipts: Sequence[Proof | None],
        taken: Mapping[int, Taken],
    ) -> Ticket:
        reports = self._checked(caller.node_id, request.reports, receipts, taken)
        return self._ask(caller, commands.ReportResults(caller.node_id, reports), request.ByteSize())

    def _checked(
        self,
        host: str,
        reports: Sequence[jobs_pb2.AttemptReport],
        receipts: Sequence[Proof | None],
        taken: Mapping[int, Taken],
    ) -> tuple[commands.Report, ...]:
        """The reports for the machine, opened, if what they claim is what their receipts say."""
        checked = []
        for index, (report, receipt) in enumerate(zip(reports, receipts, strict=True)):
            digest, added = taken.get(index, (b"", ()))
            body = None
            if receipt is not None and report.HasField("result"):
                if report.sealed and not blobs_of(report):
                    self._adoption.open(host, report)
                body, whole = _receipt(report, receipt.body, host, self._self_id, digest), report.result.receipt
                receipt.tell(whole)
                body.tell(whole.facts)
            elif not report.error:
                raise InvalidRequest.field("reports", f"{report.job_id}: neither a result nor an error")
            checked.append(commands.Report((report.job_id, report.attempt), report, body, added))
        return tuple(checked)

    def _ask(self, caller: Caller, command: object, size_bytes: int = 0) -> Ticket:
        return self._runtime.ask("jobs", caller.node_id, command, size_bytes=size_bytes)


def _check_order(field: str, order: JobOrder, core: str) -> None:
    """All but its requirements: whoever is to match them reads them, within what their core may spend."""
    bounds.check_order(field, order)
    if order.core != core:
        raise PeerFault(f"{core} brought an order of {order.core}", reason="ForgedOrder")


def _start(field: str, start: jobs_pb2.StartJob, order: JobOrder) -> commands.Start:
    """An order with the payload that it names."""
    bounds.check_price(f"{field}.price_micro", start.price_micro)
    if len(start.payload) != order.payload_bytes or payload_digest(start.payload) != order.payload_digest:
        raise PeerFault(f"order {order.job_id}: the payload is not the one that was ordered", reason="WrongPayload")
    try:
        payload = jobs_pb2.JobPayload.FromString(start.payload)
    except DecodeError as error:
        raise PeerFault(f"order {order.job_id}: the payload is none", reason="MalformedPayload") from error
    check_payload(payload)
    if payload.input_object_id:
        raise PeerFault(f"order {order.job_id}: names an input without a key to it", reason="MalformedPayload")
    if payload.HasField("input_object"):
        check_reference(payload.input_object, order.core)
    check_file_references(payload, order.core)
    if needs_of(payload) != order.needs:
        raise PeerFault(f"order {order.job_id}: needs {order.needs!r} but carries another job", reason="WrongPayload")
    return commands.Start(order, start.order, payload, start.price_micro)


def _receipt(report: jobs_pb2.AttemptReport, signed_body: bytes, host: str, core: str, digest: bytes) -> ReceiptBody:
    """What the receipt says, if that is what the report and its sender claim. `digest` is that of a result whose output
    is large; of one that was not fetched, because nobody awaits it, nothing can be said."""
    result, body = report.result, ReceiptBody.decode(signed_body)
    _check_claims(report, body, host, core)
    digest = digest or result_digest(result.exit_code, result.output)
    if body.result_digest != digest and not blobs_of(report):
        raise PeerFault(f"receipt {report.job_id}: it is for another result", reason="ReboundReceipt")
    if (result.exit_code == 0) != (result.status == COMPLETED) or result.status not in (COMPLETED, FAILED):
        raise PeerFault(f"receipt {report.job_id}: status and exit code disagree", reason="MalformedReceipt")
    return body


def _check_claims(report: jobs_pb2.AttemptReport, body: ReceiptBody, host: str, core: str) -> None:
    """That the receipt is bound to what its sender claims, whatever the result. Raises PeerFault."""
    result = report.result
    claims = (host, core, report.job_id, report.attempt, result.status)
    signed = (body.node, body.core, body.job_id, body.attempt, body.status)
    if signed != claims:
        what = next(what for what, *pair in zip(CLAIMED, signed, claims, strict=True) if pair[0] != pair[1])
        raise PeerFault(f"receipt {report.job_id}: it is for another {what}", reason="ReboundReceipt")


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
        case jobs_pb2.RenewLeasesResponse():
            attempts_of("unwanted", answer.unwanted)
        case jobs_pb2.ReportResultsResponse():
            _check_outcomes(answer.outcomes)


def _check_outcomes(outcomes: Sequence[Outcome]) -> None:
    _items("outcomes", len(outcomes))
    for index, outcome in enumerate(outcomes):
        bounds.check_outcome(f"outcomes[{index}]", outcome)


def attempts_of(field: str, leases: Sequence[jobs_pb2.LeaseKey]) -> tuple[AttemptKey, ...]:
    """Attempts that a peer names, each within bounds."""
    _check_leases(field, leases)
    return tuple((lease.job_id, lease.attempt) for lease in leases)


def _closed(field: str, leases: Sequence[jobs_pb2.ClosedLease]) -> tuple[Over, ...]:
    """The same, with how they ended."""
    _check_leases(field, leases)
    return tuple(Over(lease.job_id, lease.attempt, lease.end) for lease in leases)


def _check_leases(field: str, leases: Sequence[jobs_pb2.LeaseKey | jobs_pb2.ClosedLease]) -> None:
    _items(field, len(leases))
    for index, lease in enumerate(leases):
        bounds.check_lease(f"{field}[{index}]", lease)


def _items(field: str, count: int) -> None:
    if count > CALL_ITEMS_MAX:
        raise InvalidRequest.field(field, f"{count} entries; at most {CALL_ITEMS_MAX} are allowed in one call")

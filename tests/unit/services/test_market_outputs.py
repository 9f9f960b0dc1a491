"""ReportResults with large outputs: fetched before the machine hears of them, and dropped when it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from large_bench import SALT

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import Fault, PeerFault, Unavailable
from offgrid_node.protocol.events import HOST, ObjectAdded
from offgrid_node.protocol.jobs.commands import ReportResults
from offgrid_node.protocol.jobs.large import OUTPUT_LOST
from offgrid_node.protocol.jobs.receipts import RECEIPTS, ReceiptBody
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.flow import Flow
from offgrid_node.services.jobs.market import MarketHandlers

CORE, WORKER = NodeKey(b"c" * 32), NodeKey(b"h" * 32)
DIGEST = b"d" * 32
BODY = Manifest(CORE.node_id, b"n" * 16, 100_000, 40_000, 1, COPY, (b"r" * 32,), 5)
ADDED = ObjectAdded(objects_pb2.Manifest(), BODY, "j.output", 0)


class House:
    """The handler over a machine and an adoption that do as they are told."""

    def __init__(
        self, *, refusal: str = "", current: bool = True, fault: Fault | None = None, awarded: str = WORKER.node_id
    ) -> None:
        self.refusal, self.current, self.fault, self.awarded = refusal, current, fault, awarded
        self.taken: list[str] = []
        self.vouched: list[str] = []  # for whom, now
        self.vouched_when: list[tuple[str, list[str]]] = []  # for whom, at each thing that happened
        self.dropped: list[ObjectAdded] = []
        self.failing = ""  # whose output the fault is of; all, by default
        self.asked: list[ReportResults] = []
        members = SimpleNamespace(salt=SALT, current_key=lambda node_id: WORKER.public_key)
        stub: Any = self
        self.handlers = MarketHandlers(stub, CORE.node_id, lambda: members, verify, stub, stub)

    # ---- the runtime

    def machine(self, domain: str, kind: type) -> Any:
        entry = SimpleNamespace(job=SimpleNamespace(host=self.awarded))
        jobs = SimpleNamespace(current=lambda key: entry if self.current else None)
        return SimpleNamespace(core=SimpleNamespace(jobs=jobs))

    def ask(self, domain: str, caller: str, command: ReportResults, *, size_bytes: int) -> Ticket:
        self.asked.append(command)
        self.vouched_when.append(("asked", list(self.vouched)))
        ticket = Ticket()
        outcomes = [
            jobs_pb2.ReportOutcome(job_id=report.key[0], accepted=not self.refusal, refusal=self.refusal)
            for report in command.reports
        ]
        ticket.resolve(jobs_pb2.ReportResultsResponse(outcomes=outcomes))
        return ticket

    # ---- the adoption

    def open(self, host: str, report: jobs_pb2.AttemptReport) -> jobs_pb2.ResultSecret:
        report.ClearField("sealed")
        return jobs_pb2.ResultSecret()

    @contextmanager
    def vouch(self, host: str, report: jobs_pb2.AttemptReport) -> Iterator[None]:
        self.vouched.append(report.job_id)
        yield
        self.vouched_when.append(("over", list(self.vouched)))
        self.vouched.clear()

    def take(self, host: str, report: jobs_pb2.AttemptReport) -> Flow[Any]:
        yield lambda done: done(None)
        self.taken.append(report.job_id)
        self.vouched_when.append(("taken", list(self.vouched)))
        if self.fault is not None and report.job_id == (self.failing or report.job_id):
            raise self.fault
        report.ClearField("sealed")
        report.ClearField("blob")
        report.result.output_object = BODY.object_id
        return DIGEST, (ADDED,)

    def drop(self, added: ObjectAdded) -> None:
        self.dropped.append(added)

    # ---- the host

    def report(self, *job_ids: str, digest: bytes = DIGEST, signed_for: str = "") -> Message | Fault:
        """`signed_for`: another job, which the receipts are of."""
        reports, bodies = [], []
        for job_id in job_ids or ("j",):
            signed, core = signed_for or job_id, CORE.node_id
            body = ReceiptBody(WORKER.node_id, core, signed, 1, bytes(32), digest, "completed", 1, 1, 1, "x").encode()
            result = jobs_pb2.JobResult(status="completed", receipt=jobs_pb2.Receipt(body=body))
            reports.append(jobs_pb2.AttemptReport(job_id=job_id, attempt=1, result=result, sealed=b"s", blob=b"b"))
            bodies.append(body)
        signature = RECEIPTS.sign(bodies, WORKER, SALT)
        request = jobs_pb2.ReportResultsRequest(reports=reports, root_signature=signature)
        ticket = self.handlers.report_results(Caller(Kind.MEMBER, WORKER.node_id, frozenset({HOST})), request)
        assert ticket.outcome is not None
        return ticket.outcome


def test_the_machine_gets_the_output_as_an_object_with_its_receipt() -> None:
    house = House()
    assert isinstance(house.report(), jobs_pb2.ReportResultsResponse)
    [report] = house.asked[0].reports
    assert (report.added, report.message.result.output_object) == ((ADDED,), BODY.object_id)
    assert report.receipt is not None
    assert report.message.result.receipt.root_signature


@pytest.mark.parametrize("refusal", ["", "attempt 1 is over; the present one is 2"])
def test_an_output_is_vouched_for_until_the_machine_has_answered_and_then_left_to_the_rows(refusal: str) -> None:
    house = House(refusal=refusal)
    house.report()
    assert house.vouched_when == [("taken", ["j"]), ("asked", ["j"]), ("over", ["j"])]
    assert house.dropped == [ADDED], "whether a row names it, Keeping asks"


def test_what_is_taken_before_another_fails_is_dropped() -> None:
    house = House(fault=Unavailable("gone", reason="NotConnected"))
    house.failing = "k"
    assert house.report("j", "k") is house.fault
    assert (house.taken, house.dropped, house.asked) == (["j", "k"], [ADDED], [])


def test_nothing_is_fetched_from_a_host_that_was_not_awarded_the_job() -> None:
    house = House(awarded=CORE.node_id, refusal="the attempt was awarded to another host")
    assert isinstance(house.report(), jobs_pb2.ReportResultsResponse)
    assert house.taken == []


def test_nothing_is_fetched_under_a_receipt_for_something_else() -> None:
    house = House()
    outcome = house.report(signed_for="another job")
    assert isinstance(outcome, PeerFault)
    assert outcome.reason == "ReboundReceipt"
    assert (house.taken, house.asked) == ([], [])


def test_what_nobody_awaits_is_not_fetched() -> None:
    house = House(current=False, refusal="the job has ended")
    house.report()
    assert house.taken == []
    assert house.asked[0].reports[0].added == ()


def test_an_output_that_can_never_be_had_is_reported_as_lost() -> None:
    house = House(fault=PeerFault("the host has lost it", reason="OutputLost"))
    house.report()
    [report] = house.asked[0].reports
    assert (report.message.error, report.message.error_detail) == (OUTPUT_LOST, "the host has lost it")
    assert (report.receipt, report.message.HasField("result")) == (None, False)


def test_while_the_host_cannot_be_reached_nothing_is_said_and_the_report_comes_again() -> None:
    house = House(fault=Unavailable("gone", reason="NotConnected"))
    assert house.report() is house.fault
    assert house.asked == []


def test_an_output_that_is_not_what_the_receipt_says_is_refused() -> None:
    house = House()
    outcome = house.report(digest=b"e" * 32)
    assert isinstance(outcome, PeerFault)
    assert (house.asked, house.dropped) == ([], [ADDED])


def test_a_forged_signature_makes_nobody_fetch_anything() -> None:
    house = House()
    request = jobs_pb2.ReportResultsRequest(
        reports=[jobs_pb2.AttemptReport(job_id="j", attempt=1, result=jobs_pb2.JobResult(), blob=b"b")],
        root_signature=bytes(64),
    )
    with pytest.raises(PeerFault, match="signature"):
        house.handlers.report_results(Caller(Kind.MEMBER, WORKER.node_id, frozenset({HOST})), request)
    assert house.taken == []

"""Market handlers: what nodes refuse of each other, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
from google.protobuf.message import Message
from jobs_bench import JOBS, MARKET, PAYLOAD, WASM, Bench, member

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, PeerFault
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.jobs.bounds import MANIFEST_BYTES_MAX, OFFER_LISTS_MAX, SEALED_BYTES_MAX
from offgrid_node.protocol.jobs.large import report_context
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import RECEIPTS, ReceiptBody, result_digest, verify_receipt
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.services.caller import ADMIN, Caller
from offgrid_node.services.client import Client
from offgrid_node.services.jobs.market import check_answer
from offgrid_node.services.roads.book import RoadBook
from offgrid_tools.sim.crypto import SimLetters, sim_verify


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def test_a_node_does_only_what_its_roles_allow(bench: Bench) -> None:
    order, core = bench.order().encode(), member(bench.core, CORE)
    asked: list[tuple[Any, Caller, str, Message, str]] = [
        (bench.broker, ADMIN, f"{JOBS}/CreateMission", jobs_pb2.CreateMissionRequest(title="m"), "NotACore"),
        (bench.host, core, f"{MARKET}/SubmitJobs", jobs_pb2.SubmitJobsRequest(orders=[order]), "NotABroker"),
        (bench.broker, core, f"{MARKET}/StartJobs", jobs_pb2.StartJobsRequest(), "NotAHost"),
    ]
    for process, caller, method, request, reason in asked:
        before = process.store.journal_seq
        with pytest.raises(FailedPrecondition, match="its roles in force are") as refused:
            bench.ask(process, caller, method, request)
        assert (refused.value.reason, process.store.journal_seq) == (reason, before)


def test_an_order_must_be_its_core_s_own_and_signed_in_this_mesh(bench: Bench) -> None:
    host, core = member(bench.host, CORE), member(bench.core, CORE)
    order, other = bench.order().encode(), bench.order(attempt=2).encode()
    right = bench.sign(order)
    forged = {
        "in another's name": (host, [order], right),
        "signed by another": (core, [order], bench.sign(order, signer=bench.host.signer)),
        "of another mesh": (core, [order], bench.sign(order, salt=b"x" * 16)),
        "altered": (core, [other], right),
        "beside another": (core, [order, other], right),
        "one of several": (core, [order], bench.sign(order, other)),
        "not signed": (core, [order], b""),
        "garbage": (core, [b"\xff" * 40], bench.sign(b"\xff" * 40)),
        "endless": (core, [bytes(5000)], bench.sign(bytes(5000))),
    }
    for what, (caller, orders, signature) in forged.items():
        before = bench.broker.store.journal_seq
        request = jobs_pb2.SubmitJobsRequest(orders=orders, root_signature=signature)
        with pytest.raises(PeerFault):
            bench.ask(bench.broker, caller, f"{MARKET}/SubmitJobs", request)
        assert bench.broker.store.journal_seq == before, what


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size_tokens", 2**64 - 1),
        ("size_tokens", 10**15 + 1),
        ("timeout_ms", 86_400_001),
        ("priority", 101),
        ("price_max_micro", 10**15 + 1),
        ("requirements", "x" * 1_025),
    ],
)
def test_an_order_is_bounded_as_its_core_bounds_its_own_jobs(bench: Bench, field: str, value: Any) -> None:
    order = bench.order(**{field: value}).encode()
    signature = bench.sign(order)
    starts = [jobs_pb2.StartJob(order=order)]
    for process, method, request in (
        (bench.broker, "SubmitJobs", jobs_pb2.SubmitJobsRequest(orders=[order], root_signature=signature)),
        (bench.host, "StartJobs", jobs_pb2.StartJobsRequest(starts=starts, root_signature=signature)),
    ):
        with pytest.raises(InvalidRequest, match=f"{field}.*allowed"):
            bench.ask(process, member(bench.core, CORE), f"{MARKET}/{method}", request)


def test_a_start_must_bring_the_payload_that_was_ordered(bench: Bench) -> None:
    payload = PAYLOAD.SerializeToString()
    right = bench.order(payload)
    for order, carried in (
        (right, payload + b"\x00"),
        (right, jobs_pb2.JobPayload(wasm=WASM, input=b"y").SerializeToString()),
        (bench.order(b"\xff\xff"), b"\xff\xff"),
        (bench.order(payload, needs="process:rm"), payload),
    ):
        start = jobs_pb2.StartJob(order=order.encode(), payload=carried, price_micro=10)
        request = jobs_pb2.StartJobsRequest(starts=[start], root_signature=bench.sign(start.order))
        with pytest.raises((PeerFault, InvalidRequest)):
            bench.ask(bench.host, member(bench.core, CORE), f"{MARKET}/StartJobs", request)


def report(bench: Bench, **changes: Any) -> jobs_pb2.AttemptReport:
    body = ReceiptBody(
        **{
            "node": bench.host.node_id,
            "core": bench.core.node_id,
            "job_id": "j-1",
            "attempt": 1,
            "payload_digest": payload_digest(b""),
            "result_digest": result_digest(0, b"out"),
            "status": "completed",
            "size_tokens": 1,
            "latency_us": 1,
            "price_micro": 1,
            "executor": "x",
            **changes,
        }
    )
    receipt = jobs_pb2.Receipt(body=body.encode())
    result = jobs_pb2.JobResult(status="completed", receipt=receipt)
    context = report_context(bench.host.node_id, bench.core.node_id, "j-1", 1)
    secret = jobs_pb2.ResultSecret(output=b"out").SerializeToString()
    sealed = SimLetters(bench.host.signer).seal(bench.core.signer.public_key, context, secret)
    return jobs_pb2.AttemptReport(job_id="j-1", attempt=1, result=result, sealed=sealed)


def test_a_receipt_is_bound_to_its_host_core_job_attempt_and_result(bench: Bench) -> None:
    host = member(bench.host, HOST)

    def deliver(message: jobs_pb2.AttemptReport, caller: Caller = host) -> Any:
        signature = RECEIPTS.sign([message.result.receipt.body], bench.host.signer, bench.salt)
        request = jobs_pb2.ReportResultsRequest(reports=[message], root_signature=signature)
        return bench.ask(bench.core, caller, f"{MARKET}/ReportResults", request)

    (outcome,) = deliver(report(bench)).outcomes  # rightly signed, but of a job that this core never gave away
    assert not outcome.accepted
    for changes in (
        {"node": bench.broker.node_id},
        {"core": bench.host.node_id},
        {"job_id": "j-2"},
        {"attempt": 2},
        {"status": "failed"},
        {"result_digest": result_digest(0, b"other")},
    ):
        with pytest.raises(PeerFault):
            deliver(report(bench, **changes))
    with pytest.raises(PeerFault):
        deliver(report(bench), member(bench.broker, HOST))
    unsigned = jobs_pb2.ReportResultsRequest(reports=[report(bench)])
    with pytest.raises(PeerFault, match="signature"):
        bench.ask(bench.core, host, f"{MARKET}/ReportResults", unsigned)
    with pytest.raises(InvalidRequest):
        deliver(jobs_pb2.AttemptReport(job_id="j-1", attempt=1))


def test_what_a_host_answers_to_a_start_is_checked_as_what_it_reports(bench: Bench) -> None:
    market, host = bench.core.running._market, bench.host.node_id
    message = report(bench)
    signature = RECEIPTS.sign([message.result.receipt.body], bench.host.signer, bench.salt)
    good = jobs_pb2.StartJobsResponse(reports=[message], root_signature=signature)
    [checked] = market.started(host, jobs_pb2.StartJobsResponse.FromString(good.SerializeToString())).reports
    assert (checked.key, checked.message.result.output) == (("j-1", 1), b"out")
    assert verify_receipt(checked.message.result.receipt, bench.host.signer.public_key, sim_verify, bench.salt)
    with pytest.raises(PeerFault, match="signature"):
        market.started(host, jobs_pb2.StartJobsResponse(reports=[message], root_signature=bytes(64)))
    with pytest.raises(PeerFault, match="signature"):
        market.started(bench.broker.node_id, good)
    blob = jobs_pb2.AttemptReport(job_id="j-1", attempt=1, blob=b"manifest")
    with pytest.raises(InvalidRequest, match="by itself"):
        market.started(host, jobs_pb2.StartJobsResponse(reports=[blob]))
    with pytest.raises(InvalidRequest, match="at most"):
        market.started(host, jobs_pb2.StartJobsResponse(reports=[message] * 300, root_signature=signature))


def offer(**fields: Any) -> dict[str, Any]:
    return {"offers": [jobs_pb2.Offer(**{"offer_id": 1, "expiry_ms": 10_000, **fields})]}


def profile(**fields: Any) -> dict[str, Any]:
    return {"profile": jobs_pb2.HostProfile(**fields)}


OFFERS: list[tuple[str, dict[str, Any]]] = [
    ("offers[0].slots", offer(slots=10**6)),
    ("offers[0].offer_id", offer(offer_id=0)),
    ("offers[0].offer_id", offer(offer_id=257)),
    ("offers[0].expiry_ms", offer(expiry_ms=999)),
    ("offers[0].expiry_ms", offer(expiry_ms=3_600_001)),
    ("offers[0].executors", offer(executors=["x" * 129])),
    ("offers[0].kinds", offer(kinds=["x" * 129])),
    ("offers[0].owners", offer(owners=["x" * 65])),
    ("offers[0].owners", offer(owners=["x"] * (OFFER_LISTS_MAX + 1))),
    ("offers[0].ask_micro", offer(ask_micro=2**63)),
    ("offers", {"offers": [jobs_pb2.Offer()] * 257}),
    ("withdrawn", {"withdrawn": [1] * 257}),
    ("profile.slots", profile(slots=10**6)),
    ("profile.labels", profile(labels={"x" * 129: ""})),
    ("profile.labels", profile(labels={"x": "y" * 129})),
    ("profile.isolation", profile(isolation={"x": "y" * 129})),
    ("profile.models", profile(models=["x" * 129])),
    ("profile.executors", profile(executors=["x"] * (OFFER_LISTS_MAX + 1))),
    ("profile.gpus", profile(gpus=[jobs_pb2.Gpu()] * 65)),
    ("profile.platform", profile(platform="x" * 129)),
    ("held", {"held": ["x" * 201]}),
    ("released", {"released": ["x"] * (OFFER_LISTS_MAX + 1)}),
    ("offers", {"held": [f"{n:0199}" for n in range(1_024)], "released": [f"{n:0199}" for n in range(1_024)]}),
]


@pytest.mark.parametrize(("field", "fields"), OFFERS)
def test_what_a_host_says_of_itself_is_bounded(bench: Bench, field: str, fields: dict[str, Any]) -> None:
    request = jobs_pb2.PostOffersRequest(host=bench.host.node_id, seq=1, **fields)
    with pytest.raises(InvalidRequest) as refused:
        bench.ask(bench.broker, member(bench.host, HOST), f"{MARKET}/PostOffers", request)
    assert refused.value.violations[0].field == field


def test_nobody_offers_in_anothers_name(bench: Bench) -> None:
    request = jobs_pb2.PostOffersRequest(host=bench.core.node_id, seq=1)
    with pytest.raises(PeerFault, match="in the name of"):
        bench.ask(bench.broker, member(bench.host, HOST), f"{MARKET}/PostOffers", request)


REPORTS = [
    ("reports[0].error", jobs_pb2.AttemptReport(error="x" * 65)),
    ("reports[0].error", jobs_pb2.AttemptReport(error="not a word")),
    ("reports[0].error_detail", jobs_pb2.AttemptReport(error="X", error_detail="x" * 2_001)),
    ("reports[0].sealed", jobs_pb2.AttemptReport(sealed=bytes(SEALED_BYTES_MAX + 1))),
    ("reports[0].blob", jobs_pb2.AttemptReport(blob=bytes(MANIFEST_BYTES_MAX + 1))),
    # A host says nothing in clear of what came of a job.
    ("reports[0].result.log", jobs_pb2.AttemptReport(result=jobs_pb2.JobResult(log=b"x"))),
    ("reports[0].result.output", jobs_pb2.AttemptReport(result=jobs_pb2.JobResult(output=b"x"))),
    ("reports[0].result.output_object", jobs_pb2.AttemptReport(result=jobs_pb2.JobResult(output_object="o-x"))),
]


def test_a_report_says_no_more_than_it_may(bench: Bench) -> None:
    for field, message in REPORTS:
        message.job_id = "j-1"
        request = jobs_pb2.ReportResultsRequest(reports=[message])
        with pytest.raises(InvalidRequest) as refused:
            bench.ask(bench.core, member(bench.host, HOST), f"{MARKET}/ReportResults", request)
        assert refused.value.violations[0].field == field


@pytest.mark.parametrize("job_id", ["", "x" * 65, "a/b", "a b", "\0", "\u202ej", "j\n", "é"])
def test_a_job_id_is_one_word_whoever_names_it(bench: Bench, job_id: str) -> None:
    """It stands in keys of rows: an empty one, of a lying host, once took the core's machines down."""
    order = bench.order(job_id=job_id).encode()
    orders = {"orders": [order], "root_signature": bench.sign(order)}
    key, end = jobs_pb2.LeaseKey(job_id=job_id), jobs_pb2.ClosedLease(job_id=job_id)
    core, broker, host = member(bench.core, CORE), member(bench.broker, BROKER), member(bench.host, HOST)
    report = jobs_pb2.AttemptReport(job_id=job_id, error="X")
    for to, caller, method, request in (
        (bench.broker, core, "SubmitJobs", jobs_pb2.SubmitJobsRequest(**orders)),
        (bench.broker, core, "SubmitJobs", jobs_pb2.SubmitJobsRequest(closed=[end])),
        (bench.broker, core, "SubmitJobs", jobs_pb2.SubmitJobsRequest(doubtful=[key])),
        (bench.broker, core, "CloseLeases", jobs_pb2.CloseLeasesRequest(leases=[end])),
        (bench.broker, core, "ExplainOrder", jobs_pb2.ExplainOrderRequest(order=order)),
        (bench.host, core, "StartJobs", jobs_pb2.StartJobsRequest(settled=[key])),
        (bench.host, core, "CancelStarts", jobs_pb2.CancelStartsRequest(attempts=[key])),
        (bench.core, broker, "DeliverAwards", jobs_pb2.DeliverAwardsRequest(awards=[jobs_pb2.Clearing(job_id=job_id)])),
        (bench.core, host, "ReportResults", jobs_pb2.ReportResultsRequest(reports=[report])),
        (bench.core, host, "RenewLeases", jobs_pb2.RenewLeasesRequest(held=[key])),
    ):
        with pytest.raises(InvalidRequest, match="job_id"):
            bench.ask(to, caller, f"{MARKET}/{method}", request)


def awards(bench: Bench) -> list[tuple[str, jobs_pb2.Clearing]]:
    def award(host: str = bench.host.node_id, **fields: Any) -> jobs_pb2.Clearing:
        return jobs_pb2.Clearing(job_id="j-1", attempt=1, kind=jobs_pb2.CLEARING_KIND_AWARDED, host=host, **fields)

    return [
        ("host", award("nobody")),
        ("host", award(bench.broker.node_id)),
        ("host", award("x" * 1_000)),
        ("price_micro", award(price_micro=2**63)),
        ("detail", award(detail="x" * 2_001)),
    ]


def test_an_award_names_a_host_of_the_mesh_and_a_price_in_bounds(bench: Bench) -> None:
    for field, clearing in awards(bench):
        request = jobs_pb2.DeliverAwardsRequest(awards=[clearing])
        with pytest.raises(InvalidRequest) as refused:
            bench.ask(bench.core, member(bench.broker, BROKER), f"{MARKET}/DeliverAwards", request)
        assert refused.value.violations[0].field == f"awards[0].{field}"


def test_what_a_broker_answers_is_bounded_as_well(bench: Bench) -> None:
    """The machine sees a fault instead, and looks for another broker."""
    seen: list[Answered] = []

    class Deliveries:
        def deliver(self, domain: str, event: Answered) -> None:
            seen.append(event)

    class Liar:
        def __init__(self, clearing: jobs_pb2.Clearing) -> None:
            self.answer = jobs_pb2.SubmitJobsResponse(clearings=[clearing])

        name = kin = "test"

        def ready(self, node: str) -> bool:
            return True

        def reaches(self, node: str) -> bool:
            return True

        def pace(self, node: str) -> Pace:
            return FREE

        def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Any) -> None:
            done(self.answer)

    directory = bench.core.running.directory

    def checked(node: str, answer: Message) -> object:
        check_answer(answer, directory)
        return answer

    for field, clearing in awards(bench):
        client = Client("self", [Liar(clearing)], lambda: directory, RoadBook(lambda: 0), checked)
        client.bind(cast(Any, Deliveries()), bench.core.running.router)
        client.call(Call("jobs", "b", f"{MARKET}/SubmitJobs", jobs_pb2.SubmitJobsRequest(), "tag", 1_000))
        fault = seen[-1].fault
        assert isinstance(fault, PeerFault)
        assert f"clearings[0].{field}" in fault.message


def test_the_book_comes_in_pages(bench: Bench) -> None:
    hosts, token = [], ""
    while token or not hosts:
        request = jobs_pb2.ListOffersRequest(page_size=1, page_token=token)
        page = bench.ask(bench.broker, ADMIN, f"{MARKET}/ListOffers", request)
        hosts += [entry.profile.host for entry in page.entries]
        assert len(page.entries) == 1
        token = page.next_page_token
    whole = bench.ask(bench.broker, ADMIN, f"{MARKET}/ListOffers", jobs_pb2.ListOffersRequest())
    assert hosts == [entry.profile.host for entry in whole.entries]
    assert len(set(hosts)) == len(hosts) > 1


def test_one_call_carries_a_bounded_number(bench: Bench) -> None:
    leases = [jobs_pb2.ClosedLease(job_id="j", attempt=1)] * (CALL_ITEMS_MAX + 1)
    request = jobs_pb2.CloseLeasesRequest(leases=leases)
    with pytest.raises(InvalidRequest, match=str(CALL_ITEMS_MAX)):
        bench.ask(bench.broker, member(bench.core, CORE), f"{MARKET}/CloseLeases", request)

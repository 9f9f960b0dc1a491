"""Job and market handlers: what they refuse, and that a refusal changes nothing.

A quiet simulated mesh of five runs underneath, so that every request meets real machines and real rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, jobs_pb2
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, Fault, InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.events import CORE, HOST
from offgrid_node.protocol.jobs.broker import OFFER_LISTS_MAX
from offgrid_node.protocol.jobs.orders import JobOrder, payload_digest, sign_order
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest, sign_receipts
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crypto import SimSigner

JOBS, MARKET = "offgrid.v1.JobService", "offgrid.v1.MarketService"
WASM = jobs_pb2.WasmTask(module=b"(module)")
PAYLOAD = jobs_pb2.JobPayload(wasm=WASM, input=b"x")


class Bench:
    """The cluster, and calls as its owner or as a member."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.cluster.start()
        self.cluster.run_for(8)
        self.core, self.broker, self.host = (self.cluster.processes[n] for n in ("core", "broker", "host-a"))
        self.salt = self.core.running.directory.salt

    def ask(self, process: Any, caller: Caller, method: str, request: Message) -> Any:
        """The answer; raises its fault."""
        outcome: Any = process.running.router.dispatch(caller, method, request)
        if isinstance(outcome, Ticket):
            for _ in range(100):
                if outcome.outcome is not None:
                    break
                self.cluster.run_for(0.01)
            outcome = outcome.outcome
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def own(self, method: str, request: Message) -> Any:
        return self.ask(self.core, ADMIN, f"{JOBS}/{method}", request)

    def job(self, **fields: Any) -> jobs_pb2.Job:
        mission = self.own("CreateMission", jobs_pb2.CreateMissionRequest(title="m")).mission
        task = self.own(
            "CreateTask", jobs_pb2.CreateTaskRequest(mission_id=mission.mission_id, name="t", kind="compute")
        )
        request = jobs_pb2.CreateJobRequest(**{"task_id": task.task.task_id, "payload": PAYLOAD, **fields})
        job: jobs_pb2.Job = self.own("CreateJob", request).job
        return job

    def order(self, payload: bytes = b"", **changes: Any) -> JobOrder:
        fields = {
            "core": self.core.node_id,
            "job_id": "j-forged",
            "attempt": 1,
            "kind": "compute",
            "needs": "wasm",
            "size_tokens": 1,
            "payload_bytes": len(payload),
            "payload_digest": payload_digest(payload),
            "timeout_ms": 1000,
            **changes,
        }
        return JobOrder(**fields)

    def signed(self, order: JobOrder, signer: SimSigner | None = None, salt: bytes | None = None) -> common_pb2.Signed:
        return sign_order(order, signer or self.core.signer, self.salt if salt is None else salt)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def member(process: Any, *roles: int) -> Caller:
    return Caller(Kind.MEMBER, process.node_id, frozenset(roles))


BAD_REQUESTS: dict[str, tuple[str, Callable[[str], Message], type[Fault], str]] = {
    "mission without a title": ("CreateMission", lambda t: jobs_pb2.CreateMissionRequest(), InvalidRequest, "title"),
    "title too long": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="x" * 257), InvalidRequest, "at most 256"),
    "control characters": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="a\x1b[2J"), InvalidRequest, "control"),
    "request id with a space": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="m", request_id="a b"), InvalidRequest, "A-Z"),
    "task of an unknown kind": (
        "CreateTask",
        lambda t: jobs_pb2.CreateTaskRequest(mission_id="m-x", name="t", kind="quantum"), InvalidRequest, "compute"),
    "task of no mission": (
        "CreateTask",
        lambda t: jobs_pb2.CreateTaskRequest(mission_id="m-x", name="t", kind="compute"), NotFound, "m-x"),
    "status that is none": (
        "UpdateMission", lambda t: jobs_pb2.UpdateMissionRequest(mission_id="m-x", status="done"), NotFound, "m-x"),
    "job of no task": (
        "CreateJob", lambda t: jobs_pb2.CreateJobRequest(task_id="t-x", payload=PAYLOAD), NotFound, "t-x"),
    "job without a payload": ("CreateJob", lambda t: jobs_pb2.CreateJobRequest(task_id=t), InvalidRequest, "payload"),
    "time-out too short": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, payload=PAYLOAD, timeout_ms=99), InvalidRequest, "100 to"),
    "time-out too long": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, payload=PAYLOAD, timeout_ms=2**31), InvalidRequest, "100 to"),
    "impossible size": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, payload=PAYLOAD, size_tokens=2**63), InvalidRequest, "at most"),
    "dispatch of nothing": ("DispatchJob", lambda t: jobs_pb2.DispatchJobRequest(job_id="j-x"), NotFound, "j-x"),
    "watch of nothing": ("WatchJob", lambda t: jobs_pb2.WatchJobRequest(job_id="j-x"), NotFound, "j-x"),
    "an id too long for a key": ("GetJob", lambda t: jobs_pb2.GetJobRequest(job_id="j" * 600), NotFound, "no job"),
    "an empty id": ("GetJob", lambda t: jobs_pb2.GetJobRequest(), NotFound, "no job"),
    "a page token of somebody else's": (
        "ListJobs", lambda t: jobs_pb2.ListJobsRequest(page_token="%%%"), InvalidRequest, "page_token"),
    "a negative page": ("ListJobs", lambda t: jobs_pb2.ListJobsRequest(page_size=-1), InvalidRequest, "page_size"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_a_bad_request_is_refused_by_name_and_changes_nothing(bench: Bench, case: str) -> None:
    method, request, fault, words = BAD_REQUESTS[case]
    task_id = bench.job().task_id
    before = bench.core.store.journal_seq
    with pytest.raises(fault) as refused:
        bench.own(method, request(task_id))
    assert words in refused.value.message
    assert bench.core.store.journal_seq == before


def test_a_completed_mission_is_closed(bench: Bench) -> None:
    mission = bench.own("CreateMission", jobs_pb2.CreateMissionRequest(title="m")).mission
    update = jobs_pb2.UpdateMissionRequest(mission_id=mission.mission_id, title="new", status="completed")
    assert bench.own("UpdateMission", update).mission.status == "completed"
    with pytest.raises(FailedPrecondition):
        bench.own("UpdateMission", update)
    shown = bench.own("GetMission", jobs_pb2.GetMissionRequest(mission_id=mission.mission_id)).mission
    assert (shown.title, shown.status) == ("new", "completed")


def test_a_repeated_request_id_makes_one_thing_and_cannot_make_another(bench: Bench) -> None:
    request = jobs_pb2.CreateMissionRequest(title="m", request_id="once")
    first = bench.own("CreateMission", request).mission
    assert bench.own("CreateMission", request).mission == first
    job = bench.job(request_id="job-once")
    assert bench.job(request_id="job-once").job_id == job.job_id
    with pytest.raises(AlreadyExists):
        bench.job(request_id="once")


def test_lists_come_in_pages_without_bulk(bench: Bench) -> None:
    task_id = bench.job().task_id
    made = [bench.own("CreateJob", jobs_pb2.CreateJobRequest(task_id=task_id, payload=PAYLOAD)).job for _ in range(4)]
    seen: list[str] = []
    token = ""
    while True:
        page = bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=task_id, page_size=2, page_token=token))
        assert len(page.jobs) <= 2
        seen += [job.job_id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert {job.job_id for job in made} < set(seen)
    assert len(seen) == 5


def test_an_order_must_be_its_core_s_own_and_signed_in_this_mesh(bench: Bench) -> None:
    host, core = member(bench.host, CORE), member(bench.core, CORE)
    forged = {
        "in another's name": (host, bench.signed(bench.order())),
        "signed by another": (core, bench.signed(bench.order(), bench.host.signer)),
        "of another mesh": (core, bench.signed(bench.order(), salt=b"x" * 16)),
        "altered": (
            core,
            common_pb2.Signed(body=bench.order(attempt=2).encode(), signature=bench.signed(bench.order()).signature),
        ),
        "garbage": (core, common_pb2.Signed(body=b"\xff" * 40, signature=b"")),
        "endless": (core, common_pb2.Signed(body=bytes(5000), signature=b"")),
    }
    for what, (caller, signed) in forged.items():
        before = bench.broker.store.journal_seq
        with pytest.raises(PeerFault):
            bench.ask(bench.broker, caller, f"{MARKET}/SubmitJobs", jobs_pb2.SubmitJobsRequest(orders=[signed]))
        assert bench.broker.store.journal_seq == before, what


def test_a_start_must_bring_the_payload_that_was_ordered(bench: Bench) -> None:
    payload = PAYLOAD.SerializeToString()
    right = bench.order(payload)
    for order, carried in (
        (right, payload + b"\x00"),
        (right, jobs_pb2.JobPayload(wasm=WASM, input=b"y").SerializeToString()),
        (bench.order(b"\xff\xff"), b"\xff\xff"),
        (bench.order(payload, needs="process:rm"), payload),
    ):
        start = jobs_pb2.StartJob(order=bench.signed(order), payload=carried, price_micro=10)
        request = jobs_pb2.StartJobsRequest(starts=[start])
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
    (receipt,) = sign_receipts([body.encode()], bench.host.signer, bench.salt)
    result = jobs_pb2.JobResult(status="completed", output=b"out", receipt=receipt)
    return jobs_pb2.AttemptReport(job_id="j-1", attempt=1, result=result)


def test_a_receipt_is_bound_to_its_host_core_job_attempt_and_result(bench: Bench) -> None:
    host = member(bench.host, HOST)

    def deliver(message: jobs_pb2.AttemptReport, caller: Caller = host) -> Any:
        request = jobs_pb2.ReportResultsRequest(reports=[message])
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
    with pytest.raises(InvalidRequest):
        deliver(jobs_pb2.AttemptReport(job_id="j-1", attempt=1))


def test_an_offer_is_its_host_s_own_and_bounded(bench: Bench) -> None:
    host = member(bench.host, HOST)
    for offer, fault in (
        (jobs_pb2.Offer(host=bench.core.node_id, slots=1), PeerFault),
        (jobs_pb2.Offer(host=bench.host.node_id, slots=10**6), InvalidRequest),
        (jobs_pb2.Offer(host=bench.host.node_id, price_micro=2**63), InvalidRequest),
        (jobs_pb2.Offer(host=bench.host.node_id, held=["x"] * (OFFER_LISTS_MAX + 1)), InvalidRequest),
    ):
        with pytest.raises(fault):
            bench.ask(bench.broker, host, f"{MARKET}/PostOffer", jobs_pb2.PostOfferRequest(offer=offer))


def test_one_call_carries_a_bounded_number(bench: Bench) -> None:
    leases = [jobs_pb2.LeaseKey(job_id="j", attempt=1)] * (CALL_ITEMS_MAX + 1)
    request = jobs_pb2.CloseLeasesRequest(leases=leases)
    with pytest.raises(InvalidRequest, match=str(CALL_ITEMS_MAX)):
        bench.ask(bench.broker, member(bench.core, CORE), f"{MARKET}/CloseLeases", request)

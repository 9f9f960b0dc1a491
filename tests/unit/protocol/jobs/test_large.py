"""Large outputs in the machine: kept for the core until it answers, and an object of the core once it has accepted."""

from __future__ import annotations

import pytest
from job_bench import OWNER, WORKER, CoreBench, HostBench, ends
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.effects import Answered, Delete, DropBlob, Executed, Raise
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.closing import EXCUSED
from offgrid_node.protocol.jobs.commands import Arriving, Report
from offgrid_node.protocol.jobs.large import OUTPUT_LOST
from offgrid_node.protocol.jobs.patience import AGAIN_PATIENCE_MS, RUN_GRACE_MS
from offgrid_node.protocol.jobs.post import Tag, transfer_ms
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.jobs.result_blobs import RESULT_BLOBS
from offgrid_node.protocol.objects.manifest import COPY, Manifest

MANIFEST = Manifest(WORKER.node_id, b"n" * 16, 100_000, 40_000, 1, COPY, (b"r" * 32,), 5)
OWN = replace(MANIFEST, owner=OWNER.node_id)
ADDED = ObjectAdded(objects_pb2.Manifest(), OWN, "j.output", 0)


# ---- the host


def finished(bench: HostBench, job_id: str = "j-1", **fields: object) -> None:
    """The work has ended; what came of it is sealed."""
    end = Executed(OWNER.node_id, job_id, 1, b"", b"", 0, "", "", 1, "test/1", digest=b"d" * 32, sealed=b"letter")
    bench.host.on_executed([end._replace(**fields)], bench.now)
    bench.settle()


def dropped(bench: HostBench | CoreBench) -> list[str]:
    return [effect.name for effect in bench.effects if isinstance(effect, DropBlob)]


def blob_rows(bench: HostBench) -> list[bytes]:
    return [key for table, key in bench.disk.rows if table == RESULT_BLOBS]


def test_a_receipt_is_for_the_result_in_clear_and_the_report_has_it_sealed() -> None:
    bench = HostBench()
    bench.start()
    finished(bench)
    request = bench.calls("ReportResults")[-1].request
    assert isinstance(request, jobs_pb2.ReportResultsRequest)
    [report] = request.reports
    assert ReceiptBody.decode(report.result.receipt.body).result_digest == b"d" * 32
    assert (report.sealed, report.result.output, report.result.log) == (b"letter", b"", b"")


def test_a_receipt_says_what_the_work_used() -> None:
    bench = HostBench()
    bench.start()
    finished(bench, cpu_us=4, memory_peak_bytes=5, output_bytes=6, used_tokens=7)
    request = bench.calls("ReportResults")[-1].request
    assert isinstance(request, jobs_pb2.ReportResultsRequest)
    body = ReceiptBody.decode(request.reports[0].result.receipt.body)
    assert (body.cpu_us, body.memory_peak_bytes, body.output_bytes, body.used_tokens) == (4, 5, 6, 7)


def test_a_blob_is_known_by_a_row_until_the_core_has_answered_and_dropped_then() -> None:
    bench = HostBench()
    bench.start()
    finished(bench, blob=MANIFEST.encode())
    assert blob_rows(bench) == [MANIFEST.object_id.encode()]
    assert dropped(bench) == []
    bench.acknowledge(OWNER, "j-1", 1)
    assert (blob_rows(bench), dropped(bench)) == ([], [MANIFEST.object_id])


def test_the_row_goes_in_the_same_commit_that_lets_the_blob_go() -> None:
    """What a row still names is not deleted: were the row written late, the blob would stay until the next start."""
    bench = HostBench()
    bench.start()
    finished(bench, blob=MANIFEST.encode())
    tag = Tag("ReportResults", OWNER.node_id, (("j-1", 1),))
    outcome = jobs_pb2.ReportOutcome(job_id="j-1", attempt=1, accepted=True)
    reply = jobs_pb2.ReportResultsResponse(outcomes=[outcome])
    bench.host.on_reported(tag, Answered(tag, OWNER.node_id, reply, None), bench.now)
    effects = bench.post.take(bench.now)
    assert Delete(RESULT_BLOBS, MANIFEST.object_id.encode()) in effects
    assert DropBlob(MANIFEST.object_id) in effects


def test_it_is_kept_over_a_restart_and_reported_again() -> None:
    bench = HostBench()
    bench.start()
    finished(bench, blob=MANIFEST.encode())
    bench.restart()
    bench.host.on_wake(bench.now)
    bench.settle()
    request = bench.calls("ReportResults")[-1].request
    assert isinstance(request, jobs_pb2.ReportResultsRequest)
    assert [report.blob for report in request.reports] == [MANIFEST.encode()]
    bench.acknowledge(OWNER, "j-1", 1)
    assert dropped(bench) == [MANIFEST.object_id]


def test_a_report_with_a_blob_goes_alone() -> None:
    bench = HostBench(slots=3)
    for number in range(3):
        bench.start(job_id=f"j-{number}")
    ends = [
        Executed(OWNER.node_id, f"j-{number}", 1, b"", b"", 0, "", "", 1, "x", digest=b"d" * 32, blob=blob)
        for number, blob in enumerate((b"", MANIFEST.encode(), b""))
    ]
    bench.host.on_executed(ends, bench.now)
    bench.settle()
    sent = [[report.job_id for report in call.request.reports] for call in bench.calls("ReportResults")]  # type: ignore[attr-defined]
    assert sorted(sent) == [["j-0", "j-2"], ["j-1"]]


# ---- the core


def reported(bench: CoreBench, job_id: str, attempt: int = 1, *, blob: bytes = b"", error: str = "") -> str:
    """Why the report of WORKER is refused; empty when it is accepted."""
    job = bench.job(job_id)
    body = ReceiptBody(
        WORKER.node_id, OWNER.node_id, job_id, attempt, job.payload_digest, b"d" * 32, "completed",
        job.size_tokens, 1, job.price_micro, "x",
    )  # fmt: skip
    message = jobs_pb2.AttemptReport(job_id=job_id, attempt=attempt, blob=blob, error=error)
    if not error:
        message.result.status, message.result.receipt.body = "completed", body.encode()
        message.result.output_object = OWN.object_id
    report = Report((job_id, attempt), message, None if error else body, () if error or blob else (ADDED,))
    outcome = bench.core.reports.take(WORKER.node_id, report, bench.now, bench.rng)
    bench.settle()
    return outcome.refusal


def added(bench: CoreBench) -> list[ObjectAdded]:
    return [e.event for e in bench.effects if isinstance(e, Raise) and isinstance(e.event, ObjectAdded)]


def test_an_accepted_output_becomes_an_object_in_the_same_step_and_once() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    assert reported(bench, job_id) == ""
    assert added(bench) == [ADDED]
    assert bench.job(job_id).result.output_object == OWN.object_id
    assert reported(bench, job_id) == ""
    assert added(bench) == [ADDED]


def test_of_an_attempt_that_is_over_nothing_becomes_an_object() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    assert "over" in reported(bench, job_id, attempt=2)
    assert added(bench) == []


def test_an_output_that_was_not_taken_over_is_to_be_reported_again() -> None:
    """Its core had just restarted, and did not know yet that it was awarded when the report came."""
    bench = CoreBench()
    job_id = bench.awarded()
    message = jobs_pb2.AttemptReport(job_id=job_id, attempt=1, blob=MANIFEST.encode())
    bench.report(Report((job_id, 1), message, None))
    assert list(bench.replied(jobs_pb2.ReportResultsResponse).outcomes) == []
    assert bench.job(job_id).state == jobs_pb2.JOB_STATE_AWARDED


def test_an_output_that_was_not_taken_over_is_not_accepted() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    assert reported(bench, job_id, blob=MANIFEST.encode()) == "its output was not taken over"
    assert bench.job(job_id).state == jobs_pb2.JOB_STATE_AWARDED


def test_an_output_that_is_lost_ends_the_attempt_unpaid() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    message = jobs_pb2.AttemptReport(job_id=job_id, attempt=1, error=OUTPUT_LOST, error_detail="the host has lost it")
    outcome = bench.core.reports.take(WORKER.node_id, Report((job_id, 1), message, None), bench.now, bench.rng)
    bench.settle()
    assert (outcome.accepted, outcome.refusal) == (False, "the host has lost it")
    assert bench.job(job_id).attempt == 2


@pytest.mark.parametrize("times", [1, 3])
def test_an_output_on_its_way_has_time_for_it_but_only_once(times: int) -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    size = 10_000_000
    for _ in range(times):
        bench.core.reports.on_arriving(Arriving(WORKER.node_id, (job_id, 1), size), bench.now)
        bench.settle()
        bench.wait(1_000)
    bench.wait(RUN_GRACE_MS + transfer_ms(size) - 1_000 * times - 1)
    assert bench.job(job_id).attempt == 1
    bench.wait(1)
    assert bench.job(job_id).attempt == 2


class TestAnOutputThatThereIsNoRoomFor:
    """Is its core's trouble: its host keeps it and brings it again."""

    TROUBLE = "its output cannot be kept here: the disk is full"

    def refuse(self, bench: CoreBench, job_id: str, attempt: int = 1, trouble: str = TROUBLE) -> None:
        bench.core.reports.on_arriving(Arriving(WORKER.node_id, (job_id, attempt), 1_000, trouble), bench.now)
        bench.settle()

    def test_is_told_of_on_the_job_once(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        for trouble in (self.TROUBLE, "its output cannot be kept here: the disk is as full"):
            self.refuse(bench, job_id, trouble=trouble)
        assert bench.row(job_id).attempts[-1].outcome == f"waits: {self.TROUBLE}"

    def test_is_waited_for_as_long_as_its_host_brings_it(self) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        for _ in range(100):
            self.refuse(bench, job_id)
            bench.wait(AGAIN_PATIENCE_MS)
            bench.settle()
        assert bench.job(job_id).attempt == 1

    @pytest.mark.parametrize("how", ["it never comes again", "its host dies"])
    def test_costs_neither_job_nor_host_anything_should_it_be_lost(self, how: str) -> None:
        bench = CoreBench()
        job_id = bench.awarded()
        self.refuse(bench, job_id)
        if how == "its host dies":
            bench.down(WORKER)
        else:
            bench.wait(AGAIN_PATIENCE_MS + transfer_ms(1_000))
        job = bench.row(job_id)
        assert (job.attempt, job.losses) == (2, 0)
        assert ends(bench) == [(1, EXCUSED)]
        if how != "its host dies":
            outcome = f"LeaseExpired: its host has not brought its result again, of which {self.TROUBLE}"
            assert job.attempts[0].outcome == outcome


@pytest.mark.parametrize(
    "event", [Arriving(OWNER.node_id, ("", 1), 1), Arriving(WORKER.node_id, ("", 2), 1), Arriving("x", ("", 1), 1)]
)
def test_what_others_say_of_outputs_gives_no_time(event: Arriving) -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    due = bench.core.deadline_ms()
    bench.core.reports.on_arriving(event._replace(key=(job_id, event.key[1])), bench.now)
    bench.settle()
    assert bench.core.deadline_ms() == due


def test_a_large_input_has_its_time_on_the_road_too() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    entry = bench.core.jobs.get(job_id)
    assert entry is not None
    entry.job.input_bytes = 50_000_000
    bench.answers_start(job_id)
    bench.wait(entry.job.timeout_ms + RUN_GRACE_MS + 1)
    assert bench.job(job_id).attempt == 1
    bench.wait(transfer_ms(50_000_000))
    assert bench.job(job_id).attempt == 2

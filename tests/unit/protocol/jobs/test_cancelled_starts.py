"""A host whose core waits no more: what runs is stopped, nothing is said of it, and nothing late brings it back."""

from __future__ import annotations

from job_bench import OWNER, PAYLOAD, RIVAL, HostBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import DropBlob, Record, Stop
from offgrid_node.protocol.jobs.commands import CancelStarts, Start, StartJobs
from offgrid_node.protocol.jobs.fence import FENCES
from offgrid_node.protocol.jobs.host import REPORT_RETRY_MS
from offgrid_node.protocol.jobs.pages import LEASES
from offgrid_node.protocol.jobs.starts import HOLD_MS
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_tools.sim.crypto import SimSigner

KEY = (OWNER.node_id, "j-1", 1)


def cancel(bench: HostBench, core: SimSigner = OWNER, job_id: str = "j-1", attempt: int = 1) -> None:
    bench.host.on_cancel(9, CancelStarts(core.node_id, ((job_id, attempt),)), bench.now)
    bench.settle()
    bench.replied(jobs_pb2.CancelStartsResponse)


def stops(bench: HostBench) -> list[Stop]:
    return [effect for effect in bench.effects if isinstance(effect, Stop)]


def outcomes(bench: HostBench) -> list[str]:
    return [e.event.attempt.outcome for e in bench.effects if isinstance(e, Record) and e.event.HasField("attempt")]


class TestWorkUnderWay:
    def test_is_stopped_and_its_place_is_free_once_it_has_ended(self) -> None:
        bench = HostBench()
        bench.start()
        cancel(bench)
        assert stops(bench) == [Stop(*KEY)]
        assert bench.host.slots_free == 0
        bench.finish(*bench.executions())
        assert bench.host.slots_free == 1

    def test_is_not_reported_though_it_ended_well_meanwhile(self) -> None:
        bench = HostBench()
        bench.start()
        cancel(bench)
        bench.finish(*bench.executions())
        bench.wait(10 * REPORT_RETRY_MS)
        assert bench.calls("ReportResults") == []
        assert outcomes(bench) == ["taken", "Cancelled"]

    def test_leaves_no_lease_and_a_fence(self) -> None:
        bench = HostBench()
        bench.start()
        cancel(bench)
        assert list(bench.disk.scan(LEASES)) == []
        assert len(list(bench.disk.scan(FENCES))) == 1
        bench.finish(*bench.executions())
        assert bench.start().endswith("is over here")
        bench.restart()
        assert bench.start().endswith("is over here")

    def test_that_is_no_lease_yet_after_a_reload_is_stopped_too(self) -> None:
        bench = HostBench()
        bench.restart(still_at_work=[KEY])
        cancel(bench)
        assert stops(bench) == [Stop(*KEY)]

    def test_of_another_core_goes_on(self) -> None:
        bench = HostBench()
        bench.start(OWNER)
        cancel(bench, RIVAL)
        assert stops(bench) == []
        bench.finish(*bench.executions())
        assert len(bench.calls("ReportResults")) == 1


def test_a_start_that_was_not_answered_yet_is_answered_without_it() -> None:
    bench = HostBench(slots=2)
    bench.begin(OWNER, "j-1", "j-2")
    cancel(bench)
    bench.finish(*(work for work in bench.executions() if work.job_id == "j-2"))
    answer = bench.replied(jobs_pb2.StartJobsResponse)
    assert [report.job_id for report in answer.reports] == ["j-2"]
    bench.wait(HOLD_MS)
    assert list(bench.disk.scan(LEASES)) != []


def test_the_only_start_of_a_call_is_answered_at_once() -> None:
    bench = HostBench()
    bench.begin(OWNER, "j-1")
    bench.host.cancel(KEY, bench.now)
    bench.settle()
    assert [outcome.accepted for outcome in bench.replied(jobs_pb2.StartJobsResponse).outcomes] == [True]


def test_a_start_of_the_same_step_never_begins_and_its_place_is_free_at_once() -> None:
    bench = HostBench()
    order = order_of(OWNER)
    bench.host.on_start(1, StartJobs(OWNER.node_id, (Start(order, order.encode(), PAYLOAD, 0),), ()), bench.now)
    cancel(bench)
    assert bench.executions() == stops(bench) == []
    assert bench.host.slots_free == 1
    assert bench.start().endswith("is over here")


def test_a_start_that_comes_after_its_cancellation_is_refused() -> None:
    bench = HostBench()
    cancel(bench)
    assert bench.start().endswith("is over here")
    assert bench.executions() == []
    assert bench.start(attempt=2) == ""


def test_a_report_that_was_under_way_is_not_repeated_and_its_output_goes() -> None:
    bench = HostBench()
    bench.start()
    blob = Manifest(bench.settings.node_id, b"n" * 16, 100_000, 40_000, 1, COPY, (b"r" * 32,), 5).encode()
    bench.finish(*bench.executions(), blob=blob)
    cancel(bench)
    bench.wait(100 * REPORT_RETRY_MS)
    assert len(bench.calls("ReportResults")) == 1
    assert [effect.name for effect in bench.effects if isinstance(effect, DropBlob)] != []
    assert stops(bench) == []


def test_it_may_be_said_twice() -> None:
    bench = HostBench()
    bench.start()
    cancel(bench)
    bench.finish(*bench.executions())
    cancel(bench)
    assert outcomes(bench) == ["taken", "Cancelled"]

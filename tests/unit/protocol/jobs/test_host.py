"""The host as a plain object: whose attempts are whose, and where its bounds lie."""

from __future__ import annotations

import pytest
from job_bench import OWNER, RIVAL, WORKER, Disk, HostBench, order_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import DropBlob, Reply
from offgrid_node.protocol.jobs import leases
from offgrid_node.protocol.jobs.fence import FENCES, Fence
from offgrid_node.protocol.jobs.host import REPORT_RETRY_MS
from offgrid_node.protocol.jobs.pages import LEASES, UNSETTLED_MS
from offgrid_node.protocol.jobs.post import LATE_MS
from offgrid_node.protocol.jobs.receipts import RECEIPTS
from offgrid_node.protocol.jobs.starts import ANSWER_BYTES_MAX, HOLD_MS
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_tools.sim.crypto import sim_verify

NOW = Now(0, 0)
HUGE = 4_000_000_000
PROGRAM = jobs_pb2.JobPayload(process=jobs_pb2.ProcessTask(command="tool"))
BLOB = Manifest(WORKER.node_id, b"n" * 16, 100_000, 40_000, 1, COPY, (b"r" * 32,), 5).encode()


def reports(bench: HostBench) -> dict[str, list[tuple[str, int, bytes]]]:
    """What was sent, by core."""
    sent: dict[str, list[tuple[str, int, bytes]]] = {}
    for call in bench.calls("ReportResults"):
        assert isinstance(call.request, jobs_pb2.ReportResultsRequest)
        for report in call.request.reports:
            sent.setdefault(call.node, []).append((report.job_id, report.attempt, report.result.output))
    return sent


class TestAnotherCoreThatNamesTheSameJob:
    @pytest.mark.parametrize("attempt", [1, HUGE])
    def test_gets_work_of_its_own_and_stops_nobody_elses(self, attempt: int) -> None:
        bench = HostBench(slots=2)
        assert bench.start(RIVAL, attempt=attempt) == ""
        assert bench.start(OWNER) == ""
        assert [(work.core, work.attempt) for work in bench.executions()] == [
            (RIVAL.node_id, attempt),
            (OWNER.node_id, 1),
        ]

    def test_does_not_get_anothers_result(self) -> None:
        bench = HostBench(slots=2)
        bench.start(OWNER)
        bench.start(RIVAL)
        mine, theirs = bench.executions()
        bench.finish(theirs, output=b"theirs")
        assert reports(bench) == {RIVAL.node_id: [("j-1", 1, b"theirs")]}
        bench.finish(mine, output=b"mine")
        assert reports(bench)[OWNER.node_id] == [("j-1", 1, b"mine")]

    def test_fences_nobody_else_out(self) -> None:
        bench = HostBench()
        bench.start(RIVAL, attempt=HUGE)
        bench.finish(*bench.executions())
        bench.acknowledge(RIVAL, "j-1", HUGE)
        assert bench.start(RIVAL).endswith("is over here")
        bench.restart()
        assert bench.start(RIVAL).endswith("is over here")
        assert bench.start(OWNER) == ""

    def test_that_leaves_a_report_unanswered_is_told_again_soon(self) -> None:
        """It restarted, and asks its broker first who was awarded what."""
        bench = HostBench()
        bench.start(OWNER)
        bench.finish(*bench.executions())
        bench.leave_unanswered(OWNER, "j-1", 1)
        assert len(bench.calls("ReportResults")) == 1
        bench.wait(2 * REPORT_RETRY_MS)
        assert len(bench.calls("ReportResults")) == 2

    def test_settles_no_report_but_its_own(self) -> None:
        bench = HostBench()
        bench.start(OWNER)
        bench.finish(*bench.executions())
        bench.acknowledge(RIVAL, "j-1", 1)
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.acknowledge(OWNER, "j-1", 1, asked=False)
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.acknowledge(OWNER, "j-1", 1)
        assert len(list(bench.disk.scan(LEASES))) == 0


def test_the_offer_says_for_whom_it_holds_what() -> None:
    bench = HostBench(slots=2)
    bench.start(OWNER)
    bench.start(RIVAL, attempt=7)
    assert sorted(bench.held()) == sorted([f"{OWNER.node_id}/j-1/1", f"{RIVAL.node_id}/j-1/7"])


def test_work_that_a_restart_broke_off_is_given_back_to_its_own_core() -> None:
    bench = HostBench(slots=2)
    bench.start(OWNER)
    bench.start(RIVAL)
    bench.restart()
    bench.host.on_wake(bench.now)
    bench.settle()
    assert {core: len(sent) for core, sent in reports(bench).items()} == {OWNER.node_id: 1, RIVAL.node_id: 1}


class TestWorkThatIsOverWithinAMoment:
    """Its reports go with the answer to its start."""

    def answer(self, bench: HostBench) -> jobs_pb2.StartJobsResponse:
        return bench.replied(jobs_pb2.StartJobsResponse)

    def is_answered(self, bench: HostBench) -> bool:
        return any(isinstance(effect, Reply) for effect in bench.effects)

    def test_is_reported_together_under_one_signature(self) -> None:
        bench = HostBench(slots=2)
        bench.begin(OWNER, "j-1", "j-2")
        assert not self.is_answered(bench)
        first, second = bench.executions()
        bench.finish(first)
        assert not self.is_answered(bench)
        bench.finish(second)
        answer = self.answer(bench)
        assert [outcome.accepted for outcome in answer.outcomes] == [True, True]
        assert [report.job_id for report in answer.reports] == ["j-1", "j-2"]
        bodies = [report.result.receipt.body for report in answer.reports]
        assert RECEIPTS.check_paths(bodies, answer.root_signature, WORKER.public_key, sim_verify, b"")
        assert bench.calls("ReportResults") == []

    def test_keeps_nobody_waiting_for_what_takes_longer(self) -> None:
        bench = HostBench(slots=2)
        bench.begin(OWNER, "j-1", "j-2")
        first, second = bench.executions()
        bench.finish(first)
        bench.wait(HOLD_MS - 1)
        assert not self.is_answered(bench)
        bench.wait(1)
        assert [report.job_id for report in self.answer(bench).reports] == ["j-1"]
        bench.finish(second)
        assert reports(bench) == {OWNER.node_id: [("j-2", 1, b"done")]}

    def test_is_kept_until_it_is_settled_by_a_later_call(self) -> None:
        bench = HostBench(slots=2)
        bench.begin(OWNER, "j-1")
        bench.finish(*bench.executions())
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.begin(RIVAL, settled=[("j-1", 1)])
        bench.wait(LATE_MS)
        assert len(list(bench.disk.scan(LEASES))) == 1, "a core settles its own attempts, nobody else's"
        bench.begin(OWNER, settled=[("j-1", 1)])
        bench.wait(UNSETTLED_MS)
        assert len(list(bench.disk.scan(LEASES))) == 0
        assert bench.calls("ReportResults") == []
        assert bench.start(OWNER, "j-1").endswith("is over here")

    def test_is_not_settled_before_it_has_ended(self) -> None:
        """Whoever says so would make the host forget work that goes on."""
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        bench.begin(OWNER, settled=[("j-1", 1)])
        bench.wait(HOLD_MS)
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.finish(*bench.executions())
        assert reports(bench) == {OWNER.node_id: [("j-1", 1, b"done")]}

    def test_whose_lease_is_forgotten_leaves_no_bytes_behind(self) -> None:
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        [work] = bench.executions()
        bench.restart(still_at_work=[(OWNER.node_id, "j-1", 1)])
        bench.finish(work, blob=BLOB)
        assert [effect.name for effect in bench.effects if isinstance(effect, DropBlob)] == [
            Manifest.decode(BLOB).object_id
        ]

    def test_that_ends_twice_keeps_the_bytes_that_it_reported(self) -> None:
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        [work] = bench.executions()
        bench.finish(work, blob=BLOB)
        bench.finish(work, blob=BLOB)
        assert not any(isinstance(effect, DropBlob) for effect in bench.effects)

    def test_is_reported_by_itself_when_it_is_not_settled_soon(self) -> None:
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        bench.finish(*bench.executions())
        bench.wait(UNSETTLED_MS)
        assert reports(bench) == {OWNER.node_id: [("j-1", 1, b"done")]}

    def test_is_reported_by_itself_when_its_output_is_large_or_the_answer_is_full(self) -> None:
        bench = HostBench(slots=3)
        bench.begin(OWNER, "j-1", "j-2", "j-3")
        first, second, third = bench.executions()
        bench.finish(first, sealed=bytes(ANSWER_BYTES_MAX * 2 // 3))
        bench.finish(second, sealed=bytes(ANSWER_BYTES_MAX * 2 // 3))
        bench.finish(third, blob=BLOB)
        assert [report.job_id for report in self.answer(bench).reports] == ["j-1"]
        assert [job_id for job_id, *_ in reports(bench)[OWNER.node_id]] == ["j-2", "j-3"]

    def test_is_a_lease_only_with_its_report_or_its_answer(self) -> None:
        """A module leaves nothing behind but its output: that it is run anew after a crash, nobody can tell."""
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        assert len(bench.executions()) == 1
        assert list(bench.disk.scan(LEASES)) == []
        bench.restart()
        bench.begin(OWNER, "j-1")
        assert len(bench.executions()) == 2
        bench.wait(HOLD_MS)
        assert self.answer(bench).outcomes[0].accepted
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.restart()
        bench.begin(OWNER, "j-1")
        assert len(bench.executions()) == 2, "whoever was told that it was taken on is told the same again"

    def test_that_a_former_machine_began_is_not_begun_again(self) -> None:
        """A commit failed, and what was in memory alone is forgotten; the work goes on, and holds its slot."""
        bench = HostBench(slots=1)
        bench.begin(OWNER, "j-1")
        [work] = bench.executions()
        bench.restart(still_at_work=[(OWNER.node_id, "j-1", 1)])
        assert bench.start(RIVAL, "j-2") == "busy"
        bench.begin(OWNER, "j-1")
        assert bench.executions() == [work]
        bench.finish(work)
        assert [report.job_id for report in self.answer(bench).reports] == ["j-1"]
        assert bench.start(RIVAL, "j-2") == ""

    def test_that_may_leave_traces_is_a_lease_before_it_starts(self) -> None:
        bench = HostBench()
        bench.begin(OWNER, "j-1", payload=PROGRAM)
        assert len(list(bench.disk.scan(LEASES))) == 1
        bench.restart()
        bench.begin(OWNER, "j-1", payload=PROGRAM)
        assert len(bench.executions()) == 1

    def test_said_again_before_the_answer_is_a_lease_at_once(self) -> None:
        bench = HostBench()
        bench.begin(OWNER, "j-1")
        bench.begin(OWNER, "j-1")
        assert self.answer(bench).outcomes[0].accepted
        assert len(list(bench.disk.scan(LEASES))) == 1
        assert len(bench.executions()) == 1

    def test_of_this_very_nodes_core_waits_for_nothing(self) -> None:
        bench = HostBench()
        bench.begin(WORKER, "j-1")
        assert self.is_answered(bench)


def test_a_core_gets_no_more_work_than_it_settles_and_keeps_nobody_else_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leases, "REPORTS_MAX", 2)
    monkeypatch.setattr(leases, "REPORT_BYTES_MAX", 1_000)
    bench = HostBench(slots=9)
    full = "too many receipts wait to be acknowledged"
    for job_id in ("j-0", "j-1"):
        assert bench.start(OWNER, job_id) == ""
    bench.finish(*bench.executions())
    assert bench.start(OWNER, "j-more") == full
    bench.restart()
    assert bench.start(OWNER, "j-more") == full, "as its rows say"
    assert bench.start(RIVAL) == ""
    bench.finish(bench.executions()[-1], sealed=bytes(1_000))
    assert bench.start(RIVAL, "j-more") == full, "by their bytes as well"
    bench.acknowledge(OWNER, "j-0", 1)
    assert bench.start(OWNER, "j-more") == ""


class TestFence:
    def test_forgets_what_was_settled_first_beyond_its_bound(self) -> None:
        post, disk = HostBench().post, Disk()
        fence = Fence(post, fences_max=2)
        for job_id, attempt in (("a", 1), ("b", 5), ("a", 2), ("c", 1)):
            fence.settle(OWNER.node_id, [(job_id, attempt)], NOW)
        disk.commit(post.take(Now(LATE_MS, 0)))
        again = Fence(post, fences_max=2)
        again.load(disk, NOW)
        for known in (fence, again):
            assert [known.highest(OWNER.node_id, job_id) for job_id in "abc"] == [2, 0, 1]
            assert known.highest(RIVAL.node_id, "a") == 0
        assert len(list(disk.scan(FENCES))) == 2

    def test_is_not_pushed_out_by_what_another_core_settles(self) -> None:
        post, disk = HostBench().post, Disk()
        fence = Fence(post, fences_max=4)
        fence.settle(OWNER.node_id, [("j-1", 1)], NOW)
        for number in range(20):
            fence.settle(RIVAL.node_id, [(f"j-{number}", 1)], NOW)
        disk.commit(post.take(Now(LATE_MS, 0)))
        again = Fence(post, fences_max=4)
        again.load(disk, NOW)
        for known in (fence, again):
            assert known.highest(OWNER.node_id, "j-1") == 1
            assert [known.highest(RIVAL.node_id, f"j-{number}") for number in (16, 17, 19)] == [0, 1, 1]


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"avoid": (WORKER.node_id,)}, "the order avoids this host"),
        ({"requirements": "cpus >= 0"}, ""),
        ({"requirements": "memory_mb >= 4096"}, "memory_mb >= 4096 is false: it has 0"),
        ({"requirements": "memory_mb >="}, "requirements: "),
    ],
)
def test_what_the_order_asks_of_its_host_is_judged_by_the_host_itself(changes: dict[str, object], refusal: str) -> None:
    bench = HostBench()
    order = order_of(OWNER)._replace(**changes)
    said = bench.host.refusal(order, 0, NOW)
    assert said.startswith(refusal)
    assert bool(said) == bool(refusal)

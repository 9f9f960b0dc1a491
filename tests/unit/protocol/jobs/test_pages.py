"""Leases and fences on disk: what ends, or is settled, in one step is one row, and no row outlives what it says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import OWNER, RIVAL, Disk, HostBench

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.jobs import pages
from offgrid_node.protocol.jobs.fence import FENCES, Fence
from offgrid_node.protocol.jobs.pages import LEASES, UNSETTLED_MS
from offgrid_node.protocol.jobs.post import LATE_MS
from offgrid_node.protocol.jobs.starts import ANSWER_BYTES_MAX, HOLD_MS

NOW = Now(0, 0)


def rows(bench: HostBench) -> list[list[str]]:
    """The jobs that each row of leases names."""
    found = [jobs_pb2.HostLeases.FromString(value).leases for _, value in bench.disk.scan(LEASES)]
    return [[lease.report.job_id for lease in leases] for leases in found]


def reported(bench: HostBench) -> list[str]:
    """The jobs of all calls that report results."""
    return [report.job_id for call in bench.calls("ReportResults") for report in call.request.reports]  # type: ignore[attr-defined]


def three_that_end_at_once() -> HostBench:
    bench = HostBench(slots=3)
    bench.begin(OWNER, "j-1", "j-2", "j-3")
    bench.finish(*bench.executions())
    return bench


class TestShortWorkOfOneStep:
    def test_is_one_row(self) -> None:
        assert rows(three_that_end_at_once()) == [["j-1", "j-2", "j-3"]]

    def test_keeps_its_row_until_the_last_of_it_is_settled(self) -> None:
        bench = three_that_end_at_once()
        bench.begin(OWNER, settled=[("j-1", 1), ("j-3", 1)])
        assert len(rows(bench)) == 1
        bench.begin(OWNER, settled=[("j-2", 1)])
        assert rows(bench) == []

    def test_is_after_a_restart_what_was_not_settled_before(self) -> None:
        bench = three_that_end_at_once()
        bench.begin(OWNER, settled=[("j-1", 1), ("j-3", 1)])
        bench.restart()
        bench.wait(0)
        assert reported(bench) == ["j-2"]
        bench.acknowledge(OWNER, "j-2", 1)
        assert rows(bench) == []
        for job_id in ("j-1", "j-2", "j-3"):
            assert bench.start(OWNER, job_id).endswith("is over here")

    def test_is_reported_by_itself_as_far_as_it_is_not_settled_soon(self) -> None:
        bench = three_that_end_at_once()
        bench.begin(OWNER, settled=[("j-1", 1)])
        bench.wait(UNSETTLED_MS - 1)
        assert reported(bench) == []
        bench.wait(1)
        assert reported(bench) == ["j-2", "j-3"]
        bench.wait(UNSETTLED_MS)
        assert reported(bench) == ["j-2", "j-3"], "its own timer has it from here on"

    def test_wakes_nobody_once_it_is_settled(self) -> None:
        bench = three_that_end_at_once()
        assert bench.host._pages.deadline_ms() == UNSETTLED_MS
        bench.begin(OWNER, settled=[("j-1", 1), ("j-2", 1), ("j-3", 1)])
        assert bench.host._pages.deadline_ms() is None

    def test_is_of_several_rows_where_it_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One that stays keeps no more than that."""
        monkeypatch.setattr(pages, "PAGE_BYTES", 1_000)
        bench = HostBench(slots=4)
        bench.begin(OWNER, "j-1", "j-2", "j-3", "j-4")
        bench.finish(*bench.executions(), sealed=bytes(500))
        assert rows(bench) == [["j-1", "j-2"], ["j-3", "j-4"]]

    def test_shares_no_row_with_what_has_one_already(self) -> None:
        bench = HostBench(slots=2)
        bench.begin(OWNER, "j-1")
        bench.wait(HOLD_MS)
        assert rows(bench) == [[""]]
        bench.begin(OWNER, "j-2")
        bench.finish(*bench.executions())
        assert rows(bench) == [["j-1"], ["j-2"]]

    def test_sends_again_only_what_had_room_in_the_answer(self) -> None:
        """The other report is in a call of its own, whose end is awaited."""
        bench = HostBench(slots=2)
        bench.begin(OWNER, "j-1", "j-2")
        first, second = bench.executions()
        bench.finish(first, second, sealed=bytes(ANSWER_BYTES_MAX * 2 // 3))
        assert reported(bench) == ["j-2"]
        bench.wait(UNSETTLED_MS)
        assert reported(bench) == ["j-2", "j-1"]


class TestWhatIsSettledTogether:
    def fence(self, disk: Disk, fences_max: int = 3) -> tuple[Fence, HostBench]:
        bench = HostBench()
        bench.disk = disk
        fence = Fence(bench.post, fences_max)
        fence.load(disk, NOW)
        return fence, bench

    def test_is_one_row(self) -> None:
        fence, bench = self.fence(Disk())
        fence.settle(OWNER.node_id, [("j-1", 1), ("j-2", 7)], NOW)
        fence.settle(RIVAL.node_id, [("j-1", 2)], NOW)
        bench.settle()
        assert len(list(bench.disk.scan(FENCES))) == 2
        again, _ = self.fence(bench.disk)
        found = [again.highest(core.node_id, job_id) for core in (OWNER, RIVAL) for job_id in ("j-1", "j-2")]
        assert found == [1, 7, 2, 0]

    def test_goes_when_later_rows_say_more(self) -> None:
        fence, bench = self.fence(Disk())
        fence.settle(OWNER.node_id, [("j-1", 1), ("j-2", 1)], NOW)
        fence.settle(OWNER.node_id, [("j-1", 2)], NOW)
        bench.settle()
        assert len(list(bench.disk.scan(FENCES))) == 2
        fence.settle(OWNER.node_id, [("j-2", 2)], NOW)
        bench.settle()
        assert len(list(bench.disk.scan(FENCES))) == 2, "the first one says nothing any more"

    def test_may_name_a_job_twice(self) -> None:
        fence, bench = self.fence(Disk())
        fence.settle(OWNER.node_id, [("j-1", 1), ("j-1", 3), ("j-1", 2)], NOW)
        bench.settle()
        assert self.fence(bench.disk)[0].highest(OWNER.node_id, "j-1") == 3

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([OWNER, RIVAL]),
                st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 4)), min_size=1, max_size=6),
            ),
            max_size=12,
        )
    )
    def test_after_a_restart_is_known_at_least_as_well_and_rows_are_bounded(
        self, steps: list[tuple[object, list[tuple[str, int]]]]
    ) -> None:
        disk = Disk()
        fence, bench = self.fence(disk)
        for core, attempts in steps:
            fence.settle(core.node_id, attempts, NOW)  # type: ignore[attr-defined]
            disk.commit(bench.post.take(Now(LATE_MS, 0)))
        again, _ = self.fence(disk)
        for signer in (OWNER, RIVAL):
            for job_id in "abcde":
                known = fence.highest(signer.node_id, job_id)
                assert known == 0 or again.highest(signer.node_id, job_id) in (known, 0)
        assert fence._kept == again._kept <= 3
        assert len(list(disk.scan(FENCES))) <= 3
        assert sum(fence._counting.values()) == fence._kept

"""Jobs that go after others: in the step in which the last of those completes, or never, and over any restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import MARKET, PAYLOAD, TASK, CoreBench, award, new_job
from test_core import report_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Fill, Filled, Record
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.commands import CreateJob, RunJobs
from offgrid_node.protocol.jobs.dependencies import Dependencies
from offgrid_node.protocol.jobs.open_jobs import PAYLOAD_KEPT_MAX
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_node.protocol.jobs.releases import RELEASED_MAX
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, CREATED, FAILED, QUEUED

OFFGRID = jobs_pb2.DISPATCH_MODE_OFFGRID


def run(bench: CoreBench, *afters: tuple[str, ...], task: jobs_pb2.Task = TASK, **terms: Any) -> list[str]:
    """Jobs of one call, each after those of its tuple."""
    jobs = tuple(new_job(after=after, **(terms if after else {})) for after in afters)
    bench.intake.on_run(1, RunJobs(task, jobs, OFFGRID, "", b""), bench.now, bench.rng)
    bench.intake.answer()
    bench.settle()
    return list(bench.replied(jobs_pb2.RunJobsResponse).job_ids)


def complete(bench: CoreBench, job_id: str) -> None:
    bench.clears(award(job_id))
    bench.report(report_of(bench.job(job_id)))
    assert bench.row(job_id).state == COMPLETED


def states(bench: CoreBench, *job_ids: str) -> list[int]:
    return [bench.row(job_id).state for job_id in job_ids]


def fills(bench: CoreBench) -> list[Fill]:
    return [effect for effect in bench.effects if isinstance(effect, Fill)]


class TestAJobThatGoesAfterOthers:
    def test_waits_for_all_of_them_and_goes_in_the_step_of_the_last_end(self) -> None:
        bench = CoreBench()
        first, second, last = run(bench, (), (), ("#0", "#1"))
        assert list(bench.row(last).after) == [first, second], "by their ids"
        assert states(bench, first, second, last) == [QUEUED, QUEUED, CREATED]
        complete(bench, first)
        assert states(bench, last) == [CREATED]
        complete(bench, second)
        assert states(bench, last) == [QUEUED]
        assert bench.job_events()[-1].job_id == last

    def test_is_dispatched_once_and_its_event_comes_then(self) -> None:
        bench = CoreBench()
        first, last = run(bench, (), ("#0",))

        def dispatched() -> int:
            events = [effect.event for effect in bench.effects if isinstance(effect, Record)]
            return sum(1 for e in events if e.subject == last and e.etype == EventType.JOB_DISPATCHED)

        assert dispatched() == 0
        complete(bench, first)
        bench.wait(0)
        assert dispatched() == 1

    @pytest.mark.parametrize("restart_at", [0, 1, 2])
    def test_goes_on_after_a_restart(self, restart_at: int) -> None:
        bench = CoreBench()
        first, second, last = run(bench, (), (), ("#0", "#1"))
        for step, job_id in enumerate((first, second)):
            if step == restart_at:
                bench.restart()
                bench.wait(0)
            complete(bench, job_id)
        if restart_at == 2:
            bench.restart()
            bench.wait(0)
        assert states(bench, last) == [QUEUED]

    def test_that_have_completed_already_goes_at_once(self) -> None:
        bench = CoreBench()
        (first,) = run(bench, ())
        complete(bench, first)
        bench.restart()
        [last] = run(bench, (first,))
        assert states(bench, last) == [QUEUED]

    def test_goes_once_a_broker_is_back_where_there_is_none_now(self) -> None:
        """Nobody is asked any more whether there is a way: it waits as every other does."""
        bench = CoreBench()
        first, last = run(bench, (), ("#0",))
        bench.clears(award(first))
        report = report_of(bench.job(first))
        bench.down(MARKET)
        bench.report(report)
        assert states(bench, first, last) == [COMPLETED, QUEUED]
        bench.seen(BROKER, MARKET)
        bench.core.on_peer_up(MARKET.node_id, frozenset({BROKER}), bench.now)
        bench.wait(0)
        assert bench.job(last).broker == MARKET.node_id

    def test_may_be_made_now_and_dispatched_later(self) -> None:
        bench = CoreBench()
        (first,) = run(bench, ())
        made = bench.create(after=(first,))
        assert isinstance(made, jobs_pb2.CreateJobResponse)
        complete(bench, first)
        assert states(bench, made.job.job_id) == [CREATED], "nobody has sent it"
        bench.dispatch(made.job.job_id, OFFGRID)
        assert states(bench, made.job.job_id) == [QUEUED]

    def test_that_is_dispatched_while_it_waits_says_what_for(self) -> None:
        bench = CoreBench()
        (first,) = run(bench, ())
        made = bench.create(after=(first,))
        assert isinstance(made, jobs_pb2.CreateJobResponse)
        bench.dispatch(made.job.job_id, OFFGRID)
        answer = bench.replied(jobs_pb2.DispatchJobResponse)
        assert (answer.job.state, answer.reason) == (CREATED, f"it waits for others to complete: {first}")
        bench.restart()
        complete(bench, first)
        assert states(bench, made.job.job_id) == [QUEUED]


def fail(bench: CoreBench, job_id: str) -> None:
    bench.clears(award(job_id))
    bench.report(report_of(bench.job(job_id), status="failed", exit_code=3))


class TestWhenOneOfThemEndsOtherwise:
    @pytest.mark.parametrize("how", [fail, CoreBench.cancel])
    def test_it_fails_and_so_do_those_that_go_after_it(self, how: Callable[[CoreBench, str], object]) -> None:
        bench = CoreBench()
        first, second, third = run(bench, (), ("#0",), ("#1",))
        how(bench, first)
        for job_id, cause in ((second, first), (third, second)):
            job = bench.row(job_id)
            assert (job.state, job.error) == (FAILED, "DependencyFailed")
            assert cause in job.error_detail
        assert len(bench.core.jobs) == 0

    def test_before_it_was_made_it_fails_at_once_and_the_answer_says_so(self) -> None:
        bench = CoreBench()
        (first,) = run(bench, ())
        bench.cancel(first)
        [last] = run(bench, (first,))
        assert states(bench, last) == [FAILED]

    def test_whoever_was_taken_back_meanwhile_stays_so(self) -> None:
        bench = CoreBench()
        first, last = run(bench, (), ("#0",))
        bench.cancel(last)
        complete(bench, first)
        assert states(bench, last) == [CANCELLED]
        assert not bench.core.jobs.dependencies._waiters, "nothing of it is left"

    def test_thousands_that_wait_for_it_end_some_at_a_time(self) -> None:
        bench = CoreBench(queue_max=10_000)
        (first,) = run(bench, ())
        for _ in range(RELEASED_MAX // 256 + 1):
            run(bench, *[(first,)] * 256)
        bench.cancel(first)
        assert len(bench.core.jobs) == 256
        assert bench.intake.releases.deadline_ms() == bench.now_ms
        bench.wait(0)
        assert len(bench.core.jobs) == 0


class TestWhatCannotBeWaitedFor:
    def refused(self, bench: CoreBench, *afters: tuple[str, ...]) -> str:
        jobs = tuple(new_job(after=after) for after in afters)
        before = bench.disk.rows.copy()
        bench.intake.on_run(1, RunJobs(TASK, jobs, OFFGRID, "", b""), bench.now, bench.rng)
        bench.settle()
        fault = bench.last_outcome()
        assert isinstance(fault, InvalidRequest)
        assert bench.disk.rows == before, "none was made"
        return fault.message

    def test_is_a_job_that_nobody_knows(self) -> None:
        assert "jobs[1].after: there is no job 'j-x' in task t-1" in self.refused(CoreBench(), (), ("j-x",))

    @pytest.mark.parametrize("ended", [False, True])
    def test_is_a_job_of_another_task(self, *, ended: bool) -> None:
        bench = CoreBench()
        [other] = run(bench, (), task=jobs_pb2.Task(task_id="t-2"))
        if ended:
            complete(bench, other)
        assert f"there is no job '{other}' in task t-1" in self.refused(bench, (other,))

    def test_is_a_deadline_that_has_passed(self) -> None:
        bench = CoreBench()
        bench.wait(1_000)
        for request_id in ("", "r-1"):
            fault = bench.create(deadline_us=1_000_000, request_id=request_id)
            assert isinstance(fault, InvalidRequest)
            assert "job.deadline_us: 1000000 has passed" in fault.message

    def test_a_repeated_request_is_not_refused_for_what_has_happened_since(self) -> None:
        bench = CoreBench()
        made = bench.create(deadline_us=1_000_000, request_id="r-1")
        assert isinstance(made, jobs_pb2.CreateJobResponse)
        bench.wait(2_000)
        again = bench.create(deadline_us=1_000_000, request_id="r-1")
        assert isinstance(again, jobs_pb2.CreateJobResponse)
        assert again.job.job_id == made.job.job_id


class TestAnInputThatIsAnothersOutput:
    def begun(self) -> tuple[CoreBench, str, str]:
        bench = CoreBench()
        first, last = run(bench, (), ("#0",), input_job="#0")
        assert bench.row(last).input_job == first
        assert fills(bench) == []
        complete(bench, first)
        return bench, first, last

    def filled(self, job_id: str, size: int = 4) -> Filled:
        payload = jobs_pb2.JobPayload(wasm=PAYLOAD.wasm, input=b"y" * size)
        return Filled(job_id, payload.SerializeToString(), size)

    def on_filled(self, bench: CoreBench, event: Filled) -> None:
        bench.intake.releases.on_filled(event, bench.now, bench.rng)
        bench.settle()

    def test_is_asked_for_when_that_one_has_completed_and_the_job_goes_with_it(self) -> None:
        bench, first, last = self.begun()
        [fill] = fills(bench)
        assert (fill.job_id, fill.source) == (last, first)
        assert states(bench, last) == [CREATED]
        filled = self.filled(last, 4_000)
        self.on_filled(bench, filled)
        job = bench.row(last)
        assert (job.state, job.input_bytes, job.payload_bytes) == (QUEUED, 4_000, len(filled.payload))
        assert job.payload_digest == payload_digest(filled.payload)
        assert len(filled.payload) > PAYLOAD_KEPT_MAX
        bench.wait(1)
        bench.restart()
        entry = bench.core.jobs.get(last)
        assert entry is not None
        assert bench.core.jobs.payload(entry, bench.now) == filled.payload

    def test_is_asked_for_again_after_a_restart_and_counts_once(self) -> None:
        bench, _, last = self.begun()
        bench.restart()
        bench.wait(0)
        assert len(fills(bench)) == 2
        self.on_filled(bench, self.filled(last))
        before = bench.disk.rows.copy()
        self.on_filled(bench, self.filled(last))
        assert bench.disk.rows == before

    def test_that_cannot_be_had_ends_the_job(self) -> None:
        bench, first, last = self.begun()
        self.on_filled(bench, Filled(last, b"", 0, "there is no object"))
        job = bench.row(last)
        assert (job.state, job.error) == (FAILED, "InputUnavailable")
        assert job.error_detail == f"the output of job {first} cannot be its input: there is no object"

    def test_that_comes_for_a_job_that_was_taken_back_is_dropped(self) -> None:
        bench, _, last = self.begun()
        bench.cancel(last)
        self.on_filled(bench, self.filled(last))
        assert states(bench, last) == [CANCELLED]

    def test_gives_the_job_its_size_where_its_owner_gave_none(self) -> None:
        bench = CoreBench()
        (first,) = run(bench, ())
        new = new_job(after=(first,), input_job=first)._replace(size_tokens=0)
        bench.intake.on_create(1, CreateJob(TASK, new, "", b""), bench.now, bench.rng)
        bench.settle()
        last = bench.replied(jobs_pb2.CreateJobResponse).job.job_id
        complete(bench, first)
        bench.dispatch(last, OFFGRID)
        assert bench.replied(jobs_pb2.DispatchJobResponse).reason == "its input is being put together"
        self.on_filled(bench, self.filled(last, 4_000))
        assert bench.row(last).size_tokens == 1_000


@given(st.data())
def test_whatever_the_order_of_ends_a_job_goes_after_all_that_it_names_or_never(data: st.DataObject) -> None:
    """Against a plain reading of the rule: all completed, or one that did not."""
    count = data.draw(st.integers(1, 8))
    names = [f"j-{number}" for number in range(count)]
    afters = [data.draw(st.sets(st.sampled_from(names[:index]))) if index else set() for index in range(count)]
    dependencies, ended = Dependencies(), dict[str, int]()
    for name, after in zip(names, afters, strict=True):
        if after:
            dependencies.add(name, dict.fromkeys(sorted(after), CREATED))
    decided: dict[str, bool] = {}
    for name in data.draw(st.permutations(names)):
        ended[name] = data.draw(st.sampled_from([COMPLETED, FAILED]))
        dependencies.on_end(name, ended[name])
        while dependencies.has_due:
            job_id, why = dependencies.take_due()
            assert job_id not in decided
            decided[job_id] = not why
            bad = any(ended.get(other) == FAILED for other in afters[names.index(job_id)])
            good = all(ended.get(other) == COMPLETED for other in afters[names.index(job_id)])
            assert (bool(why), not why) == (bad, good)
    assert not dependencies._missing
    assert not dependencies._waiters

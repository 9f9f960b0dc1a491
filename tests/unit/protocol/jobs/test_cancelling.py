"""A job that its owner takes back: from every state, once, and nothing that comes later brings it back."""

from __future__ import annotations

import pytest
from job_bench import MARKET, OWNER, TASK, WORKER, CoreBench, award
from test_core import report_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Answered, Raise, Stop
from offgrid_node.protocol.errors import FailedPrecondition, Fault, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.closing import PATIENCE_MS
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX, CALL_TIMEOUT_MAX_MS, Tag
from offgrid_node.protocol.jobs.stops import LEFT_MAX, RETRY_MAX_MS, RETRY_MS, Stops
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, CREATED, QUEUED, RUNNING


def created(bench: CoreBench) -> str:
    made = bench.create()
    assert isinstance(made, jobs_pb2.CreateJobResponse)
    return made.job.job_id


def running(bench: CoreBench) -> str:
    job_id = bench.awarded()
    bench.answers_start(job_id)
    return job_id


def here(bench: CoreBench) -> str:
    """At work on this very node."""
    job_id = created(bench)
    bench.dispatch(job_id, jobs_pb2.DISPATCH_MODE_DISABLED)
    bench.core.local.pump(bench.now)
    bench.settle()
    return job_id


FROM = {
    "created": created,
    "queued": CoreBench.submitted,
    "awarded": CoreBench.awarded,
    "running": running,
    "here": here,
}


def stopped(bench: CoreBench) -> list[tuple[str, str, int]]:
    """What hosts were told to stop, in order."""
    found = []
    for call in bench.calls("CancelStarts"):
        assert isinstance(call.request, jobs_pb2.CancelStartsRequest)
        found += [(call.node, key.job_id, key.attempt) for key in call.request.attempts]
    return found


@pytest.mark.parametrize("state", FROM)
def test_it_ends_from_every_state_and_stays_so_over_a_restart(state: str) -> None:
    bench = CoreBench()
    job_id = FROM[state](bench)
    answer = bench.cancel(job_id, reason="no longer needed")
    assert (list(answer.job_ids), answer.more) == ([job_id], False)
    job = bench.row(job_id)
    assert (job.state, job.error, job.error_detail) == (CANCELLED, "Cancelled", "no longer needed")
    assert bench.job_events()[-1].state == CANCELLED
    bench.restart()
    assert len(bench.core.jobs) == 0


def test_its_event_says_so() -> None:
    bench = CoreBench()
    bench.cancel(created(bench))
    [event] = [e.event for e in bench.effects if getattr(e, "event", None) and e.event.etype == EventType.JOB_CANCELLED]
    assert event.job.error_detail == "its owner took it back"


def test_taking_it_back_twice_changes_nothing() -> None:
    bench = CoreBench()
    job_id = running(bench)
    bench.cancel(job_id)
    before = bench.disk.rows.copy()
    assert list(bench.cancel(job_id).job_ids) == []
    assert bench.disk.rows == before
    assert len(stopped(bench)) == 1


def test_what_has_ended_stays_as_it_is() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    bench.report(report_of(bench.job(job_id)))
    assert list(bench.cancel(job_id).job_ids) == []
    assert bench.row(job_id).state == COMPLETED


@pytest.mark.parametrize("state", ["awarded", "running"])
def test_its_host_is_told_to_stop_and_its_broker_that_it_is_over(state: str) -> None:
    bench = CoreBench()
    job_id = FROM[state](bench)
    bench.cancel(job_id)
    assert stopped(bench) == [(WORKER.node_id, job_id, 1)]
    bench.wait(PATIENCE_MS)
    request = bench.calls("CloseLeases")[-1].request
    assert isinstance(request, jobs_pb2.CloseLeasesRequest)
    [lease] = request.leases
    assert (lease.job_id, lease.attempt, lease.end) == (job_id, 1, jobs_pb2.LEASE_END_EXCUSED)


def test_an_order_that_waits_at_the_broker_is_taken_from_there() -> None:
    bench = CoreBench()
    job_id = bench.submitted()
    bench.cancel(job_id)
    bench.wait(PATIENCE_MS)
    assert len(bench.calls("CloseLeases")) == 1
    assert stopped(bench) == []


def test_an_order_that_arrives_after_its_end_was_told_is_taken_from_there_as_well() -> None:
    """Calls overtake each other: the broker hears of the end first, and queues the order afterwards."""
    bench = CoreBench()
    job_id = bench.submitted()
    bench.cancel(job_id)
    bench.wait(PATIENCE_MS)
    bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED))
    bench.wait(PATIENCE_MS)
    assert len(bench.calls("CloseLeases")) == 2


def test_what_this_node_is_at_itself_is_stopped_at_once() -> None:
    bench = CoreBench()
    job_id = here(bench)
    bench.cancel(job_id)
    assert [e for e in bench.effects if isinstance(e, Stop)] == [Stop(OWNER.node_id, job_id, 1)]
    bench.finish_here(job_id)
    assert bench.row(job_id).state == CANCELLED


def test_a_result_that_comes_too_late_is_settled_and_not_paid() -> None:
    bench = CoreBench()
    job_id = bench.awarded()
    report = report_of(bench.job(job_id))
    bench.cancel(job_id)
    for _ in range(2):
        bench.report(report)
        [outcome] = bench.replied(jobs_pb2.ReportResultsResponse).outcomes
        assert not outcome.accepted
        assert "JOB_STATE_CANCELLED" in outcome.refusal
        bench.restart()
    assert not [e for e in bench.effects if isinstance(e, Raise)]


def test_an_award_that_comes_too_late_is_closed() -> None:
    bench = CoreBench()
    job_id = bench.submitted()
    bench.cancel(job_id)
    bench.clears(award(job_id))
    assert bench.calls("StartJobs") == []


class TestATask:
    def test_is_taken_back_whole_and_no_other_with_it(self) -> None:
        bench = CoreBench()
        ids = [created(bench), bench.submitted()]
        answer = bench.cancel(task_id=TASK.task_id)
        assert (list(answer.job_ids), answer.more) == (ids, False)
        bench.restart()
        assert list(bench.cancel(task_id=TASK.task_id).job_ids) == []

    def test_of_many_jobs_is_taken_back_some_at_a_time(self) -> None:
        bench = CoreBench(queue_max=300)
        for _ in range(257):
            created(bench)
        first, second = bench.cancel(task_id=TASK.task_id), bench.cancel(task_id=TASK.task_id)
        assert [(len(each.job_ids), each.more) for each in (first, second)] == [(256, True), (1, False)]

    def test_of_somebody_else_is_left_alone(self) -> None:
        bench = CoreBench()
        job_id = created(bench)
        assert list(bench.cancel(task_id="t-2").job_ids) == []
        assert bench.job(job_id).state == CREATED


class TestCounts:
    def test_are_those_of_every_state_and_stand_over_a_restart(self) -> None:
        bench = CoreBench()
        for make in FROM.values():
            make(bench)
        done = bench.awarded()
        bench.report(report_of(bench.job(done)))
        bench.cancel(created(bench), created(bench))
        expected = {"CREATED": 1, "QUEUED": 1, "AWARDED": 1, "RUNNING": 2, "COMPLETED": 1, "CANCELLED": 2}
        assert bench.counts() == expected
        bench.wait(1_000)
        bench.restart()
        assert bench.counts() == expected

    def test_of_what_was_never_committed_do_not_count(self) -> None:
        bench = CoreBench()
        job_id = created(bench)
        before = bench.disk.rows.copy()
        bench.cancel(job_id)
        bench.disk.rows = before
        bench.restart()
        assert bench.counts() == {"CREATED": 1}

    def test_of_a_task_without_jobs_are_none(self) -> None:
        assert CoreBench().counts(jobs_pb2.Task(task_id="t-9")) == {}


class TestTheWordToAHost:
    KEYS = (("j-1", 1), ("j-2", 1))

    def test_is_said_again_until_it_is_answered(self) -> None:
        bench = CoreBench()
        job_id = running(bench)
        bench.cancel(job_id)
        self.answer(bench, (job_id, 1), fault=Unavailable("connection refused"))
        for tries in range(1, 8):
            assert len(stopped(bench)) == tries
            bench.wait(min(RETRY_MS << (tries - 1), RETRY_MAX_MS))
            assert len(stopped(bench)) == tries + 1
            self.answer(bench, (job_id, 1), fault=Unavailable("connection refused"))
        self.answer(bench, (job_id, 1))
        bench.wait(10 * RETRY_MAX_MS)
        assert len(stopped(bench)) == 8

    def test_whose_end_got_lost_is_said_again_at_last(self) -> None:
        bench = CoreBench()
        bench.cancel(running(bench))
        bench.wait(CALL_TIMEOUT_MAX_MS + RETRY_MS)
        assert len(stopped(bench)) == 2

    @pytest.mark.parametrize("why", ["dead", "no host any more"])
    def test_ends_with_a_host_that_is(self, why: str) -> None:
        bench = CoreBench()
        job_id = running(bench)
        bench.cancel(job_id)
        if why == "dead":
            bench.down(WORKER)
        else:
            self.answer(bench, (job_id, 1), fault=FailedPrecondition("it is none", reason="NotAHost"))
        bench.wait(10 * CALL_TIMEOUT_MAX_MS)
        assert len(stopped(bench)) == 1
        assert bench.core.stops.deadline_ms() is None

    def test_leaves_out_what_was_answered_meanwhile(self) -> None:
        bench, stops = self.stops()
        stops.on_answered(self.tag(self.KEYS[0]), self.end(Unavailable("late")), bench.now)
        stops.on_answered(self.tag(self.KEYS[1]), self.end(None), bench.now)
        bench.now_ms += CALL_TIMEOUT_MAX_MS + RETRY_MS
        stops.on_wake(bench.now)
        bench.settle()
        assert stopped(bench)[2:] == [(WORKER.node_id, *self.KEYS[0])]

    def test_is_bounded_in_memory_and_in_one_call(self) -> None:
        bench, stops = self.stops()
        for number in range(LEFT_MAX):
            stops.add(WORKER.node_id, (f"j-x{number}", 1), bench.now)
        bench.settle()
        before = len(bench.calls("CancelStarts"))
        assert len(stops._left[WORKER.node_id]) == LEFT_MAX
        bench.now_ms += CALL_TIMEOUT_MAX_MS + RETRY_MS
        stops.on_wake(bench.now)
        bench.settle()
        [call] = bench.calls("CancelStarts")[before:]
        assert isinstance(call.request, jobs_pb2.CancelStartsRequest)
        assert len(call.request.attempts) == CALL_ITEMS_MAX
        assert call.request.attempts[0].job_id == "j-x0", "the oldest went to make room"

    def test_goes_on_at_once_where_a_host_that_had_missed_it_answers_again(self) -> None:
        bench, stops = self.stops()
        for number in range(2 * CALL_ITEMS_MAX):
            stops.add(WORKER.node_id, (f"j-x{number}", 1), bench.now)
        bench.settle()
        stops.on_answered(self.tag(*self.KEYS), self.end(Unavailable("late")), bench.now)
        for _ in range(3):
            bench.now_ms = max(bench.now_ms, stops.deadline_ms() or 0)
            stops.on_wake(bench.now)
            bench.settle()
            tag = bench.calls("CancelStarts")[-1].tag
            assert isinstance(tag, Tag)
            stops.on_answered(tag, self.end(None), bench.now)
        assert stops.deadline_ms() is None, "all of it is said"
        assert bench.now_ms < RETRY_MAX_MS

    def stops(self) -> tuple[CoreBench, Stops]:
        bench = CoreBench()
        stops = Stops(bench.post)
        for key in self.KEYS:
            stops.add(WORKER.node_id, key, bench.now)
        bench.settle()
        return bench, stops

    def answer(self, bench: CoreBench, key: tuple[str, int], fault: Fault | None = None) -> None:
        bench.core.stops.on_answered(self.tag(key), self.end(fault), bench.now)
        bench.settle()

    def tag(self, *keys: tuple[str, int]) -> Tag:
        return Tag("CancelStarts", WORKER.node_id, keys)

    def end(self, fault: Fault | None) -> Answered:
        reply = None if fault else jobs_pb2.CancelStartsResponse()
        return Answered(None, WORKER.node_id, reply, fault)


class TestABrokerThatHasBegunAnew:
    def test_is_told_at_once_of_all_that_waits_there(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        queued = jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED)
        tag = bench.calls("SubmitJobs")[-1].tag
        bench.answers_submission(tag, [queued], epoch=7)
        other = bench.submitted()
        bench.answers_submission(bench.calls("SubmitJobs")[-1].tag, [award(other)], epoch=7)
        bench.wait(0)
        assert len(bench.calls("SubmitJobs")) == 2, "the same as before"
        another = bench.submitted()
        bench.answers_submission(bench.calls("SubmitJobs")[-1].tag, [award(another)], epoch=8)
        bench.wait(0)
        request = bench.calls("SubmitJobs")[-1].request
        assert isinstance(request, jobs_pb2.SubmitJobsRequest)
        assert len(bench.calls("SubmitJobs")) == 4
        assert bench.core.jobs.order(bench.job(job_id)).encode() in request.orders

    def test_is_told_when_the_mesh_says_that_it_has_come(self) -> None:
        bench = CoreBench()
        job_id = bench.submitted()
        bench.clears(jobs_pb2.Clearing(job_id=job_id, attempt=1, kind=jobs_pb2.CLEARING_KIND_QUEUED))
        bench.core.on_peer_up(MARKET.node_id, bench.peers._roles[MARKET.node_id], bench.now)
        bench.wait(0)
        assert len(bench.calls("SubmitJobs")) == 2
        assert bench.job(job_id).state == QUEUED


def test_running_is_a_state_that_people_see() -> None:
    """The bench's "running" is what it says."""
    bench = CoreBench()
    assert bench.job(running(bench)).state == RUNNING

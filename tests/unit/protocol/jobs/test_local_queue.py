"""The local queue beside the mesh: what a returning broker takes over, and what goes to the drop folder."""

from __future__ import annotations

from job_bench import TASK, new_job
from msgspec.structs import replace
from redundant_world import AUTO, MARKET, OWNER, World

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Woke
from offgrid_node.protocol.events import BROKER, CORE, PeerDown, PeerUp
from offgrid_node.protocol.jobs.commands import Dropped, RunJobs
from offgrid_node.protocol.jobs.core import REASON_LOCAL, REASON_RETURNED, RETURN_MAX
from offgrid_node.protocol.jobs.drops import DROPS_MAX
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.routes import ROUTE_REASONS
from offgrid_node.protocol.jobs.settings import DROP_ALL, DROP_REST
from offgrid_node.protocol.jobs.table import COMPLETED, FAILED, QUEUED, RUNNING

DISABLED = jobs_pb2.DISPATCH_MODE_DISABLED
LOCAL, MESH = jobs_pb2.ROUTE_FILE_QUEUE, jobs_pb2.ROUTE_OFFGRID


class Cut(World):
    """No broker is alive, and this node's own executor takes its time."""

    def __init__(self, drop: str = "", executors: tuple[str, ...] = ("wasm",), *, reloads: bool = False) -> None:
        super().__init__(reloads=reloads)
        self.market_up, self.executing = False, True
        self.settings = replace(self.settings, drop=drop, executors=executors)
        self.reload()

    def market_returns(self) -> None:
        self.market_up = True
        self.step(PeerUp(MARKET.node_id, "", frozenset({BROKER})))
        self.step(Woke())

    def waits_in_folder(self) -> list[str]:
        return self.machine.core.local.drops.wanted()

    def drops_back(self, job_id: str, output: bytes = b"right", status: str = "completed") -> None:
        result = jobs_pb2.JobResult(status=status, output=output, exit_code=int(status != "completed"))
        self.step(Dropped(job_id, result))


class TestAReturningBroker:
    def test_takes_over_what_has_not_been_started(self) -> None:
        cut = Cut()
        first, second, third = (cut.run(0, 0, mode=AUTO) for _ in range(3))
        assert [cut.job(job_id).state for job_id in (first, second, third)] == [RUNNING, QUEUED, QUEUED]
        assert cut.job(second).route_reason == ROUTE_REASONS["no broker"]
        cut.market_returns()
        assert (cut.job(second).route, cut.job(second).route_reason) == (MESH, REASON_RETURNED)
        cut.finish_all()
        jobs = [cut.job(job_id) for job_id in (second, third)]
        assert [(job.state, job.attempt, job.route) for job in jobs] == [(COMPLETED, 1, MESH)] * 2
        assert cut.job(first).route == LOCAL

    def test_takes_nothing_that_was_kept_from_the_mesh(self) -> None:
        cut = Cut()
        jobs = [cut.run(0, 0, mode=DISABLED) for _ in range(2)]
        cut.market_returns()
        assert {cut.job(job_id).route for job_id in jobs} == {LOCAL}

    def test_takes_a_long_queue_in_parts(self) -> None:
        cut = Cut()
        jobs = [cut.run(0, 0, mode=AUTO) for _ in range(RETURN_MAX + 10)]
        cut.hosts = []  # all of them wait for a host
        cut.market_returns()
        assert sum(cut.job(job_id).route == MESH for job_id in jobs) == RETURN_MAX
        cut.wait(100)
        assert sum(cut.job(job_id).route == MESH for job_id in jobs) == RETURN_MAX + 9

    def test_takes_over_though_this_node_has_restarted_since(self) -> None:
        cut = Cut()
        last = [cut.run(0, 0, mode=AUTO) for _ in range(3)][-1]
        cut.reload()
        cut.market_returns()
        assert (cut.job(last).route, cut.job(last).attempt) == (MESH, 1)

    def test_is_asked_once_more_when_it_goes_again(self) -> None:
        cut = Cut()
        jobs = [cut.run(0, 0, mode=AUTO) for _ in range(2)]
        cut.hosts = []
        cut.market_returns()
        cut.market_up = False
        cut.step(PeerDown(MARKET.node_id))
        cut.wait(15_000)
        assert (cut.job(jobs[1]).route, cut.job(jobs[1]).route_reason) == (LOCAL, REASON_LOCAL)

    def test_runs_redundant_jobs_redundantly_after_all(self) -> None:
        cut = Cut()
        cut.run(0, 0, mode=AUTO)
        job_id = cut.run(3, 2, mode=AUTO)
        assert not cut.executions(job_id)
        cut.market_returns()
        assert cut.at_work() == ["a", "b", "c"]
        cut.finish("a", b"a lie")
        cut.finish("b")
        cut.finish("c")
        assert (cut.job(job_id).state, cut.job(job_id).result.output) == (COMPLETED, b"right")


class TestRequirements:
    """Of a job that would run on this very node."""

    UNMET, MET = "memory_mb >= 4096", 'memory_mb < 4096 and host == "attic"'

    def ask(self, cut: Cut, requirements: str, mode: jobs_pb2.DispatchMode.ValueType = AUTO) -> str:
        cut.step(PeerUp(OWNER.node_id, "attic", frozenset({CORE})))
        reply = cut.ask(RunJobs(TASK, (new_job(requirements=requirements),), mode, "", bytes(16)))
        assert isinstance(reply, jobs_pb2.RunJobsResponse), reply
        return reply.job_ids[0]

    def test_that_this_node_meets_are_no_hindrance(self) -> None:
        cut = Cut()
        assert cut.job(self.ask(cut, self.MET)).state == RUNNING

    def test_that_it_does_not_meet_make_the_job_wait_for_a_broker(self) -> None:
        cut = Cut()
        job_id = self.ask(cut, self.UNMET)
        assert (cut.job(job_id).route, cut.job(job_id).route_reason) == (MESH, ROUTE_REASONS["wait"])
        cut.market_returns()
        assert cut.at_work() == ["a"]

    def test_that_it_does_not_meet_end_a_job_that_may_go_nowhere_else(self) -> None:
        cut = Cut()
        job = cut.job(self.ask(cut, self.UNMET, DISABLED))
        assert (job.state, job.error) == (FAILED, "NoHostsAvailable")
        assert job.error_detail == "this node is not what the job requires: memory_mb >= 4096 is false: it has 0"

    def test_that_it_does_not_meet_are_the_drop_folders_business(self) -> None:
        cut = Cut(DROP_REST)
        job_id = self.ask(cut, self.UNMET)
        assert cut.waits_in_folder() == [job_id]

    def test_are_judged_after_a_restart_when_the_mesh_has_said_what_the_node_is_called(self) -> None:
        cut = Cut()
        self.ask(cut, "")
        job_id = self.ask(cut, self.MET)
        cut.machine = JobsMachine(cut.settings)
        cut.machine.load(cut.disk, cut.now)
        cut.step(Woke())
        assert cut.job(job_id).state == QUEUED
        cut.step(PeerUp(OWNER.node_id, "attic", frozenset({CORE})))
        cut.wait(1_000)
        assert cut.job(job_id).state == RUNNING


class TestDropFolder:
    def test_gets_what_this_node_cannot_run(self) -> None:
        cut = Cut(DROP_REST, executors=("process:other",))
        job_id = cut.run(0, 0, mode=AUTO)
        assert (cut.job(job_id).route, cut.waits_in_folder()) == (LOCAL, [job_id])

    def test_gets_nothing_that_this_node_can_run(self) -> None:
        cut = Cut(DROP_REST)
        job_id = cut.run(0, 0, mode=AUTO)
        assert (cut.job(job_id).state, cut.waits_in_folder()) == (RUNNING, [])

    def test_gets_everything_where_its_owner_says_so(self) -> None:
        cut = Cut(DROP_ALL)
        job_id = cut.run(0, 0, mode=DISABLED)
        assert cut.waits_in_folder() == [job_id]

    def test_ends_a_job_by_what_comes_back_without_receipt_and_pay(self) -> None:
        for reloads in (False, True):
            cut = Cut(DROP_ALL, reloads=reloads)
            job_id = cut.run(0, 0, mode=AUTO)
            cut.drops_back(job_id, b"made elsewhere")
            job = cut.job(job_id)
            assert (job.state, job.result.output, cut.waits_in_folder()) == (COMPLETED, b"made elsewhere", [])
            assert (job.result.HasField("receipt"), cut.paid()) == (False, [])

    def test_says_that_work_has_failed(self) -> None:
        cut = Cut(DROP_ALL)
        job_id = cut.run(0, 0, mode=AUTO)
        cut.drops_back(job_id, status="failed")
        assert (cut.job(job_id).state, cut.job(job_id).error) == (FAILED, "ExecutionFailed")

    def test_ends_no_job_twice_nor_one_that_is_not_there(self) -> None:
        cut = Cut(DROP_ALL)
        job_id = cut.run(0, 0, mode=AUTO)
        cut.drops_back(job_id)
        cut.drops_back(job_id, b"another")
        cut.drops_back("j-none")
        assert cut.job(job_id).result.output == b"right"

    def test_gives_back_what_a_returning_broker_takes(self) -> None:
        cut = Cut(DROP_ALL)
        job_id = cut.run(0, 0, mode=AUTO)
        cut.market_returns()
        assert cut.waits_in_folder() == []
        cut.drops_back(job_id, b"too late")
        assert cut.at_work() == ["a"]
        cut.finish_all()
        assert cut.job(job_id).result.output == b"right"

    def test_keeps_what_lies_there_over_a_restart(self) -> None:
        cut = Cut(DROP_ALL)
        jobs = [cut.run(0, 0, mode=AUTO) for _ in range(3)]
        cut.reload()
        assert cut.waits_in_folder() == sorted(jobs)

    def test_holds_so_many_files_at_a_time(self) -> None:
        cut = Cut(DROP_ALL)
        jobs = [cut.run(0, 0, mode=AUTO) for _ in range(DROPS_MAX + 1)]
        assert cut.waits_in_folder() == jobs[:DROPS_MAX]
        cut.drops_back(jobs[0])
        assert cut.waits_in_folder() == jobs[1:]

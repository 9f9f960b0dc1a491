"""Outputs that are too large for a report: sealed at the host, taken over by the core, never lost between the two."""

from __future__ import annotations

import pytest
from road_town import Town

from offgrid.pieces import as_a
from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.pages import LEASES
from offgrid_node.protocol.jobs.result_blobs import RESULT_BLOBS
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_tools.sim.driver import AFTER_COMMIT, BEFORE_COMMIT
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.work import LARGE_NAME, LARGE_REPEATS

COMPLETED = jobs_pb2.JOB_STATE_COMPLETED
DISABLED = jobs_pb2.DISPATCH_MODE_DISABLED
DELIVERED_S = 30.0


@pytest.fixture
def town() -> Town:
    return Town()


def output_of(town: Town, job: jobs_pb2.Job) -> bytes:
    """The whole output, as its owner reads it."""
    parts: list[bytes] = []
    while sum(map(len, parts)) < job.result.output_bytes:
        request = objects_pb2.ReadObjectRequest(object=job.result.output_object, offset=sum(map(len, parts)))
        answer = town.ask("offgrid.v1.ObjectService/ReadObject", request)
        assert as_a(objects_pb2.ReadObjectResponse, answer), answer
        parts.append(answer.data)
    return b"".join(parts)


def object_of(town: Town, job: jobs_pb2.Job) -> objects_pb2.Object:
    request = objects_pb2.GetObjectRequest(object=job.result.output_object)
    answer = town.ask("offgrid.v1.ObjectService/GetObject", request)
    assert isinstance(answer, objects_pb2.GetObjectResponse), answer
    return answer.object


def result_blobs(process: Process) -> list[bytes]:
    return [key for key, _ in process.store.scan(RESULT_BLOBS)]


def is_whole(output: bytes) -> bool:
    """Whether it is what the simulated work writes."""
    return len(output) == 32 * LARGE_REPEATS and output == output[:32] * LARGE_REPEATS


def run(town: Town, mode: jobs_pb2.DispatchMode.ValueType = jobs_pb2.DISPATCH_MODE_AUTO) -> jobs_pb2.Job:
    job = town.create(input_name=LARGE_NAME)
    town.dispatch(job, mode)
    return town.until(job, COMPLETED)


def test_a_large_output_is_an_object_of_its_core_with_a_quorum_of_hosts(town: Town) -> None:
    done = run(town)
    assert (done.result.output, done.result.output_bytes) == (b"", 32 * LARGE_REPEATS)
    assert is_whole(output_of(town, done))
    made = object_of(town, done)
    assert (made.name, made.owner) == (f"{done.job_id}.output", town["core"].node_id)
    town.run_for(DELIVERED_S)
    made = object_of(town, done)
    assert made.state == objects_pb2.OBJECT_STATE_DURABLE
    assert (len(made.acks), made.local) == (3, False), "three hosts have it, the core no longer does"
    assert is_whole(output_of(town, done))
    for name, process in town.cluster.processes.items():
        assert result_blobs(process) == [], f"{name} still keeps the result for its core"
        assert output_of(town, done)[:64] not in b"".join(
            process.blobs._kept[blob].data for blob in process.blobs.names()
        )


def test_a_small_output_stays_in_the_report(town: Town) -> None:
    job = town.create()
    town.dispatch(job)
    done = town.until(job, COMPLETED)
    assert len(done.result.output) == 32
    assert not done.result.output_object


def test_the_cores_own_host_part_makes_an_object_at_once(town: Town) -> None:
    town = Town([town["core"].spec.__class__("core", town["core"].spec.roles, slots=1, price_micro=1)])
    done = run(town, DISABLED)
    assert is_whole(output_of(town, done))
    assert object_of(town, done).local, "there is no host to bring it to"


@pytest.mark.parametrize("table", [LEASES, RESULT_BLOBS])
@pytest.mark.parametrize("moment", [BEFORE_COMMIT, AFTER_COMMIT])
def test_a_host_that_falls_beside_its_report_loses_nothing(moment: str, table: str, town: Town) -> None:
    job, host = town.create(input_name=LARGE_NAME), town["host-a"]
    town.dispatch(job)
    town.run_for(0.4)  # it runs, and ends a moment later
    town.falls_at(host, moment, {table})
    done = town.until(job, COMPLETED)
    assert is_whole(output_of(town, done))
    if moment == AFTER_COMMIT:
        assert done.attempt == 1, "what was durable is still there after the restart"
    town.run_for(DELIVERED_S)
    assert result_blobs(host) == []


@pytest.mark.parametrize("table", [JOBS, OBJECTS])
@pytest.mark.parametrize("moment", [BEFORE_COMMIT, AFTER_COMMIT])
def test_a_core_that_falls_beside_the_acceptance_takes_it_over_once(moment: str, table: str, town: Town) -> None:
    job, core = town.create(input_name=LARGE_NAME), town["core"]
    town.dispatch(job)
    town.run_for(0.4)
    town.falls_at(core, moment, {table})
    town.run_for(2)
    done = town.until(job, COMPLETED)
    assert is_whole(output_of(town, done))
    objects = [key.decode() for key, _ in core.store.scan(OBJECTS)]
    assert objects == [done.result.output_object]
    town.run_for(DELIVERED_S)
    assert set(core.blobs.names()) <= set(objects), "what was fetched for nothing is swept"


def test_a_host_that_loses_what_it_reported_is_replaced(town: Town) -> None:
    host = town["host-a"]
    job = town.create(input_name=LARGE_NAME)
    town.dispatch(job)
    while not result_blobs(host):
        town.run_for(0.0001)
    for name in list(host.blobs.names()):
        host.blobs.delete(name)
    done = town.until(job, COMPLETED)
    assert is_whole(output_of(town, done))
    assert [attempt.outcome.partition(":")[0] for attempt in done.attempts] == ["OutputLost", "completed"]


def test_a_host_whose_disk_refuses_is_replaced_as_well(town: Town) -> None:
    host = town["host-a"]
    job = town.create(input_name=LARGE_NAME)
    town.dispatch(job)
    town.run_for(0.4)
    host.blobs.refuse(Fault("planted", reason="DiskError"))
    done = town.until(job, COMPLETED)
    assert [attempt.outcome.partition(":")[0] for attempt in done.attempts] == ["ResultNotKept", "completed"]
    assert is_whole(output_of(town, done))


@pytest.mark.parametrize("minutes", [1, 5])
def test_a_core_whose_disk_is_full_for_a_while_gets_it_all_the_same_and_blames_nobody(minutes: int, town: Town) -> None:
    core, broker = town["core"], town["broker"]
    job = town.create(input_name=LARGE_NAME)
    town.dispatch(job)
    town.run_for(0.4)
    core.blobs.refuse(Exhausted("the disk is full", reason="DiskFull"))
    town.run_for(60 * minutes)
    waits = town.look(job)
    assert (waits.state, waits.losses) == (jobs_pb2.JOB_STATE_RUNNING, 0)
    assert waits.attempts[-1].outcome == "waits: its output cannot be kept here: the disk is full"
    why = town.ask("ExplainJob", jobs_pb2.ExplainJobRequest(job_id=job.job_id))
    assert isinstance(why, jobs_pb2.ExplainJobResponse)
    assert "has run attempt 1; its result waits" in why.story
    core.blobs.refuse(None)
    done = town.until(job, COMPLETED)
    assert is_whole(output_of(town, done))
    assert town.runs_of(job) == [("host-a", 1)]
    town.run_for(5)
    book = broker.running.runtime.machine("jobs", JobsMachine).broker
    assert all(entry.reputation >= 0.5 for entry in book.entries())


def test_work_that_fails_with_a_large_output_has_it_kept_too(town: Town) -> None:
    def fails(payload: jobs_pb2.JobPayload) -> tuple[int, Outcome]:
        return 1_000, Outcome(bytes(32) * LARGE_REPEATS, b"why", 3, "", "", "sim/1")

    for process in town.cluster.processes.values():
        process._executions._work = fails
    job = town.create(input_name=LARGE_NAME)
    town.cluster.monitor.jobs.on_cost = lambda core, job: None
    town.cluster.monitor.jobs._check_end = lambda core, job: None  # type: ignore[method-assign]  # it knows no such work
    town.dispatch(job)
    town.run_for(5)
    done = town.look(job)
    assert (done.state, done.error, done.result.exit_code) == (jobs_pb2.JOB_STATE_FAILED, "ExecutionFailed", 3)
    assert done.result.log == b"why"
    assert output_of(town, done) == bytes(32) * LARGE_REPEATS

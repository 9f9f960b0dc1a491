"""The owner's job handlers: what they refuse, and that a refusal changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import Message
from jobs_bench import JOBS, SETTLED_S, SPEC, WASM, Bench, builtin, spec
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.effects import Execute
from offgrid_node.protocol.errors import (
    AlreadyExists,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
)
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.paging import PAGE_BYTES_MAX
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.cluster import Cluster


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


BAD_REQUESTS: dict[str, tuple[str, Callable[[str], Message], type[Fault], str]] = {
    "mission without a title": ("CreateMission", lambda t: jobs_pb2.CreateMissionRequest(), InvalidRequest, "title"),
    "title too long": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="x" * 257), InvalidRequest, "at most 256"),
    "control characters": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="a\x1b[2J"), InvalidRequest, "cannot be seen"),
    "text turned around": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="a\u202eb"), InvalidRequest, "cannot be seen"),
    "request id with a space": (
        "CreateMission", lambda t: jobs_pb2.CreateMissionRequest(title="m", request_id="a b"), InvalidRequest, "A-Z"),
    "task of an unknown kind": (
        "CreateTask",
        lambda t: jobs_pb2.CreateTaskRequest(mission_id="m-x", name="t", kind="quantum"), InvalidRequest, "compute"),
    "task of an executor's name": (
        "CreateTask",
        lambda t: jobs_pb2.CreateTaskRequest(mission_id="m-x", name="t", kind="wasm"), InvalidRequest, "llm_call"),
    "task of no mission": (
        "CreateTask",
        lambda t: jobs_pb2.CreateTaskRequest(mission_id="m-x", name="t", kind="compute"), NotFound, "m-x"),
    "status that is none": (
        "UpdateMission", lambda t: jobs_pb2.UpdateMissionRequest(mission_id="m-x", status="done"), NotFound, "m-x"),
    "job of no task": (
        "CreateJob", lambda t: jobs_pb2.CreateJobRequest(task_id="t-x", job=SPEC), NotFound, "t-x"),
    "job without a payload": ("CreateJob", lambda t: jobs_pb2.CreateJobRequest(task_id=t), InvalidRequest, "payload"),
    "time-out too short": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, job=spec(timeout_ms=99)), InvalidRequest, "100 to"),
    "time-out too long": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, job=spec(timeout_ms=2**31)), InvalidRequest, "100 to"),
    "impossible size": (
        "CreateJob",
        lambda t: jobs_pb2.CreateJobRequest(task_id=t, job=spec(size_tokens=2**63)), InvalidRequest, "at most"),
    "no job to run": ("RunJobs", lambda t: jobs_pb2.RunJobsRequest(task_id=t), InvalidRequest, "1 to 256"),
    "too many jobs to run": (
        "RunJobs",
        lambda t: jobs_pb2.RunJobsRequest(task_id=t, jobs=[SPEC] * 257), InvalidRequest, "257 jobs"),
    "one job of several without a payload": (
        "RunJobs",
        lambda t: jobs_pb2.RunJobsRequest(task_id=t, jobs=[SPEC, jobs_pb2.JobSpec()]),
        InvalidRequest, "jobs[1].payload.executor"),
    "a built-in that is none": (
        "RunJobs",
        lambda t: jobs_pb2.RunJobsRequest(task_id=t, jobs=[jobs_pb2.JobSpec(payload=builtin("rm"))]),
        InvalidRequest, "jobs[0].payload.builtin.name"),
    "jobs of no task": (
        "RunJobs", lambda t: jobs_pb2.RunJobsRequest(task_id="t-x", jobs=[SPEC]), NotFound, "t-x"),
    "a watch that is no word": (
        "RunJobs",
        lambda t: jobs_pb2.RunJobsRequest(task_id=t, jobs=[SPEC], watch="a b"), InvalidRequest, "watch"),
    "a stream without a name": ("WatchJobs", lambda t: jobs_pb2.WatchJobsRequest(), InvalidRequest, "watch"),
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
    again = jobs_pb2.CreateJobRequest(task_id=job.task_id, job=SPEC, request_id="job-once")
    assert bench.own("CreateJob", again).job.job_id == job.job_id
    other = jobs_pb2.CreateJobRequest(task_id=job.task_id, job=spec(timeout_ms=777), request_id="job-once")
    for reuse in (lambda: bench.own("CreateJob", other), lambda: bench.job(request_id="once")):
        with pytest.raises(AlreadyExists) as refused:
            reuse()
        assert refused.value.reason == "RequestIdReused"


@pytest.mark.parametrize("reload", [False, True])
def test_a_repeat_that_waits_beside_the_first_call_makes_no_second_thing(bench: Bench, reload: bool) -> None:
    task_id, runtime = bench.job().task_id, bench.core.running.runtime
    request = jobs_pb2.CreateJobRequest(task_id=task_id, job=SPEC, request_id=f"together-{reload}")
    clash = jobs_pb2.CreateMissionRequest(title="m", request_id=f"together-{reload}")

    def begin(method: str, message: Message) -> Any:
        return bench.core.running.router.dispatch(ADMIN, f"{JOBS}/{method}", message)

    first = begin("CreateJob", request)
    if reload:  # the first is durable and unanswered when the machines are lost; its repeat waits in the inbox
        runtime.commit(runtime.gather())
    second, third = begin("CreateJob", request), begin("CreateMission", clash)
    if reload:
        runtime.fail(None, OutcomeUnknown("lost"))
    bench.cluster.run_for(0.1)
    if reload:  # with them went who is alive: what other tests do needs a broker again
        bench.cluster.run_for(SETTLED_S)
    (made,) = [job for job in bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=task_id)).jobs if job.request_id]
    assert isinstance(first.outcome, OutcomeUnknown) if reload else first.outcome.job.job_id == made.job_id
    assert second.outcome.job.job_id == made.job_id
    assert isinstance(third.outcome, AlreadyExists)


def test_a_field_that_nobody_knows_is_refused_one_level_down(bench: Bench) -> None:
    unknown = b"\x9a\x06\x01x"  # field 99, one byte
    wasm = b"\x0a\x01m" + unknown
    payload = b"\x0a" + bytes([len(wasm)]) + wasm
    spec = b"\x0a" + bytes([len(payload)]) + payload
    request = b"\x12" + bytes([len(spec)]) + spec
    with pytest.raises(InvalidRequest, match=r"job\.payload\.wasm: unknown field number 99; allowed: module"):
        bench.core.running.router.dispatch(ADMIN, f"{JOBS}/CreateJob", request)


def test_a_core_takes_jobs_from_its_first_moment() -> None:
    cluster = Cluster(1)
    core = cluster.processes["core"]
    core.store.commit(Batch(writes={("peers", core.node_id.encode()): None}))
    core.start()
    running: Any = core.running
    assert not running.directory.roles_in_force(core.node_id), "its first step is still to come"
    outcome = running.router.dispatch(ADMIN, f"{JOBS}/CreateMission", jobs_pb2.CreateMissionRequest(title="m"))
    cluster.run_for(1)
    assert outcome.outcome.mission.title == "m"


def test_a_watcher_is_not_told_of_a_state_that_is_over(bench: Bench) -> None:
    job, running = bench.job(), bench.core.running
    request = jobs_pb2.DispatchJobRequest(job_id=job.job_id, mode=jobs_pb2.DISPATCH_MODE_DISABLED)
    running.router.dispatch(ADMIN, f"{JOBS}/DispatchJob", request)
    pending = running.runtime.gather()
    running.runtime.commit(pending)  # queued and taken up in one batch: the row says the second, the events say both
    stream = running.router.dispatch(ADMIN, f"{JOBS}/WatchJob", jobs_pb2.WatchJobRequest(job_id=job.job_id))
    pending.outgoing = [effect for effect in pending.outgoing if not isinstance(effect, Execute)]
    running.runtime.settle(pending)
    states = [seen.job.state for seen in stream.take()]
    assert set(states) == {jobs_pb2.JOB_STATE_RUNNING}
    told = [event.event.job.state for event in pending.events if event.job is not None]
    assert told == [jobs_pb2.JOB_STATE_QUEUED, jobs_pb2.JOB_STATE_RUNNING]


def test_a_page_stays_below_what_one_message_may_have(bench: Bench) -> None:
    for number in range(100):
        bench.own("CreateMission", jobs_pb2.CreateMissionRequest(title=f"long {number}", description="€" * 16_384))
    token, sizes, titles = "", [], set()
    while token or not sizes:
        page = bench.own("ListMissions", jobs_pb2.ListMissionsRequest(page_size=1_000, page_token=token))
        sizes.append(page.ByteSize())
        titles |= {mission.title for mission in page.missions}
        token = page.next_page_token
    assert max(sizes) <= PAGE_BYTES_MAX + 1_024
    assert titles >= {f"long {number}" for number in range(100)}


def test_a_filtered_list_reads_its_own_rows_and_no_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = bench.job(), bench.job()
    looked: list[str] = []
    scan = bench.core.store.scan
    monkeypatch.setattr(bench.core.store, "scan", lambda table, *a, **k: looked.append(table) or scan(table, *a, **k))
    jobs = bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=first.task_id)).jobs
    tasks = bench.own("ListTasks", jobs_pb2.ListTasksRequest(mission_id=second.mission_id)).tasks
    assert [job.job_id for job in jobs] == [first.job_id]
    assert [task.task_id for task in tasks] == [second.task_id]
    assert not {"jobs", "tasks"} & set(looked)
    assert not bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id="t-none")).jobs


def test_the_newest_first_is_the_list_backwards_in_pages_of_any_size(bench: Bench) -> None:
    first = bench.job()
    bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=first.task_id, jobs=[SPEC] * 5))
    bench.own("CreateJob", jobs_pb2.CreateJobRequest(task_id=first.task_id, job=SPEC))

    def listed(task_id: str, size: int, newest_first: bool) -> list[str]:
        found, token = [], "?"
        while token:
            request = jobs_pb2.ListJobsRequest(task_id=task_id, page_size=size, newest_first=newest_first)
            request.page_token = "" if token == "?" else token
            page = bench.own("ListJobs", request)
            found += [job.job_id for job in page.jobs]
            token = page.next_page_token
        return found

    for task_id in ("", first.task_id):
        oldest_first = listed(task_id, 0, newest_first=False)
        assert len(oldest_first) >= 7
        for size in (1, 2, 3, 100):
            assert listed(task_id, size, newest_first=True) == oldest_first[::-1]


def test_a_token_of_another_filter_is_refused(bench: Bench) -> None:
    first, second = bench.job(), bench.job()
    bench.own("CreateJob", jobs_pb2.CreateJobRequest(task_id=first.task_id, job=SPEC))
    page = bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=first.task_id, page_size=1))
    request = jobs_pb2.ListJobsRequest(task_id=second.task_id, page_size=1, page_token=page.next_page_token)
    with pytest.raises(InvalidRequest, match="page_token"):
        bench.own("ListJobs", request)


def test_lists_come_in_pages_without_bulk(bench: Bench) -> None:
    task_id = bench.job().task_id
    made = [bench.own("CreateJob", jobs_pb2.CreateJobRequest(task_id=task_id, job=SPEC)).job for _ in range(4)]
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


class TestJobsMadeTogether:
    def run(self, bench: Bench, count: int = 3, **fields: Any) -> Any:
        task_id = bench.job().task_id
        return bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[SPEC] * count, **fields)), task_id

    def test_are_dispatched_at_once_and_found_by_their_task(self, bench: Bench) -> None:
        made, task_id = self.run(bench)
        assert made.route == jobs_pb2.ROUTE_OFFGRID
        assert not made.watched
        job_ids: list[str] = []
        token = ""
        while token or not job_ids:
            page = bench.own("ListJobs", jobs_pb2.ListJobsRequest(task_id=task_id, page_size=2, page_token=token))
            job_ids += [job.job_id for job in page.jobs if job.attempt]
            token = page.next_page_token
        assert job_ids == list(made.job_ids)

    def test_are_made_once_by_a_repeated_call(self, bench: Bench) -> None:
        made, task_id = self.run(bench, request_id="run-once")
        request = jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[SPEC] * 3, request_id="run-once")
        assert bench.own("RunJobs", request).job_ids == made.job_ids
        bench.cluster.run_for(30)
        assert list(bench.own("RunJobs", request).ended) == list(made.job_ids)
        with pytest.raises(AlreadyExists):
            bench.own("RunJobs", jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[SPEC], request_id="run-once"))

    def test_are_told_of_by_the_stream_that_they_name(self, bench: Bench) -> None:
        stream = bench.own("WatchJobs", jobs_pb2.WatchJobsRequest(watch="w-1"))
        assert stream.take() == [jobs_pb2.WatchJobsResponse()], "from now on no end is missed"
        made, _ = self.run(bench, watch="w-1")
        other, _ = self.run(bench)
        assert made.watched
        bench.cluster.run_for(30)
        told = [job for message in stream.take() for job in message.jobs]
        assert sorted(job.job_id for job in told) == sorted(made.job_ids)
        assert all(job == bench.own("GetJob", jobs_pb2.GetJobRequest(job_id=job.job_id)).job for job in told)
        assert not set(other.job_ids) & {job.job_id for job in told}
        stream.cancel()
        assert not self.run(bench, 1, watch="w-1")[0].watched

    def test_are_told_of_by_a_stream_that_was_opened_later_and_names_them(self, bench: Bench) -> None:
        made, _ = self.run(bench)
        bench.cluster.run_for(30)
        request = jobs_pb2.WatchJobsRequest(watch="w-2", job_ids=[*made.job_ids, "j-unknown"])
        _, told = bench.own("WatchJobs", request).take()
        assert [job.job_id for job in told.jobs] == list(made.job_ids)

    def test_go_over_to_a_stream_that_takes_the_place_of_theirs(self, bench: Bench) -> None:
        first = bench.own("WatchJobs", jobs_pb2.WatchJobsRequest(watch="w-3"))
        made, _ = self.run(bench, watch="w-3")
        second = bench.own("WatchJobs", jobs_pb2.WatchJobsRequest(watch="w-3"))
        assert first.fault.reason == "WatchReplaced"
        bench.cluster.run_for(30)
        told = [job.job_id for stream in (first, second) for message in stream.take() for job in message.jobs]
        assert sorted(told) == sorted(made.job_ids), "each once; what was over at once by the first"

    def test_that_end_in_the_very_step_in_which_they_were_made_are_told_of(self) -> None:
        bench = Bench()
        stream = bench.own("WatchJobs", jobs_pb2.WatchJobsRequest(watch="w-4"))
        spec = jobs_pb2.JobSpec(payload=builtin("echo"))  # this node does not offer it itself, and may not ask others
        request = jobs_pb2.RunJobsRequest(
            task_id=bench.job().task_id, jobs=[spec], mode=jobs_pb2.DISPATCH_MODE_DISABLED, watch="w-4"
        )
        made = bench.own("RunJobs", request)
        assert list(made.ended) == list(made.job_ids)
        _, told = stream.take()
        assert [(job.job_id, job.error) for job in told.jobs] == [(made.job_ids[0], "NoHostsAvailable")]


class TestALargeInput:
    """Becomes an object, which stays: so a job that would be refused anyway makes none."""

    def refused(self, bench: Bench, method: str, request: Message) -> Fault:
        def objects() -> int:
            return sum(1 for _ in bench.core.store.scan(OBJECTS))

        before = objects()
        with pytest.raises(Fault) as caught:
            bench.own(method, request)
        assert objects() == before
        return caught.value

    @pytest.mark.parametrize("method", ["CreateJob", "RunJobs"])
    def test_is_not_kept_for_a_job_that_there_is_no_room_for(
        self, bench: Bench, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        request = self.request(bench, method)
        intake = bench.core.running.runtime.machine("jobs", JobsMachine).intake
        monkeypatch.setattr(intake, "_settings", replace(intake._settings, queue_max=0))
        assert self.refused(bench, method, request).reason == "QueueFull"

    def test_is_not_kept_for_another_request_under_a_used_id(self, bench: Bench) -> None:
        bench.job(request_id="used")
        request = self.request(bench, "CreateJob")
        request.request_id = "used"
        assert self.refused(bench, "CreateJob", request).reason == "RequestIdReused"

    def test_is_not_kept_for_jobs_that_no_way_is_open_to(self, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        request = self.request(bench, "RunJobs")
        intake = bench.core.running.runtime.machine("jobs", JobsMachine).intake
        monkeypatch.setattr(intake._routes, "_peers", Peers())
        request.mode = jobs_pb2.DISPATCH_MODE_OFFGRID
        assert self.refused(bench, "RunJobs", request).reason == "BrokerUnavailable"

    def request(self, bench: Bench, method: str) -> Any:
        task_id, payload = bench.job().task_id, jobs_pb2.JobPayload(wasm=WASM, input=bytes(INLINE_BYTES_MAX + 1))
        if method == "CreateJob":
            return jobs_pb2.CreateJobRequest(task_id=task_id, job=jobs_pb2.JobSpec(payload=payload))
        return jobs_pb2.RunJobsRequest(task_id=task_id, jobs=[jobs_pb2.JobSpec(payload=payload)])

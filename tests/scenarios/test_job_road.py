"""The road of a job from its core to a signed receipt, and what happens when somebody on the way is missing.

Whole nodes in virtual time: the daemon's own machines, runtime and handlers on simulated roads and disks.
"""

from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace
from road_town import TOKENS, Town

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs.index import JOBS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.receipts import verify_receipt
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_tools.sim.crypto import sim_verify
from offgrid_tools.sim.driver import AFTER_COMMIT, BEFORE_COMMIT
from offgrid_tools.sim.plan import FIVE, PRICES
from offgrid_tools.sim.process import Process

RUNNING, COMPLETED, FAILED = jobs_pb2.JOB_STATE_RUNNING, jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED
AUTO, OFFGRID, DISABLED = (
    jobs_pb2.DISPATCH_MODE_AUTO,
    jobs_pb2.DISPATCH_MODE_OFFGRID,
    jobs_pb2.DISPATCH_MODE_DISABLED,
)
MILLION = 1_000_000
CORE_AND_BROKER = tuple(spec for spec in FIVE if HOST not in spec.roles)


def answered(outcome: object) -> jobs_pb2.DispatchJobResponse:
    assert isinstance(outcome, jobs_pb2.DispatchJobResponse), outcome
    return outcome


def slots_free(broker: Process) -> int:
    """As the broker counts them, of all hosts."""
    return sum(entry.slots_free for entry in broker.running.runtime.machine("jobs", JobsMachine).broker.entries())


def test_a_job_comes_back_with_a_receipt_that_stands_alone() -> None:
    town = Town()
    job = town.create()
    sent = answered(town.dispatch(job))
    assert (sent.route, sent.reason) == (jobs_pb2.ROUTE_OFFGRID, "a broker is alive")
    done = town.until(job, COMPLETED)
    directory, host = town["core"].running.directory, done.host
    body = verify_receipt(done.result.receipt, directory.current_key(host) or b"", sim_verify, directory.salt)
    assert (body.node, body.job_id, body.attempt, body.price_micro) == (host, job.job_id, 1, done.price_micro)
    assert done.result.receipt.facts.compute_tokens_m == TOKENS / MILLION
    assert done.result.receipt.facts.latency_ms == 500
    assert town.runs_of(job) == [("host-a", 1)]


def test_the_cheapest_host_wins_and_is_paid_what_the_runner_up_asked() -> None:
    town = Town()
    job = town.create()
    town.dispatch(job)
    done = town.until(job, COMPLETED)
    assert town.cluster.name_of(done.host) == "host-a"
    assert done.price_micro == PRICES[1] * TOKENS // MILLION


def test_a_host_that_stands_alone_is_paid_what_the_core_pays_at_most() -> None:
    """Were it paid what it asks for, it would do well to ask for more."""
    town = Town([spec for spec in FIVE if spec.name not in ("host-a", "host-b")])
    job = town.create()
    town.dispatch(job)
    most = JobsSettings(town["core"].signer, b"").price_max_micro
    assert town.until(job, COMPLETED).price_micro == most * TOKENS // MILLION


def test_a_killed_host_is_replaced_and_one_result_counts() -> None:
    town = Town()
    town.seconds = 3.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town["host-a"].crash()
    done = town.until(job, COMPLETED)
    assert town.cluster.name_of(done.host) == "host-b"
    assert town.runs_of(job) == [("host-a", 1), ("host-b", done.attempt)]
    assert [attempt.outcome for attempt in done.attempts] == ["HostDied: its host was seen dead", "completed"]


def test_a_host_that_restarts_gives_its_work_back_at_once() -> None:
    town = Town()
    town.seconds = 3.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town["host-a"].crash()
    town["host-a"].start()
    began_s = town.now_s
    done = town.until(job, COMPLETED)
    assert done.attempt == 2
    assert done.attempts[0].outcome.startswith("HostRestarted")
    assert town.now_s - began_s < 3.0 + 2.0


def test_a_removed_host_loses_its_work_to_another() -> None:
    town = Town()
    town.seconds = 3.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town.cluster.remove("host-a")
    done = town.until(job, COMPLETED)
    assert town.cluster.name_of(done.host) == "host-b"
    assert town.cluster.disagreement() == ""


def test_who_joins_is_given_work() -> None:
    town = Town()
    town.cluster.join()
    town.run_for(10)
    job = town.create()
    town.dispatch(job)
    assert town.cluster.name_of(town.until(job, COMPLETED).host) == "joiner"


class TestNoBroker:
    @pytest.fixture
    def town(self) -> Town:
        town = Town()
        town["broker"].crash()
        town.run_for(20)
        return town

    def test_auto_falls_back_to_the_local_queue_and_says_why(self, town: Town) -> None:
        job = town.create()
        sent = answered(town.dispatch(job, AUTO))
        assert (sent.route, sent.reason) == (jobs_pb2.ROUTE_FILE_QUEUE, "no broker of the mesh is alive")
        done = town.until(job, COMPLETED)
        assert town.cluster.name_of(done.host) == "core"
        assert done.result.receipt.facts.node_id == town["core"].node_id

    def test_offgrid_refuses(self, town: Town) -> None:
        job = town.create()
        refused = town.dispatch(job, OFFGRID)
        assert isinstance(refused, Unavailable)
        assert refused.reason == "BrokerUnavailable"
        assert town.look(job).state == jobs_pb2.JOB_STATE_CREATED

    def test_disabled_never_asks(self, town: Town) -> None:
        job = town.create()
        sent = answered(town.dispatch(job, DISABLED))
        assert (sent.route, sent.reason) == (
            jobs_pb2.ROUTE_FILE_QUEUE,
            "the mesh is switched off for this job (mode disabled)",
        )

    def test_a_broker_that_comes_back_takes_the_backlog_over(self, town: Town) -> None:
        town.seconds = 20.0
        jobs = [town.create() for _ in range(4)]
        for job in jobs:
            town.dispatch(job, AUTO)
        kept = town.create()
        town.dispatch(kept, DISABLED)
        town.run_for(1)
        town["broker"].start()
        done = [town.until(job, COMPLETED, 120) for job in jobs]
        assert town.cluster.name_of(done[0].host) == "core", "it was at work on that one"
        assert {job.route for job in done[1:]} == {jobs_pb2.ROUTE_OFFGRID}
        assert all(town.cluster.name_of(job.host).startswith("host-") for job in done[1:])
        assert town.until(kept, COMPLETED, 120).route == jobs_pb2.ROUTE_FILE_QUEUE
        assert all(len(town.runs_of(job)) == 1 for job in jobs[1:])

    def test_the_local_queue_outlives_its_node(self, town: Town) -> None:
        town.seconds = 2.0
        jobs = [town.create() for _ in range(3)]
        for job in jobs:
            town.dispatch(job)
        town["core"].crash()
        town["core"].start()
        for job in jobs:
            assert town.until(job, COMPLETED).route == jobs_pb2.ROUTE_FILE_QUEUE


class TestNoBrokerAndNoExecutor:
    """A core that could not run the job itself waits for a broker rather than fail at once."""

    WITHOUT = tuple(replace(spec, executors=()) if spec.name == "core" else spec for spec in FIVE)
    WAITS = "no broker of the mesh is alive, and this node cannot run it itself; it waits for one"

    @pytest.fixture
    def town(self) -> Town:
        town = Town(self.WITHOUT)
        town["broker"].crash()
        town.run_for(20)
        return town

    def test_a_broker_that_comes_in_time_takes_the_job(self, town: Town) -> None:
        job = town.create()
        sent = answered(town.dispatch(job, AUTO))
        assert (sent.route, sent.reason) == (jobs_pb2.ROUTE_OFFGRID, self.WAITS)
        town.run_for(3)
        town["broker"].start()
        assert town.until(job, COMPLETED).route == jobs_pb2.ROUTE_OFFGRID

    def test_without_one_it_fails_after_the_retries_and_says_what_is_missing(self, town: Town) -> None:
        job = town.create()
        town.dispatch(job, AUTO)
        began_s = town.now_s
        failed = town.until(job, FAILED)
        assert 14 <= round(town.now_s - began_s, 3) < 16
        assert (failed.error, "needs 'wasm'" in failed.error_detail) == ("NoHostsAvailable", True)


def test_no_host_is_tried_again_after_two_four_and_eight_seconds() -> None:
    town = Town(CORE_AND_BROKER)
    job = town.create()
    town.dispatch(job)
    failed = town.until(job, FAILED)
    assert failed.error == "NoHostsAvailable"
    sent = town.sent_s("core", "broker", "SubmitJobs")
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert gaps == pytest.approx([2, 4, 8], abs=0.1)


def test_hosts_that_come_in_time_still_get_the_job() -> None:
    town = Town()
    for name in ("host-a", "host-b", "host-c"):
        town[name].crash()
    town.run_for(20)
    job = town.create()
    town.dispatch(job)
    town.run_for(5)
    town["host-c"].start()
    assert town.cluster.name_of(town.until(job, COMPLETED).host) == "host-c"


def test_a_busy_mesh_keeps_jobs_waiting_and_loses_none() -> None:
    town = Town()
    town.seconds = 4.0
    jobs = [town.create() for _ in range(10)]
    for job in jobs:
        town.dispatch(job)
    town.run_for(1)
    assert town["broker"].running.jobs.broker.queued == 10 - 4  # host-a has two slots, the others one each
    town["broker"].crash()
    town["broker"].start()
    for job in jobs:
        town.until(job, COMPLETED)
        assert len(town.runs_of(job)) == 1


def test_orders_that_wait_for_hosts_which_all_die_are_not_kept_waiting() -> None:
    town = Town()
    town.seconds = 20.0
    jobs = [town.create() for _ in range(5)]
    for job in jobs:
        town.dispatch(job)
    town.run_for(1)
    for name in ("host-a", "host-b", "host-c"):
        town[name].crash()
    assert town.until(jobs[4], FAILED, within_s=60).error == "NoHostsAvailable"


def test_work_past_its_time_out_fails_as_job_timeout() -> None:
    town = Town()
    town.work_error = "JobTimeout"
    job = town.create(timeout_ms=4_000)
    town.cluster.monitor.jobs.expect_end(job.payload_digest, "JobTimeout")
    town.dispatch(job)
    began_s = town.now_s
    failed = town.until(job, FAILED)
    assert failed.error == "JobTimeout"
    assert town.now_s - began_s == pytest.approx(4, abs=0.3)


def test_a_second_dispatch_changes_nothing() -> None:
    town = Town()
    job = town.create()
    first, second = answered(town.dispatch(job)), answered(town.dispatch(job))
    assert first.reason == "a broker is alive"
    assert second.reason == "it was dispatched before"
    town.until(job, COMPLETED)
    assert town.runs_of(job) == [("host-a", 1)]
    assert answered(town.dispatch(job)).reason == "it has ended"


@pytest.mark.parametrize("moment", [BEFORE_COMMIT, AFTER_COMMIT])
@pytest.mark.parametrize("who", ["core", "broker", "host-a"])
def test_a_crash_beside_any_commit_loses_nothing(who: str, moment: str) -> None:
    town = Town()
    job = town.create()
    town.falls_at(town[who], moment)
    request = jobs_pb2.DispatchJobRequest(job_id=job.job_id)
    process_of_core = town["core"]
    process_of_core.admin("offgrid.v1.JobService/DispatchJob", request, lambda outcome: None)
    town.run_for(1)
    town.dispatch(job)
    assert town.until(job, COMPLETED).result.status == "completed"


def test_a_broker_is_asked_for_a_job_that_is_being_made_and_forgets_it_should_it_never_be() -> None:
    town = Town()
    made = town.create()
    core, broker = town["core"], town["broker"]
    free = slots_free(broker)
    # What it asked the broker is on its way then, and nothing of the job is on its disk.
    town.falls_at(core, BEFORE_COMMIT, {JOBS}, away_s=0.1)
    spec = jobs_pb2.JobSpec(payload=town.sound_payload(), size_tokens=TOKENS, timeout_ms=1_000)
    request = jobs_pb2.RunJobsRequest(task_id=made.task_id, jobs=[spec], request_id="once")
    core.admin("offgrid.v1.JobService/RunJobs", request, lambda outcome: None)
    town.run_for(0.05)
    assert slots_free(broker) == free - 1
    town.run_for(10)
    assert slots_free(broker) == free
    again = town.ask("RunJobs", request)
    assert isinstance(again, jobs_pb2.RunJobsResponse)
    done = town.until(jobs_pb2.Job(job_id=again.job_ids[0]), COMPLETED)
    assert town.runs_of(done) == [("host-a", 1)]
    assert len(town.cluster.monitor.jobs.executions) == 1


def test_a_core_that_restarts_finds_its_job_still_running() -> None:
    town = Town()
    town.seconds = 4.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town["core"].crash()
    town.run_for(1)
    town["core"].start()
    assert town.until(job, COMPLETED).attempt == 1
    assert town.runs_of(job) == [("host-a", 1)]


def test_a_core_that_was_away_when_the_work_ended_still_gets_the_receipt() -> None:
    town = Town()
    town.seconds = 2.0
    job = town.create()
    town.dispatch(job)
    town.until(job, RUNNING)
    town["core"].crash()
    town.run_for(10)
    town["core"].start()
    assert town.until(job, COMPLETED).attempt == 1
    assert town.runs_of(job) == [("host-a", 1)]


@pytest.mark.parametrize(("seconds", "reports"), [(15.0, True), (60.0, False)], ids=["done", "still at work"])
def test_a_host_that_was_lost_and_comes_back_is_neither_believed_nor_waited_for(seconds: float, reports: bool) -> None:
    """Its late receipt is refused; what it has not done yet it stops, for the core tells it that nobody waits."""
    town = Town()
    town.seconds = seconds
    job = town.create(timeout_ms=100_000)
    town.dispatch(job)
    town.until(job, RUNNING)
    town.cluster.network.faults.group_of = {town["host-a"].node_id: 1}
    town.run_for(20)
    town.cluster.network.faults.group_of = {}
    town.run_for(10)
    assert town["host-a"].running.jobs.host.slots_busy == 0
    assert bool(town.sent_s("host-a", "core", "ReportResults")) is reports
    done = town.until(job, COMPLETED, within_s=250)
    town.run_for(20)
    # Back again, the lost host says for a moment that all others are dead, which nobody believes.
    assert town.runs_of(job) == [("host-a", 1), ("host-b", 2)]
    assert (town.look(job).host, town.look(job).attempt) == (done.host, done.attempt)


def test_an_award_to_a_host_that_died_before_anybody_heard_of_it_is_not_made_anew_under_its_number() -> None:
    """Neither core nor broker can know whether the host had begun."""
    town = Town()
    job = town.create()
    core, broker = town["core"].node_id, town["broker"].node_id
    town.cluster.network.faults.cuts = {(broker, core): True}
    town.dispatch(job)
    town.run_for(0.5)
    town["host-a"].crash()
    town.run_for(15)
    town.cluster.network.faults.cuts = {}
    done = town.until(job, COMPLETED, within_s=60)
    assert [(each.number, town.cluster.name_of(each.host)) for each in done.attempts] == [(1, "host-a"), (2, "host-b")]
    assert town.runs_of(job) == [("host-b", 2)]


def test_a_core_that_cannot_reach_the_winner_turns_to_others() -> None:
    town = Town()
    job = town.create()
    core, host = town["core"].node_id, town["host-a"].node_id
    town.cluster.network.faults.cuts = {(core, host): True, (host, core): True}
    town.dispatch(job)
    assert town.cluster.name_of(town.until(job, COMPLETED).host) == "host-b"


def test_a_large_payload_gets_over_a_modest_link_in_one_piece() -> None:
    town = Town()
    job = town.create(module_bytes=1_000_000)
    town.cluster.network.faults.bytes_per_s = 60_000
    town.dispatch(job)
    done = town.until(job, COMPLETED)
    assert town.runs_of(job) == [("host-a", 1)]
    assert done.attempt == 1
    assert len(town.sent_s("core", "host-a", "StartJobs")) == 1, "it takes 17 s, and is not said again meanwhile"


def test_the_journal_tells_every_state_of_a_job_that_lasts() -> None:
    """That it is awarded, its host confirms at once."""
    town = Town()
    job = town.create()
    town.dispatch(job)
    town.until(job, COMPLETED)
    assert town.states_of(job) == ["CREATED", "QUEUED", "RUNNING", "COMPLETED"]


def test_an_award_that_comes_after_the_local_queue_took_the_job_is_given_back() -> None:
    town = Town()
    town.seconds = 60.0
    for job in [town.create(timeout_ms=100_000) for _ in range(5)]:
        town.dispatch(job)  # four hold every slot, the fifth waits at the broker
    town.run_for(0.5)
    core, broker = town["core"].node_id, town["broker"].node_id
    town.cluster.network.faults.cuts = {(core, broker): True}
    town.run_for(20)
    town.dispatch(town.create(timeout_ms=100_000), DISABLED)  # keeps the core's own slot busy, so that the job waits
    town.run_for(30)
    assert town["broker"].running.jobs.broker.queued == 1
    assert town.look(job).route == jobs_pb2.ROUTE_FILE_QUEUE
    town.run_for(15)  # slots are free again: the award is under way
    town["core"].crash()
    town["core"].start()
    town.cluster.network.faults.cuts = {}
    done = town.until(job, COMPLETED, within_s=250)
    assert town.cluster.name_of(done.host) == "core"
    assert town["broker"].running.jobs.broker.queued == 0


def test_whoever_repeats_a_call_for_a_chain_of_jobs_finds_those_that_the_first_one_made() -> None:
    town = Town()
    first, then = (jobs_pb2.JobSpec(payload=town.sound_payload(), timeout_ms=1_000) for _ in range(2))
    then.after.append("#0")
    then.payload.input, then.payload.input_job = b"", "#0"
    request = jobs_pb2.RunJobsRequest(task_id=town.create().task_id, jobs=[first, then], request_id="twice")
    made, again = (town.ask("RunJobs", request) for _ in range(2))
    assert isinstance(made, jobs_pb2.RunJobsResponse)
    assert isinstance(again, jobs_pb2.RunJobsResponse)
    assert made.job_ids == again.job_ids

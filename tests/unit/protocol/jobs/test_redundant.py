"""Redundant jobs: several hosts, one accepted result, and pay for those alone who agree on it."""

from __future__ import annotations

import pytest
from job_bench import PAYLOAD, TASK, new_job
from redundant_world import AUTO, HOSTS, MARKET, OFFGRID, PRICE, World, name_of

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.events import BROKER, PeerDown, PeerUp
from offgrid_node.protocol.jobs.closing import DISAGREED, EXCUSED, SERVED
from offgrid_node.protocol.jobs.commands import CancelJobs, RunJobs
from offgrid_node.protocol.jobs.open_jobs import PAYLOAD_KEPT_MAX
from offgrid_node.protocol.jobs.redundant import EXTRA_MAX, STRAYS_MAX
from offgrid_node.protocol.jobs.table import (
    AWARDED,
    CANCELLED,
    COMPLETED,
    CREATED,
    EXPIRED,
    FAILED,
    QUEUED,
    RUNNING,
)
from offgrid_node.protocol.jobs.terms import LOSSES_MAX, Terms
from offgrid_node.protocol.jobs.trust import SPOT_CHECK_ONE_IN, TRUSTED_FROM


@pytest.fixture(params=[False, True], ids=["", "reloaded at every step"])
def world(request: pytest.FixtureRequest) -> World:
    return World(reloads=request.param)


def made_trusted(world: World, host: str = "a") -> None:
    """All that this host has brought so far agreed with others."""
    for _ in range(TRUSTED_FROM):
        world.machine.core.redundant.trust.agreed(HOSTS[host].node_id)
    world.step()


class TestAgreement:
    def test_the_executions_are_at_hosts_of_their_own(self, world: World) -> None:
        job_id = world.run(3, 2)
        assert world.at_work() == ["a", "b", "c"]
        assert [each.job_id for each in world.executions(job_id)] == [f"{job_id}.r{n}" for n in (1, 2, 3)]
        assert {each.parent_id for each in world.executions(job_id)} == {job_id}

    def test_nobody_is_paid_before_enough_agree_and_then_those_who_do(self, world: World) -> None:
        job_id = world.run(3, 2)
        world.finish("a")
        assert world.paid() == []
        assert world.job(job_id).state == QUEUED
        world.finish("b")
        assert world.paid() == ["a", "b"]
        done = world.job(job_id)
        assert (done.state, done.result.output, done.result_of) == (COMPLETED, b"right", f"{job_id}.r1")
        assert done.price_micro == 2 * PRICE

    def test_a_liar_is_outvoted_and_unpaid(self, world: World) -> None:
        job_id = world.run(3, 2)
        world.finish("a", b"a lie")
        world.finish("b")
        assert world.job(job_id).state == QUEUED
        world.finish("c")
        assert world.paid() == ["b", "c"]
        assert world.job(job_id).result.output == b"right"
        assert name_of(world.job(job_id).host) == "b"

    def test_brokers_hear_who_agreed_and_who_did_not(self) -> None:
        world = World()
        job_id = world.run(3, 2)
        world.finish("a", b"a lie")
        world.finish("b")
        world.finish("c")
        world.wait(1_000)
        ends = [(lease.job_id.removeprefix(job_id), lease.end) for lease in world.told_brokers()]
        assert ends.index((".r1", DISAGREED)) > ends.index((".r1", EXCUSED))
        assert {(".r2", SERVED), (".r3", SERVED)} < set(ends)
        assert (".r1", SERVED) not in ends

    def test_the_same_output_with_another_exit_code_is_another_result(self, world: World) -> None:
        job_id = world.run(2, 2)
        world.finish("a")
        world.finish("b", exit_code=1)
        assert world.job(job_id).state == QUEUED

    def test_work_that_fails_alike_everywhere_has_failed_and_is_paid(self, world: World) -> None:
        job_id = world.run(3, 2)
        world.finish("a", exit_code=3)
        world.finish("b", exit_code=3)
        assert (world.job(job_id).state, world.job(job_id).error) == (FAILED, "ExecutionFailed")
        assert world.paid() == ["a", "b"]

    def test_a_job_that_takes_too_long_everywhere_has_timed_out_and_costs_nothing(self, world: World) -> None:
        job_id = world.run(3, 2)
        world.wait(30_000)
        world.finish("a", error="JobTimeout")
        world.finish("b", error="JobTimeout")
        assert (world.job(job_id).error, world.paid()) == ("JobTimeout", [])

    def test_a_large_payload_is_stored_once(self, world: World) -> None:
        job_id = world.run(3, 2, input_bytes=PAYLOAD_KEPT_MAX)
        assert [key for table, key in world.disk.rows if table == "payloads"] == [job_id.encode()]
        assert world.at_work() == ["a", "b", "c"]


class TestDisagreement:
    def test_another_host_is_asked_when_the_replicas_cannot_agree(self, world: World) -> None:
        job_id = world.run(2, 2)
        world.finish("a", b"a lie")
        world.finish("b")
        assert world.at_work() == ["c"]
        world.finish("c")
        assert world.paid() == ["b", "c"]
        assert world.job(job_id).state == COMPLETED

    def test_without_agreement_after_all_of_them_the_job_fails_and_says_who_said_what(self, world: World) -> None:
        job_id = world.run(2, 2)
        for host in "abcd":
            world.finish(host, f"what {host} says".encode())
        job = world.job(job_id)
        assert (job.state, job.error, world.paid()) == (FAILED, "ResultsDisagree", [])
        assert len(world.executions(job_id)) == 4
        for host in "abcd":
            assert HOSTS[host].node_id in job.error_detail

    def test_it_is_told_as_such_where_no_further_host_could_be_asked(self) -> None:
        world = World(2)
        job_id = world.run(2, 2)
        world.finish("a", b"a lie")
        world.finish("b")
        world.wait(15_000)
        job = world.job(job_id)
        assert (job.state, job.error, world.paid()) == (FAILED, "ResultsDisagree", [])
        assert job.error_detail.startswith("2 of 3 executions must agree, and there is no other host to ask; ")

    def test_liars_in_league_need_a_quorum(self, world: World) -> None:
        job_id = world.run(5, 3)
        for host in "ab":
            world.finish(host, b"a lie")
        for host in "cd":
            world.finish(host)
        assert world.job(job_id).state == QUEUED
        world.finish("e")
        assert world.job(job_id).result.output == b"right"
        assert world.paid() == ["c", "d", "e"]


class TestHosts:
    def test_a_broker_that_gives_two_to_one_host_is_turned_down(self) -> None:
        world = World(3)
        world.blind = True
        job_id = world.run(3, 3)
        for _ in range(8):
            world.wait(6_000)
        assert sorted(world.at_work()) == ["a", "b", "c"]
        world.finish_all()
        assert world.job(job_id).state == COMPLETED

    def test_the_next_attempt_of_one_avoids_the_hosts_of_the_others(self, world: World) -> None:
        world.run(3, 2)
        lost = world.at("a")
        world.hosts.remove(HOSTS["a"])
        world.step(PeerDown(HOSTS["a"].node_id))
        world.running.pop(lost)
        assert sorted(world.at_work()) == ["b", "c", "d"]
        order = world.running[world.at("d")]
        assert [name_of(host) for host in order.avoid] == sorted("bc", key=lambda name: HOSTS[name].node_id)

    def test_too_few_hosts_are_enough_if_they_agree(self, world: World) -> None:
        world.hosts = [HOSTS["a"], HOSTS["b"]]
        job_id = world.run(3, 2)
        assert world.at_work() == ["a", "b"]
        world.finish_all()
        assert (world.job(job_id).state, world.paid()) == (COMPLETED, ["a", "b"])

    def test_with_one_host_a_job_fails_for_want_of_others(self) -> None:
        world = World(1)
        job_id = world.run(3, 2)
        world.finish("a")
        world.wait(15_000)
        assert (world.job(job_id).error, world.paid()) == ("NoHostsAvailable", [])
        assert len(world.executions(job_id)) == 2

    def test_where_no_broker_is_left_the_local_queue_has_the_job_and_pays_who_was_right(self) -> None:
        world = World()
        job_id = world.run(2, 2, mode=AUTO)
        world.finish("a")
        world.market_up = False
        world.hosts = []
        lost = world.at("b")
        world.running.pop(lost)
        world.step(PeerDown(MARKET.node_id))
        world.step(PeerDown(HOSTS["b"].node_id))
        world.wait(15_000)
        job = world.job(job_id)
        assert (job.state, job.route) == (COMPLETED, jobs_pb2.ROUTE_FILE_QUEUE)
        assert world.paid()[1:] == ["a"]

    def test_a_job_that_waits_in_the_local_queue_goes_out_again_when_a_broker_is_back(self) -> None:
        world = World()
        world.executing, world.market_up = True, False
        first, job_id = (world.run(3, 2, mode=AUTO) for _ in range(2))
        world.step(PeerDown(MARKET.node_id))
        world.wait(15_000)
        assert (world.job(first).state, world.job(job_id).state) == (RUNNING, QUEUED)
        assert world.job(job_id).route == jobs_pb2.ROUTE_FILE_QUEUE
        world.market_up = True
        world.step(PeerUp(MARKET.node_id, "", frozenset({BROKER})))
        world.wait(10)
        assert world.at_work() == ["a", "b", "c"]
        world.finish_all()
        assert world.job(job_id).state == COMPLETED
        assert world.paid() == ["a", "b", "c"]

    def test_a_job_whose_brokers_come_and_go_stays_in_the_local_queue_in_the_end(self) -> None:
        world = World()
        world.executing, world.market_up = True, False
        _, job_id = (world.run(2, 2, mode=AUTO) for _ in range(2))
        for _ in range(20):
            world.step(PeerUp(MARKET.node_id, "", frozenset({BROKER})))
            world.wait(10)
            world.step(PeerDown(MARKET.node_id))
            world.wait(15_000)
        assert world.job(job_id).route == jobs_pb2.ROUTE_FILE_QUEUE
        assert len(world.executions(job_id)) <= 2 + EXTRA_MAX + STRAYS_MAX
        world.market_up = True
        world.step(PeerUp(MARKET.node_id, "", frozenset({BROKER})))
        world.wait(10)
        assert (world.job(job_id).route, world.job(job_id).state) == (jobs_pb2.ROUTE_FILE_QUEUE, QUEUED)

    def test_a_job_that_kills_hosts_kills_no_more_of_them_than_any_other(self) -> None:
        world = World(13)
        job_id = world.run(3, 2)
        world.finish("b")
        lost = 0
        while world.running:
            world.finish(world.at_work()[0], error="HostRestarted")
            lost += 1
        assert world.job(job_id).error == "AttemptsExhausted"
        assert lost <= LOSSES_MAX + 2, "those that were under way already are lost as well"

    def test_a_job_without_a_quorum_is_named_after_what_brought_no_result(self, world: World) -> None:
        job_id = world.run(2, 2)
        while (key := min(world.running)) != max(world.running):
            world.finish(name_of(world.awards[key]), error="HostRestarted")
        world.finish_all()
        assert world.job(job_id).error == "AttemptsExhausted"


class TestAnOwnersHand:
    def test_a_job_that_is_taken_back_takes_its_executions_along(self, world: World) -> None:
        job_id = world.run(3, 2)
        world.finish("a")
        world.ask(CancelJobs((job_id,), "", "not wanted any more"))
        assert {each.state for each in world.executions(job_id)} == {COMPLETED, CANCELLED}
        assert world.job(job_id).state == CANCELLED
        world.wait(1_000)
        assert sorted(world.stopped) == [(f"{job_id}.r2", 1), (f"{job_id}.r3", 1)]
        assert (world.at_work(), world.paid()) == ([], [])

    def test_a_job_past_its_deadline_ends_with_all_its_executions(self) -> None:
        world = World()
        job_id = world.run(3, 2, deadline_us=world.now.utc_us + 5_000_000)
        world.wait(6_000)
        assert world.job(job_id).state == EXPIRED
        assert {each.state for each in world.executions(job_id)} == {CANCELLED}
        assert world.at_work() == []


def test_what_waits_for_a_redundant_job_gets_its_one_result(world: World) -> None:
    payload = new_job(PAYLOAD)
    first = payload._replace(terms=Terms(replicas=3, quorum=2))
    then = payload._replace(terms=Terms(after=("#0",), replicas=2, quorum=2))
    reply = world.ask(RunJobs(TASK, (first, then), OFFGRID, "", bytes(16)))
    assert isinstance(reply, jobs_pb2.RunJobsResponse)
    assert world.job(reply.job_ids[1]).state == CREATED
    world.finish("a")
    world.finish("b")
    assert world.job(reply.job_ids[0]).state == COMPLETED
    assert world.job(reply.job_ids[1]).state == QUEUED
    world.finish_all()
    assert world.job(reply.job_ids[1]).state == COMPLETED


class TestTrust:
    def test_agreeing_hosts_gain_it_and_liars_lose_all_of_it(self, world: World) -> None:
        made_trusted(world, "a")
        world.run(3, 2)
        world.finish("a", b"a lie")
        world.finish("b")
        world.finish("c")
        trust = world.machine.core.redundant.trust
        assert [trust.count(HOSTS[host].node_id) for host in "abc"] == [0, 1, 1]

    def test_a_stranger_runs_nothing_alone(self, world: World) -> None:
        job_id = world.run(3, 2, adaptive=True)
        assert world.at_work() == ["a", "b", "c"]
        world.finish_all()
        assert world.job(job_id).state == COMPLETED

    def test_a_trusted_host_mostly_runs_it_alone_and_is_paid(self) -> None:
        world = World()
        made_trusted(world)
        alone = 0
        for _ in range(100):
            job_id = world.run(3, 2, adaptive=True)
            alone += len(world.executions(job_id)) == 1
            world.finish_all()
            assert world.job(job_id).state == COMPLETED
        checked = 100 - alone
        assert 2 <= checked <= 2.5 * 100 / SPOT_CHECK_ONE_IN
        assert world.paid().count("a") == 100

    def test_a_result_that_nobody_compared_earns_no_trust(self) -> None:
        world = World()
        made_trusted(world)
        while len(world.executions(world.run(3, 2, adaptive=True))) > 1:
            world.finish_all()
        before = world.machine.core.redundant.trust.count(HOSTS["a"].node_id)
        world.finish_all()
        assert world.machine.core.redundant.trust.count(HOSTS["a"].node_id) == before

    def test_a_failed_spot_check_ends_the_trust_and_others_settle_the_job(self) -> None:
        world = World()
        made_trusted(world)
        while len(world.executions(job_id := world.run(3, 2, adaptive=True))) == 1:
            world.finish_all()
        world.finish("a", b"a lie")
        world.finish("b")
        world.finish("c")
        assert world.job(job_id).result.output == b"right"
        assert world.machine.core.redundant.trust.count(HOSTS["a"].node_id) == 0
        world.run(3, 2, adaptive=True)
        assert world.at_work() == ["a", "b", "c"]

    def test_an_adaptive_job_whose_trusted_host_dies_goes_on_elsewhere_in_company(self) -> None:
        world = World()
        made_trusted(world)
        while len(world.executions(world.run(3, 2, adaptive=True))) > 1:
            world.finish_all()
        world.running.clear()
        world.hosts.remove(HOSTS["a"])
        world.step(PeerDown(HOSTS["a"].node_id))
        assert world.at_work() == ["b", "c", "d"]

    def test_a_trusted_host_that_says_it_failed_is_not_taken_at_its_word(self) -> None:
        world = World()
        made_trusted(world)
        while len(world.executions(world.run(3, 2, adaptive=True))) > 1:
            world.finish_all()
        world.wait(30_000)
        world.finish("a", error="JobTimeout")
        assert world.at_work() == ["b", "c"]


def test_memory_and_rows_tell_the_same_of_open_redundant_jobs() -> None:
    """Whatever was open is open again, and nothing is left over of what has ended."""
    world = World()
    job_id = world.run(3, 3)
    world.finish("b")
    before = [(each.job_id, each.state) for each in world.executions(job_id)]
    world.reload()
    assert [(each.job_id, each.state) for each in world.executions(job_id)] == before
    assert {each.state for each in world.executions(job_id)} <= {AWARDED, RUNNING, COMPLETED, QUEUED}
    world.finish_all()
    redundant = world.machine.core.redundant
    assert (redundant._parents, redundant._due, world.machine.core.open_jobs) == ({}, {}, 0)

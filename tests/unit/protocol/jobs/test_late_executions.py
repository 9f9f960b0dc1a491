"""Executions of a redundant job that were running when enough others had agreed: begun in good faith, paid if right."""

from __future__ import annotations

import pytest
from redundant_world import HOSTS, PRICE, World

from offgrid_node.protocol.events import PeerDown
from offgrid_node.protocol.jobs import redundant
from offgrid_node.protocol.jobs.closing import DISAGREED, SERVED
from offgrid_node.protocol.jobs.patience import run_ms
from offgrid_node.protocol.jobs.table import CANCELLED, COMPLETED, ENDED, RUNNING


@pytest.fixture(params=[False, True], ids=["", "reloaded at every step"])
def world(request: pytest.FixtureRequest) -> World:
    return World(reloads=request.param)


def agreed(world: World, replicas: int = 3, quorum: int = 2) -> str:
    """A job of which the first hosts have agreed, and the others run on."""
    job_id = world.run(replicas, quorum)
    for host in "abcdefgh"[:quorum]:
        world.finish(host)
    assert world.job(job_id).state == COMPLETED
    return job_id


def nothing_is_left(world: World) -> bool:
    core = world.machine.core
    return (core.redundant._parents, core.redundant._late, core.open_jobs) == ({}, {}, 0)


def test_what_runs_when_enough_agree_runs_on(world: World) -> None:
    job_id = agreed(world)
    assert world.executions(job_id)[2].state == RUNNING
    assert world.stopped == []
    assert world.paid() == ["a", "b"]


def test_it_is_paid_if_it_agrees_and_once(world: World) -> None:
    job_id = agreed(world)
    order = world.running[world.at("c")]
    world.finish("c")
    assert world.paid() == ["a", "b", "c"]
    world.report("c", order, b"right")
    assert world.paid() == ["a", "b", "c"]
    assert nothing_is_left(world)
    assert world.job(job_id).price_micro == 3 * PRICE


def test_it_changes_nothing_else_of_its_job(world: World) -> None:
    job_id = agreed(world)
    before = world.job(job_id)
    world.finish("c", b"a lie")
    after = world.job(job_id)
    assert (after.state, after.result, after.result_of) == (before.state, before.result, before.result_of)
    assert after.price_micro == before.price_micro


def test_it_is_unpaid_if_it_does_not_agree(world: World) -> None:
    agreed(world)
    world.finish("c", b"a lie")
    assert world.paid() == ["a", "b"]
    assert nothing_is_left(world)


def test_several_are_judged_each_when_it_ends(world: World) -> None:
    agreed(world, replicas=5)
    world.finish("d")
    world.finish("c", b"a lie")
    assert not nothing_is_left(world)
    world.finish("e")
    assert world.paid() == ["a", "b", "d", "e"]
    assert nothing_is_left(world)


def test_brokers_hear_of_it_as_of_the_others() -> None:
    world = World()
    job_id = agreed(world, replicas=4)
    world.finish("c")
    world.finish("d", b"a lie")
    world.wait(1_000)
    ends = {(lease.job_id.removeprefix(job_id), lease.end) for lease in world.told_brokers()}
    assert {(".r3", SERVED), (".r4", DISAGREED)} < ends


def test_one_whose_host_dies_is_dropped_unpaid_and_begun_nowhere_else(world: World) -> None:
    job_id = agreed(world)
    order = world.running[world.at("c")]
    world.step(PeerDown(HOSTS["c"].node_id))
    world.wait(60_000)
    assert world.executions(job_id)[2].state == CANCELLED
    assert world.at_work() == ["c"]  # nobody else
    world.report("c", order, b"right")
    assert world.paid() == ["a", "b"]
    assert nothing_is_left(world)


def test_one_that_brings_nothing_in_its_time_is_dropped() -> None:
    world = World()
    job_id = agreed(world)
    world.wait(run_ms(world.job(job_id)) + 60_000)
    assert world.executions(job_id)[2].state in ENDED
    assert world.paid() == ["a", "b"]
    assert nothing_is_left(world)


def test_one_that_has_no_host_yet_is_taken_back(world: World) -> None:
    world.hosts = world.hosts[:2]
    job_id = world.run(3, 2)
    world.finish("a")
    world.finish("b")
    assert [each.state for each in world.executions(job_id)] == [COMPLETED, COMPLETED, CANCELLED]
    assert nothing_is_left(world)


def test_where_the_work_itself_fails_there_is_nothing_to_be_paid_for_and_all_is_taken_back(world: World) -> None:
    job_id = world.run(3, 2)
    world.wait(run_ms(world.job(job_id)) // 2 + 30_000)
    world.finish("a", error="OutputTooLarge")
    world.finish("b", error="OutputTooLarge")
    assert world.executions(job_id)[2].state == CANCELLED
    assert nothing_is_left(world)


def test_no_more_than_so_many_jobs_are_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redundant, "LATE_MAX", 1)
    world = World()
    agreed(world)
    beyond = agreed(world)
    assert world.executions(beyond)[2].state == CANCELLED
    world.finish("c")
    assert world.paid() == ["a", "b", "a", "b", "c"]
    assert world.executions(agreed(world))[2].state == RUNNING

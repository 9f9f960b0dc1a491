"""SWIM over the wire: every death is seen by all, nobody alive stays dead, partitions heal, restarts are noticed."""

from __future__ import annotations

import pytest
from mesh_world import Node, World
from seeds import seeds

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.effects import Raise
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.mesh.standing import AUDIENCE, Standing
from offgrid_node.protocol.mesh.swim import (
    ALIVE,
    BOOT_SHIFT,
    BOOTS_AHEAD_MAX,
    DEAD,
    INCARNATION_MAX,
    SUSPECT,
    News,
    Swim,
)


def all_alive(world: World) -> bool:
    return all(world.sees(node_id, ALIVE) for node_id in world.nodes)


@pytest.mark.parametrize(("seed", "nodes"), [(1, 1), (2, 2), (3, 5), (4, 20)])
def test_a_fresh_mesh_soon_sees_everybody_alive_and_holds_the_same_records(seed: int, nodes: int) -> None:
    world = World(seed, nodes)
    world.run_until(lambda: all_alive(world) and world.agreed(), within_ms=5_000)


@pytest.mark.parametrize(("seed", "nodes", "loss"), [(1, 2, 0.0), (2, 5, 0.0), (3, 5, 0.2), (4, 12, 0.1)])
def test_every_death_is_seen_by_all(seed: int, nodes: int, loss: float) -> None:
    world = World(seed, nodes, loss=loss)
    world.run(5_000)
    victim = list(world.nodes.values())[1]
    victim.crash()
    world.run_until(lambda: world.sees(victim.node_id, DEAD), within_ms=15_000)
    for node in world.running():
        assert PeerDown(victim.node_id) in node.heard


def test_a_crashed_peer_is_dead_within_six_intervals_in_a_small_mesh() -> None:
    world = World(7, 5)
    world.run(5_000)
    victim = list(world.nodes.values())[3]
    victim.crash()
    world.run_until(lambda: world.sees(victim.node_id, DEAD), within_ms=6_000)


@pytest.mark.parametrize("seed", range(2))
def test_nobody_alive_stays_dead_on_a_bad_network(seed: int) -> None:
    world = World(seed, 6, loss=0.35)
    world.run(60_000)
    world.loss = 0.0
    world.run_until(lambda: all_alive(world), within_ms=30_000)


def test_a_slow_node_refutes_suspicion_before_it_is_thought_dead() -> None:
    world = World(11, 5)
    world.run(5_000)
    slow = list(world.nodes.values())[2]
    world.sides[slow.node_id] = 1
    world.run(2_500)  # long enough to be suspected, too short to be dead
    before = slow.mesh.peer(slow.node_id)
    del world.sides[slow.node_id]
    world.run_until(lambda: all_alive(world), within_ms=5_000)
    after = slow.mesh.peer(slow.node_id)
    assert before
    assert after
    assert after.incarnation > before.incarnation, "it was suspected, so it had to refute"
    assert not [node for node in world.running() if PeerDown(slow.node_id) in node.heard]


@pytest.mark.parametrize(("seed", "nodes"), [(1, 4), (2, 10), (3, 16)])
def test_a_healed_partition_is_noticed_by_all(seed: int, nodes: int) -> None:
    world = World(seed, nodes)
    world.run(5_000)
    for index, node_id in enumerate(world.nodes):
        world.sides[node_id] = index % 2
    world.run(30_000)
    for node in world.running():
        for other_id in world.nodes:
            expected = DEAD if world.cut(node.node_id, other_id) else ALIVE
            assert node.mesh.liveness(other_id) == expected
    world.sides.clear()
    world.run_until(lambda: all_alive(world), within_ms=30_000)


def test_a_restart_is_told_even_when_no_one_noticed_the_death() -> None:
    world = World(13, 4)
    world.run(5_000)
    node = list(world.nodes.values())[1]
    node.crash()
    world.run(200)
    for other in world.running():
        other.heard.clear()
    node.start()
    world.run(3_000)
    for other in world.running():
        if other is not node:
            said = [event for event in other.heard if event.node_id == node.node_id]
            assert [type(event) for event in said] == [PeerUp], f"{said} at {other.node_id}"


def test_a_restarted_node_outranks_the_news_of_its_death() -> None:
    world = World(17, 5)
    world.run(5_000)
    node = list(world.nodes.values())[4]
    node.crash()
    world.run_until(lambda: world.sees(node.node_id, DEAD), within_ms=10_000)
    node.start()
    world.run_until(lambda: all_alive(world), within_ms=3_000)


def peer_events(node: Node) -> list[tuple[int, str]]:
    """What the node's journal says of others from now on: type and node id."""
    said: list[tuple[int, str]] = []
    wanted = (EventType.PEER_ALIVE, EventType.PEER_DEAD)
    node.runtime.watch(lambda events: said.extend((e.etype, e.subject) for e in events if e.etype in wanted))
    return said


def test_the_journal_calls_nobody_dead_who_was_never_heard_of_since_the_start() -> None:
    """A mesh that starts is full of members that are still to come. Other domains are told: they may hold rows."""
    world = World(37, 2)
    world.run(5_000)
    first, late = world.nodes.values()
    for node in (first, late):
        node.crash()
    world.run(1_000)  # what they had sent has arrived nowhere
    first.start()
    first.heard.clear()
    said = peer_events(first)
    world.run_until(lambda: first.mesh.liveness(late.node_id) == DEAD, within_ms=6_000)
    assert PeerDown(late.node_id) in first.heard
    late.start()
    world.run_until(lambda: all_alive(world), within_ms=10_000)
    late.crash()
    world.run_until(lambda: first.mesh.liveness(late.node_id) == DEAD, within_ms=6_000)
    assert said == [(EventType.PEER_ALIVE, late.node_id), (EventType.PEER_DEAD, late.node_id)]


def test_a_node_tells_jobs_of_itself_first_and_once() -> None:
    world = World(19, 3)
    world.run(10_000)
    for node in world.running():
        own = [event for event in node.heard if event.node_id == node.node_id]
        assert own == [
            PeerUp(
                node.node_id,
                own[0].name,
                frozenset({1, 2, 3}),
                weight_milli=1_000,
                wrap_label=node.key.wrapping_key(0).label,
            )
        ]


def test_the_same_seed_gives_the_same_calls() -> None:
    def trace() -> tuple[int, list[list[object]]]:
        world = World(23, 6, loss=0.3)
        world.run(20_000)
        return world.calls, [list(node.heard) for node in world.nodes.values()]

    assert trace() == trace()


def test_two_that_cannot_reach_each_other_are_kept_alive_by_the_others() -> None:
    world = World(29, 5)
    world.run(5_000)
    one, other = list(world.nodes)[1:3]
    world.broken.add(frozenset((one, other)))
    world.run(30_000)
    assert all_alive(world)
    assert not [event for node in world.running() for event in node.heard if isinstance(event, PeerDown)]


def test_a_node_that_was_itself_asleep_does_not_bury_the_others() -> None:
    world = World(31, 4)
    world.run(5_000)
    sleeper, suspect = list(world.nodes.values())[:2]
    world.sides[suspect.node_id] = 1
    world.run_until(lambda: sleeper.mesh.liveness(suspect.node_id) == SUSPECT, within_ms=4_000)
    sleeper.up = False
    world.sides.clear()
    world.run(60_000)
    sleeper.up = True
    sleeper.pump()
    world.run(5_000)
    assert not [event for event in sleeper.heard if isinstance(event, PeerDown)]
    assert all_alive(world)


def test_deaths_are_seen_even_when_calls_end_without_a_word() -> None:
    world = World(37, 5, loss=0.1)
    world.timeouts = False
    world.run(10_000)
    victim = list(world.nodes.values())[2]
    victim.crash()
    world.run_until(lambda: world.sees(victim.node_id, DEAD), within_ms=20_000)


def test_news_from_a_liar_make_a_living_node_doubted_for_a_moment_and_not_dead() -> None:
    world = World(41, 4)
    world.run(5_000)
    liar, victim, judge = list(world.nodes.values())[1:4]
    farthest = (1 + BOOTS_AHEAD_MAX) << BOOT_SHIFT
    lie = mesh_pb2.LivenessNews(node_id=victim.node_id, liveness=common_pb2.LIVENESS_DEAD, incarnation=farthest)
    judge.ask(mesh_pb2.PingRequest(news=[lie] * 500), liar.node_id)
    assert judge.mesh.liveness(victim.node_id) == SUSPECT
    world.run_until(lambda: judge.mesh.liveness(victim.node_id) == ALIVE, within_ms=3_000)


def test_news_that_cannot_be_are_ignored() -> None:
    world = World(43, 3)
    world.run(5_000)
    member = list(world.nodes)[1]
    absurd = (2 + BOOTS_AHEAD_MAX) << BOOT_SHIFT
    for liveness, incarnation in ((3, INCARNATION_MAX), (3, absurd), (0, 1 << 30), (9, 1 << 30), (3, 0)):
        news = mesh_pb2.LivenessNews(node_id=member, incarnation=incarnation)
        news.liveness = common_pb2.Liveness.ValueType(liveness)
        world.first.ask(mesh_pb2.PingRequest(news=[news]), list(world.nodes)[2])
        assert world.first.mesh.liveness(member) == ALIVE


def test_whatever_is_said_of_a_node_it_can_refute_so_that_others_believe_it() -> None:
    last_boot = (INCARNATION_MAX >> BOOT_SHIFT) - 1
    one, judge = Swim("one", last_boot, 1_000, 0), Swim("judge", 1, 1_000, 0)
    judge.watch("one", 0)
    judge.heard("one", one.incarnation, 0)
    for doubt in (INCARNATION_MAX, INCARNATION_MAX - 1):
        lie = News("one", DEAD, doubt)
        judge.learn([lie], 0)
        one.learn([lie], 0)
        judge.learn([News("one", ALIVE, one.incarnation)], 0)
        assert judge.liveness("one") == ALIVE, f"one says it lives in {one.incarnation}"


def test_hearsay_of_a_life_far_ahead_changes_nothing_and_is_not_taken_over() -> None:
    swim = Swim("self", 3, 1_000, 0)
    swim.learn([News("self", DEAD, (4 + BOOTS_AHEAD_MAX) << BOOT_SHIFT)], 0)
    assert swim.boot_of("self") == 3
    swim.watch("old", 0)
    swim.learn([News("old", ALIVE, (1 + BOOTS_AHEAD_MAX) << BOOT_SHIFT)], 0)
    assert swim.liveness("old") == SUSPECT
    swim.heard("old", (1 + BOOTS_AHEAD_MAX) << BOOT_SHIFT, 0)
    assert swim.liveness("old") == ALIVE, "the node itself is believed"


@pytest.mark.parametrize("seed", seeds(1, 20))
def test_losing_a_third_of_all_messages_buries_hardly_anybody(seed: int) -> None:
    """Two of eight in a minute at most; one that is called dead by mistake is so at two or three nodes, until it hears
    of it."""
    world = World(seed, 8)
    world.run_until(lambda: all_alive(world), within_ms=5_000)
    world.loss = 0.3
    world.run(60_000)
    buried = {event.node_id for node in world.running() for event in node.heard if isinstance(event, PeerDown)}
    assert len(buried) <= 2


def test_who_is_a_member_again_is_told_of_though_it_is_down_and_so_is_its_next_removal() -> None:
    standing, up = Standing("self"), PeerUp("other", "other", frozenset(), 1_000, "")
    for _ in range(2):
        gone = [Raise(domain, PeerDown("other", removed=True)) for domain in AUDIENCE]
        assert (standing.gone("other", removed=True), standing.gone("other", removed=True)) == (gone, [])
        assert standing.report(up, SUSPECT, 0) == []
        down = [Raise(domain, PeerDown("other")) for domain in AUDIENCE]
        assert (standing.report(up, DEAD, 0), standing.report(up, DEAD, 0)) == (down, [])

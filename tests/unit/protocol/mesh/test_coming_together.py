"""How long it takes until everybody sees everybody who lives, at the interval that nodes have by default (1 s): whoever
joins, restarts, moves or comes back, alone or many at once, on machines that were too busy to talk."""

from __future__ import annotations

from random import Random

import pytest
from mesh_world import Node, World, node_key

from offgrid_node.protocol.mesh.swim import (
    ALIVE,
    BOOT_SHIFT,
    DEAD,
    DEAD_PROBE_INTERVALS,
    NEWS_ACCEPTED_MAX,
    PROBES_PER_INTERVAL,
    REDRAWS_PER_INTERVAL,
    WELCOME_PER_MESSAGE,
    News,
    Swim,
)

INTERVAL_MS = 1_000
SEEN_MS = 4 * INTERVAL_MS  # the promise of docs/design/mesh.md
BORN = 1 << BOOT_SHIFT


def all_see_all(world: World) -> bool:
    return all(world.sees(node.node_id, ALIVE) for node in world.running())


def settled(seed: int, nodes: int) -> World:
    world = World(seed, nodes)
    world.run_until(lambda: all_see_all(world), SEEN_MS)
    world.run(5 * INTERVAL_MS)
    return world


def nodes_of(world: World) -> list[Node]:
    return list(world.nodes.values())


class TestAMeshOfEleven:
    @pytest.mark.parametrize("seed", range(3))
    def test_whose_machines_were_too_busy_to_talk_while_all_joined(self, seed: int) -> None:
        """Each holds all others dead, and knows an address of nobody but the one who invited it."""
        world = World(seed, 1)
        for number in range(1, 11):
            world.run(300)
            world.sides[world.join(f"node-{number}", node_key(100 + number)).node_id] = number
        world.run(20_000)
        assert all(world.first.mesh.liveness(node.node_id) == DEAD for node in nodes_of(world)[1:])
        world.sides.clear()
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    def test_that_two_join_at_once(self) -> None:
        world = settled(1, 9)
        for number in (1, 2):
            world.join(f"late-{number}", node_key(900 + number))
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    @pytest.mark.parametrize("away_ms", [500, 30_000])
    def test_one_of_which_restarts(self, away_ms: int) -> None:
        world = settled(2, 11)
        nodes_of(world)[3].crash()
        world.run(away_ms)
        nodes_of(world)[3].start()
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    @pytest.mark.parametrize("away_ms", [1_500, 30_000])
    def test_one_of_which_comes_back_at_another_address(self, away_ms: int) -> None:
        world = settled(3, 11)
        moved = nodes_of(world)[4]
        moved.crash()
        world.run(away_ms)
        moved.port += 1
        moved.start()
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    def test_whose_machines_all_start_within_a_second(self) -> None:
        world = settled(4, 11)
        for node in nodes_of(world):
            node.crash()
        world.run(5_000)
        for node in nodes_of(world):
            world.after(world.rng.randint(0, 1_000), node.start)
        world.run(1_000)
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    @pytest.mark.parametrize("member", [0, 5])
    def test_to_which_one_comes_back_that_nobody_could_reach(self, member: int) -> None:
        world = settled(5, 11)
        world.sides[nodes_of(world)[member].node_id] = 1
        world.run(60_000)
        world.sides.clear()
        world.run_until(lambda: all_see_all(world), SEEN_MS)

    def test_that_was_torn_in_two(self) -> None:
        world = settled(6, 11)
        for index, node in enumerate(nodes_of(world)):
            world.sides[node.node_id] = index % 2
        world.run(40_000)
        world.sides.clear()
        world.run_until(lambda: all_see_all(world), SEEN_MS)


def test_who_joins_twenty_sees_all_of_them_and_they_it() -> None:
    world = settled(7, 20)
    world.join("late", node_key(900))
    world.run_until(lambda: all_see_all(world), SEEN_MS)


# ---- the rules that make it so


def me(*, alive: int = 0, dead: int = 0) -> Swim:
    swim = Swim("me", 1, INTERVAL_MS, 0)
    for number in range(alive):
        swim.watch(f"alive {number:03}", 0)
        swim.heard(f"alive {number:03}", BORN, 0)
    for number in range(dead):
        swim.watch(f"dead {number:03}", 0)
        swim.learn([News(f"dead {number:03}", DEAD, BORN)], 0)
    return swim


def probed(swim: Swim, intervals: int) -> list[list[str]]:
    """Of the dead, in each interval."""
    rng, found = Random(1), []
    for number in range(intervals):
        found.append([node for node in swim.tick(number * INTERVAL_MS, rng) if swim.liveness(node) == DEAD])
    return found


class TestTheDead:
    def test_are_asked_by_one_who_sees_nobody_alive_as_often_as_the_living_are(self) -> None:
        found = probed(me(dead=10), 4)
        assert [len(each) for each in found] == [PROBES_PER_INTERVAL] * 4
        assert len({node for each in found for node in each}) == 10, "each of them in its turn"

    def test_are_asked_now_and_then_where_all_others_live(self) -> None:
        assert sum(map(len, probed(me(alive=20, dead=1), 4 * DEAD_PROBE_INTERVALS))) == 4

    def test_are_asked_the_more_often_the_more_they_are(self) -> None:
        assert sum(map(len, probed(me(alive=9, dead=10), 8))) == 8

    def test_are_asked_at_once_when_somebody_says_that_they_live(self) -> None:
        swim = me(alive=20, dead=3)
        swim.learn([News("dead 001", ALIVE, BORN)], 0)
        assert swim.liveness("dead 001") == DEAD, "it may be old news"
        assert probed(swim, 2) == [["dead 001"], []]

    def test_that_were_named_are_no_more_in_one_interval_than_of_the_living(self) -> None:
        swim = me(alive=20, dead=10)
        swim.learn([News(f"dead {number:03}", ALIVE, BORN) for number in range(10)], 0)
        assert [len(each) for each in probed(swim, 4)] == [PROBES_PER_INTERVAL] * 3 + [1]


class TestAWelcome:
    def test_names_all_who_live_to_one_who_was_not_alive(self) -> None:
        swim = me(alive=12, dead=2)
        spent(swim)
        swim.watch("late", 0)
        swim.heard("late", BORN, 0)
        told = {news.node_id for news in swim.news_for("late") if news.liveness == ALIVE}
        assert {f"alive {number:03}" for number in range(12)} <= told
        assert not any(node.startswith("dead") for node in told)
        assert len(swim.news_for("late")) < 12, "once"

    def test_is_for_one_in_a_new_life_as_well(self) -> None:
        swim = me(alive=12)
        spent(swim)
        swim.heard("alive 003", 2 * BORN, 0)
        assert len(swim.news_for("alive 003")) >= 12

    def test_is_not_for_one_whose_doubt_was_refuted_before(self) -> None:
        swim = me(alive=12)
        swim.news_for("alive 003")
        spent(swim)
        swim.silent("alive 003", 0)
        swim.learn([News("alive 003", ALIVE, BORN + 1)], 0)
        swim.heard("alive 003", BORN + 1, 0)
        assert len(swim.news_for("alive 003")) == 1

    def test_of_many_comes_in_several_messages_none_of_which_is_too_long(self) -> None:
        swim, named = me(alive=3 * WELCOME_PER_MESSAGE), set()
        swim.watch("late", 0)
        swim.heard("late", BORN, 0)
        for _ in range(4):
            told = swim.news_for("late")
            assert len(told) <= NEWS_ACCEPTED_MAX
            named |= {news.node_id for news in told}
        assert len(named - {"me", "late"}) == 3 * WELCOME_PER_MESSAGE

    def test_tells_one_that_was_thought_dead_so_that_it_refutes_it(self) -> None:
        swim = me(dead=1)
        swim.heard("dead 000", BORN, 0)
        assert News("dead 000", DEAD, BORN) in swim.news_for("dead 000")
        assert News("dead 000", DEAD, BORN) not in swim.news_for("dead 000")

    def test_is_forgotten_with_a_member(self) -> None:
        swim = me(dead=1)
        swim.heard("dead 000", BORN, 0)
        swim.forget("dead 000")
        assert swim.news_for("dead 000") == [News("me", ALIVE, BORN)]


class TestAMemberToWhomNoRoadLeads:
    def test_gives_its_turn_to_another_of_its_kind(self) -> None:
        swim, rng = me(alive=4, dead=4), Random(1)
        swim.tick(0, rng)
        assert [swim.liveness(node) for node in swim.instead_of("dead 000", rng)] == [DEAD]
        assert [swim.liveness(node) for node in swim.instead_of("alive 000", rng)] == [ALIVE]

    def test_does_so_a_bounded_number_of_times_in_an_interval(self) -> None:
        swim, rng = me(dead=2), Random(1)
        swim.tick(0, rng)
        assert sum(len(swim.instead_of("dead 000", rng)) for _ in range(100)) == REDRAWS_PER_INTERVAL
        swim.tick(INTERVAL_MS, rng)
        assert swim.instead_of("dead 000", rng)


@pytest.mark.parametrize("seed", range(6))
def test_who_comes_is_probed_within_the_round_that_is_under_way(seed: int) -> None:
    """Else it waits for the next one, and its turn in that."""
    swim, rng = me(alive=30), Random(seed)
    swim.tick(0, rng)
    swim.watch("late", 0)
    swim.heard("late", BORN, 0)
    assert any("late" in swim.tick(number * INTERVAL_MS, rng) for number in range(1, 11))


def spent(swim: Swim) -> None:
    """All news are told often enough."""
    for _ in range(100):
        swim.news_for("nobody")

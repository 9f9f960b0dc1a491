"""Whom a node has only just heard itself is not dead because others say so: it is doubted, asked, and may refute it.
Who comes back from a partition calls everybody dead, and a liar whomever it likes; each death costs running work."""

from __future__ import annotations

from random import Random

from offgrid_node.protocol.mesh.swim import ALIVE, DEAD, SUSPECT, News, Swim

INTERVAL_MS = 1_000
LATELY_MS = 1_500
BORN = 1 << 20


def me(heard_ms: int = 0) -> Swim:
    """A node that has heard of `it`, last at that time."""
    swim = Swim("me", 1, INTERVAL_MS, 0)
    swim.watch("it", 0)
    swim.heard("it", BORN, heard_ms)
    return swim


def test_the_death_of_one_whom_we_heard_lately_is_but_a_doubt() -> None:
    swim = me()
    swim.learn([News("it", DEAD, BORN)], LATELY_MS)
    assert swim.liveness("it") == SUSPECT


def test_the_death_of_one_who_has_been_silent_for_longer_is_believed() -> None:
    swim = me()
    swim.learn([News("it", DEAD, BORN)], LATELY_MS + 1)
    assert swim.liveness("it") == DEAD


def test_said_by_many_it_is_still_but_a_doubt_until_it_has_been_silent_for_longer() -> None:
    swim = me()
    for now_ms in (10, 20, LATELY_MS):
        swim.learn([News("it", DEAD, BORN)], now_ms)
        assert swim.liveness("it") == SUSPECT
    swim.learn([News("it", DEAD, BORN)], LATELY_MS + 1)
    assert swim.liveness("it") == DEAD


def test_the_doubted_one_is_told_and_its_refutation_ends_the_doubt() -> None:
    swim, it = me(), Swim("it", 1, INTERVAL_MS, 0)
    it.watch("me", 0)
    swim.learn([News("it", DEAD, BORN)], 10)
    told = swim.news_for("it")
    assert News("it", SUSPECT, BORN) in told
    it.learn(told, 20)
    swim.heard("it", it.incarnation, 30)
    assert swim.liveness("it") == ALIVE
    swim.learn([News("it", DEAD, BORN)], 40)
    assert swim.liveness("it") == ALIVE, "older news than its refutation"


def test_who_does_not_answer_after_all_is_dead_when_the_doubt_runs_out() -> None:
    swim, rng = me(), Random(1)
    swim.learn([News("it", DEAD, BORN)], 10)
    for now_ms in range(10, 10 + 2 * INTERVAL_MS + 301, 50):
        swim.tick(now_ms, rng)
    assert swim.liveness("it") == DEAD

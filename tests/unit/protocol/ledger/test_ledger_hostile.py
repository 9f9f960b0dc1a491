"""Whole ledgers under fire: honest nodes, liars below a third of the weight, a bad network, crashes.

In every seed: one final value per slot, no honest node signs two things for a slot or two blocks at a height, nothing
leaves before it is durable, nothing is called final without a real quorum, money is conserved at every commit; and
after healing all honest nodes agree, nobody is overdrawn, every accepted transfer of an honest owner is final and
every cost is paid once. A failure names its seed: `hostile.play(SEED)` replays it exactly.
"""

from __future__ import annotations

import pytest
from hostile import play
from ledger_world import Broken, World
from planted import ABOVE, PLANTED

SEEDS, TORN_SEEDS, PER_TEST = 120, 20, 10
PLANTED_SEEDS_MAX = 60


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_what_must_hold_holds_in_every_seed(first: int) -> None:
    for seed in range(first, first + PER_TEST):
        try:
            play(seed)
        except Broken as broken:
            pytest.fail(f"seed {seed}: {broken}")


@pytest.mark.parametrize("first", range(0, TORN_SEEDS, PER_TEST))
def test_slots_with_two_transactions_end_in_every_seed(first: int) -> None:
    """An owner and its accomplice sign nothing else, while witnesses lie about certificates."""
    for seed in range(first, first + PER_TEST):
        try:
            play(seed, tearing=True)
        except Broken as broken:
            pytest.fail(f"seed {seed}: {broken}")


@pytest.mark.parametrize("name", sorted(PLANTED))
def test_a_planted_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    PLANTED[name](monkeypatch)
    assert caught(tearing=False), f"{name} survived {PLANTED_SEEDS_MAX} seeds"


@pytest.mark.parametrize("name", sorted(ABOVE))
def test_a_planted_bug_of_recovery_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ABOVE[name](monkeypatch)
    assert caught(tearing=True), f"{name} survived {PLANTED_SEEDS_MAX} seeds"


def caught(*, tearing: bool) -> bool:
    for seed in range(PLANTED_SEEDS_MAX):
        try:
            play(seed, tearing=tearing)
        except AssertionError:
            return True
    return False


def test_the_same_seed_gives_the_same_world() -> None:
    def trace(world: World) -> list[object]:
        return [world.now_ms, world.judge.final, [node.balances() for node in world.honest()]]

    assert trace(play(3)) == trace(play(3))

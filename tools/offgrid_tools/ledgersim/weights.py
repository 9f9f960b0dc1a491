"""How much witnesses weigh in a seed."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random


def draw_weights(rng: Random, size: int, faulty: int) -> tuple[int, ...]:
    """Of the witnesses, those that do not keep the rules first, who weigh less than a third together. In many seeds all
    weigh the same, in some the last two twice as much: then some are exactly two thirds, which is no quorum."""
    chance = rng.random()
    if chance < 0.4:
        return (1_000,) * size
    if chance < 0.6:
        return (1_000,) * (size - 2) + (2_000, 2_000)
    weights = [rng.choice((250, 1_000, 1_500, 4_000)) for _ in range(size)]
    while 3 * sum(weights[:faulty]) >= sum(weights):
        weights[faulty:] = [2 * weight for weight in weights[faulty:]]
    return tuple(weights)


def one_decides(weights: Iterable[int], faulty: int) -> bool:
    """Whether one witness is a quorum by itself, or is one once those are gone that weigh `faulty` together. In a step
    in which it enters an epoch it may end slots of that one too, and the judge cannot tell them apart."""
    known = [*weights]
    return 3 * max(known) > 2 * (sum(known) - faulty)

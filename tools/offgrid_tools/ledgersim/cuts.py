"""Who is on which side while the network is cut in two."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from random import Random


def draw_sides(rng: Random, names: Iterable[str], honest: Sequence[str]) -> dict[str, int]:
    """Of the honest witnesses at least two are apart, so that a cut is one."""
    sides = {name: rng.randrange(0, 2) for name in names}
    one, other = rng.sample(honest, 2)
    sides[one], sides[other] = 0, 1
    return sides

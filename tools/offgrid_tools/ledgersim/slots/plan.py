"""What a seed of the slots' level has in store; drawn before anything happens."""

from __future__ import annotations

from random import Random

import msgspec

from offgrid_tools.ledgersim.weights import draw_weights

HOUR_MS = 3_600_000
SIZES = (4, 4, 4, 5, 7, 7, 10, 20)  # unless asked for another
OWNERS = (2, 3, 5, 8, 12)
FEW_OWNERS = (3, 5, 8)
SIEGE_ODDS = 0.4
MANY_OWNERS = ((0.01, 1_000), (0.04, 40))  # how often, and how many


class Plan(msgspec.Struct, frozen=True):
    """The first `liars` witnesses lie, together below a third of the weight. Of the owners the first `torn` sign two
    transactions for one slot now and then, and the next `hasty` ask at bad moments that a slot ends. `cut_ms`: how long
    a partition lasts when it is a long one. In a `siege` witnesses hear each other now and then, few owners do nothing
    but tear their slots, and the liars tell each witness apart what ends a ballot there (cabal.py). In a `blackout` all
    witnesses go down at once. `think_ms`: how long an owner waits before it looks again."""

    weights: tuple[int, ...]
    liars: int
    owners: int
    torn: int
    hasty: int
    latency_ms: tuple[int, int]
    sync_us: int
    loss: float
    repeats: float
    crash_odds: float
    cut_odds: float
    cut_ms: int
    siege: bool
    blackout: bool
    skews: bool
    think_ms: int
    hostile_ms: int

    @property
    def witnesses(self) -> int:
        return len(self.weights)


def draw(seed: int, witnesses: int = 0, owners: int = 0) -> Plan:
    """0: the seed chooses."""
    rng = Random(f"slots {seed}")  # noqa: S311 - a simulation must be repeatable
    siege = not owners and rng.random() < SIEGE_ODDS
    size = witnesses or rng.choice(SIZES)
    faults = (size - 1) // 3 if siege or rng.random() < 0.85 else 0
    chance = rng.random()
    few = rng.choice(FEW_OWNERS if siege else OWNERS)
    count = owners or next((many for odds, many in MANY_OWNERS if chance < odds and not siege), few)
    weights = draw_weights(rng, size, faults)
    torn = count if siege else rng.randrange(0, min(count, 6) + 1)
    return Plan(
        weights=weights,
        liars=faults,
        owners=count,
        torn=torn,
        hasty=rng.randrange(0, min(count - torn, 3) + 1),
        latency_ms=rng.choice([(1, 5), (1, 60)] if siege else [(1, 5), (1, 60), (1, 400), (1, 1_500)]),
        sync_us=rng.choice([200, 2_000, 20_000]),
        loss=0.0 if siege else rng.choice([0.0, 0.05, 0.05, 0.3]),
        repeats=rng.choice([0.0, 0.1]),
        crash_odds=rng.choice([0.0, 0.002, 0.02]),
        cut_odds=rng.choice([0.05, 0.15, 0.15, 0.3]) if siege else rng.choice([0.0, 0.05, 0.3]),
        siege=siege,
        cut_ms=rng.randrange(1, 9) * HOUR_MS if rng.random() < 0.06 else 0,
        blackout=rng.random() < 0.3,
        skews=rng.random() < 0.5,
        think_ms=rng.choice([20, 100]) if count <= 40 else 2_000,
        hostile_ms=rng.randrange(20_000, 120_000) if siege else rng.randrange(1_000, 8_000),
    )

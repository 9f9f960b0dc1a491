"""What a seed of the whole level has in store; drawn before anything happens."""

from __future__ import annotations

from random import Random

import msgspec

from offgrid_tools.ledgersim.weights import draw_weights, one_decides

HOUR_MS = 3_600_000
SIZES = (4, 7)  # unless asked for another; a committee of twenty takes a second or two for each of virtual time
EPOCHS_MS = (0, 0, 4_000, 8_000, HOUR_MS)


class Plan(msgspec.Struct, frozen=True):
    """`liars` of the witnesses lie, the first ones, together below a third of the weight; with `comeback` one more
    comes back from an old disk, and counts among them. `tearing`: an owner and its accomplice do nothing but sign two
    transactions for one slot. `lying_owner`: an owner that is no witness keeps no rule. `sleeper`: an owner is away for
    longer than blocks are kept. `cut_ms`: how long a partition lasts when it is a long one. `epoch_ms`: how long an
    epoch lasts; 0: nobody ever wishes one to end."""

    witnesses: int
    weights: tuple[int, ...]
    liars: int
    observers: int
    tearing: bool
    lying_owner: bool
    sleeper: bool
    comeback: bool
    knowing: bool
    latency_ms: tuple[int, int]
    loss: float
    repeats: float
    crash_odds: float
    skews: bool
    cut_ms: int
    hostile_ms: int
    epoch_ms: int


def draw(seed: int, witnesses: int = 0, owners: int = 0) -> Plan:
    """0: the seed chooses. `owners` are nodes that are no witnesses; every witness has money too."""
    rng = Random(f"whole {seed}")  # noqa: S311 - a simulation must be repeatable
    size = witnesses or rng.choice(SIZES)
    faults = (size - 1) // 3
    tearing = rng.random() < 0.25
    comeback = not tearing and rng.random() < 0.2
    liars = faults - comeback if rng.random() < 0.85 else 0
    latencies = [(1, 60), (1, 1_500), (500, 2_500)] if tearing else [(1, 5), (1, 60), (1, 1_500)]
    cut_ms = 2 * HOUR_MS if rng.random() < 0.02 else 0
    epoch_ms = HOUR_MS if cut_ms else rng.choice(EPOCHS_MS)
    weights = draw_weights(rng, size, liars + comeback)
    if one_decides(weights, sum(weights[: liars + comeback])):
        weights = (1_000,) * size
    lying_owner = not tearing and rng.random() < 0.5
    return Plan(
        witnesses=size,
        weights=weights,
        liars=liars,
        observers=max(owners, 4 if tearing else 2),
        tearing=tearing,
        lying_owner=lying_owner,
        sleeper=not tearing and not lying_owner and 0 < epoch_ms < HOUR_MS,
        comeback=comeback,
        knowing=rng.random() < 0.6,
        latency_ms=rng.choice(latencies),
        loss=rng.choice([0.0, 0.05, 0.3]),
        repeats=rng.choice([0.0, 0.1]),
        crash_odds=rng.choice([0.0, 0.003, 0.02]),
        skews=rng.random() < 0.5,
        cut_ms=cut_ms,
        hostile_ms=rng.randrange(2_000, 7_000) + (4_000 if epoch_ms else 0),
        epoch_ms=epoch_ms,
    )

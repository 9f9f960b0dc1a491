"""What a seed of the sessions' mesh has in store: machines at which applications record what happens to them, with so
little room and such short windows that snapshots, summaries and retention have their turn again and again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from offgrid_node.services.retention import Budget
from offgrid_tools.sim.spec import Spec

NAMES = ("app", "app-2")
TWO_CHANCE = 0.3
BUDGETS_BYTES = (24_000, 40_000, 64_000, 100_000)
WINDOWS_S = (1, 3, 7)
ACTS = (25, 60)
SPEAKERS = (1, 3)  # at each machine
AGED_CHANCE = 0.3


@dataclass(frozen=True, slots=True)
class SmallBudget(Budget):
    """One that a seed fills."""

    bytes: int = BUDGETS_BYTES[0]

    @property
    def total_bytes(self) -> int:
        return self.bytes


@dataclass(frozen=True, slots=True)
class Talk:
    """`speakers` at each machine do so many things."""

    speakers: int
    acts: int


def draw_talk(seed: int) -> tuple[Talk, tuple[Spec, ...]]:
    """The same for the same seed."""
    rng = Random(f"talk {seed}")  # noqa: S311 - a simulation must be repeatable
    budget = SmallBudget(bytes=rng.choice(BUDGETS_BYTES), cleanup_days=1 if rng.random() < AGED_CHANCE else 90)
    spec = Spec("", frozenset(), 1, 0, window_s=rng.choice(WINDOWS_S), budget=budget)
    layout = tuple(replace(spec, name=name) for name in (NAMES if rng.random() < TWO_CHANCE else NAMES[:1]))
    return Talk(rng.randint(*SPEAKERS), rng.randint(*ACTS)), layout

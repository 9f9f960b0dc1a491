"""What a seed of the sessions' mesh has in store: machines at which applications record what happens to them, with so
little room and such short windows that snapshots, summaries and retention have their turn again and again. In some
seeds their journals go to hosts."""

from __future__ import annotations

from random import Random

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.events import HOST
from offgrid_node.services.retention import Budget
from offgrid_tools.sim.spec import Spec

NAMES = ("app", "app-2")
TWO_CHANCE = 0.3
BUDGETS_BYTES = (24_000, 40_000, 64_000, 100_000)
WINDOWS_S = (1, 3, 7)
ACTS = (25, 60)
SPEAKERS = (1, 3)  # at each machine
AGED_CHANCE = 0.3
CUT_CHANCE, HOSTS, REQUIRED_MILLI = 0.2, 3, 1_000


class SmallBudget(Budget, frozen=True):
    """One that a seed fills."""

    bytes: int = BUDGETS_BYTES[0]

    @property
    def total_bytes(self) -> int:
        return self.bytes


class Talk(msgspec.Struct, frozen=True):
    """`speakers` at each of these machines do so many things."""

    machines: tuple[str, ...]
    speakers: int
    acts: int


def draw_talk(seed: int) -> tuple[Talk, tuple[Spec, ...]]:
    """The same for the same seed."""
    rng = Random(f"talk {seed}")  # noqa: S311 - a simulation must be repeatable
    budget = SmallBudget(bytes=rng.choice(BUDGETS_BYTES), cleanup_days=1 if rng.random() < AGED_CHANCE else 90)
    spec = Spec("", frozenset(), 1, 0, window_s=rng.choice(WINDOWS_S), budget=budget)
    names = NAMES if rng.random() < TWO_CHANCE else NAMES[:1]
    talk = Talk(names, rng.randint(*SPEAKERS), rng.randint(*ACTS))
    cut = rng.random() < CUT_CHANCE
    layout = tuple(replace(spec, name=name, journal_milli=REQUIRED_MILLI if cut else 0) for name in names)
    hosts = (Spec(f"host-{number}", frozenset({HOST}), 1, 0) for number in range(HOSTS if cut else 0))
    return talk, (*layout, *hosts)

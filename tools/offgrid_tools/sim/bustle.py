"""What a market's seed has in store beyond single jobs: more work than slots, hosts with rules, and owners who
switch them off, an executor that one host alone has, jobs by the clock and in the drop folder. A home has none of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.events import CORE, HOST
from offgrid_node.protocol.jobs.settings import DROP_ALL, DROP_REST, Rule
from offgrid_tools.sim.spec import Spec

RARE = "rare"  # a program of one host
RUSH_CHANCE, RUSHES_MAX, CHAINS_CHANCE = 0.5, 2, 0.5
RULES_CHANCE, RULED_MAX = 0.6, 4
TOGGLES_CHANCE, TOGGLED_MAX = 0.6, 3
SCHEDULES_CHANCE, SCHEDULES_MAX = 0.4, 3
DROPS_CHANCE = 0.4
FORGER_CHANCE, DEADLY_CHANCE, TRUSTING_CHANCE = 0.15, 0.15, 0.15
DROP_FOLDERS = (DROP_REST, DROP_ALL)


class Bustle(msgspec.Struct, frozen=True):
    """`rushes` and `schedules` are per core; `toggled` are hosts, by name; `drop` is what the cores' folders get."""

    rushes: int = 0
    chains: bool = False  # some of a rush go after others and take in what those put out
    toggled: tuple[str, ...] = ()
    schedules: int = 0
    drop: str = ""
    forger: str = ""  # a host that signs falsely what it reports
    deadly: bool = False  # somebody has work that kills whoever does it
    trusting: bool = False  # the first core trusts all hosts, and somebody there relies on it
    unrest: bool = False  # misfortunes that it takes a market to feel


CALM = Bustle()


def draw_bustle(seed: int, layout: Sequence[Spec], removed: Sequence[str]) -> tuple[Bustle, tuple[Spec, ...]]:
    """The same for the same seed; with the machines as their config files then are."""
    rng = Random(f"bustle {seed}")  # noqa: S311 - a simulation must be repeatable
    hosts = [spec.name for spec in layout if spec.roles == {HOST} and spec.name not in removed]
    rare, *others = rng.sample(hosts, len(hosts))
    bustle = Bustle(
        rushes=rng.randint(1, RUSHES_MAX) if rng.random() < RUSH_CHANCE else 0,
        chains=rng.random() < CHAINS_CHANCE,
        toggled=tuple(others[-rng.randint(1, TOGGLED_MAX) :]) if rng.random() < TOGGLES_CHANCE else (),
        schedules=rng.randint(1, SCHEDULES_MAX) if rng.random() < SCHEDULES_CHANCE else 0,
        drop=rng.choice(DROP_FOLDERS) if rng.random() < DROPS_CHANCE else "",
        unrest=True,
    )
    apart = Random(f"perils {seed}")  # noqa: S311 - what all others have in store is the same with them or without
    forger = apart.choice(hosts) if apart.random() < FORGER_CHANCE else ""
    deadly, trusting = apart.random() < DEADLY_CHANCE, apart.random() < TRUSTING_CHANCE
    bustle = replace(bustle, forger=forger, deadly=deadly, trusting=trusting)
    ruled = others[: rng.randint(1, RULED_MAX)] if rng.random() < RULES_CHANCE else []
    return bustle, tuple(_fitted(spec, spec.name == rare, spec.name in ruled, bustle, rng) for spec in layout)


def _fitted(spec: Spec, rare: bool, ruled: bool, bustle: Bustle, rng: Random) -> Spec:
    if rare:
        spec = replace(spec, executors=(*spec.executors, f"process:{RARE}"))
    if rare and bustle.deadly:  # what is at work beside it when a host goes down may be taken for the cause
        spec = replace(spec, slots=1)
    if ruled:
        spec = replace(spec, rules=_rules(spec, rng))
    return replace(spec, drop=bustle.drop) if CORE in spec.roles else spec


def _rules(spec: Spec, rng: Random) -> tuple[Rule, ...]:
    """The first core has a price and slots of its own, the second no programs or none of anything; whoever else comes
    has the rest."""
    denied = rng.choice((("process:*",), ("*",)))
    return (
        Rule("friend", owners=("core",), price_micro=rng.choice((300, spec.price_micro)), slots=1),
        Rule("stranger", owners=("core-2",), executors=denied, deny=True),
        Rule("rest", price_micro=spec.price_micro + rng.choice((0, 400))),
    )

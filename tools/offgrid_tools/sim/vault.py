"""What a vault has in store: owners who keep things, eight hosts that fail together by twos or by themselves, and as
many of them bad for good as what is required may lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from offgrid_node.protocol.events import HOST
from offgrid_tools.sim.process import Spec
from offgrid_tools.sim.users.objects import COPIES, Code
from offgrid_tools.sim.vices import DEAD, LIES, REMOVED, RESTORED, ROTS, WIPED

HOSTS = "abcdefgh"
DOMAINS = ("", "attic", "attic", "cellar", "cellar", "garage")
PRICE_MICRO = 1_000
VICES = (DEAD, DEAD, WIPED, WIPED, ROTS, LIES, REMOVED, RESTORED)
BAD_MAX = 2
OWNERS = ("owner", "owner-2")
TWO_OWNERS_CHANCE, OWNER_HOSTS_CHANCE = 0.4, 0.3
THINGS_MAX = 4
CODES = (COPIES, (3, 5), (3, 6), (2, 7), (4, 12))


@dataclass(frozen=True, slots=True)
class Vault:
    """`owners` keep things, by name; each thing must outlive the loss of what weighs less than one of `required`. Those
    under a `code` are needed and total shards; (1, 1) is a copy."""

    owners: tuple[str, ...]
    things: int
    required: tuple[int, ...]
    codes: tuple[Code, ...] = CODES


def draw_vault(seed: int) -> tuple[Vault, tuple[Spec, ...], Mapping[str, str]]:
    """The same for the same seed: with the machines, and the vices of some, by name."""
    rng = Random(f"vault {seed}")  # noqa: S311 - a simulation must be repeatable
    owners = OWNERS if rng.random() < TWO_OWNERS_CHANCE else OWNERS[:1]
    roles = frozenset({HOST}) if rng.random() < OWNER_HOSTS_CHANCE else frozenset()
    layout = (
        *(Spec(name, roles, 1, PRICE_MICRO) for name in owners),
        *(_host(f"host-{letter}", rng.choice(DOMAINS)) for letter in HOSTS),
    )
    bad = rng.sample([f"host-{letter}" for letter in HOSTS], rng.randint(0, BAD_MAX))
    required = tuple(1_000 * (len(bad) + spare) for spare in (1, 2))
    return Vault(owners, rng.randint(2, THINGS_MAX), required), layout, {name: rng.choice(VICES) for name in bad}


def _host(name: str, domain: str) -> Spec:
    return Spec(name, frozenset({HOST}), 1, PRICE_MICRO, domain=domain)

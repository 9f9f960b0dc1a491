"""What a seed has in store, drawn before anything happens: the machines, what their users want, and who is bad.

At most one node of a seed is bad for good to everybody (removed, lying, rotting, restored from a backup, outside the
economy): that much weight may be lost to objects and to the ledger, and everything must hold and end all the same. The
ledger may have several bad witnesses, in league, and witnesses of unequal weight: the bad ones weigh less than a third
together. Whatever befalls the others passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_tools.sim.bustle import CALM, Bustle, draw_bustle
from offgrid_tools.sim.engine import SECOND
from offgrid_tools.sim.post import Post, draw_post
from offgrid_tools.sim.spec import Spec
from offgrid_tools.sim.talk import Talk, draw_talk
from offgrid_tools.sim.users.jobs import Redundancy
from offgrid_tools.sim.vault import Vault, draw_vault
from offgrid_tools.sim.vices import FORKS, LIES, PENNILESS, REMOVED, RESTORED, ROTS

PRICES = (900, 1_500, 2_200)
CORE_PRICE = 5_000

FIVE = (
    Spec("core", frozenset({CORE}), 1, CORE_PRICE),
    Spec("broker", frozenset({BROKER}), 1, CORE_PRICE),
    Spec("host-a", frozenset({HOST}), 2, PRICES[0]),
    Spec("host-b", frozenset({HOST}), 1, PRICES[1]),
    Spec("host-c", frozenset({HOST}), 1, PRICES[2]),
)
JOINER = Spec("joiner", frozenset({HOST}), 2, 700)
WITNESSES = tuple(Spec(f"witness-{letter}", frozenset(), 1, CORE_PRICE) for letter in "abcd")  # all they do is vote


def with_roles(specs: Sequence[Spec], name: str, *roles: int) -> tuple[Spec, ...]:
    """The same machines, one of them with more roles."""
    return tuple(replace(spec, roles=spec.roles | set(roles)) if spec.name == name else spec for spec in specs)


LAYOUTS = (
    FIVE,
    FIVE,
    with_roles(FIVE, "host-c", BROKER),
    with_roles(FIVE, "core", BROKER),
    with_roles(FIVE, "core", HOST),
    with_roles(FIVE, "core", BROKER, HOST),
    with_roles(FIVE, "broker", CORE),
)

MARKET = (
    Spec("core", frozenset({CORE}), 1, CORE_PRICE),
    Spec("core-2", frozenset({CORE}), 1, CORE_PRICE),
    *(Spec(f"broker-{letter}", frozenset({BROKER}), 1, CORE_PRICE) for letter in "abc"),
    *(
        Spec(f"host-{letter}", frozenset({HOST}), 1 + number % 3, PRICES[number % 3] + 10 * number)
        for number, letter in enumerate("abcdefghij")
    ),
)
MARKETS = (
    MARKET,
    with_roles(MARKET, "broker-c", HOST),
    with_roles(MARKET, "core-2", BROKER),
    with_roles(MARKET, "host-a", BROKER, CORE),
)

HOME, MARKET_MESH, VAULT_MESH, CUTS_MESH, TALK_MESH, MAIL_MESH = "home", "market", "vault", "cuts", "talk", "mail"
MESHES = (HOME, MARKET_MESH, VAULT_MESH, CUTS_MESH, TALK_MESH, MAIL_MESH)

JOBS_MIN, JOBS_MAX = 2, 6  # per user
STORM_CHANCE, STORM_JOBS = 0.08, 4  # some seeds are longer and busier, with so many times the jobs
JOB_LIAR_CHANCE, JOIN_CHANCE = 0.3, 0.3
OBJECTS_CHANCE, THINGS_MAX = 0.6, 4
LEDGER_CHANCE, OPEN_WITHIN_US = 0.7, 4 * SECOND
PAYERS_MAX, PAYMENTS_MAX = 3, 4
POOR_CHANCE = 0.2  # seeds in which accounts run dry
REQUIRED_MILLI = 2_000  # of three hosts, one of which may be bad

HOST_VICES = ("", "", REMOVED, REMOVED, LIES, LIES, LIES, ROTS, FORKS, FORKS, FORKS, PENNILESS)
WITNESS_VICES = (FORKS, FORKS, RESTORED, RESTORED, PENNILESS)
WITNESS_CHANCE = 0.2
BROKER_LIAR_CHANCE, REMOVED_CHANCE, JOB_LIARS_MAX = 0.5, 0.2, 2  # of a market, where only jobs are looked at
REDUNDANT_CHANCE, ADAPTIVE_CHANCE = 0.35, 0.5
SIZES_TOKENS = (0, 250_000, 1_000_000)  # of a market's jobs: the smallest cost the same at any price
ARRAYS_CHANCE, ARRAYS_MAX = 0.4, 3
LEAGUE_CHANCE, WEIGHTS_CHANCE = 0.25, 0.4
EQUAL_MILLI, WEIGHTS_MILLI = 1_000, (250, 1_000, 1_000, 1_500, 4_000)


class Plan(msgspec.Struct, frozen=True):
    """`vices` are those of the nodes that are bad for good, by name. No ledger is opened where `open_us` is None, and
    its witnesses are all of `weights_milli`, by name, unless one is removed: then they weigh the same."""

    layout: tuple[Spec, ...]
    storm: bool
    job_liars: int
    joins: bool
    vices: Mapping[str, str]
    weights_milli: Mapping[str, int]
    things: int  # objects and small data to keep, per owner; 0: nobody keeps anything
    open_us: int | None
    poor: bool
    payers: int
    payments: int  # per payer
    broker_liar: str = ""  # the name of a broker that is one
    redundancy: Redundancy | None = None  # of some of the jobs
    arrays: int = 0  # of jobs on terms (deadlines, dependencies, some taken back), per core
    bustle: Bustle = CALM
    vault: Vault | None = None
    talk: Talk | None = None
    post: Post | None = None
    sizes_tokens: tuple[int, ...] = (0,)  # that jobs may have; 0: what is made of their inputs
    false_hosts: tuple[str, ...] = ()  # that do their work wrong; fewer than the quorum of redundant jobs

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.layout)

    def having(self, vice: str) -> list[str]:
        """The names of the nodes with this vice."""
        return [name for name, its in self.vices.items() if its == vice]


def draw(seed: int, mesh: str = HOME) -> Plan:
    """The same for the same seed, of each of the `MESHES`."""
    if mesh in (VAULT_MESH, CUTS_MESH):
        return _vault(seed, cuts=mesh == CUTS_MESH)
    if mesh == TALK_MESH:
        talk, layout = draw_talk(seed)
        return replace(_bare(layout), talk=talk)
    if mesh == MAIL_MESH:
        post, layout = draw_post(seed)
        return replace(_bare(layout), post=post)
    plan = _with_redundancy(_market(seed) if mesh == MARKET_MESH else _home(seed), mesh, seed)
    if plan.bustle.chains and plan.false_hosts:  # what a false host puts out, and is believed, nobody can foresee
        plan = replace(plan, bustle=replace(plan.bustle, chains=False))
    if plan.bustle.trusting and plan.false_hosts:
        plan = replace(plan, bustle=replace(plan.bustle, trusting=False))
    rng = Random(f"terms {seed}")  # noqa: S311 - as above
    return replace(plan, arrays=rng.randint(1, ARRAYS_MAX) if rng.random() < ARRAYS_CHANCE else 0)


def _vault(seed: int, *, cuts: bool) -> Plan:
    """Nothing but objects."""
    vault, layout, vices = draw_vault(seed)
    if cuts:
        vault = replace(vault, cuts=True, leaves="", expires=False, struck={}, rekeyed=(), reroots=False)
        vices = {}
        layout = tuple(replace(spec, journal_milli=0) for spec in layout)
    return replace(_bare(layout), vault=vault, vices=vices, things=vault.things)


def _bare(layout: tuple[Spec, ...]) -> Plan:
    """Machines at which nobody wants anything."""
    return Plan(
        layout=layout,
        storm=False,
        job_liars=0,
        joins=False,
        vices={},
        weights_milli={},
        things=0,
        open_us=None,
        poor=False,
        payers=0,
        payments=0,
    )


def _with_redundancy(plan: Plan, mesh: str, seed: int) -> Plan:
    """In some seeds jobs are redundant, and maybe hosts are false, a quorum of others staying: where one more is gone
    for good, no two might agree. All other seeds have in store what they had."""
    rng = Random(f"redundant {seed}")  # noqa: S311 - a simulation must be repeatable
    if rng.random() >= REDUNDANT_CHANCE:
        return plan
    replicas, quorum = (5, 3) if mesh == MARKET_MESH else (3, 2)
    hosts = [spec.name for spec in plan.layout if spec.roles == {HOST} and plan.vices.get(spec.name) != REMOVED]
    sound = sum(HOST in spec.roles and plan.vices.get(spec.name) != REMOVED for spec in plan.layout) - quorum
    false = rng.sample(hosts, max(0, min(len(hosts), sound, rng.randint(0, quorum - 1))))
    # Trust that was earned by deceit is not what is looked at: nobody is trusted where there are liars.
    terms = Redundancy(replicas, quorum, not false and rng.random() < ADAPTIVE_CHANCE)
    return replace(plan, redundancy=terms, false_hosts=tuple(false))


def _market(seed: int) -> Plan:
    """Three brokers and ten hosts, some of whom lie, and nothing but jobs."""
    rng = Random(f"market {seed}")  # noqa: S311 - a simulation must be repeatable
    layout = MARKETS[seed % len(MARKETS)]
    plain_hosts = [spec.name for spec in layout if spec.roles == {HOST}]
    brokers = [spec.name for spec in layout if spec.roles == {BROKER}]
    vices = {rng.choice(plain_hosts): REMOVED} if rng.random() < REMOVED_CHANCE else {}
    bustle, layout = draw_bustle(seed, layout, list(vices))
    return Plan(
        layout=layout,
        bustle=bustle,
        storm=rng.random() < STORM_CHANCE,
        job_liars=rng.randint(0, JOB_LIARS_MAX),
        joins=rng.random() < JOIN_CHANCE,
        vices=vices,
        weights_milli={},
        things=0,
        open_us=None,
        poor=False,
        payers=0,
        payments=0,
        broker_liar=rng.choice(brokers) if rng.random() < BROKER_LIAR_CHANCE else "",
        sizes_tokens=SIZES_TOKENS,
    )


def _home(seed: int) -> Plan:
    """Five machines that do everything."""
    rng = Random(f"plan {seed}")  # noqa: S311 - a simulation must be repeatable
    layout = LAYOUTS[seed % len(LAYOUTS)]
    hosts = [spec.name for spec in layout if HOST in spec.roles and CORE not in spec.roles]
    bad, vice = rng.choice(hosts), rng.choice(HOST_VICES)
    opens = rng.random() < LEDGER_CHANCE
    if opens and rng.random() < WITNESS_CHANCE:
        layout, bad, vice = (*layout, WITNESSES[0]), WITNESSES[0].name, rng.choice(WITNESS_VICES)
    vices = {bad: vice} if vice else {}
    apart = Random(f"witnesses {seed}")  # noqa: S311 - what all others have in store is the same with them or without
    if opens and apart.random() < LEAGUE_CHANCE:
        layout, vices = _with_a_league(layout, vices, apart)
    layout = tuple(replace(spec, economy=vices.get(spec.name) != PENNILESS) for spec in layout)
    return Plan(
        layout=tuple(layout),
        storm=rng.random() < STORM_CHANCE,
        job_liars=int(rng.random() < JOB_LIAR_CHANCE),
        joins=rng.random() < JOIN_CHANCE,
        vices=vices,
        weights_milli=_weights([spec.name for spec in layout], vices, apart),
        things=rng.randint(1, THINGS_MAX) if rng.random() < OBJECTS_CHANCE or vice == LIES else 0,
        open_us=int(rng.random() ** 2 * OPEN_WITHIN_US) if opens else None,
        poor=rng.random() < POOR_CHANCE,
        payers=rng.randint(1, PAYERS_MAX),
        payments=rng.randint(0, PAYMENTS_MAX),
    )


def _with_a_league(
    layout: Sequence[Spec], vices: Mapping[str, str], rng: Random
) -> tuple[tuple[Spec, ...], dict[str, str]]:
    """Some more that do nothing but vote; so many of them badly that two are bad, of nine."""
    more = [spec for spec in WITNESSES if spec not in layout]
    bad = {spec.name: rng.choice(WITNESS_VICES) for spec in more[: 2 - len(vices)]}
    return (*layout, *more), {**vices, **bad}


def _weights(names: Sequence[str], vices: Mapping[str, str], rng: Random) -> dict[str, int]:
    """Equal or not, with less than a third for the bad."""
    unequal = rng.random() < WEIGHTS_CHANCE
    weights = {name: rng.choice(WEIGHTS_MILLI) if unequal else EQUAL_MILLI for name in names}
    bad = sum(weights[name] for name in vices)
    while 3 * bad >= sum(weights.values()):
        weights = {name: weight if name in vices else 2 * weight for name, weight in weights.items()}
    return weights

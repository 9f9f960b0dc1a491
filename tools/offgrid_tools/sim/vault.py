"""What a vault has in store: owners who keep things, eight hosts that fail together by twos or by themselves, and as
many of them bad for good as what is required may lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec
from msgspec.structs import replace

from offgrid_node.protocol.events import HOST
from offgrid_tools.sim.spec import Spec
from offgrid_tools.sim.users.objects import COPIES, Code
from offgrid_tools.sim.vices import DEAD, LIES, REMOVED, RESTORED, ROTS, WIPED

HOSTS = "abcdefgh"
DOMAINS = ("", "attic", "attic", "cellar", "cellar", "garage")
PRICE_MICRO = 1_000
VICES = (DEAD, DEAD, WIPED, WIPED, ROTS, LIES, LIES, REMOVED, RESTORED)
BAD_MAX = 2
OWNERS = ("owner", "owner-2")
TWO_OWNERS_CHANCE, OWNER_HOSTS_CHANCE = 0.4, 0.3
THINGS_MAX = 4
READER_CHANCE = 0.6
LOST, OUTDATED = "lost", "outdated"  # an owner's disk; a copy of it from before is put in its place
STRUCK = (LOST, OUTDATED)
STRUCK_CHANCE = 0.35
LEAVES_CHANCE, EXPIRES_CHANCE, ROTATES_CHANCE = 0.3, 0.2, 0.4
RESEALS_CHANCE, UNSHARES_CHANCE, REKEYED_CHANCE, REROOTS_CHANCE = 0.4, 0.5, 0.1, 0.25
CODES = (COPIES, (3, 5), (3, 6), (2, 7), (4, 12))


class Vault(msgspec.Struct, frozen=True):
    """`owners` keep things, by name; each thing must outlive the loss of what weighs less than one of `required`. Those
    under a `code` are needed and total shards; (1, 1) is a copy."""

    owners: tuple[str, ...]
    things: int
    required: tuple[int, ...]
    codes: tuple[Code, ...] = CODES
    readers: Mapping[str, str] = msgspec.field(default_factory=dict)  # by owner, who is let read some of it
    leaves: str = ""  # a host that is drained, and taken away
    expires: bool = False  # some of what each of them keeps
    rotates: tuple[str, ...] = ()  # who gets another key for which objects are wrapped for it
    reseals: tuple[str, ...] = ()  # of them, whose objects are sealed anew then
    unshares: float = 0.0  # the chance that who was let read a thing is to be no reader any more
    rekeyed: tuple[str, ...] = ()  # who gets another identity key
    reroots: bool = False  # the mesh gets another root key
    struck: Mapping[str, str] = msgspec.field(default_factory=dict)  # by owner, what becomes of its disk
    cuts: bool = False  # nothing befalls them but power cuts, one after the other


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
    vault, vices = Vault(owners, rng.randint(2, THINGS_MAX), required), {name: rng.choice(VICES) for name in bad}
    vault = replace(vault, readers=_readers(seed, vault, layout, bad))
    vault = _with_changes(seed, vault, bad)
    struck = _with_other_keys(seed, _struck(seed, vault), layout, bad)
    return struck, tuple(_cutting(spec, struck) for spec in layout), vices


def _struck(seed: int, vault: Vault) -> Vault:
    """Nothing expires there: what is in no segment yet is put again, and would expire at another time."""
    rng = Random(f"struck {seed}")  # noqa: S311 - as all that may be added to what others have in store
    if rng.random() >= STRUCK_CHANCE:
        return vault
    return replace(vault, struck={rng.choice(vault.owners): rng.choice(STRUCK)}, expires=False)


def _cutting(spec: Spec, vault: Vault) -> Spec:
    """Who is to come back keeps nothing for others, and its journal bears what objects must."""
    if spec.name not in vault.struck:
        return spec
    return replace(spec, roles=frozenset(), journal_milli=min(vault.required))


def _readers(seed: int, vault: Vault, layout: Sequence[Spec], bad: Sequence[str]) -> dict[str, str]:
    """Anybody sound."""
    rng = Random(f"readers {seed}")  # noqa: S311 - what all others have in store is the same with them or without
    sound = [spec.name for spec in layout if spec.name not in bad]
    return {
        owner: rng.choice([name for name in sound if name != owner])
        for owner in vault.owners
        if rng.random() < READER_CHANCE
    }


def _with_changes(seed: int, vault: Vault, bad: Sequence[str]) -> Vault:
    """What is at work on purpose in some vaults, misfortunes apart. A reader's machine stays."""
    rng = Random(f"changes {seed}")  # noqa: S311 - as above
    staying = {*bad, *vault.readers.values()}
    leaving = rng.choice([name for letter in HOSTS if (name := f"host-{letter}") not in staying])
    concerned = [*vault.owners, *vault.readers.values()]
    return replace(
        vault,
        leaves=leaving if rng.random() < LEAVES_CHANCE else "",
        expires=rng.random() < EXPIRES_CHANCE,
        rotates=tuple(dict.fromkeys(name for name in concerned if rng.random() < ROTATES_CHANCE)),
    )


def _with_other_keys(seed: int, vault: Vault, layout: Sequence[Spec], bad: Sequence[str]) -> Vault:
    """An owner's disk that is lost or an old one has forgotten its identity of now, so that stays; and where an old one
    is put back, of what was sealed anew since nobody knows more than ids."""
    rng = Random(f"other keys {seed}")  # noqa: S311 - as above
    staying = [spec.name for spec in layout if spec.name not in (*bad, *vault.struck)]
    resealing = [owner for owner in vault.owners if vault.struck.get(owner) != OUTDATED]
    reseals = tuple(owner for owner in resealing if rng.random() < RESEALS_CHANCE)
    return replace(
        vault,
        reseals=reseals,
        rotates=tuple(dict.fromkeys((*vault.rotates, *reseals))),
        unshares=UNSHARES_CHANCE if rng.random() < RESEALS_CHANCE else 0.0,
        rekeyed=tuple(name for name in staying if rng.random() < REKEYED_CHANCE),
        reroots=vault.owners[0] not in vault.struck and rng.random() < REROOTS_CHANCE,
    )


def _host(name: str, domain: str) -> Spec:
    return Spec(name, frozenset({HOST}), 1, PRICE_MICRO, domain=domain)

"""Planted bugs that show once hosts are lost for good, or disks rot: promises that stay too high, shards that nobody
asks for, damage that nobody sees, errors that name nothing; and of what is shared."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.sharing import Shared
from offgrid_node.services.objects.checking import Walk
from offgrid_node.services.objects.gathering import Gathering
from offgrid_node.services.objects.reading import Reading
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import VAULT_MESH


def _never_lower(sound: Sound) -> Sound:
    def weigh(self: Any, row: Any, given: Any, acked_milli: int, *rest: Any) -> Any:
        return sound(self, row, given, max(acked_milli, row.object.acked_milli), *rest)

    return weigh


def _data_rows_alone(sound: Sound) -> Sound:
    def candidates(self: Any, of: Any) -> Any:
        found = sound(self, of)
        return type(found)(each for each in found if each[0] < self._span.manifest.k)

    return candidates


def _all_is_well(sound: Sound) -> Sound:
    return lambda self, shard: replace(sound(self, shard), lost=None)


MUTANTS: dict[str, Mutant] = {
    "share-unheard": Mutant(
        "readers forget what is shared with them", (Patch(Shared, "on_shared", never(None)),), VAULT_MESH
    ),
    "share-stays": Mutant(
        "a reader goes on naming what was deleted", (Patch(Shared, "on_unshared", never(None)),), VAULT_MESH
    ),
    "promise-stays": Mutant(
        "what was lost of an object is still said to bear a loss", (Patch(Outbox, "_weigh", _never_lower),), VAULT_MESH
    ),
    "parity-never-asked": Mutant(
        "a reader asks for data rows alone", (Patch(Gathering, "_candidates", _data_rows_alone),), VAULT_MESH
    ),
    "rot-unseen": Mutant("a scrub finds nothing damaged", (Patch(Walk, "_read", _all_is_well),), VAULT_MESH),
    "missing-unnamed": Mutant(
        "of an object that is lost it is only said that it cannot be read",
        (Patch(Reading, "_too_few", never(Unavailable("it cannot be read", reason="NoReplica"))),),
        VAULT_MESH,
    ),
}

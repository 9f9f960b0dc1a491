"""Planted bugs that show once an owner's disk is lost, or put back from a backup: what is said to be safe and is not,
changes that are in no segment, numbers that are given twice, old stores that go on."""

from __future__ import annotations

from typing import Any

from offgrid_node import restoring
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.state.machine import StateMachine
from offgrid_node.protocol.state.newest import Newest
from offgrid_node.storage.noting import NotingStore
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import VAULT_MESH


def _all_that_was_cut(sound: Sound) -> Sound:
    return lambda self: self._row if self._row.number else None


def _but_objects(sound: Sound) -> Sound:
    def note(self: Any, batch: Any) -> None:
        objects = {name: value for name, value in batch.writes.items() if name[0] == OBJECTS}
        for name in objects:
            del batch.writes[name]
        sound(self, batch)
        batch.writes.update(objects)

    return note


MUTANTS: dict[str, Mutant] = {
    "safe-too-soon": Mutant(
        "a journal is called safe as far as it was cut", (Patch(StateMachine, "_safe", _all_that_was_cut),), VAULT_MESH
    ),
    "changes-unnoted": Mutant(
        "of objects a segment has no row that changed", (Patch(NotingStore, "_note", _but_objects),), VAULT_MESH
    ),
    "numbers-given-again": Mutant(
        "a node that comes back gives numbers again that it gave before",
        (Patch(restoring, "fenced", never(())),),
        VAULT_MESH,
    ),
    "orphans-left": Mutant(
        "a node that comes back leaves at hosts what it has forgotten",
        (Patch(ObjectsMachine, "_regain", never(False)),),
        VAULT_MESH,
    ),
    "old-store-goes-on": Mutant(
        "a node does not heed what hosts show of its journal",
        (Patch(Newest, "on_told", never(None)),),
        VAULT_MESH,
    ),
}

"""Planted bugs of membership and liveness."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.mesh import machine as mesh_machine
from offgrid_node.protocol.mesh import roll
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.mesh.spreading import Spreader
from offgrid_node.protocol.mesh.swim import ALIVE, BOOT_SHIFT, Swim
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, after, never


def _version_one(sound: Sound) -> Sound:
    return lambda node_id, version, *rest: sound(node_id, 1, *rest)


def _newest_record_wins(sound: Sound) -> Sound:
    return lambda record: (not record.issuer, record.epoch, record.removed, record.body_hash)


def _same_boot(machine: Any) -> None:
    if machine._boot > 1:
        machine._boot -= 1
        machine._swim.incarnation -= 1 << BOOT_SHIFT


def _dead_for_good(sound: Sound) -> Sound:
    def heard(self: Any, node_id: str, incarnation: int, now_ms: int) -> None:
        if self.liveness(node_id) == ALIVE or incarnation > self.incarnation_of(node_id):
            sound(self, node_id, incarnation, now_ms)

    return heard


MUTANTS: dict[str, Mutant] = {
    "address-unversioned": Mutant(
        "a node that moved signs its new address as the old version", (Patch(mesh_machine, "PeerRecord", _version_one),)
    ),
    "tombstone-loses": Mutant(
        "a removal yields to a later or stronger record", (Patch(roll, "rank", _newest_record_wins),)
    ),
    "no-anti-entropy": Mutant("differing directories are not compared", (Patch(Spreader, "digest_seen", never([])),)),
    "no-refutation": Mutant(
        "who is taken for dead neither says so nor is believed",
        (Patch(Swim, "_refute", never(None)), Patch(Swim, "heard", _dead_for_good)),
    ),
    "boot-not-counted": Mutant(
        "a restarted node speaks in its former incarnation", (Patch(MeshMachine, "load", after(_same_boot)),)
    ),
}

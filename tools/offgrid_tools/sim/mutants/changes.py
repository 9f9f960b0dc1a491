"""Planted bugs of what is changed on purpose: hosts that are drained, objects that expire, keys that are rotated."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.objects import machine, standing
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.rewrapping import Rewrapping
from offgrid_node.protocol.objects.standing import Standing
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.services.jobs.host_service import HostHandlers
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import VAULT_MESH


def _as_soon_as_laid(sound: Sound) -> Sound:
    def on_opened(self: Any, object_id: str, event: Any, now: Any) -> None:
        sound(self, object_id, event, now)
        if self._outbox.find(object_id) is not None:
            self._on_spread(object_id, now)

    return on_opened


def _whoever_has_it(sound: Sound) -> Sound:
    return lambda row, node_id, is_sure: row.epoch


def _for_its_owner_alone(sound: Sound) -> Sound:
    def write(self: Any, object_id: str, wraps: Any, now: Any) -> Any:
        written = sound(self, object_id, wraps, now)
        row = self._outbox.find(object_id)
        if written:
            own = [wrap for wrap in row.object.manifest.wraps if wrap.node_id == self._self_id]
            del row.object.manifest.wraps[:]
            row.object.manifest.wraps.extend(own)
            self._draft.put(OBJECTS, object_id.encode(), row)
        return written

    return write


def _at_once(sound: Any) -> Any:
    return 0


MUTANTS: dict[str, Mutant] = {
    "drained-too-soon": Mutant(
        "a host is drained while it keeps what is nowhere else", (Patch(HostHandlers, "_kept", never([])),), VAULT_MESH
    ),
    "drain-unheeded": Mutant(
        "owners do not look anew at what a host keeps that is drained",
        (Patch(Hosts, "take_drained", never([])),),
        VAULT_MESH,
    ),
    "drained-untold": Mutant(
        "nobody tells a drained host that it may drop what lies elsewhere",
        (Patch(Standing, "on_spread", never(None)),),
        VAULT_MESH,
    ),
    "source-dropped-early": Mutant(
        "a host drops what is laid elsewhere before that has come there",
        (Patch(Delivery, "on_opened", _as_soon_as_laid), Patch(standing, "moved_by", _whoever_has_it)),
        VAULT_MESH,
    ),
    "expired-by-hosts": Mutant(
        "a host drops what expires by its own clock, an hour off or not",
        (Patch(machine, "HOST_LATE_US", _at_once),),
        VAULT_MESH,
    ),
    "expiry-asleep": Mutant(
        "nothing ever expires", (Patch(machine.ObjectsMachine, "_on_expired", never(None)),), VAULT_MESH
    ),
    "reader-wrap-dropped": Mutant(
        "what is wrapped anew is so for its owner alone",
        (Patch(Rewrapping, "_write", _for_its_owner_alone),),
        VAULT_MESH,
    ),
    "rewrapping-forgotten": Mutant(
        "a restarted owner does not go on wrapping", (Patch(Rewrapping, "load", never(None)),), VAULT_MESH
    ),
}

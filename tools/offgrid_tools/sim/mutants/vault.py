"""Planted bugs that it takes a vault to see: of what is kept for long, deleted, and nobody else's to know."""

from __future__ import annotations

from typing import Any

from offgrid_node.coding.fallback import Fallback
from offgrid_node.keys import stripes
from offgrid_node.protocol.objects.comparing import Comparing
from offgrid_node.protocol.objects.deletion import Deletion
from offgrid_node.protocol.objects.dropping import Dropping
from offgrid_node.protocol.objects.manifest import TAG_BYTES
from offgrid_node.protocol.objects.notices import Notices
from offgrid_node.protocol.objects.outbox import ACCEPTED, DURABLE, Outbox
from offgrid_node.protocol.objects.tables import DROPPED, OBJECTS
from offgrid_node.services.objects import room
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import VAULT_MESH


def _in_clear(sound: Sound) -> Sound:
    return lambda key, nonce, index, last, plaintext: bytes(plaintext) + bytes(TAG_BYTES)


def _own_only(sound: Sound) -> Sound:
    return lambda store, name: store.get(OBJECTS, name.encode()) is not None


def _accepted_again(sound: Sound) -> Sound:
    def spread(self: Any, parcel: Any) -> None:
        sound(self, parcel)
        row = self.get(parcel.object_id)
        if row.object.state == DURABLE:
            row.object.state = ACCEPTED
            self._draft.put(OBJECTS, parcel.object_id.encode(), row)

    return spread


def _no_fence(sound: Sound) -> Sound:
    def on_deleted(self: Any, *args: Any) -> None:
        sound(self, *args)
        owner, object_id, _ = args
        self._draft.delete(DROPPED, f"{object_id}/{owner}".encode())

    return on_deleted


def _all_the_same(sound: Sound) -> Sound:
    def encode(self: Any, k: int, n: int, rows: Any, wanted: Any) -> Any:
        return sound(self, k, n, rows, [min(shard, k) for shard in wanted])

    return encode


def _nothing_much(sound: Sound) -> Sound:
    def rebuild(self: Any, k: int, n: int, have: Any, wanted: Any) -> Any:
        return [bytes(len(row)) for row in sound(self, k, n, have, wanted)]

    return rebuild


def _to_the_first(sound: Sound) -> Sound:
    def on_delete(self: Any, object_id: str, tell: Any, now: Any, **replaced: Any) -> Any:
        told: list[str] = []

        def tell_one(host: str, *rest: Any) -> None:
            told.append(host)
            if len(told) == 1:
                tell(host, *rest)

        return sound(self, object_id, tell_one, now, **replaced)

    return on_delete


MUTANTS: dict[str, Mutant] = {
    "kept-in-clear": Mutant("what is kept is not encrypted", (Patch(stripes, "seal_stripe", _in_clear),), VAULT_MESH),
    "parity-all-the-same": Mutant(
        "all parity shards are the first of them", (Patch(Fallback, "encode", _all_the_same),), VAULT_MESH
    ),
    "rebuilt-wrong": Mutant("rows are rebuilt as zeros", (Patch(Fallback, "rebuild", _nothing_much),), VAULT_MESH),
    "replicas-swept": Mutant(
        "a host that begins anew sweeps what it keeps for others", (Patch(room, "is_known", _own_only),), VAULT_MESH
    ),
    "durable-no-more": Mutant(
        "an object that has all its copies is accepted again", (Patch(Outbox, "spread", _accepted_again),), VAULT_MESH
    ),
    "deleted-without-fence": Mutant(
        "a host that has dropped a replica takes it again", (Patch(Dropping, "on_deleted", _no_fence),), VAULT_MESH
    ),
    "deletion-half-told": Mutant(
        "one host alone hears that an object is deleted", (Patch(Deletion, "on_delete", _to_the_first),), VAULT_MESH
    ),
    "losses-unseen": Mutant(
        "owners never ask what a host that comes back still keeps",
        (Patch(Comparing, "on_up", never(None)),),
        VAULT_MESH,
    ),
    "deletion-forgotten": Mutant(
        "a restarted owner forgets who has to hear what it deleted", (Patch(Notices, "load", never(None)),), VAULT_MESH
    ),
}

"""Planted bugs of keys that follow one another: what is sealed anew, readers who are to be none any more, and keys that
were replaced and open something still."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.roll import Roll
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.objects import resealing
from offgrid_node.protocol.objects.deletion import Deletion
from offgrid_node.protocol.objects.errands import Reseal
from offgrid_node.protocol.objects.outbox import ACCEPTED
from offgrid_node.protocol.objects.sharing import Sharing
from offgrid_node.protocol.signing import digest_of, signed_by
from offgrid_node.services.objects.resealing import Resealing
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import VAULT_MESH


def _by_the_old_key(sound: Sound) -> Sound:
    def copy(self: Any, made: Any, manifest: Any, key: bytes, sealing: Any) -> Any:
        sealing.key = key
        return sound(self, made, manifest, key, sealing)

    return copy


def _as_soon_as_sealed(sound: Sound) -> Sound:
    def look(self: Any, row: Any, object_id: str, pending: Any, now: Any) -> None:
        new = self._outbox.find(pending.new_id)
        if self._outbox.find(object_id) is not None and new is not None and new.object.state == ACCEPTED:
            pending.asked = True
            self._draft.send(Reseal(object_id, pending.new_id))
        else:
            sound(self, row, object_id, pending, now)

    return look


def _leading_nowhere(sound: Sound) -> Sound:
    return lambda self, object_id, tell, now, moved_to="": sound(self, object_id, tell, now)


def _left_as_it_is(sound: Sound) -> Sound:
    return lambda self, object_id, node_id, now: self._get(object_id).object


def _door_left_open(sound: Sound) -> Sound:
    def put_chain(self: Any, node_id: str, chain: Any) -> None:
        before = self.current_key(node_id) or b""
        sound(self, node_id, chain)
        self._fingerprints[node_id_of(before)] = node_id

    return put_chain


def _by_any_key(sound: Sound) -> Sound:
    def said(self: Any, kind: bytes, body: bytes, signature: bytes, verify: Any) -> bool:
        return signed_by(self.keys, digest_of(kind, self.genesis.salt, body), signature, verify)

    return said


MUTANTS: dict[str, Mutant] = {
    "sealed-anew-under-old-key": Mutant(
        "an object is sealed anew under the key that it had", (Patch(Resealing, "_copy", _by_the_old_key),), VAULT_MESH
    ),
    "replaced-before-durable": Mutant(
        "what is sealed anew takes its place before its quorum has acked",
        (Patch(resealing.Resealing, "_look", _as_soon_as_sealed),),
        VAULT_MESH,
    ),
    "old-id-leads-nowhere": Mutant(
        "the mark of what was sealed anew does not say as what",
        (Patch(Deletion, "on_delete", _leading_nowhere),),
        VAULT_MESH,
    ),
    "sealed-anew-for-nobody": Mutant(
        "readers lose what is sealed anew", (Patch(Resealing, "_wrapped", never(())),), VAULT_MESH
    ),
    "resealing-forgotten": Mutant(
        "a restarted owner does not go on sealing anew", (Patch(resealing.Resealing, "load", never(None)),), VAULT_MESH
    ),
    "reader-stays": Mutant(
        "who is to read an object no more keeps his wrap of its key",
        (Patch(Sharing, "on_unshare", _left_as_it_is),),
        VAULT_MESH,
    ),
    "old-identity-admitted": Mutant(
        "a member lets in who calls with an identity key that was replaced",
        (Patch(Roll, "_put_chain", _door_left_open),),
        VAULT_MESH,
    ),
    "old-root-believed": Mutant(
        "the word of a root key that was replaced counts as before", (Patch(Root, "said", _by_any_key),), VAULT_MESH
    ),
}

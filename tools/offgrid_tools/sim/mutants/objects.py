"""Planted bugs of quorums and objects: what is acked too early or counted wrongly, and bytes that nobody checks."""

from __future__ import annotations

from typing import Any

from offgrid_node.keys import stripes
from offgrid_node.protocol.effects import DropBlob
from offgrid_node.protocol.objects import replicas as replica_rows
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.hashing import ShardHashes
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.tables import OBJECTS, OUTBOX
from offgrid_node.protocol.quorum import member, tally
from offgrid_node.protocol.quorum.records import Ack
from offgrid_node.protocol.quorum.tally import Tally
from offgrid_node.services.objects.shipping import Shipping
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, a_batch_later, never


def _weighs_double(sound: Sound) -> Sound:
    return lambda ackers, weights, shards, needed: 2 * sound(ackers, weights, shards, needed)


def _every_ack(sound: Sound) -> Sound:
    def add(self: Any, node_id: str, signed: Any, acked_us: int) -> bool:
        if not sound(self, node_id, signed, acked_us):
            self.row.acks.append(signed)
            self.row.acked_us.append(acked_us)
        return True

    return add


def _each_time(sound: Any) -> Any:
    def acked_milli(self: Any) -> int:
        return sum(self.epoch.weights[Ack.decode(signed.body).node] for signed in self.row.acks)

    return property(acked_milli)


def _whatever_it_says(sound: Sound) -> Sound:
    def check(self: Any, work: Any, epoch: Any, possession: bytes, signed: Any) -> None:
        sound(self, work, epoch, Ack.decode(signed.body).possession, signed)

    return check


def _drop_at_once(sound: Sound) -> Sound:
    def add(self: Any, command: Any, now: Any) -> Any:
        parcel = sound(self, command, now)
        row = self.get(parcel.object_id)
        row.object.local = False  # else Keeping would refuse: the row says that the copy is wanted
        self._draft.put(OBJECTS, parcel.object_id.encode(), row)
        self._draft.send(DropBlob(parcel.object_id))
        return parcel

    return add


MUTANTS: dict[str, Mutant] = {
    "ack-before-fsync": Mutant(
        "a host acks a replica that is not synced to its disk", (Patch(MemoryBlobs, "_sync", never(None)),)
    ),
    "ack-too-little": Mutant("half of the weight is enough", (Patch(tally, "survival_milli", _weighs_double),)),
    "ack-counted-twice": Mutant(
        "an ack counts each time that it comes",
        (Patch(Tally, "add", _every_ack), Patch(Tally, "acked_milli", _each_time)),
    ),
    "ack-of-something-else": Mutant(
        "an ack counts for whatever the owner waits for",
        (Patch(Ack, "is_for", never(True)), Patch(Ack, "shards_in", never((0,)))),
    ),
    "epoch-fence-missing": Mutant(
        "a member acks an epoch that is over",
        (Patch(member, "ack_before", never(None)), Patch(replica_rows, "ack_before", never(None))),
    ),
    "root-unchecked": Mutant("a host keeps whatever has the right length", (Patch(ShardHashes, "wrong", never([])),)),
    "possession-unchecked": Mutant(
        "the owner counts an ack whatever its possession digest is", (Patch(Shipping, "_check", _whatever_it_says),)
    ),
    "stripe-number-unbound": Mutant(
        "a stripe opens in any place of its object",
        (
            Patch(stripes, "stripe_aad", lambda sound: lambda nonce, index, last: sound(nonce, 0, False)),
            Patch(stripes, "_stripe_nonce", lambda sound: lambda index: sound(0)),
        ),
    ),
    "blob-dropped-early": Mutant(
        "the owner drops its bytes before the quorum has acked", (Patch(Outbox, "add", _drop_at_once),)
    ),
    "outbox-row-later": Mutant(
        "an outbox row is written in a later transaction than its event",
        (Patch(ObjectsMachine, "step", a_batch_later(OUTBOX)),),
    ),
    "outbox-forgotten": Mutant("a restarted owner forgets what is open", (Patch(Delivery, "load", never(None)),)),
}

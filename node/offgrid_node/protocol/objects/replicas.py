"""The host's part: it keeps replicas and vouches for them, each under the highest epoch that its owner asked for."""

from __future__ import annotations

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, PeerFault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects.commands import KeepReplica, ReplicasLost
from offgrid_node.protocol.objects.dropping import Dropping, count_kept, shards_of
from offgrid_node.protocol.objects.inventory import Inventory, count_of, sum_key
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.segments import is_segment, key_in
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.small import drop, forget, keep
from offgrid_node.protocol.objects.tables import (
    INVENTORY_SUMS,
    KEPT,
    REPLICAS,
    REPLICAS_EXPIRING,
    SEGMENTS_KEPT,
    expiring_key,
    quorum_id_of,
    replica_key,
)
from offgrid_node.protocol.quorum.fence import ack_before
from offgrid_node.protocol.quorum.records import Ack, Epoch, sign_ack

REPORT = "offgrid.v1.ObjectService/ReportChange"
REPORT_TIMEOUT_MS = 10_000


class ReportTag(msgspec.Struct, frozen=True):
    """Of a ReportChange under way."""


def check_epoch(body: Manifest, epoch: Epoch, host: str) -> None:
    """That the epoch asks `host` for an ack of this very object, or of shards of it. Raises PeerFault (WrongEpoch),
    FailedPrecondition (NoMember)."""
    wanted = body.owner, quorum_id_of(body.object_id), body.subject, body.sealed_bytes
    if (epoch.owner, epoch.quorum_id, epoch.subject, epoch.size_bytes) != wanted:
        text = f"epoch {epoch.epoch} of {epoch.quorum_id} is not for object {body.object_id} of {body.owner}"
        raise PeerFault(text, reason="WrongEpoch")
    if (epoch.needed, len(epoch.layout)) != ((1, 0) if body.codec == COPY else (body.k, body.n)):
        text = f"epoch {epoch.epoch} of {epoch.quorum_id} lays {epoch.needed} of {len(epoch.layout)} shards"
        raise PeerFault(f"{text}, the object has {body.k} of {body.n}", reason="WrongEpoch")
    if not epoch.shards.get(host):
        raise FailedPrecondition(f"{host} is to hold nothing of {epoch.quorum_id}", reason="NoMember")


class Replicas:
    """Rows of replicas. Each holds the ack of its highest epoch: that is the fence of its quorum here."""

    def __init__(self, settings: ObjectsSettings, draft: Draft, dropping: Dropping) -> None:
        self._settings, self._draft, self._dropping = settings, draft, dropping
        self._kept = Inventory(draft, KEPT)

    def on_keep(self, ticket: int, command: KeepReplica, now: Now) -> None:
        """Raises PeerFault (WrongEpoch, EpochForked), FailedPrecondition (NoMember, EpochOver,
        ReplicaDropped)."""
        body, epoch, node_id = command.body, command.epoch_body, self._settings.node_id
        check_epoch(body, epoch, node_id)
        self._dropping.check(body.object_id, epoch)
        key = replica_key(body.object_id, body.owner)
        mine = epoch.shards[node_id]
        row, before = self._before(key, mine)
        signed = ack_before(row.ack if row is not None else None, epoch)
        if signed is None:
            ack = Ack(
                node_id, epoch.owner, epoch.quorum_id, epoch.epoch, epoch.subject, epoch.size_bytes, command.possession
            )
            signed = sign_ack(ack, self._settings.signer, self._settings.salt)
            stored_us = row.stored_us if row is not None else now.utc_us
            made = objects_pb2.ReplicaRow(
                manifest=command.manifest, epoch=command.epoch, ack=signed, stored_us=stored_us
            )
            self._draft.put(REPLICAS, key, made)
            self._dropping.on_kept(body.object_id, body.owner)
            self._change(body, before, mine)
        self._keep_bytes(body, mine, command.shards)
        self._kept.mend(body.owner, body.object_id, before)
        self._kept.put(body.owner, body.object_id, mine)
        if row is not None and is_segment(row.manifest):
            self._draft.delete(SEGMENTS_KEPT, key_in(row.manifest))  # its owner may have signed another head
        if is_segment(command.manifest):
            self._draft.put_bytes(SEGMENTS_KEPT, key_in(command.manifest), b"")
        if row is None:
            if body.expires_us:
                self._draft.put_bytes(REPLICAS_EXPIRING, expiring_key(body.expires_us, key.decode()), b"")
            self._tell_kept(command)
        self._draft.reply(ticket, objects_pb2.CommitReplicaResponse(ack=signed))

    def _before(self, key: bytes, mine: tuple[int, ...]) -> tuple[objects_pb2.ReplicaRow | None, tuple[int, ...]]:
        """The row and what it vouches for. One that is damaged gives way, and what it forbade is forgotten with it; it
        is taken to have vouched for as much as is asked for now."""
        try:
            row = self._draft.row(REPLICAS, key, objects_pb2.ReplicaRow)
        except Corrupt:
            return None, mine
        return row, shards_of(row) if row is not None else ()

    def _tell_kept(self, command: KeepReplica) -> None:
        """Of a segment the journal says nothing: two cores that keep each other's would tell each other for ever."""
        body = command.body
        if is_segment(command.manifest):
            return
        event = objects_pb2.ObjectEvent(
            object_id=body.object_id, size_bytes=body.size_bytes, owner=body.owner, outcome="replica kept"
        )
        self._draft.record(EventType.OBJECT_STORED, body.object_id, object=event)

    def _keep_bytes(self, body: Manifest, shards: tuple[int, ...], rows: tuple[bytes, ...]) -> None:
        """As rows, or without any they are files."""
        for shard in shards if not rows else ():
            forget(self._draft, blob_name(body, shard), body.owner)
        for shard, sealed in zip(shards, rows, strict=True) if rows else ():
            keep(self._draft, blob_name(body, shard), body.owner, sealed)

    def on_lost(self, event: ReplicasLost) -> None:
        """This node's disk has them no more. What was promised stays in the rows, as the fence; its owner is told once
        that is durable, or finds out when it compares, and brings them again."""
        for holding in event.lost:
            self._kept.mend(event.owner, holding.object_id, holding.shards)
            self._kept.put(event.owner, holding.object_id, ())
        self._report(event.owner)

    def on_drains(self) -> None:
        """Each owner of something here is told; whoever is not reached hears it when he asks for this host's room."""
        prefix = sum_key(KEPT, "")
        for key, summary in self._draft.committed(INVENTORY_SUMS, b"", prefix=prefix):
            if count_of(summary):
                self._report(key[len(prefix) :].decode())

    def _report(self, owner: str) -> None:
        request = objects_pb2.ReportChangeRequest()
        self._draft.send(Call("objects", owner, REPORT, request, ReportTag(), REPORT_TIMEOUT_MS))

    def _change(self, body: Manifest, before: tuple[int, ...], after: tuple[int, ...]) -> None:
        """What a newer epoch takes away goes."""
        count_kept(self._draft, body.owner, (len(after) - len(before)) * body.shard_bytes)
        for shard in sorted({*before}.difference(after)):
            drop(self._draft, blob_name(body, shard), body.owner)

"""The rows of this node's own objects: made in one transaction with their journal record, changed as acks come.

Its entry (`entries.py`) is open until the quorum has acked; then the object is durable. What is still short of its
copies has an index of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import QuorumAcked, QuorumOpened, SegmentDurable, SegmentLost
from offgrid_node.protocol.objects.commands import AddObject
from offgrid_node.protocol.objects.entries import CANCELLED, PENDING, Entries
from offgrid_node.protocol.objects.inventory import Inventory
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.parcels import Parcel, Terms
from offgrid_node.protocol.objects.segments import is_segment, number_in
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.sizes import stored_bytes
from offgrid_node.protocol.objects.small import drop, forget, keep
from offgrid_node.protocol.objects.tables import (
    EXPIRING,
    GIVEN,
    OBJECT_NAMES,
    OBJECTS,
    SPREADING,
    expiring_key,
    name_key,
    quorum_id_of,
    spreading_key,
)
from offgrid_node.protocol.objects.urgency import spare_milli
from offgrid_node.protocol.objects.verified import Verified
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import laid
from offgrid_node.protocol.quorum.survival import survival_milli

ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE
LOCAL, DAMAGED = objects_pb2.OBJECT_STATE_LOCAL, objects_pb2.OBJECT_STATE_DAMAGED
SHARED_MAX = 1_000  # sets of members that parcels share


def put_number(row: objects_pb2.ObjectRow) -> int:
    """The number under which it was put, however often it was sealed anew since."""
    return row.name_number or row.outbox_id


class Outbox:
    """Reads and writes rows of objects, with their `entries`."""

    def __init__(self, settings: ObjectsSettings, draft: Draft) -> None:
        self._settings, self._draft = settings, draft
        self._given, self._verified = Inventory(draft, GIVEN), Verified(draft)
        self.entries = Entries(draft)
        self._shared: dict[tuple[object, ...], Terms] = {}

    def load(self, rows: Rows) -> Iterator[tuple[int, str]]:
        """Number and object of everything that is open, the oldest first."""
        self._verified.load(rows)
        return self.entries.load(rows)

    # ---- questions

    def find(self, object_id: str) -> objects_pb2.ObjectRow | None:
        """Raises Corrupt for a row that is damaged."""
        return self._draft.row(OBJECTS, object_id.encode(), objects_pb2.ObjectRow)

    def find_sound(self, object_id: str) -> objects_pb2.ObjectRow | None:
        """None for one whose row is damaged, too: for what comes by it again and again, and goes on without it."""
        try:
            return self.find(object_id)
        except Corrupt:
            return None

    def is_damaged(self, object_id: str) -> bool:
        """Whether it has a row that nobody can read."""
        try:
            self.find(object_id)
        except Corrupt:
            return True
        return False

    def get(self, object_id: str) -> objects_pb2.ObjectRow:
        """Raises Corrupt."""
        row = self.find(object_id)
        if row is None:
            text = f"object {object_id}, which the outbox knows, has no row that can be read"
            raise Corrupt(text, reason="RowsMissing")
        return row

    def parcel(self, object_id: str) -> Parcel:
        """Raises Corrupt."""
        row = self.get(object_id)
        parcel = Parcel(
            row.outbox_id,
            object_id,
            row.object.required_milli,
            row.copies_wanted,
            -(-stored_bytes(row.object) // max(1, row.object.shards_needed)),
            durable=row.object.state == DURABLE,
            shards_needed=row.object.shards_needed or 1,
            shards_total=row.object.shards_total,
            local=row.object.local,
            held=dict(_held(row.object)),
            journal=is_segment(row.object.manifest),
        )
        if row.HasField("epoch"):
            self._set_epoch(parcel, row.epoch)
        return parcel

    def _set_epoch(self, parcel: Parcel, signed: common_pb2.Signed) -> None:
        epoch = Epoch.decode(signed.body)
        if len(self._shared) >= SHARED_MAX:
            self._shared.clear()
        key = epoch.members, epoch.needed, epoch.layout
        terms = self._shared.get(key)
        if terms is None:
            promised_milli = survival_milli(epoch.weights, epoch.weights, epoch.shards, epoch.needed)
            terms = self._shared[key] = Terms(epoch.weights, laid(epoch), promised_milli)
        parcel.epoch, parcel.terms = epoch.epoch, terms

    def holders(self, rows: Rows) -> Iterator[str]:
        """Every host that has acked something, in one step each."""
        start = b""
        while (found := next(iter(rows.scan(GIVEN, start)), None)) is not None:
            node_id = found[0].partition(b"/")[0]
            yield node_id.decode()
            start = node_id + b"0"  # the next after "/"

    # ---- changes

    def add(self, command: AddObject, now: Now) -> Parcel:
        """A new object with its entry, and what the journal says of them."""
        object_id, enqueue = command.body.object_id, command.enqueue
        required_milli = command.required_milli or self._settings.required_of(command.copies)
        made = described(command.manifest, command.body, command.name, command.size_bytes)
        made.state, made.required_milli, made.local = ACCEPTED, required_milli, True
        if command.regained:
            made.regained_us = now.utc_us
        else:
            made.created_us = now.utc_us
        entry = objects_pb2.OutboxEntry(
            key=enqueue.key if enqueue else command.name or _label(command.manifest) or object_id,
            etype=enqueue.etype if enqueue else EventType.OBJECT_STORED,
            status=PENDING,
            object_id=object_id,
            required_milli=required_milli,
            created_us=now.utc_us,
            for_job=command.for_job,
        )
        number = self.entries.add(entry)
        row = objects_pb2.ObjectRow(
            object=made,
            outbox_id=number,
            copies_wanted=command.copies or self._settings.copies,
            request_id=command.request_id,
            checksum=command.plaintext,
            replaces=command.replaces,
            name_number=command.name_number,
        )
        if command.sealed:
            keep(self._draft, object_id, made.owner, command.sealed)
        self._put(row)
        if made.expires_us:
            self._draft.put_bytes(EXPIRING, expiring_key(made.expires_us, object_id), b"")
        if command.name and not command.replaces:
            self._draft.put_bytes(OBJECT_NAMES, name_key(command.name, put_number(row)), object_id.encode())
        if not is_segment(command.manifest):
            outcome = "enqueued" if enqueue else "taken back" if command.regained else "accepted"
            event = self._event(made, outcome, number)
            event.key = enqueue.key if enqueue else ""
            self._draft.record(entry.etype, enqueue.key if enqueue else object_id, object=event)
        return self.parcel(object_id)

    def opened(self, parcel: Parcel, event: QuorumOpened, now: Now) -> bool:
        """The quorum's epoch; whether the object is durable by the acks that count in it."""
        epoch = Epoch.decode(event.epoch.body)
        if epoch.epoch <= parcel.epoch:
            return False
        self._set_epoch(parcel, event.epoch)
        parcel.held = dict(event.held)
        row = self.get(parcel.object_id)
        given = _held(row.object)
        row.epoch.CopyFrom(event.epoch)
        before = {ack.node_id: ack for ack in row.object.acks}
        row.object.ClearField("acks")
        for node_id, shards in event.held:
            known = before.get(node_id)
            self._add_ack(row.object, epoch, node_id, shards, known.acked_us if known else now.utc_us)
            if known is not None and {*shards} <= {*_shards(known)}:
                row.object.acks[-1].verified_us = known.verified_us
        if row.object.state == DURABLE and not event.held and not row.object.local:
            self._tell_segment_lost(row.object)
        return self._weigh(row, given, event.acked_milli, event.reached, now)

    def acked(self, object_id: str, event: QuorumAcked, now: Now) -> bool:
        """One ack more; whether the object is durable by it. One that was deleted meanwhile stays so."""
        row = self.find(object_id)
        if row is None:
            return False
        epoch, given = Epoch.decode(row.epoch.body), _held(row.object)
        known = {ack.node_id: index for index, ack in enumerate(row.object.acks)}
        if event.node_id in known:
            if tuple(row.object.acks[known[event.node_id]].shards) == (event.shards if epoch.layout else ()):
                return False
            del row.object.acks[known[event.node_id]]
        self._add_ack(row.object, epoch, event.node_id, event.shards, now.utc_us)
        return self._weigh(row, given, event.acked_milli, event.reached, now)

    def _add_ack(
        self, made: objects_pb2.Object, epoch: Epoch, node_id: str, shards: tuple[int, ...], acked_us: int
    ) -> None:
        made.acks.add(
            node_id=node_id,
            weight_milli=epoch.weights[node_id],
            acked_us=acked_us,
            shards=shards if epoch.layout else (),
        )

    def _weigh(
        self,
        row: objects_pb2.ObjectRow,
        given: Mapping[str, tuple[int, ...]],
        acked_milli: int,
        reached: bool,
        now: Now,
    ) -> bool:
        """Writes the row with what its acks weigh now; whether it is durable by that. `given`: what was acked
        before."""
        made = row.object
        self._given.change(made.object_id, given, _held(made))
        made.acked_milli = acked_milli
        self._verified.set(made, _verified_us(made))
        is_open = made.state in (ACCEPTED, DAMAGED)
        durable_now = reached and is_open
        if is_open:
            self.entries.weigh(row.outbox_id, acked_milli, reached=reached, now=now)
        if durable_now:
            made.state = DURABLE
            self._set_short(row, acked_milli)
            self._tell_durable(made, row.outbox_id)
        self._put(row)
        return durable_now

    def verified(self, row: objects_pb2.ObjectRow, whole: Mapping[str, tuple[int, ...]], now: Now) -> None:
        """Hosts have shown that they have these shards of the object."""
        made = row.object
        for ack in made.acks:
            if {*_shards(ack)} <= {*whole.get(ack.node_id, ())}:
                ack.verified_us = now.utc_us
        self._verified.set(made, _verified_us(made))
        self._put(row)

    def _tell_durable(self, made: objects_pb2.Object, number: int) -> None:
        if is_segment(made.manifest):
            self._draft.tell("state", SegmentDurable(number_in(made.manifest)))
        else:
            self._draft.record(EventType.OBJECT_STORED, made.object_id, object=self._event(made, "durable", number))

    def cancel(self, number: int, now: Now) -> objects_pb2.OutboxEntry:
        """Its object stays here and goes nowhere any more. Raises NotFound (EntryNotFound), FailedPrecondition
        (EntryCompleted)."""
        entry = self.entries.cancellable(number)
        if entry.status == CANCELLED:
            return entry
        row = self.get(entry.object_id)
        row.object.state = LOCAL
        self.entries.cancel(entry, "", now)
        self._put(row)
        if not self._tell_segment_lost(row.object):
            event = self._event(row.object, "cancelled", number)
            self._draft.record(EventType.OBJECT_STORED, entry.object_id, object=event)
        return entry

    def damaged(self, parcel: Parcel, why: str) -> None:
        """Of one that is not durable the bytes here are not what was put, and hosts have too few. Said once."""
        self.entries.note(parcel.number, PENDING, 0, why)
        row = self.get(parcel.object_id)
        if row.object.state == ACCEPTED:
            row.object.state = DAMAGED
            self._put(row)
            if not self._tell_segment_lost(row.object):
                event = self._event(row.object, "damaged", parcel.number)
                self._draft.record(EventType.OBJECT_STORED, parcel.object_id, object=event)

    def _tell_segment_lost(self, made: objects_pb2.Object) -> bool:
        """Whether it is a segment: the journal has its rows still, and writes them down anew."""
        if segment := is_segment(made.manifest):
            self._draft.tell("state", SegmentLost(number_in(made.manifest)))
        return segment

    def delete(self, row: objects_pb2.ObjectRow, now: Now) -> None:
        """The object's rows and its name go; its outbox entry stays, given up where it is open."""
        made, number = row.object, row.outbox_id
        self.entries.cancel(self.entries.get(number), "deleted", now)
        if is_segment(made.manifest):
            self.entries.forget(number)
        self._given.change(made.object_id, _held(made), {})
        self._verified.set(made, 0)
        drop(self._draft, made.object_id, made.owner)
        self._draft.delete(OBJECTS, made.object_id.encode())
        self._draft.delete(SPREADING, spreading_key(row.spare_milli, number))
        if made.expires_us:
            self._draft.delete(EXPIRING, expiring_key(made.expires_us, made.object_id))
        if made.name and not row.replaces:
            self._draft.delete(OBJECT_NAMES, name_key(made.name, put_number(row)))
        if not is_segment(made.manifest):
            event = self._event(made, "deleted", number)
            self._draft.record(EventType.OBJECT_DELETED, made.object_id, object=event)

    def ask(self, object_id: str, node_id: str) -> objects_pb2.ObjectRow:
        """The object's row, which says from now on that the node was asked to keep it."""
        row = self.get(object_id)
        if node_id not in row.asked:
            row.asked.append(node_id)
            self._put(row)
        return row

    def spread(self, parcel: Parcel) -> None:
        """All that is wanted was acked, so this node need not keep its own copy."""
        row = self.get(parcel.object_id)
        self._draft.delete(SPREADING, spreading_key(row.spare_milli, parcel.number))
        self._set_local(parcel, local=False)
        drop(self._draft, parcel.object_id, self._settings.node_id)

    def fetched(self, parcel: Parcel) -> None:
        """The sealed bytes are here again."""
        forget(self._draft, parcel.object_id, self._settings.node_id)
        self._set_local(parcel, local=True)
        row = self.get(parcel.object_id)
        if row.object.state == DAMAGED:
            row.object.state = ACCEPTED
            self._put(row)

    def _set_local(self, parcel: Parcel, *, local: bool) -> None:
        row = self.get(parcel.object_id)
        parcel.local = row.object.local = local
        self._put(row)

    def mark_short(self, object_id: str, is_alive: Callable[[str], bool]) -> None:
        """A durable object may have lost something: it is among those that are looked at, the nearest to loss first."""
        row = self.find_sound(object_id)
        if row is not None and row.object.state == DURABLE:
            self._set_short(row, spare_milli(self.parcel(object_id), is_alive))
            self._put(row)

    def _set_short(self, row: objects_pb2.ObjectRow, spare: int) -> None:
        self._draft.delete(SPREADING, spreading_key(row.spare_milli, row.outbox_id))
        row.spare_milli = spare
        self._draft.put_bytes(SPREADING, spreading_key(spare, row.outbox_id), row.object.object_id.encode())

    def _put(self, row: objects_pb2.ObjectRow) -> None:
        self._draft.put(OBJECTS, row.object.object_id.encode(), row)

    def _event(self, made: objects_pb2.Object, outcome: str, number: int) -> objects_pb2.ObjectEvent:
        return objects_pb2.ObjectEvent(
            object_id=made.object_id, size_bytes=made.size_bytes, owner=made.owner, outcome=outcome, outbox_id=number
        )


def _label(manifest: objects_pb2.Manifest) -> str:
    """What the outbox calls a segment."""
    return f"journal segment {number_in(manifest)}" if is_segment(manifest) else ""


def _held(made: objects_pb2.Object) -> Mapping[str, tuple[int, ...]]:
    """Who has acked, and which of its shards; (0,) for a copy."""
    return {ack.node_id: _shards(ack) for ack in made.acks}


def _shards(ack: objects_pb2.ReplicaAck) -> tuple[int, ...]:
    return tuple(ack.shards) or (0,)


def _verified_us(made: objects_pb2.Object) -> int:
    return min((ack.verified_us for ack in made.acks), default=0)


def described(
    manifest: objects_pb2.Manifest, body: Manifest, name: str, size_bytes: int | None = None
) -> objects_pb2.Object:
    """What a manifest, whose signed bytes say `body`, says of its object; `size_bytes` is its own size, where more is
    known than what it is filled up to."""
    coded = body.codec != COPY
    return objects_pb2.Object(
        object_id=body.object_id,
        name=name,
        size_bytes=body.size_bytes if size_bytes is None else size_bytes,
        padded_bytes=body.size_bytes if body.sealed_size else 0,
        quorum_id=quorum_id_of(body.object_id),
        created_us=body.created_us,
        expires_us=body.expires_us,
        shards_needed=body.k if coded else 0,
        shards_total=body.n if coded else 0,
        owner=body.owner,
        manifest=manifest,
    )

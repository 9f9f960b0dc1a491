"""The rows of this node's own objects: made in one transaction with their journal record, changed as acks come.

An outbox entry is open until the quorum has acked; then the object is durable. What is open, and what is still short of
its copies, has an index of its own, so that neither a start nor a list walks over the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob, Rows
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import QuorumAcked, QuorumOpened
from offgrid_node.protocol.objects.commands import AddObject
from offgrid_node.protocol.objects.inventory import Inventory
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.parcels import Parcel, Terms
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.tables import (
    EXPIRING,
    GIVEN,
    JOBS_OPEN,
    LAST_NUMBER,
    META,
    OBJECT_NAMES,
    OBJECTS,
    OUTBOX,
    OUTBOX_OPEN,
    SPREADING,
    expiring_key,
    name_key,
    number_key,
    number_of,
    outbox_key,
    quorum_id_of,
)
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import laid
from offgrid_node.protocol.quorum.survival import survival_milli

ACCEPTED, DURABLE = objects_pb2.OBJECT_STATE_ACCEPTED, objects_pb2.OBJECT_STATE_DURABLE
LOCAL, CANCELLED = objects_pb2.OBJECT_STATE_LOCAL, objects_pb2.OUTBOX_STATUS_CANCELLED
PENDING, DELIVERING = objects_pb2.OUTBOX_STATUS_PENDING, objects_pb2.OUTBOX_STATUS_DELIVERING
COMPLETED = objects_pb2.OUTBOX_STATUS_COMPLETED
TROUBLE_CHARS_MAX = 256
SHARED_MAX = 1_000  # sets of members that parcels share


class Outbox:
    """Reads and writes rows of objects and of the outbox."""

    def __init__(self, settings: ObjectsSettings, draft: Draft) -> None:
        self._settings, self._draft = settings, draft
        self._given = Inventory(draft, GIVEN)
        self._last = 0
        self.jobs_open = 0  # open entries that are inputs and results of jobs
        self._shared: dict[tuple[object, ...], Terms] = {}

    def load(self, rows: Rows) -> Iterator[tuple[int, str]]:
        """Number and object of everything that is open, the oldest first."""
        self._last = number_of(rows.get(META, LAST_NUMBER) or b"")
        self.jobs_open = number_of(rows.get(META, JOBS_OPEN) or b"")
        for key, object_id in rows.scan(OUTBOX_OPEN):
            yield number_of(key), object_id.decode()

    # ---- questions

    def find(self, object_id: str) -> objects_pb2.ObjectRow | None:
        return self._draft.row(OBJECTS, object_id.encode(), objects_pb2.ObjectRow)

    def get(self, object_id: str) -> objects_pb2.ObjectRow:
        """Raises Corrupt."""
        row = self.find(object_id)
        if row is None:
            raise Corrupt(f"object {object_id} has no row, though the outbox knows it", reason="RowsMissing")
        return row

    def entry(self, number: int) -> objects_pb2.OutboxEntry:
        """Raises Corrupt."""
        entry = self._draft.row(OUTBOX, outbox_key(number), objects_pb2.OutboxEntry)
        if entry is None:
            raise Corrupt(f"outbox entry {number} has no row", reason="RowsMissing")
        return entry

    def parcel(self, object_id: str) -> Parcel:
        """Raises Corrupt."""
        row = self.get(object_id)
        parcel = Parcel(
            row.outbox_id,
            object_id,
            row.object.required_milli,
            row.copies_wanted,
            -(-row.object.size_bytes // max(1, row.object.shards_needed)),
            durable=row.object.state == DURABLE,
            shards_needed=row.object.shards_needed or 1,
            shards_total=row.object.shards_total,
            local=row.object.local,
            held=dict(_held(row.object)),
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
        self._last += 1
        number, object_id, enqueue = self._last, command.body.object_id, command.enqueue
        required_milli = command.required_milli or self._settings.required_milli
        key = outbox_key(number)
        made = described(command.manifest, command.body, command.name)
        made.state, made.required_milli, made.local, made.created_us = ACCEPTED, required_milli, True, now.utc_us
        row = objects_pb2.ObjectRow(
            object=made,
            outbox_id=number,
            copies_wanted=command.copies or self._settings.copies,
            request_id=command.request_id,
            checksum=command.plaintext,
        )
        entry = objects_pb2.OutboxEntry(
            id=number,
            key=enqueue.key if enqueue else command.name or object_id,
            etype=enqueue.etype if enqueue else EventType.OBJECT_STORED,
            status=PENDING,
            object_id=object_id,
            required_milli=required_milli,
            created_us=now.utc_us,
            for_job=command.for_job,
        )
        self._draft.put(OBJECTS, object_id.encode(), row)
        self._draft.put(OUTBOX, key, entry)
        self._draft.put_bytes(OUTBOX_OPEN, key, object_id.encode())
        self._draft.put_bytes(META, LAST_NUMBER, key)
        if made.expires_us:
            self._draft.put_bytes(EXPIRING, expiring_key(made.expires_us, object_id), b"")
        self._count_job(entry, 1)
        if command.name:
            self._draft.put_bytes(OBJECT_NAMES, name_key(command.name, number), object_id.encode())
        event = self._event(made, "enqueued" if enqueue else "accepted", number)
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
        row.epoch.CopyFrom(event.epoch)
        acked_us = {ack.node_id: ack.acked_us for ack in row.object.acks}
        del row.object.acks[:]
        for node_id, shards in event.held:
            self._add_ack(row.object, epoch, node_id, shards, acked_us.get(node_id, now.utc_us))
        return self._weigh(row, event.acked_milli, event.reached, now)

    def acked(self, object_id: str, event: QuorumAcked, now: Now) -> bool:
        """One ack more; whether the object is durable by it. One that was deleted meanwhile stays so."""
        row = self.find(object_id)
        if row is None:
            return False
        epoch = Epoch.decode(row.epoch.body)
        known = {ack.node_id: index for index, ack in enumerate(row.object.acks)}
        if event.node_id in known:
            if tuple(row.object.acks[known[event.node_id]].shards) == (event.shards if epoch.layout else ()):
                return False
            del row.object.acks[known[event.node_id]]
        self._add_ack(row.object, epoch, event.node_id, event.shards, now.utc_us)
        return self._weigh(row, event.acked_milli, event.reached, now)

    def _add_ack(
        self, made: objects_pb2.Object, epoch: Epoch, node_id: str, shards: tuple[int, ...], acked_us: int
    ) -> None:
        made.acks.add(
            node_id=node_id,
            weight_milli=epoch.weights[node_id],
            acked_us=acked_us,
            shards=shards if epoch.layout else (),
        )

    def _weigh(self, row: objects_pb2.ObjectRow, acked_milli: int, reached: bool, now: Now) -> bool:
        """Writes the row with what its acks weigh now; whether it is durable by that."""
        made, key = row.object, outbox_key(row.outbox_id)
        self._given.change(made.object_id, _held(self.get(made.object_id).object), _held(made))
        made.acked_milli = acked_milli
        durable_now = reached and made.state == ACCEPTED
        if made.state == ACCEPTED:
            entry = self.entry(row.outbox_id)
            entry.acked_milli = acked_milli
            if durable_now:
                entry.status, entry.completed_us, entry.trouble = COMPLETED, now.utc_us, ""
                made.state = DURABLE
                self._close(entry)
                self._draft.put_bytes(SPREADING, key, made.object_id.encode())
                event = self._event(made, "durable", row.outbox_id)
                self._draft.record(EventType.OBJECT_STORED, made.object_id, object=event)
            self._draft.put(OUTBOX, key, entry)
        self._draft.put(OBJECTS, made.object_id.encode(), row)
        return durable_now

    def cancel(self, number: int, now: Now) -> objects_pb2.OutboxEntry:
        """Its object stays here and goes nowhere any more. Raises NotFound (EntryNotFound), FailedPrecondition
        (EntryCompleted)."""
        entry = self._draft.row(OUTBOX, outbox_key(number), objects_pb2.OutboxEntry)
        if entry is None:
            raise NotFound(
                f"there is no outbox entry {number}", reason="EntryNotFound", metadata={"outbox_id": str(number)}
            )
        if entry.status == COMPLETED:
            text = (
                f"outbox entry {number} is completed: the hosts of {entry.object_id} have acked, nothing is under way"
            )
            raise FailedPrecondition(text, reason="EntryCompleted")
        if entry.status == CANCELLED:
            return entry
        row = self.get(entry.object_id)
        row.object.state = LOCAL
        entry.status, entry.completed_us, entry.trouble = CANCELLED, now.utc_us, ""
        self._close(entry)
        self._draft.put(OBJECTS, entry.object_id.encode(), row)
        self._draft.put(OUTBOX, outbox_key(number), entry)
        event = self._event(row.object, "cancelled", number)
        self._draft.record(EventType.OBJECT_STORED, entry.object_id, object=event)
        return entry

    def delete(self, row: objects_pb2.ObjectRow, now: Now) -> None:
        """The object's rows and its name go; its outbox entry stays, given up where it is open."""
        made, number, key = row.object, row.outbox_id, outbox_key(row.outbox_id)
        entry = self.entry(number)
        if entry.status not in (COMPLETED, CANCELLED):
            entry.status, entry.completed_us, entry.trouble = CANCELLED, now.utc_us, "deleted"
            self._close(entry)
            self._draft.put(OUTBOX, key, entry)
        self._given.change(made.object_id, _held(made), {})
        self._draft.delete(OBJECTS, made.object_id.encode())
        self._draft.delete(SPREADING, key)
        if made.expires_us:
            self._draft.delete(EXPIRING, expiring_key(made.expires_us, made.object_id))
        if made.name:
            self._draft.delete(OBJECT_NAMES, name_key(made.name, number))
        event = self._event(made, "deleted", number)
        self._draft.record(EventType.OBJECT_DELETED, made.object_id, object=event)

    def ask(self, object_id: str, node_id: str) -> objects_pb2.ObjectRow:
        """The object's row, which says from now on that the node was asked to keep it."""
        row = self.get(object_id)
        if node_id not in row.asked:
            row.asked.append(node_id)
            self._draft.put(OBJECTS, object_id.encode(), row)
        return row

    def _close(self, entry: objects_pb2.OutboxEntry) -> None:
        self._draft.delete(OUTBOX_OPEN, outbox_key(entry.id))
        self._count_job(entry, -1)

    def _count_job(self, entry: objects_pb2.OutboxEntry, more: int) -> None:
        if entry.for_job:
            self.jobs_open += more
            self._draft.put_bytes(META, JOBS_OPEN, number_key(self.jobs_open))

    def note(self, number: int, status: objects_pb2.OutboxStatus.ValueType, tries: int, trouble: str) -> None:
        """How delivery of an open entry stands; `tries` more than before."""
        entry = self.entry(number)
        trouble = trouble[:TROUBLE_CHARS_MAX]
        if (entry.status, entry.trouble) == (status, trouble) and not tries:
            return
        entry.status, entry.trouble, entry.tries = status, trouble, entry.tries + tries
        self._draft.put(OUTBOX, outbox_key(number), entry)

    def spread(self, parcel: Parcel) -> None:
        """All that is wanted was acked, so this node need not keep its own copy."""
        self._draft.delete(SPREADING, outbox_key(parcel.number))
        self._set_local(parcel, local=False)
        self._draft.send(DropBlob(parcel.object_id))

    def fetched(self, parcel: Parcel) -> None:
        """The sealed bytes are here again."""
        self._set_local(parcel, local=True)

    def _set_local(self, parcel: Parcel, *, local: bool) -> None:
        row = self.get(parcel.object_id)
        parcel.local = row.object.local = local
        self._draft.put(OBJECTS, parcel.object_id.encode(), row)

    def mark_short(self, object_id: str) -> None:
        """A durable object may have lost something: it is among those that are looked at."""
        row = self.find(object_id)
        if row is not None and row.object.state == DURABLE:
            self._draft.put_bytes(SPREADING, outbox_key(row.outbox_id), object_id.encode())

    def _event(self, made: objects_pb2.Object, outcome: str, number: int) -> objects_pb2.ObjectEvent:
        return objects_pb2.ObjectEvent(
            object_id=made.object_id, size_bytes=made.size_bytes, owner=made.owner, outcome=outcome, outbox_id=number
        )


def _held(made: objects_pb2.Object) -> Mapping[str, tuple[int, ...]]:
    """Who has acked, and which of its shards; (0,) for a copy."""
    return {ack.node_id: tuple(ack.shards) or (0,) for ack in made.acks}


def described(manifest: objects_pb2.Manifest, body: Manifest, name: str) -> objects_pb2.Object:
    """What a manifest, whose signed bytes say `body`, says of its object."""
    coded = body.codec != COPY
    return objects_pb2.Object(
        object_id=body.object_id,
        name=name,
        size_bytes=body.size_bytes,
        quorum_id=quorum_id_of(body.object_id),
        created_us=body.created_us,
        expires_us=body.expires_us,
        shards_needed=body.k if coded else 0,
        shards_total=body.n if coded else 0,
        owner=body.owner,
        manifest=manifest,
    )

"""The objects domain's machine: an owner's objects and their way to hosts, and the replicas that this node keeps."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Asked, DropBlob, Effect, Fetched, Rows, Shipped, Woke
from offgrid_node.protocol.errors import Exhausted, Fault, Internal
from offgrid_node.protocol.events import AckRefused, ObjectAdded, PeerDown, PeerUp, QuorumAcked, QuorumOpened
from offgrid_node.protocol.objects.commands import (
    AddObject,
    CancelEntry,
    Compared,
    DamageReported,
    DeleteObject,
    KeepReplica,
    ReplicasLost,
    ShareObject,
    TakeNotices,
    UnshareObject,
)
from offgrid_node.protocol.objects.comparing import Comparing
from offgrid_node.protocol.objects.deletion import Deletion, was_deleted
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.dropping import Dropping
from offgrid_node.protocol.objects.expiry import HOST_LATE_US, Expiry, TrustedClock
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding, Inventory
from offgrid_node.protocol.objects.measuring import AskTag, Measuring
from offgrid_node.protocol.objects.notices import Notices, NoticeTag
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.replicas import DamageTag, Replicas
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.sharing import Shared, Sharing, told_to
from offgrid_node.protocol.objects.strays import moved_by
from offgrid_node.protocol.objects.tables import EXPIRING, GIVEN, OBJECT_REQUESTS, REPLICAS_EXPIRING, object_of
from offgrid_node.protocol.requests import Requests
from offgrid_node.protocol.rng import Rng

FULL_RETRY_MS = 5_000


class ObjectsMachine:
    """Owner and host of one node."""

    def __init__(self, settings: ObjectsSettings) -> None:
        self._settings, self._draft = settings, Draft()
        self._hosts = Hosts(settings.node_id, settings.repair_after_ms)
        self._outbox = Outbox(settings, self._draft)
        self._requests = Requests(self._draft, OBJECT_REQUESTS)
        self._delivery = Delivery(self._hosts, self._outbox, self._draft, settings.placement)
        self._deletion = Deletion(self._outbox, self._delivery, self._draft)
        self._notices = Notices(settings.node_id, self._draft, self._notice_of, self._deletion.on_told)
        self._sharing, self._shared = Sharing(self._outbox, self._draft, self._notices.add), Shared(self._draft)
        self._dropping = Dropping(self._draft)
        self._replicas = Replicas(settings, self._draft, self._dropping)
        self._comparing = Comparing(self._draft, Inventory(self._draft, GIVEN), self._delivery.on_lost, self._on_stray)
        self._measuring = Measuring(self._hosts, self._draft, self._comparing.on_reported)
        clock = self._clock = TrustedClock(self._draft)
        self._expiries = (
            Expiry(self._draft, clock, EXPIRING, 0, self._on_expired),
            Expiry(self._draft, clock, REPLICAS_EXPIRING, HOST_LATE_US, self._dropping.on_expired),
        )
        self._stepped_ms = 0

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._requests.load(rows)
        self._delivery.load(rows, now)
        self._notices.load(rows)
        self._clock.load(rows)
        for expiry in self._expiries:
            expiry.load(rows, now)
        self._stepped_ms = now.mono_ms

    # ---- questions

    @property
    def settings(self) -> ObjectsSettings:
        return self._settings

    @property
    def hosts(self) -> Hosts:
        """All that this node has heard of since it started, with what it knows of them; nobody changes them."""
        return self._hosts

    def parcel(self, object_id: str) -> Parcel:
        """An object as delivery sees it; nobody changes it. Raises Corrupt where there is none."""
        return self._delivery.parcel(object_id)

    @property
    def outbox_depth(self) -> int:
        """Entries that are not completed."""
        return self._delivery.depth

    def outbox_age_ms(self, now: Now) -> int:
        """How long the oldest of them has waited; 0 when there is none."""
        oldest_us = self._delivery.oldest_us()
        return max(0, now.utc_us - oldest_us) // 1_000 if oldest_us is not None else 0

    def deadline_ms(self) -> int | None:
        stepped_ms, parts = self._stepped_ms, (self._notices, self._measuring, *self._expiries)
        due = (
            self._delivery.deadline_ms(stepped_ms),
            self._comparing.deadline_ms(stepped_ms),
            *(part.deadline_ms() for part in parts),
        )
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    # ---- inputs

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        self._stepped_ms = now.mono_ms
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    try:
                        self._ask(ticket, command, now)
                    except Internal:
                        raise
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case ObjectAdded():
                    self._on_added(event, now)
                case Shipped():
                    self._measuring.on_shipped(event, now)
                    self._delivery.on_shipped(event, now)
                case Answered(AskTag() as asked):
                    if self._measuring.on_answered(asked, event, now):
                        self._delivery.on_room()
                case Fetched():
                    self._delivery.on_fetched(event, now)
                case QuorumOpened(quorum_id):
                    self._delivery.on_opened(object_of(quorum_id), event, now)
                    self._sharing.on_moved(object_of(quorum_id), now)
                case QuorumAcked(quorum_id):
                    self._delivery.on_acked(object_of(quorum_id), event, now)
                case AckRefused(quorum_id, node_id, why):
                    self._delivery.on_refused(object_of(quorum_id), node_id, why, now)
                case Answered(NoticeTag() as tag):
                    self._notices.on_answered(tag, event, now)
                case Compared():
                    self._comparing.on_compared(event, now)
                case DamageReported(node_id):
                    self._comparing.on_reported(node_id, now)
                case Answered(DamageTag()):
                    pass  # an owner that was not reached compares in time
                case ReplicasLost():
                    self._replicas.on_lost(event)
                case PeerUp():
                    self._on_up(event, now, rng)
                case PeerDown(node_id):
                    self._on_down(node_id, now)
                case Woke():
                    pass  # what is due is looked at when the step closes
                case _:
                    raise Internal(f"the objects machine does not know {type(event).__name__}")
        self._close_step(now, rng)
        return self._draft.take()

    def _close_step(self, now: Now, rng: Rng) -> None:
        self._comparing.close_step(now)
        self._delivery.close_step(now)
        for expiry in self._expiries:
            expiry.close_step(now)
        self._notices.close_step(now)
        self._measuring.close_step(now, rng)

    def _on_up(self, event: PeerUp, now: Now, rng: Rng) -> None:
        self._notices.on_up(event.node_id, now)
        if self._hosts.on_up(event, now):
            self._measuring.on_up(event.node_id, now, rng)
            self._delivery.on_hosts_changed(now, came=True)
            self._comparing.on_up(event.node_id, now)
        else:
            self._measuring.on_down(event.node_id)
            self._comparing.on_down(event.node_id)

    def _on_down(self, node_id: str, now: Now) -> None:
        self._notices.on_down(node_id)
        self._comparing.on_down(node_id)
        if self._hosts.on_down(node_id, now):
            self._measuring.on_down(node_id)
            self._delivery.on_hosts_changed(now, came=False)

    def _ask(self, ticket: int, command: object, now: Now) -> None:
        match command:
            case AddObject():
                self._on_add(ticket, command, now)
            case CancelEntry(number):
                entry = self._delivery.cancel(number, now)
                self._draft.reply(ticket, objects_pb2.CancelOutboxEntryResponse(entry=entry))
            case DeleteObject(object_id):
                mark = self._deletion.on_delete(object_id, self._notices.add, now)
                self._draft.reply(ticket, objects_pb2.DeleteObjectResponse(deletion=mark))
            case ShareObject(object_id, node_id, sealed_key):
                made = self._sharing.on_share(object_id, node_id, sealed_key, now)
                self._draft.reply(ticket, objects_pb2.ShareObjectResponse(object=made))
            case UnshareObject(object_id, node_id):
                made = self._sharing.on_unshare(object_id, node_id, now)
                self._draft.reply(ticket, objects_pb2.UnshareObjectResponse(object=made))
            case TakeNotices():
                self._take_notices(command, now)
                self._draft.reply(ticket, objects_pb2.DeliverNoticesResponse())
            case KeepReplica():
                self._replicas.on_keep(ticket, command, now)
                if command.body.expires_us:
                    self._expiries[1].arm(now)
            case _:
                raise Internal(f"the objects machine does not know {type(command).__name__}")

    def _on_add(self, ticket: int, command: AddObject, now: Now) -> None:
        """Bytes that end up as nobody's object are dropped: those of a repeated or refused request."""
        object_id = command.body.object_id
        try:
            made = self._requests.made(command.request_id, command.digest)
            row = self._outbox.find(made or object_id)
            if row is None and made:
                raise was_deleted(made)
            if row is None:
                self._check_room(command)
        except Fault:
            if self._outbox.find(object_id) is None:
                self._draft.send(DropBlob(object_id))
            raise
        if row is None:
            parcel = self._outbox.add(command, now)
            self._requests.remember(command.request_id, command.digest, object_id)
            if command.body.expires_us:
                self._expiries[0].arm(now)
            self._delivery.on_added(parcel)
            row = self._outbox.get(object_id)
        elif row.object.object_id != object_id:
            self._draft.send(DropBlob(object_id))
        if command.enqueue is None:
            self._draft.reply(ticket, objects_pb2.CommitUploadResponse(object=row.object))
        else:
            self._draft.reply(ticket, objects_pb2.EnqueueResponse(entry=self._outbox.entry(row.outbox_id)))

    def _on_stray(self, node_id: str, holding: Holding, now: Now) -> None:
        """What was deleted here is deleted there: it has come back from a backup; and what lies with others by now is
        dropped. Of an object that is not known here nothing follows."""
        object_id, row = holding.object_id, self._outbox.find(holding.object_id)
        if row is not None and moved_by(row, node_id, self._comparing.is_sure) is not None:
            self._outbox.ask(object_id, node_id)  # it has it, whoever brought it there
            self._notices.add(node_id, object_id, now)
        elif row is None and self._deletion.mark(object_id) is not None:
            self._notices.add(node_id, object_id, now)

    def _notice_of(self, node_id: str, object_ids: Sequence[str]) -> objects_pb2.DeliverNoticesRequest:
        """How things stand with these objects for that node."""
        notices = objects_pb2.DeliverNoticesRequest()
        for object_id in object_ids:
            row = self._outbox.find(object_id)
            if row is not None and node_id in row.asked:
                epoch = moved_by(row, node_id, self._comparing.is_sure)
                notices.moved.extend([epoch] if epoch is not None else [])
            shared = told_to(row, node_id) if row is not None else None
            if row is None and self._deletion.mark(object_id) is not None:
                notices.deleted.append(object_id)
            elif row is None:
                continue  # it is not known here: nobody deletes anything for that
            elif shared is not None:
                notices.shared.append(shared)
            else:
                notices.unshared.append(object_id)
        return notices

    def _on_expired(self, object_id: str, now: Now) -> None:
        self._deletion.on_delete(object_id, self._notices.add, now)

    def _take_notices(self, notices: TakeNotices, now: Now) -> None:
        for object_id in notices.deleted:
            self._dropping.on_deleted(notices.owner, object_id, now)
        for epoch in notices.moved:
            self._dropping.on_moved(epoch)
        for object_id, shared in notices.shared:
            self._shared.on_shared(notices.owner, shared, object_id, now)
        for object_id in (*notices.unshared, *notices.deleted):
            self._shared.on_unshared(notices.owner, object_id)

    def _check_room(self, command: AddObject) -> None:
        """What jobs leave has a bound of its own: it never takes the room of what is put."""
        waiting, what = self._delivery.depth - self._outbox.jobs_open, "objects put here"
        if command.for_job:
            waiting, what = self._outbox.jobs_open, "inputs and results of jobs"
        if waiting >= self._settings.outbox_max:
            text = (
                f"{waiting} {what} still wait for their acks, and this node holds no more at once; "
                "`offgrid outbox --open` says for what they wait, `offgrid outbox cancel` gives one up"
            )
            raise Exhausted(text, reason="OutboxFull", retry_ms=FULL_RETRY_MS)

    def _on_added(self, event: ObjectAdded, now: Now) -> None:
        """What a job left behind is taken in any case: the jobs domain has bounds of its own. What was deleted stays
        so."""
        if self._deletion.mark(event.body.object_id) is not None:
            self._draft.send(DropBlob(event.body.object_id))
        elif self._outbox.find(event.body.object_id) is None:
            command = AddObject(event.manifest, event.body, event.name, event.required_milli, "", b"", for_job=True)
            self._delivery.on_added(self._outbox.add(command, now))

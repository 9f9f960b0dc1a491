"""The objects domain's machine: an owner's objects and their way to hosts, and the replicas that this node keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.protocol.events import (
    AckRefused,
    DropSegment,
    ObjectAdded,
    PeerDown,
    PeerUp,
    QuorumAcked,
    QuorumOpened,
)
from offgrid_node.protocol.objects.adding import Adding
from offgrid_node.protocol.objects.audits import Audits
from offgrid_node.protocol.objects.commands import (
    AddObject,
    Audited,
    AuditSoon,
    CancelEntry,
    ChangeReported,
    Compared,
    DeleteObject,
    DropKept,
    Findings,
    HostDrains,
    HostsChosen,
    KeepReplica,
    NotRegained,
    Reencrypt,
    ReplicasLost,
    Resealed,
    Rewrapped,
    ShareObject,
    StopReencryption,
    TakeBack,
    TakeFindings,
    TakeNotices,
    Unreadable,
    UnshareObject,
)
from offgrid_node.protocol.objects.comparing import Comparing
from offgrid_node.protocol.objects.deletion import Deletion
from offgrid_node.protocol.objects.delivery import Delivery
from offgrid_node.protocol.objects.dropping import Dropping
from offgrid_node.protocol.objects.errands import Fetched, Regain, Shipped
from offgrid_node.protocol.objects.expiry import HOST_LATE_US, Expiry, TrustedClock
from offgrid_node.protocol.objects.gone import Gone
from offgrid_node.protocol.objects.heeding import Heeding
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Inventory
from offgrid_node.protocol.objects.lives import BeginLife, note_life
from offgrid_node.protocol.objects.measuring import AskTag, Measuring
from offgrid_node.protocol.objects.notices import Notices, NoticeTag
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.regaining import Regaining
from offgrid_node.protocol.objects.replicas import Replicas, ReportTag
from offgrid_node.protocol.objects.resealing import Resealing
from offgrid_node.protocol.objects.rewrapping import Rewrapping
from offgrid_node.protocol.objects.risks import Risk, Risks, Told
from offgrid_node.protocol.objects.settings import ObjectsSettings
from offgrid_node.protocol.objects.sharing import Sharing
from offgrid_node.protocol.objects.standing import Standing
from offgrid_node.protocol.objects.tables import EXPIRING, GIVEN, META, REPLICAS_EXPIRING, object_of
from offgrid_node.protocol.quorum.tables import LIFE
from offgrid_node.protocol.rng import Rng


def _nothing(event: object, now: Now) -> None:
    """What it tells is of no use here."""


class ObjectsMachine:
    """Owner and host of one node."""

    def __init__(self, settings: ObjectsSettings) -> None:
        self._settings, self._draft = settings, Draft()
        self._hosts = Hosts(
            settings.node_id, settings.repair_after_ms, only_chosen=settings.only_chosen, paces=settings.paces
        )
        self._outbox = Outbox(settings, self._draft)
        self._standing = Standing(
            self._outbox,
            self._hosts,
            self._tell,
            self._is_deleted,
            self._is_unproved,
            self._is_sure,
            self._on_unasked,
            self._regain,
        )
        self._delivery = Delivery(self._hosts, self._outbox, self._draft, settings.placement, self._standing.on_spread)
        self._deletion = Deletion(self._outbox, self._delivery, self._draft)
        self._notices = Notices(settings.node_id, self._draft, self._standing.notice_of, self._deletion.on_told)
        self._rewrapping = Rewrapping(settings.node_id, self._outbox, self._draft, self._notices.add_wrap)
        self._sharing = Sharing(self._outbox, self._draft, self._tell, self._rewrapping.on_wrapped)
        self._resealing = Resealing(
            settings.node_id, self._outbox, self._draft, self._replace, self._tell, self._rewrapping.on_wrapped
        )
        dropping = Dropping(settings.node_id, self._draft)
        self._replicas, self._heeding = Replicas(settings, self._draft, dropping), Heeding(self._draft, dropping)
        given, on_lost = Inventory(self._draft, GIVEN), self._delivery.on_lost
        self._comparing = Comparing(
            self._draft,
            given,
            on_lost,
            self._standing.on_stray,
            self._hosts.is_drained,
            self._is_restored,
            settings.paces,
        )
        self._audits = Audits(self._draft, self._outbox, self._hosts, on_lost, settings.audit_days)
        self._measuring = Measuring(self._hosts, self._draft, self._comparing.on_reported)
        self._risks = Risks(self._draft, self._hosts)
        clock = self._clock = TrustedClock(self._draft)
        self._gone = Gone(self._draft, clock, dropping.on_gone)
        self._expiries = (
            Expiry(self._draft, clock, EXPIRING, 0, self._on_expired),
            Expiry(self._draft, clock, REPLICAS_EXPIRING, HOST_LATE_US, dropping.on_expired),
        )
        self._adding = Adding(
            settings.outbox_max,
            self._draft,
            self._outbox,
            self._delivery,
            self._deletion,
            self._rewrapping,
            self._resealing,
            self._expiries[0].arm,
        )
        self._regaining = Regaining(
            self._draft, self._outbox, self._deletion, self._adding, self._resealing, self._forget, self._replace
        )
        self._timed = (
            self._notices,
            self._measuring,
            self._rewrapping,
            self._resealing,
            self._standing.leaving,
            self._risks,
            *self._expiries,
        )
        self._stepped_ms = 0
        self._on = self._by_input()

    def _by_input(self) -> dict[type, Callable[[Any, Now], None]]:
        """Who takes an input, by its type, and an answer by its tag's. Commands and PeerUp go roads of their own."""
        return {
            ObjectAdded: self._on_added,
            DropSegment: self._on_drop_segment,
            NotRegained: self._regaining.on_missing,
            Unreadable: lambda event, now: self._regaining.on_unreadable(event.object_id, now),
            Shipped: self._on_shipped,
            Fetched: self._delivery.on_fetched,
            QuorumOpened: self._on_opened,
            QuorumAcked: self._on_acked,
            AckRefused: self._on_refused,
            Compared: self._comparing.on_compared,
            Audited: self._on_audited,
            AuditSoon: lambda event, now: self._audits.on_soon(event.object_id, now),
            Rewrapped: self._rewrapping.on_rewrapped,
            Resealed: self._resealing.on_resealed,
            ChangeReported: self._on_reported,
            HostDrains: lambda event, now: self._replicas.on_drains(),
            ReplicasLost: lambda event, now: self._replicas.on_lost(event),
            HostsChosen: self._on_chosen,
            PeerDown: self._on_down,
            AskTag: self._on_measured,
            NoticeTag: lambda answer, now: self._notices.on_answered(answer.tag, answer, now),
            ReportTag: _nothing,  # an owner that was not reached compares in time
            Woke: _nothing,  # what is due is looked at when the step closes
        }

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._adding.load(rows)
        self._delivery.load(rows, now)
        self._notices.load(rows, now)
        self._rewrapping.load(rows)
        self._resealing.load(rows, now)
        self._regaining.load(rows)
        self._clock.load(rows)
        self._audits.load(rows, now)
        for expiry in self._expiries:
            expiry.load(rows, now)
        self._risks.load(now)
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

    def risks(self, now: Now) -> Told | None:
        """How many objects are gone or nearly so; None: that is not known yet."""
        return self._risks.told(now)

    def risk(self, row: objects_pb2.ObjectRow, now: Now) -> Risk:
        """Of one of this node's own objects."""
        return self._risks.of(row, now)

    @property
    def outbox_depth(self) -> int:
        """Entries that are not completed."""
        return self._delivery.depth

    @property
    def damaged(self) -> int:
        """How many of them wait in vain: their bytes are damaged here, and hosts have too few."""
        return self._delivery.damaged

    @property
    def left_to_reseal(self) -> int:
        """How many objects are still to be sealed anew."""
        return self._resealing.left

    @property
    def missing(self) -> int:
        """How many objects this node had forgotten, and cannot take back yet."""
        return self._regaining.missing

    def back_since(self, utc_us: int) -> int:
        """How many of those were taken back from then on."""
        return self._regaining.back_since(utc_us)

    def outbox_age_ms(self, now: Now) -> int:
        """How long the oldest of them has waited; 0 when there is none."""
        oldest_us = self._delivery.oldest_us()
        return max(0, now.utc_us - oldest_us) // 1_000 if oldest_us is not None else 0

    def deadline_ms(self) -> int | None:
        stepped_ms, parts = self._stepped_ms, self._timed
        due = (
            self._delivery.deadline_ms(stepped_ms),
            self._comparing.deadline_ms(stepped_ms),
            self._audits.deadline_ms(stepped_ms),
            *(part.deadline_ms() for part in parts),
        )
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    # ---- inputs

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        self._risks.open_step(now)
        self._stepped_ms = now.mono_ms
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    self._try(ticket, command, now)
                case PeerUp():
                    self._on_up(event, now, rng)
                case _:
                    self._take(event, now)
        self._close_step(now, rng)
        return self._draft.take()

    def _take(self, event: object, now: Now) -> None:
        kind = type(event.tag if isinstance(event, Answered) else event)
        if (on := self._on.get(kind)) is None:
            raise Internal(f"the objects machine does not know {kind.__name__}")
        on(event, now)

    def _close_step(self, now: Now, rng: Rng) -> None:
        self._comparing.close_step(now)
        self._delivery.close_step(now)
        self._audits.close_step(now)
        self._standing.leaving.close_step(now)
        for expiry in self._expiries:
            expiry.close_step(now)
        self._rewrapping.close_step(now)
        self._resealing.close_step(now)
        self._notices.close_step(now)
        self._measuring.close_step(now, rng)
        self._risks.close_step()

    def _on_up(self, event: PeerUp, now: Now, rng: Rng) -> None:
        self._gone.on_member(event.node_id)
        self._risks.on_hosts_changed()
        self._notices.on_up(event.node_id, now)
        self._rewrapping.on_label(event.node_id, event.wrap_label, now)
        if self._hosts.on_up(event, now):
            self._measuring.on_up(event.node_id, now, rng)
            self._delivery.on_hosts_changed(now, came=True)
            self._comparing.on_up(event.node_id, now)
        else:
            self._measuring.on_down(event.node_id)
            self._comparing.on_down(event.node_id)

    def _on_added(self, event: ObjectAdded, now: Now) -> None:
        self._adding.on_added(event, now)
        self._regaining.on_added(event.body.object_id)

    def _on_drop_segment(self, event: DropSegment, now: Now) -> None:
        if event.node:
            self._deletion.on_segment_shown(event.object_id, event.node, self._tell, now)
            return
        hosts = [host.node_id for host in self._hosts.all()]
        self._deletion.on_segment(event.object_id, hosts, self._tell, now)

    def _forget(self, object_id: str, outcome: str, now: Now) -> None:
        hosts = [host.node_id for host in self._hosts.all()]
        self._deletion.on_forgotten(object_id, outcome, hosts, self._tell, now)

    def _on_shipped(self, event: Shipped, now: Now) -> None:
        self._measuring.on_shipped(event, now)
        self._delivery.on_shipped(event, now)

    def _on_measured(self, answer: Answered, now: Now) -> None:
        assert isinstance(answer.tag, AskTag)
        was_drained = self._hosts.is_drained(answer.node)
        if self._measuring.on_answered(answer.tag, answer, now):
            self._delivery.on_room()
        if self._hosts.is_drained(answer.node) and not was_drained:
            self._comparing.on_reported(answer.node, now)  # what it keeps unasked has to go as well

    def _on_opened(self, event: QuorumOpened, now: Now) -> None:
        object_id = object_of(event.quorum_id)
        self._delivery.on_opened(object_id, event, now)
        self._sharing.on_moved(object_id, now)
        self._resealing.on_changed(object_id, now)

    def _on_acked(self, event: QuorumAcked, now: Now) -> None:
        object_id = object_of(event.quorum_id)
        self._delivery.on_acked(object_id, event, now)
        self._resealing.on_changed(object_id, now)

    def _on_refused(self, event: AckRefused, now: Now) -> None:
        self._delivery.on_refused(object_of(event.quorum_id), event.node_id, event.why, now)

    def _on_reported(self, event: ChangeReported, now: Now) -> None:
        self._comparing.on_reported(event.node, now)
        self._measuring.on_reported(event.node, now)

    def _on_chosen(self, event: HostsChosen, now: Now) -> None:
        if self._hosts.choose(event.node_ids):
            self._delivery.on_room()

    def _on_down(self, event: PeerDown, now: Now) -> None:
        node_id = event.node_id
        self._risks.on_hosts_changed()
        self._notices.on_down(node_id)
        self._comparing.on_down(node_id)
        if event.removed:
            self._gone.on_removed(node_id, now)
        else:
            self._gone.on_member(node_id)
        if self._hosts.on_down(node_id, now, removed=event.removed):
            self._measuring.on_down(node_id)
            self._delivery.on_hosts_changed(now, came=False)

    def _try(self, ticket: int, command: object, now: Now) -> None:
        try:
            self._ask(ticket, command, now)
        except Internal:
            raise
        except Fault as fault:
            self._draft.reply(ticket, fault)

    def _ask(self, ticket: int, command: object, now: Now) -> None:
        match command:
            case AddObject():
                self._adding.on_add(ticket, command, now)
            case TakeBack():
                self._regaining.on_take_back(command, now)
                self._draft.reply(ticket, objects_pb2.CommitUploadResponse())
            case CancelEntry(number):
                entry = self._delivery.cancel(number, now)
                self._draft.reply(ticket, objects_pb2.CancelOutboxEntryResponse(entry=entry))
            case DeleteObject(object_id):
                mark = self._delete(self._deletion.place_of(object_id), now)
                self._draft.reply(ticket, objects_pb2.DeleteObjectResponse(deletion=mark))
            case ShareObject(object_id, node_id, sealed_key):
                made = self._sharing.on_share(object_id, node_id, sealed_key, now)
                self._draft.reply(ticket, objects_pb2.ShareObjectResponse(object=made))
            case UnshareObject(object_id, node_id):
                made = self._sharing.on_unshare(self._deletion.place_of(object_id), node_id, now)
                self._draft.reply(ticket, objects_pb2.UnshareObjectResponse(object=made))
            case Reencrypt():
                told = self._resealing.on_begin(command, now)
                self._draft.reply(ticket, objects_pb2.ReencryptObjectsResponse(reencryption=told))
            case StopReencryption():
                told = self._resealing.on_stop(now)
                self._draft.reply(ticket, objects_pb2.StopReencryptionResponse(reencryption=told))
            case TakeFindings(findings):
                self._audits.on_findings(findings, now)
                self._on_findings(findings, now)
                audited = self._outbox.find(findings.object_id) or objects_pb2.ObjectRow()
                self._draft.reply(ticket, objects_pb2.AuditObjectResponse(object=audited.object))
            case TakeNotices():
                self._heeding.on_notices(command, now)
                self._draft.reply(ticket, objects_pb2.DeliverNoticesResponse())
            case KeepReplica():
                self._replicas.on_keep(ticket, command, now)
                if command.body.expires_us:
                    self._expiries[1].arm(now)
            case DropKept(owner):
                self._draft.reply(ticket, self._gone.on_drop(owner, now))
            case BeginLife():
                note_life(self._draft, command)
                self._draft.reply(ticket, objects_pb2.BeginLifeResponse())
            case _:
                raise Internal(f"the objects machine does not know {type(command).__name__}")

    def _on_audited(self, event: Audited, now: Now) -> None:
        self._audits.on_audited(event, now)
        for findings in event.findings:
            self._on_findings(findings, now)

    def _on_findings(self, findings: Findings, now: Now) -> None:
        """What follows from an audit that the audits have taken in, whoever asked for it."""
        if findings.own_bad:
            self._delivery.on_source_bad(findings.object_id, now)
        if self._outbox.find(findings.object_id) is not None:
            self._standing.on_spread(findings.object_id, now)

    def _tell(self, node_id: str, object_id: str, now: Now) -> None:
        """The node has to hear how things stand with the object."""
        self._notices.add(node_id, object_id, now)

    def _is_deleted(self, object_id: str) -> bool:
        return self._deletion.mark(object_id) is not None

    def _is_unproved(self, object_id: str) -> bool:
        return self._audits.wants(object_id)

    def _on_unasked(self, node_id: str, object_id: str) -> None:
        self._delivery.on_unasked(node_id, object_id)

    def _is_sure(self, node_id: str) -> bool:
        return self._comparing.is_sure(node_id)

    def _regain(self, object_id: str, node_id: str) -> bool:
        """Who was restored takes it back; anybody else's store is an old one, if it is its own."""
        self._draft.send(Regain(object_id, node_id))
        return True

    def _is_restored(self) -> bool:
        return self._draft.get(META, LIFE) is not None

    def _on_expired(self, object_id: str, expires_us: int, now: Now) -> None:
        self._delete(object_id, now)

    def _delete(self, object_id: str, now: Now) -> objects_pb2.Deletion:
        if self._regaining.is_missing(object_id):
            return self._regaining.give_up(object_id, now)
        mark = self._deletion.on_delete(object_id, self._tell, now)
        self._regaining.on_gone(object_id, "")
        self._resealing.on_changed(object_id, now)
        return mark

    def _replace(self, object_id: str, moved_to: str, now: Now) -> None:
        self._deletion.on_delete(object_id, self._tell, now, moved_to=moved_to)
        self._regaining.on_gone(object_id, moved_to)
        self._resealing.on_changed(object_id, now)

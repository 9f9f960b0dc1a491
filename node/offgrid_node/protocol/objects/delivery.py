"""The outbox's worker: it brings every open object to hosts until its quorum has acked, and then to as many as wanted.

A parcel is looked at when something changed for it: it is new, a Ship of it has ended, a host came, went or is lost, a
delay is over. A look (`looks.py`) decides anew, from what is so now. What is open is in memory; what is durable and
still short of its copies or shards stays on disk, and is walked over when a host comes up (`walks.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob, Rows
from offgrid_node.protocol.events import AckArrived, OpenQuorum, QuorumAcked, QuorumOpened
from offgrid_node.protocol.objects.commands import AuditSoon
from offgrid_node.protocol.objects.entries import DELIVERING, PENDING
from offgrid_node.protocol.objects.errands import Fetched, Shipped
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.lacking import lack_of
from offgrid_node.protocol.objects.looks import Look, Looks, NextEpoch
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.own_copy import OwnCopy
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.sending import Sending
from offgrid_node.protocol.objects.slots import Slots
from offgrid_node.protocol.objects.tables import quorum_id_of
from offgrid_node.protocol.objects.urgency import NOT_DURABLE_MILLI, Urgent, spare_milli
from offgrid_node.protocol.objects.walks import Walks
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import asked_anew
from offgrid_node.protocol.timers import Timers

LOOKS_MAX = 256  # parcels looked at in one step; the others in the next
SPREADING_MAX = 1_000  # durable parcels in memory


class Delivery:
    """Parcels, and what is under way."""

    def __init__(
        self, hosts: Hosts, outbox: Outbox, draft: Draft, policy: Policy, on_spread: Callable[[str, Now], None]
    ) -> None:
        """`on_spread` hears of an object of which all that is wanted was acked."""
        self._on_spread = on_spread
        self._hosts, self._outbox, self._draft = hosts, outbox, draft
        self._looks, self._walks = Looks(hosts, policy), Walks(self._mark_short, draft)
        self._open: dict[int, str] = {}  # everything that is not completed, in the order of numbers
        self._unread: set[str] = set()  # what of it nobody has looked at since the start
        self._parcels: dict[str, Parcel] = {}
        self._spreading: dict[str, None] = {}  # the durable ones among them
        self._ready = Urgent(self._urgency)
        self._roomless: dict[str, None] = {}  # parcels for which living hosts have no room
        self._claims: set[tuple[str, str]] = set()  # acks that the quorum domain answers in this very batch
        self._timers: Timers[str] = Timers()
        self._slots = Slots(self._urgency)
        self._is_alive = hosts.is_alive
        self._own = OwnCopy(hosts, outbox, draft, self._slots, self._timers)
        self._sending = Sending(hosts, outbox, draft, self._slots, self._ready)
        self._again = False  # a step has left something to be looked at

    def load(self, rows: Rows, now: Now) -> None:
        self._hosts.load(self._outbox.holders(rows), now)
        self._open.update(self._outbox.load(rows))
        self._unread.update(self._open.values())
        self._ready.update(self._open.values())
        self._again = bool(self._ready)

    # ---- questions

    @property
    def depth(self) -> int:
        """Entries that are not completed."""
        return len(self._open)

    @property
    def damaged(self) -> int:
        """Entries that are not completed and, as things are, never will be: their bytes are damaged here."""
        return self._own.damaged

    def parcel(self, object_id: str) -> Parcel:
        """As the next look at it finds it; nobody changes it. Raises Corrupt."""
        return self._parcels.get(object_id) or self._outbox.parcel(object_id)

    def oldest_us(self) -> int | None:
        """When the oldest entry that is not completed was made."""
        return self._outbox.entries.get(next(iter(self._open))).created_us if self._open else None

    def deadline_ms(self, now_ms: int) -> int | None:
        """`now_ms` is the last step's instant."""
        due = (
            self._walks.deadline_ms(),
            self._hosts.deadline_ms(),
            self._timers.next_ms(),
            now_ms if self._again else None,
        )
        return min((due_ms for due_ms in due if due_ms is not None), default=None)

    # ---- inputs

    def on_added(self, parcel: Parcel) -> None:
        """Its quorum is asked for, with the hosts of now."""
        self._open[parcel.number] = parcel.object_id
        self._parcels[parcel.object_id] = parcel
        self._open_quorum(parcel, self._looks.first(parcel))

    def on_opened(self, object_id: str, event: QuorumOpened, now: Now) -> None:
        parcel = self._find(object_id)
        if parcel is not None and not parcel.given_up:
            parcel.asking = False
            self._settle(parcel, self._outbox.opened(parcel, event, now))

    def on_acked(self, object_id: str, event: QuorumAcked, now: Now) -> None:
        self._claims.discard((object_id, event.node_id))
        self._hosts.on_took(event.node_id)
        parcel = self._find(object_id)
        durable_now = self._outbox.acked(object_id, event, now)
        if parcel is not None:
            parcel.held[event.node_id] = event.shards
            parcel.failed.pop(event.node_id, None)
            self._settle(parcel, durable_now)

    def _settle(self, parcel: Parcel, durable_now: bool) -> None:
        if durable_now:
            parcel.durable = True
            self._own.on_end(parcel.object_id)
            del self._open[parcel.number]
            self._spreading[parcel.object_id] = None
        self._ready.add(parcel.object_id)

    def on_shipped(self, event: Shipped, now: Now) -> None:
        """The ack that it brought goes to the quorum, which knows whether it still counts."""
        object_id, node_id = event.object_id, event.node
        parcel = self._find(object_id)
        if parcel is not None and parcel.flights.pop(node_id, None) is not None:
            self._slots.give_back(node_id)
        if event.source_bad:
            self.on_source_bad(object_id, now)
        if parcel is not None and parcel.given_up and self._outbox.find(object_id) is None:
            self._ready.add(object_id)  # deleted meanwhile
        elif event.ack is None:
            if parcel is not None and parcel.distrust(node_id, event.unfit, event.spoilt, now.mono_ms):
                self._ready.add(object_id)  # others are asked for their parts at once
            else:
                self._fails(object_id, node_id, event.fault.message if event.fault else "", now)
        elif event.rebuilt and (here := self._found(object_id)) is not None and here.local:
            self._remember(here)  # the Ship that follows brings nothing that is there, and checks the ack
        else:
            self._claims.add((object_id, node_id))
            self._draft.tell("quorum", AckArrived(quorum_id_of(object_id), node_id, event.ack))
            if event.rebuilt and self._outbox.find(object_id) is not None:
                self._draft.tell("objects", AuditSoon(object_id))
        if parcel is not None:
            parcel.rebuilding.pop(node_id, None)
        if event.lost:
            self.on_lost(node_id, Holding(object_id, event.lost), now)

    def on_source_bad(self, object_id: str, now: Now) -> None:
        """This node's own copy proved not to be the object: it is made anew from what hosts keep. The row goes on to
        say that it is here: such bytes are better than none."""
        parcel = self._found(object_id)
        if parcel is None or not parcel.local:
            return
        self._remember(parcel)
        parcel.local = False
        if parcel.durable:
            self._own.is_here(parcel, now)

    def _found(self, object_id: str) -> Parcel | None:
        """Whether it is in memory or not; None for one that was given up, or is not known here."""
        parcel = self._find(object_id)
        if parcel is None and self._outbox.find_sound(object_id) is not None:
            parcel = self._outbox.parcel(object_id)
        if parcel is None or parcel.given_up or not (parcel.durable or parcel.number in self._open):
            return None
        return parcel

    def _remember(self, parcel: Parcel) -> None:
        """Until the next look at it has found that nothing is under way."""
        self._parcels[parcel.object_id] = parcel
        self._ready.add(parcel.object_id)
        if parcel.durable:
            self._spreading[parcel.object_id] = None

    def on_refused(self, object_id: str, node_id: str, why: str, now: Now) -> None:
        self._claims.discard((object_id, node_id))
        self._fails(object_id, node_id, why, now)

    def _fails(self, object_id: str, node_id: str, why: str, now: Now) -> None:
        parcel = self._find(object_id)
        if parcel is None:
            return
        self._ready.add(object_id)
        if not parcel.lacks(node_id):
            return
        parcel.fails(node_id, now.mono_ms, self._hosts)
        self._hosts.on_failed(node_id, object_id, why)
        if not parcel.durable and not parcel.given_up:
            status = DELIVERING if parcel.flights else PENDING
            self._outbox.entries.note(parcel.number, status, 0, f"{node_id}: {why}")

    def on_fetched(self, event: Fetched, now: Now) -> None:
        """Bytes that nobody waits for any more are dropped."""
        parcel = self._find(event.object_id)
        if parcel is None or parcel.given_up or not parcel.fetching:
            self._draft.send(DropBlob(event.object_id))
        if parcel is None or not parcel.fetching:
            return
        self._ready.add(event.object_id)
        self._own.on_fetched(parcel, event.fault, now)

    def on_lost(self, node_id: str, holding: Holding, now: Now) -> None:
        """A host keeps no more what it has acked: the next epoch, of the same members, asks it for that anew. What is
        being brought to it now is what it will keep. What was given up is not brought again."""
        object_id = holding.object_id
        parcel = self._found(object_id)
        if parcel is None or node_id in parcel.flights or node_id not in parcel.held:
            return
        self._remember(parcel)
        if parcel.durable:
            self._mark_short(object_id)
        epoch, parcel.asking = Epoch.decode(self._outbox.get(object_id).epoch.body), True
        self._draft.tell("quorum", asked_anew(epoch, frozenset((node_id, shard) for shard in holding.shards)))

    def on_unasked(self, node_id: str, object_id: str) -> None:
        """A host that is drained keeps what it has not acked: the next epoch does not name it."""
        if (parcel := self._found(object_id)) is not None:
            parcel.unasked.add(node_id)
            self._remember(parcel)

    def cancel(self, number: int, now: Now) -> objects_pb2.OutboxEntry:
        """Gives an open entry up; what is under way for it is waited for, and nothing else begins. Raises NotFound
        (EntryNotFound), FailedPrecondition (EntryCompleted)."""
        entry = self._outbox.cancel(number, now)
        self.give_up(number, entry.object_id)
        return entry

    def give_up(self, number: int, object_id: str) -> None:
        """No way of the object's begins any more; what is under way is waited for."""
        parcel = self._find(object_id)
        self._open.pop(number, None)
        self._own.on_end(object_id)
        if parcel is not None:
            parcel.given_up = True
            self._ready.add(object_id)

    def on_hosts_changed(self, now: Now, *, came: bool) -> None:
        """Every parcel may have another way now."""
        self._ready.update(self._open.values())
        self._ready.update(self._spreading)
        if came:
            self._walks.begin(now.mono_ms)

    def on_room(self) -> None:
        """Some host takes more than it did."""
        self._ready.update(self._roomless)
        self._roomless.clear()

    def close_step(self, now: Now) -> None:
        if leaving := [*self._hosts.take_lost(now), *self._hosts.take_drained()]:
            self.on_hosts_changed(now, came=False)
            self._walks.on_lost(leaving, now.mono_ms)
        for object_id in self._timers.take_due(now.mono_ms):
            self._ready.add(object_id)
        for object_id in self._walks.take(now.mono_ms, room=len(self._spreading) < SPREADING_MAX):
            if object_id not in self._parcels:
                if self._outbox.find_sound(object_id) is None:
                    continue
                self._parcels[object_id] = self._outbox.parcel(object_id)
                self._spreading[object_id] = None
            self._ready.add(object_id)
        for _ in range(LOOKS_MAX):
            following = self._slots.next(self._ready)
            if following is None:
                break
            if (parcel := self._find(following)) is not None:
                self._look(parcel, now)
        self._again = self._slots.has_next(self._ready)

    # ---- what to look at

    def _find(self, object_id: str) -> Parcel | None:
        """None for one that has its copies, or waits on disk."""
        if object_id in self._unread:
            self._unread.discard(object_id)
            if self._outbox.find_sound(object_id) is not None:
                self._parcels[object_id] = self._outbox.parcel(object_id)
        return self._parcels.get(object_id)

    def _urgency(self, object_id: str) -> int:
        parcel = self._parcels.get(object_id)  # of one that nobody has looked at since the start, no more is known
        return spare_milli(parcel, self._is_alive) if parcel is not None else NOT_DURABLE_MILLI

    def _mark_short(self, object_id: str) -> None:
        self._outbox.mark_short(object_id, self._is_alive)

    # ---- a look

    def _look(self, parcel: Parcel, now: Now) -> None:
        if parcel.given_up:
            if not parcel.flights and not parcel.fetching:
                self._forget(parcel)
            return
        if parcel.asking:
            return  # the quorum domain answers in this very batch
        if not parcel.durable and not parcel.local:
            self._own.mend(parcel, now)
            return
        claimed = self._claimed(parcel)
        look = self._looks.look(parcel, claimed, now.mono_ms)
        if look.roomless:
            self._roomless[parcel.object_id] = None
        else:
            self._roomless.pop(parcel.object_id, None)
        fetched_first = look.epoch is not None and not self._sending.may_lay(parcel, look.epoch, now)
        if look.epoch is not None and not fetched_first and self._move(parcel, look.epoch, now):
            return
        busy, shipped = bool(claimed or look.ship), 0
        if parcel.local:
            shipped = sum(self._sending.ship(parcel, node) for node in look.ship)
        elif sum(self._sending.rebuild(parcel, node, now) for node in look.ship) < len(look.ship) or fetched_first:
            busy = self._own.is_here(parcel, now) or bool(claimed)
        if parcel.durable:
            self._look_further(parcel, look, busy, now)
        elif not look.hopeful:
            self._wait(parcel, shipped > 0, now)

    def _claimed(self, parcel: Parcel) -> set[str]:
        """Its members whose acks are being counted in this very batch."""
        return {node for node in parcel.weights if (parcel.object_id, node) in self._claims} if self._claims else set()

    def _move(self, parcel: Parcel, wanted: NextEpoch, now: Now) -> bool:
        """Whether the next epoch was asked for."""
        if parcel.may_move(now.mono_ms):
            parcel.moves_to(wanted.layout)
            self._open_quorum(parcel, wanted)
            return True
        self._timers.set(parcel.object_id, parcel.move_ms)
        return False

    def _wait(self, parcel: Parcel, shipped: bool, now: Now) -> None:
        """Hosts that failed are tried again in time; beyond that only a host that comes can help. One may come however
        much is required, so it is never too much; but it is said."""
        if not self._tries_again(parcel, now) and not shipped and not parcel.flights:
            roomless = parcel.object_id in self._roomless
            self._outbox.entries.note(parcel.number, PENDING, 0, lack_of(parcel, self._hosts.all(), roomless=roomless))

    def _tries_again(self, parcel: Parcel, now: Now) -> bool:
        """Whether some host that failed is to be tried again, and when is noted."""
        waits = (parcel.waits(node, now.mono_ms, self._hosts) for node in parcel.failed)
        due_ms = min((due for due in waits if due is not None), default=None)
        if due_ms is not None:
            self._timers.set(parcel.object_id, min(due_ms, self._timers.due_ms(parcel.object_id) or due_ms))
        return due_ms is not None

    def _waits_shortly(self, parcel: Parcel, now: Now) -> bool:
        """For another try, or for when it may move again: not for a host that is to come."""
        return self._tries_again(parcel, now) or self._timers.due_ms(parcel.object_id) is not None

    def _look_further(self, parcel: Parcel, look: Look, busy: bool, now: Now) -> None:
        """A durable parcel with nothing under way leaves memory: it has its copies, or waits for a host. One that waits
        for a slot, or tries a host again in a moment, leaves it too when there are many."""
        room = len(self._spreading) <= SPREADING_MAX
        if parcel.flights or parcel.fetching or (busy and room):
            return
        if look.complete:
            self._outbox.spread(parcel)
            self._on_spread(parcel.object_id, now)
        elif room and self._waits_shortly(parcel, now):
            return
        elif busy or parcel.failed or look.epoch is not None or look.roomless:
            self._walks.begin_later(now.mono_ms)
        self._forget(parcel)

    def _forget(self, parcel: Parcel) -> None:
        """It leaves memory; what is so of it stands in its rows."""
        del self._parcels[parcel.object_id]
        self._spreading.pop(parcel.object_id, None)
        self._roomless.pop(parcel.object_id, None)
        self._timers.cancel(parcel.object_id)

    def _open_quorum(self, parcel: Parcel, wanted: NextEpoch) -> None:
        manifest = self._outbox.get(parcel.object_id).object.manifest
        body = Manifest.decode(manifest.signed.body)
        parcel.asking = True
        self._draft.tell(
            "quorum",
            OpenQuorum(
                quorum_id_of(parcel.object_id),
                body.subject,
                body.sealed_bytes,
                parcel.required_milli,
                wanted.members,
                parcel.shards_needed,
                wanted.layout,
                though_reached=parcel.durable,
                quiet=is_segment(manifest),
            ),
        )

"""The outbox's worker: it brings every open object to hosts until its quorum has acked, and then to as many as wanted.

A parcel is looked at when something changed for it: it is new, a Ship of it has ended, a host came, went or is lost, a
delay is over. A look (`looks.py`) decides anew, from what is so now. What is open is in memory; what is durable and
still short of its copies or shards stays on disk, and is walked over when a host comes up (`walks.py`).
"""

from __future__ import annotations

from collections import Counter

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob, Fetch, Fetched, Rows, Ship, Shipped
from offgrid_node.protocol.events import AckArrived, OpenQuorum, QuorumAcked, QuorumOpened
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.looks import Look, Looks, NextEpoch
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.outbox import DELIVERING, PENDING, Outbox
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.placement import members_of
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.protocol.objects.sharing import only_for
from offgrid_node.protocol.objects.tables import quorum_id_of
from offgrid_node.protocol.objects.walks import Walks
from offgrid_node.protocol.quorum.enough import decimal, weight_of
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.succession import asked_anew
from offgrid_node.protocol.timers import Timers

SHIPS_MAX, SHIPS_PER_HOST_MAX = 32, 8  # under way at once
FETCHES_MAX = 2  # under way at once
HERE = ""  # as a host that parcels wait for: this node itself, for a Fetch
LOOKS_MAX = 256  # parcels looked at in one step; the others in the next
SPREADING_MAX = 1_000  # durable parcels in memory
PLACEMENT_SAYS = "`offgrid placement explain` says of each why"


class Delivery:
    """Parcels, and what is under way."""

    def __init__(self, hosts: Hosts, outbox: Outbox, draft: Draft, policy: Policy = Policy.BALANCED) -> None:
        self._hosts, self._outbox, self._draft = hosts, outbox, draft
        self._looks, self._walks = Looks(hosts, policy), Walks(outbox, draft)
        self._open: dict[int, str] = {}  # everything that is not completed, in the order of numbers
        self._unread: set[str] = set()  # what of it nobody has looked at since the start
        self._parcels: dict[str, Parcel] = {}
        self._spreading: dict[str, None] = {}  # the durable ones among them
        self._ready: dict[str, None] = {}
        self._blocked: dict[str, dict[str, None]] = {}  # host → parcels that wait for one of its slots
        self._roomless: dict[str, None] = {}  # parcels for which living hosts have no room
        self._claims: set[tuple[str, str]] = set()  # acks that the quorum domain answers in this very batch
        self._timers: Timers[str] = Timers()
        self._at_host: Counter[str] = Counter()
        self._again = False  # a step has left something to be looked at

    def load(self, rows: Rows, now: Now) -> None:
        self._hosts.load(self._outbox.holders(rows), now)
        self._open.update(self._outbox.load(rows))
        self._unread.update(self._open.values())
        self._ready.update(dict.fromkeys(self._open.values()))
        self._again = bool(self._ready)

    # ---- questions

    @property
    def depth(self) -> int:
        """Entries that are not completed."""
        return len(self._open)

    def parcel(self, object_id: str) -> Parcel:
        """As the next look at it finds it; nobody changes it. Raises Corrupt."""
        return self._parcels.get(object_id) or self._outbox.parcel(object_id)

    def oldest_us(self) -> int | None:
        """When the oldest entry that is not completed was made."""
        return self._outbox.entry(next(iter(self._open))).created_us if self._open else None

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
            self._settle(parcel, self._outbox.opened(parcel, event, now))

    def on_acked(self, object_id: str, event: QuorumAcked, now: Now) -> None:
        self._claims.discard((object_id, event.node_id))
        parcel = self._find(object_id)
        durable_now = self._outbox.acked(object_id, event, now)
        if parcel is not None:
            parcel.held[event.node_id] = event.shards
            parcel.failed.pop(event.node_id, None)
            self._settle(parcel, durable_now)

    def _settle(self, parcel: Parcel, durable_now: bool) -> None:
        if durable_now:
            parcel.durable = True
            del self._open[parcel.number]
            self._spreading[parcel.object_id] = None
        self._ready[parcel.object_id] = None

    def on_shipped(self, event: Shipped, now: Now) -> None:
        """The ack that it brought goes to the quorum, which knows whether it still counts."""
        object_id, node_id = event.object_id, event.node
        parcel = self._find(object_id)
        if parcel is not None and parcel.flights.pop(node_id, None) is not None:
            self._at_host[node_id] -= 1
        if event.source_bad and parcel is not None and parcel.durable and not parcel.given_up:
            parcel.local = False  # its row says so only of bytes that are not needed: these are better than none
            self._has_bytes(parcel, now)
        if parcel is not None and parcel.given_up and self._outbox.find(object_id) is None:
            self._ready[object_id] = None  # deleted meanwhile
        elif event.ack is None:
            self._fails(object_id, node_id, event.fault.message if event.fault else "", now)
        else:
            self._claims.add((object_id, node_id))
            self._draft.tell("quorum", AckArrived(quorum_id_of(object_id), node_id, event.ack))

    def on_refused(self, object_id: str, node_id: str, why: str, now: Now) -> None:
        self._claims.discard((object_id, node_id))
        self._fails(object_id, node_id, why, now)

    def _fails(self, object_id: str, node_id: str, why: str, now: Now) -> None:
        parcel = self._find(object_id)
        if parcel is None:
            return
        self._ready[object_id] = None
        if not parcel.lacks(node_id):
            return
        parcel.fails(node_id, now.mono_ms, self._hosts)
        if not parcel.durable and not parcel.given_up:
            self._outbox.note(parcel.number, DELIVERING if parcel.flights else PENDING, 0, f"{node_id}: {why}")

    def on_fetched(self, event: Fetched, now: Now) -> None:
        """Bytes that nobody waits for any more are dropped."""
        parcel = self._find(event.object_id)
        if parcel is None or parcel.given_up or not parcel.fetching:
            self._draft.send(DropBlob(event.object_id))
        if parcel is None or not parcel.fetching:
            return
        parcel.fetching = False
        self._at_host[HERE] -= 1
        self._ready[event.object_id] = None
        if event.fault is not None:
            parcel.fails(HERE, now.mono_ms, self._hosts)
        elif not parcel.given_up:
            parcel.failed.pop(HERE, None)
            self._outbox.fetched(parcel)

    def on_lost(self, node_id: str, holding: Holding, now: Now) -> None:
        """A host keeps no more what it has acked: the next epoch, of the same members, asks it for that anew. What is
        being brought to it now is what it will keep. What was given up is not brought again."""
        object_id = holding.object_id
        parcel = self._find(object_id)
        if parcel is None and self._outbox.find(object_id) is not None:
            parcel = self._outbox.parcel(object_id)
        if parcel is None or parcel.given_up or node_id in parcel.flights or node_id not in parcel.held:
            return
        if not parcel.durable and parcel.number not in self._open:
            return
        self._parcels[object_id] = parcel
        if parcel.durable:
            self._spreading[object_id] = None
            self._outbox.mark_short(object_id)
        epoch = Epoch.decode(self._outbox.get(object_id).epoch.body)
        self._draft.tell("quorum", asked_anew(epoch, frozenset((node_id, shard) for shard in holding.shards)))

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
        if parcel is not None:
            parcel.given_up = True
            self._ready[object_id] = None

    def on_hosts_changed(self, now: Now, *, came: bool) -> None:
        """Every parcel may have another way now."""
        self._ready.update(dict.fromkeys(self._open.values()))
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
            self._ready[object_id] = None
        for object_id in self._walks.take(now.mono_ms, room=len(self._spreading) < SPREADING_MAX):
            if object_id not in self._parcels:
                self._parcels[object_id] = self._outbox.parcel(object_id)
                self._spreading[object_id] = None
            self._ready[object_id] = None
        for _ in range(LOOKS_MAX):
            following = self._next()
            if following is None:
                break
            if (parcel := self._find(following)) is not None:
                self._look(parcel, now)
        self._again = self._has_next()

    # ---- what to look at

    def _find(self, object_id: str) -> Parcel | None:
        """None for one that has its copies, or waits on disk."""
        if object_id in self._unread:
            self._unread.discard(object_id)
            self._parcels[object_id] = self._outbox.parcel(object_id)
        return self._parcels.get(object_id)

    def _next(self) -> str | None:
        if self._at_host.total() >= SHIPS_MAX:
            return None
        free = (waiting for node, waiting in self._blocked.items() if waiting and self._has_slot(node))
        waiting = self._ready or next(free, {})
        if not waiting:
            return None
        object_id = next(iter(waiting))
        del waiting[object_id]
        return object_id

    def _has_next(self) -> bool:
        free = any(waiting and self._has_slot(node) for node, waiting in self._blocked.items())
        return self._at_host.total() < SHIPS_MAX and (bool(self._ready) or free)

    def _has_slot(self, node_id: str) -> bool:
        return self._at_host[node_id] < (SHIPS_PER_HOST_MAX if node_id != HERE else FETCHES_MAX)

    # ---- a look

    def _look(self, parcel: Parcel, now: Now) -> None:
        if parcel.given_up:
            if not parcel.flights and not parcel.fetching:
                self._forget(parcel)
            return
        if not parcel.epoch:
            return  # the quorum domain answers in this very batch
        claimed = {node for node in parcel.weights if (parcel.object_id, node) in self._claims}
        look = self._looks.look(parcel, claimed, now.mono_ms)
        if look.roomless:
            self._roomless[parcel.object_id] = None
        else:
            self._roomless.pop(parcel.object_id, None)
        fetched_first = look.epoch is not None and parcel.coded and parcel.durable and not parcel.local
        if look.epoch is not None and not fetched_first and self._move(parcel, look.epoch, now):
            return
        busy, shipped = bool(claimed), 0
        if look.ship or fetched_first:  # the next epoch forgets who holds what it moves, and that may be all there is
            busy = self._has_bytes(parcel, now)
            shipped = sum(self._ship(parcel, node) for node in look.ship) if parcel.local else 0
        if parcel.durable:
            self._look_further(parcel, look, busy, now)
        elif not look.hopeful:
            self._wait(parcel, shipped > 0, now)

    def _move(self, parcel: Parcel, wanted: NextEpoch, now: Now) -> bool:
        """Whether the next epoch was asked for."""
        if parcel.may_move(now.mono_ms):
            self._open_quorum(parcel, wanted)
            return True
        self._timers.set(parcel.object_id, parcel.move_ms)
        return False

    def _has_bytes(self, parcel: Parcel, now: Now) -> bool:
        """Whether the sealed bytes are here, or are being fetched; False while that has to wait."""
        if parcel.local or parcel.fetching:
            return True
        if parcel.waits(HERE, now.mono_ms, self._hosts) is not None:
            return False
        if not self._has_slot(HERE):
            self._blocked.setdefault(HERE, {})[parcel.object_id] = None
            return True
        parcel.fetching = True
        self._at_host[HERE] += 1
        self._draft.send(Fetch(parcel.object_id, self._outbox.get(parcel.object_id).object.manifest))
        return True

    def _ship(self, parcel: Parcel, node_id: str) -> bool:
        """Whether it leaves now, not once the host has a slot."""
        if not self._has_slot(node_id):
            self._blocked.setdefault(node_id, {})[parcel.object_id] = None
            return False
        if self._at_host.total() >= SHIPS_MAX:
            self._ready[parcel.object_id] = None
            return False
        row = self._outbox.ask(parcel.object_id, node_id)
        parcel.flights[node_id] = parcel.epoch
        self._at_host[node_id] += 1
        self._draft.send(Ship(parcel.object_id, node_id, only_for(row.object.manifest, row.object.owner), row.epoch))
        if not parcel.durable:
            self._outbox.note(parcel.number, DELIVERING, 1, "")
        return True

    def _wait(self, parcel: Parcel, shipped: bool, now: Now) -> None:
        """Hosts that failed are tried again in time; beyond that only a host that comes can help. One may come however
        much is required, so it is never too much; but it is said."""
        waits = (parcel.waits(node, now.mono_ms, self._hosts) for node in parcel.failed)
        due_ms = min((due for due in waits if due is not None), default=None)
        if due_ms is not None:
            self._timers.set(parcel.object_id, min(due_ms, self._timers.due_ms(parcel.object_id) or due_ms))
        elif not shipped and not parcel.flights:
            self._outbox.note(parcel.number, PENDING, 0, self._lack(parcel))

    def _lack(self, parcel: Parcel) -> str:
        """Why nothing can be done for an open parcel now, for people."""
        required, hosts = decimal(parcel.required_milli), self._hosts.all()
        if not hosts:
            return f"required {required}, but no host is known besides this node, whose own copy does not count"
        known = sum(member.weight_milli for member in members_of(hosts))
        if known < parcel.required_milli:
            return f"required {required}, but the hosts known weigh {decimal(known)} altogether"
        if parcel.object_id in self._roomless:
            return f"hosts have no room for {parcel.size_bytes} bytes, keep nothing or are drained; " + PLACEMENT_SAYS
        if parcel.coded and parcel.terms.promised_milli < parcel.required_milli:
            promised = decimal(parcel.terms.promised_milli)
            return f"required {required}, but as its shards can lie on the hosts of now, {promised} lost would lose it"
        return f"no further host is alive: acked {decimal(weight_of(parcel.held, parcel.weights))} of {required}"

    def _look_further(self, parcel: Parcel, look: Look, busy: bool, now: Now) -> None:
        """A durable parcel with nothing under way leaves memory: it has its copies, or waits for a host. One that waits
        for a slot leaves it too when there are many."""
        room = len(self._spreading) <= SPREADING_MAX
        if parcel.flights or parcel.fetching or (busy and room):
            return
        if look.complete:
            self._outbox.spread(parcel)
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
        body = Manifest.decode(self._outbox.get(parcel.object_id).object.manifest.signed.body)
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
            ),
        )

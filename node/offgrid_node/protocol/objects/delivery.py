"""The outbox's worker: it brings every open object to hosts until its quorum has acked, and then to as many as wanted.

A parcel is looked at when something changed for it: it is new, a Ship of it has ended, a host came or went, a delay is
over. A look decides anew, from what is so now: who is to be given a copy, whether the quorum needs another epoch, or
that there is nothing to do but wait. What is open is in memory; what is durable and still short of its copies stays
on disk, and is walked over when a host comes up.
"""

from __future__ import annotations

from collections import Counter

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows, Ship, Shipped
from offgrid_node.protocol.events import AckArrived, OpenQuorum, QuorumAcked, QuorumOpened
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.outbox import DELIVERING, PENDING, Outbox
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.placement import choose, members_of, outgrown
from offgrid_node.protocol.objects.preference import Host, Policy, refusal
from offgrid_node.protocol.objects.sharing import only_for
from offgrid_node.protocol.objects.tables import SPREADING, quorum_id_of
from offgrid_node.protocol.quorum.enough import decimal, enough, weight_of
from offgrid_node.protocol.quorum.records import Epoch, Member
from offgrid_node.protocol.quorum.succession import asked_anew
from offgrid_node.protocol.timers import Timers

SHIPS_MAX, SHIPS_PER_HOST_MAX = 32, 8  # under way at once
LOOKS_MAX = 256  # parcels looked at in one step; the others in the next
WALK_ROWS = 256  # rows of SPREADING read in one step
WALK_PAUSE_MS, WALK_AGAIN_MS = 20, 60_000
SPREADING_MAX = 1_000  # durable parcels in memory
PLACEMENT_SAYS = "`offgrid placement explain` says of each why"


class Delivery:
    """Parcels, and what is under way."""

    def __init__(self, hosts: Hosts, outbox: Outbox, draft: Draft, policy: Policy = Policy.BALANCED) -> None:
        self._hosts, self._outbox, self._draft, self._policy = hosts, outbox, draft, policy
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
        self._walk: bytes | None = None  # where the walk over SPREADING goes on, at `_walk_ms`
        self._walk_ms = 0
        self._walk_twice = False  # what it passed may be worth another try later
        self._again = False  # a step has left something to be looked at

    def load(self, rows: Rows) -> None:
        self._open.update(self._outbox.load(rows))
        self._unread.update(self._open.values())
        self._ready.update(dict.fromkeys(self._open.values()))
        self._again = bool(self._ready)

    # ---- questions

    @property
    def depth(self) -> int:
        """Entries that are not completed."""
        return len(self._open)

    def oldest_us(self) -> int | None:
        """When the oldest entry that is not completed was made."""
        return self._outbox.entry(next(iter(self._open))).created_us if self._open else None

    def deadline_ms(self, now_ms: int) -> int | None:
        """`now_ms` is the last step's instant."""
        due = [self._walk_ms] if self._walk is not None else []
        if self._again:
            due.append(now_ms)
        if (timer := self._timers.next_ms()) is not None:
            due.append(timer)
        return min(due, default=None)

    # ---- inputs

    def on_added(self, parcel: Parcel, body: Manifest) -> None:
        """Its quorum is asked for, with the hosts of now."""
        self._open[parcel.number] = parcel.object_id
        self._parcels[parcel.object_id] = parcel
        self._open_quorum(parcel, body.subject, body.sealed_bytes, members_of(self._hosts.all()))

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
        if parcel is None or node_id in parcel.held:
            return
        parcel.fails(node_id, now.mono_ms, self._hosts)
        if not parcel.durable and not parcel.given_up:
            self._outbox.note(parcel.number, DELIVERING if parcel.flights else PENDING, 0, f"{node_id}: {why}")
        self._ready[object_id] = None

    def on_lost(self, node_id: str, holding: Holding, now: Now) -> None:
        """A host keeps no more what it has acked: the next epoch, of the same members, asks it for that anew. What is
        being brought to it now is what it will keep."""
        object_id = holding.object_id
        parcel = self._find(object_id)
        if parcel is None and self._outbox.find(object_id) is not None:
            parcel = self._parcels[object_id] = self._outbox.parcel(object_id)
        if parcel is None or parcel.given_up or node_id in parcel.flights or node_id not in parcel.held:
            return
        if parcel.durable:
            self._spreading[object_id] = None
            self._outbox.short(parcel)
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
            self._walk, self._walk_ms = b"", now.mono_ms

    def on_room(self) -> None:
        """Some host takes more than it did."""
        self._ready.update(self._roomless)
        self._roomless.clear()

    def close_step(self, now: Now) -> None:
        for object_id in self._timers.take_due(now.mono_ms):
            self._ready[object_id] = None
        if self._walk is not None and self._walk_ms <= now.mono_ms:
            self._walk_on(self._walk, now)
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
        free = (w for n, w in self._blocked.items() if w and self._at_host[n] < SHIPS_PER_HOST_MAX)
        waiting = self._ready or next(free, {})
        if not waiting:
            return None
        object_id = next(iter(waiting))
        del waiting[object_id]
        return object_id

    def _has_next(self) -> bool:
        free = any(w and self._at_host[n] < SHIPS_PER_HOST_MAX for n, w in self._blocked.items())
        return self._at_host.total() < SHIPS_MAX and (bool(self._ready) or free)

    def _walk_on(self, start: bytes, now: Now) -> None:
        """The next rows of SPREADING, while memory has room for them."""
        self._walk_ms = now.mono_ms + WALK_PAUSE_MS
        if len(self._spreading) >= SPREADING_MAX:
            return
        self._walk = None
        for count, (key, value) in enumerate(self._draft.committed(SPREADING, start)):
            if count == WALK_ROWS:
                self._walk = key
                return
            object_id = value.decode()
            if object_id not in self._parcels and self._draft.get(SPREADING, key) is not None:
                self._parcels[object_id] = self._outbox.parcel(object_id)
                self._spreading[object_id] = None
            self._ready[object_id] = None

        if self._walk_twice:
            self._walk_twice = False
            self._walk_later(now)

    def _walk_later(self, now: Now) -> None:
        if self._walk is None:
            self._walk, self._walk_ms = b"", now.mono_ms + WALK_AGAIN_MS
        else:
            self._walk_twice = True

    # ---- a look

    def _look(self, parcel: Parcel, now: Now) -> None:
        if parcel.given_up:
            if not parcel.flights:
                self._forget(parcel)
            return
        if not parcel.epoch:
            return  # the quorum domain answers in this very batch
        vouched = {*parcel.held, *(n for n in parcel.weights if (parcel.object_id, n) in self._claims)}
        taken = {*vouched, *parcel.flights}
        held = [self._host(parcel, node) for node in taken if node in vouched or self._host(parcel, node).alive]
        able = [
            host
            for node in parcel.weights
            if node not in taken
            and (host := self._host(parcel, node)).alive
            and parcel.waits(node, now.mono_ms, self._hosts) is None
        ]
        size, policy = parcel.size_bytes, self._policy
        chosen = choose(
            parcel.object_id, able, held, parcel.required_milli, parcel.copies, copy_bytes=size, policy=policy
        )
        if any(refusal(host, size) for host in able):
            self._roomless[parcel.object_id] = None
        else:
            self._roomless.pop(parcel.object_id, None)
        shipped = sum(self._ship(parcel, host.node_id) for host in chosen)
        if parcel.durable:
            self._look_further(parcel, bool(chosen) or len(vouched) > len(parcel.held), now)
            return
        if shipped:
            self._outbox.note(parcel.number, DELIVERING, shipped, "")
        weights = {host.node_id: host.weight_milli for host in (*held, *chosen)}
        if not enough(weights, weights, parcel.required_milli) and not self._outgrow(parcel):
            self._wait(parcel, shipped > 0, now)

    def _host(self, parcel: Parcel, node_id: str) -> Host:
        return self._hosts.get(node_id, parcel.weights.get(node_id, 0))

    def _ship(self, parcel: Parcel, node_id: str) -> bool:
        """Whether it leaves now, not once the host has a slot."""
        if self._at_host[node_id] >= SHIPS_PER_HOST_MAX:
            self._blocked.setdefault(node_id, {})[parcel.object_id] = None
            return False
        if self._at_host.total() >= SHIPS_MAX:
            self._ready[parcel.object_id] = None
            return False
        row = self._outbox.ask(parcel.object_id, node_id)
        parcel.flights[node_id] = parcel.epoch
        self._at_host[node_id] += 1
        self._draft.send(Ship(parcel.object_id, node_id, only_for(row.object.manifest, row.object.owner), row.epoch))
        return True

    def _outgrow(self, parcel: Parcel) -> bool:
        """Whether the next epoch was asked for, because the present one has too few members that could ack."""
        members = [Member(node, weight) for node, weight in parcel.weights.items()]
        hosts = self._hosts.all()
        useless = parcel.failing(self._hosts).union(h.node_id for h in hosts if refusal(h, parcel.size_bytes))
        if not outgrown(members, hosts, parcel.held, useless, parcel.required_milli):
            return False
        body = Manifest.decode(self._outbox.get(parcel.object_id).object.manifest.signed.body)
        self._open_quorum(parcel, body.subject, body.sealed_bytes, members_of(self._hosts.all()))
        return True

    def _wait(self, parcel: Parcel, shipped: bool, now: Now) -> None:
        """Hosts that failed are tried again in time; beyond that only a host that comes can help. One may come however
        much is required, so it is never too much; but it is said."""
        waits = (parcel.waits(node, now.mono_ms, self._hosts) for node in parcel.failed)
        due_ms = min((due for due in waits if due is not None), default=None)
        if due_ms is not None:
            self._timers.set(parcel.object_id, due_ms)
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
        return f"no further host is alive: acked {decimal(weight_of(parcel.held, parcel.weights))} of {required}"

    def _look_further(self, parcel: Parcel, busy: bool, now: Now) -> None:
        """A durable parcel with nothing under way leaves memory: it has its copies, or waits for a host. One that waits
        for a slot leaves it too when there are many."""
        room = len(self._spreading) <= SPREADING_MAX
        if parcel.flights or (busy and room):
            return
        if len(parcel.held) >= parcel.copies or parcel.weights.keys() <= parcel.held.keys():
            self._outbox.spread(parcel)
        elif busy or parcel.failed or parcel.object_id in self._roomless:
            self._walk_later(now)
        self._forget(parcel)

    def _forget(self, parcel: Parcel) -> None:
        """It leaves memory; what is so of it stands in its rows."""
        del self._parcels[parcel.object_id]
        self._spreading.pop(parcel.object_id, None)
        self._roomless.pop(parcel.object_id, None)
        self._timers.cancel(parcel.object_id)

    def _open_quorum(self, parcel: Parcel, subject: bytes, size_bytes: int, members: tuple[Member, ...]) -> None:
        named = tuple((member.node_id, member.weight_milli) for member in members)
        event = OpenQuorum(quorum_id_of(parcel.object_id), subject, size_bytes, parcel.required_milli, named)
        self._draft.tell("quorum", event)

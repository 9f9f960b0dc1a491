"""An owner's objects are sealed anew, each under a key of its own that nobody has had before: for what whoever had the
old one kept. The owner asks for it once; this node works it off in the background.

An object's id is a hash over what its hosts keep, so what is sealed anew is another object, and takes the place of the
old one in one transaction, once it is durable and the journal at hosts says so: its name, its readers of that moment,
its expiry, the request that made it. The old one is deleted by that, with a mark that says where it went (deletion.py).
Until then it stays as it is.

A pass goes through all objects in the order of their ids; how far it has come is a row, as is what waits for its acks.
What cannot be now (a job needs it, no host gives it) is left for the next pass.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import FailedPrecondition, NotFound
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.objects.commands import Reencrypt, Resealed
from offgrid_node.protocol.objects.errands import Reseal
from offgrid_node.protocol.objects.outbox import ACCEPTED, DAMAGED, DURABLE, LOCAL, Outbox
from offgrid_node.protocol.objects.reseal_rows import is_due, note, take_over, unnote
from offgrid_node.protocol.objects.sharing import readers_of
from offgrid_node.protocol.objects.tables import META, OBJECT_NAMES, OBJECTS, RESEALED, RESEALING, name_key
from offgrid_node.protocol.sound import sound

PAGE_OBJECTS = 128  # looked at in one step
PENDING_MIN, PENDING_MAX = 4, 64  # sealed anew and not in their places yet: all the way to hosts, and the journal's
PENDING_BYTES_MAX = 64 << 20  # of them, where they are more than the fewest: this node's disk has each of them twice
RETRY_MS, RETRY_MAX_MS = 1_000, 60_000  # after a fault, before the next object
PASS_MS, PASS_MAX_MS = 60_000, 3_600_000  # before what could not be is looked at again
ACKS_MS = 3_600_000  # for which one waits, before it makes room for others
LOOK_MS = 30_000  # at what waits for its acks: it is told when they come, not when its trouble changes
IN_USE = "ObjectInUse"
NOTHING_IS_DUE = 0  # sealed before then: once it was told to stop

Replace = Callable[[str, str, Now], None]
"""The first object is deleted; the second one, if not "", has taken its place."""
Tell = Callable[[str, str, Now], None]
"""A reader has to hear of an object."""
Wrapped = Callable[[str, bytes, Now], None]
"""A wrap was made for a node."""


class _Pending(msgspec.Struct):
    """Sealed anew, and not in its place yet."""

    new_id: str
    size_bytes: int
    due_ms: int
    late_ms: int  # from then on it is told that it waits
    over_ms: int  # from then on it makes room, if it has no acks
    asked: bool = False  # its key is being wrapped for the readers


class Resealing:
    """One object is sealed at a time."""

    def __init__(
        self, self_id: str, outbox: Outbox, draft: Draft, replace: Replace, tell: Tell, wrapped: Wrapped
    ) -> None:
        self._self_id, self._outbox, self._draft = self_id, outbox, draft
        self._replace, self._tell, self._wrapped = replace, tell, wrapped
        self._row: objects_pb2.ResealRow | None = None
        self._sealing = ""
        self._damaged: set[bytes] = set()  # rows that nobody can read, of this pass
        self._pending: dict[str, _Pending] = {}
        self._due_ms, self._delay_ms, self._pass_ms = 0, RETRY_MS, PASS_MS

    def load(self, rows: Rows, now: Now) -> None:
        row = objects_pb2.ResealRow.FromString(rows.get(META, RESEALING) or b"")
        self._row = row if row.told.under_way else None
        self._pending = {old.decode(): self._new(new.decode(), now, 0) for old, new in rows.scan(RESEALED)}
        self._sealing, self._due_ms = "", now.mono_ms

    def deadline_ms(self) -> int | None:
        if self._row is None:
            return None
        due = [pending.late_ms if pending.asked else pending.due_ms for pending in self._pending.values()]
        if self._goes_on:
            due.append(self._due_ms)
        return min(due, default=None)

    @property
    def left(self) -> int:
        return self._row.told.left if self._row is not None else 0

    @property
    def _goes_on(self) -> bool:
        """Whether there may be another object to begin with, or the end."""
        assert self._row is not None
        if self._sealing or self._is_full:
            return False
        return not self._row.passed or bool(self._row.waiting) or not self._pending

    @property
    def _is_full(self) -> bool:
        count = len(self._pending)
        if count < PENDING_MIN:
            return False
        return count >= PENDING_MAX or sum(each.size_bytes for each in self._pending.values()) >= PENDING_BYTES_MAX

    # ---- the owner's word

    def on_begin(self, command: Reencrypt, now: Now) -> objects_pb2.Reencryption:
        """Asked for again it goes on as it is, unless there is more to do than then."""
        if self._row is not None and self._row.told.before_us >= command.before_us:
            return self._row.told
        under_way = command.objects > 0 or self._row is not None
        told = objects_pb2.Reencryption(
            under_way=under_way, before_us=command.before_us, objects=command.objects, left=command.objects
        )
        row = objects_pb2.ResealRow(told=told)
        if self._row is not None:
            row.told.object_id = self._row.told.object_id
        self._draft.put(META, RESEALING, row)
        self._row = row if under_way else None
        self._due_ms, self._delay_ms, self._pass_ms = now.mono_ms, RETRY_MS, PASS_MS
        if under_way:
            self._record("reencryption begun")
        return told

    def on_stop(self, now: Now) -> objects_pb2.Reencryption:
        """What is half done goes, and what is durable by now takes its place: it may have had it before, and a restored
        owner have forgotten so, whose hosts have nothing else."""
        row = self._row
        if row is None:
            value = self._draft.get(META, RESEALING)
            return objects_pb2.ResealRow.FromString(value or b"").told
        for object_id, pending in [*self._pending.items()]:
            new = self._outbox.find_sound(pending.new_id)
            if new is None or new.object.state != DURABLE:
                self._drop(object_id, now)
        self._sealing = row.told.object_id = ""
        if not self._pending:
            return self._end("reencryption stopped")
        row.passed, row.waiting, row.told.before_us = True, 0, NOTHING_IS_DUE
        row.told.ClearField("waiting")
        self._put(row)
        return row.told

    # ---- inputs

    def check(self, replaces: str) -> None:
        """Before an object is added that replaces another. Raises FailedPrecondition (NotResealed)."""
        if replaces and (self._sealing != replaces or self._outbox.find(replaces) is None):
            raise FailedPrecondition(f"{replaces} is not to be sealed anew any more", reason="NotResealed")

    def on_added(self, replaces: str, new_id: str, now: Now) -> None:
        if not replaces:
            return
        assert self._row is not None
        row = self._outbox.get(new_id)
        row.resealed_us = max(now.utc_us, self._row.told.before_us)  # it is not due again where the clock was set back
        self._draft.put(OBJECTS, new_id.encode(), row)
        self._pending[replaces] = self._new(new_id, now, LOOK_MS)
        self._draft.put_bytes(RESEALED, replaces.encode(), new_id.encode())
        self._delay_ms, self._due_ms = RETRY_MS, now.mono_ms
        self._sealed(self._row, replaces)

    def on_regained(self, object_id: str, now: Now) -> None:
        """This pass may have gone by without it."""
        row = self._row
        if row is not None and is_due(self._outbox.get(object_id), row.told.before_us):
            row.told.objects, row.told.left = row.told.objects + 1, row.told.left + 1
            self._put_off(row, object_id, "it has just come back from hosts", now)
            self._put(row)

    def on_changed(self, object_id: str, now: Now) -> None:
        """An object has other acks, or is gone."""
        for old, pending in self._pending.items():
            if object_id in (old, pending.new_id):
                pending.due_ms = now.mono_ms

    def on_resealed(self, event: Resealed, now: Now) -> None:
        if event.new_id:
            self._on_wrapped(event, now)
            return
        if self._row is None or event.object_id != self._sealing:
            return
        fault = event.fault
        if fault is not None and not isinstance(fault, NotFound):
            self._put_off(self._row, event.object_id, fault.message, now)
        if fault is not None and fault.reason != IN_USE:
            self._due_ms = now.mono_ms + self._delay_ms
            self._delay_ms = min(RETRY_MAX_MS, 2 * self._delay_ms)
        self._sealed(self._row, event.object_id)

    def close_step(self, now: Now) -> None:
        if self._row is None:
            return
        for object_id, pending in [*self._pending.items()]:
            if pending.asked:
                self._tell_late(self._row, object_id, pending, "until the journal at hosts says so", now)
            elif pending.due_ms <= now.mono_ms:
                self._look(self._row, object_id, pending, now)
        if self._goes_on and self._due_ms <= now.mono_ms:
            self._next(self._row, now)

    # ---- one after another

    def _next(self, row: objects_pb2.ResealRow, now: Now) -> None:
        if row.passed and row.waiting:
            row.passed, row.waiting, row.next, row.told.left_out = False, 0, "", 0
            row.told.ClearField("waiting")
        elif row.passed:
            self._end("reencryption ended")
            return
        rows = sound(self._draft.committed, OBJECTS, row.next.encode(), on_damaged=self._damaged.add)
        for looked, (key, _) in enumerate(rows):
            object_id = key.decode()
            if looked == PAGE_OBJECTS or self._begin(row, object_id, now):
                row.next, self._due_ms = object_id, now.mono_ms
                self._put(row)
                return
        self._pass(row, now)

    def _begin(self, row: objects_pb2.ResealRow, object_id: str, now: Now) -> bool:
        """Whether it is this one's turn."""
        found = self._outbox.find(object_id)
        if found is None or object_id in self._pending or not is_due(found, row.told.before_us):
            return False
        if found.object.state in (LOCAL, DAMAGED):
            row.told.left_out += 1
            return False
        if found.object.state == ACCEPTED:
            self._put_off(row, object_id, "it is not durable yet", now)
            return False
        self._sealing = row.told.object_id = object_id
        self._draft.send(Reseal(object_id))
        return True

    def _sealed(self, row: objects_pb2.ResealRow, object_id: str) -> None:
        """Or not: the pass goes on behind it."""
        self._sealing = row.told.object_id = ""
        if row.next == object_id:  # else all of it has begun anew meanwhile
            row.next = f"{object_id}\0"
        self._put(row)

    def _pass(self, row: objects_pb2.ResealRow, now: Now) -> None:
        """All have been looked at."""
        row.passed, row.next = True, ""
        row.told.left_out += len(self._damaged)
        self._damaged.clear()
        row.told.left = row.waiting + len(self._pending) + row.told.left_out
        self._due_ms = now.mono_ms
        if row.waiting:
            self._rest(now)
        self._put(row)

    def _rest(self, now: Now) -> None:
        """Before the next pass."""
        self._due_ms = now.mono_ms + self._pass_ms
        self._pass_ms = min(PASS_MAX_MS, 2 * self._pass_ms)

    # ---- into its place

    def _look(self, row: objects_pb2.ResealRow, object_id: str, pending: _Pending, now: Now) -> None:
        old, new = self._outbox.find_sound(object_id), self._outbox.find_sound(pending.new_id)
        if old is None and self._outbox.is_damaged(object_id):
            pending.due_ms = now.mono_ms + PASS_MAX_MS
            note(row, object_id, "sealed anew, it waits for the row of what it replaces, which is damaged")
            self._put(row)
        elif old is None:
            self._drop(object_id, now)
            row.told.left -= min(1, row.told.left)
            self._put(row)
        elif new is None or new.object.state in (LOCAL, DAMAGED):
            self._drop(object_id, now)
            self._put_off(row, object_id, "what it was sealed anew as did not become durable", now)
            self._put(row)
        elif new.object.state == DURABLE:
            pending.asked, pending.late_ms = True, now.mono_ms + LOOK_MS
            self._draft.send(Reseal(object_id, pending.new_id))
        else:
            self._await(row, object_id, pending, new, now)

    def _await(
        self,
        row: objects_pb2.ResealRow,
        object_id: str,
        pending: _Pending,
        new: objects_pb2.ObjectRow,
        now: Now,
    ) -> None:
        trouble = self._outbox.entries.get(new.outbox_id).trouble
        trouble = f"{trouble and ': '}{trouble}"
        if pending.over_ms <= now.mono_ms:
            self._drop(object_id, now)
            self._put_off(row, object_id, f"sealed anew, it had no acks for {ACKS_MS // 60_000} min{trouble}", now)
            self._put(row)
            return
        self._tell_late(row, object_id, pending, f"for acks{trouble}", now)
        pending.due_ms = pending.late_ms

    def _tell_late(
        self, row: objects_pb2.ResealRow, object_id: str, pending: _Pending, for_what: str, now: Now
    ) -> None:
        if pending.late_ms <= now.mono_ms:
            pending.late_ms = now.mono_ms + LOOK_MS
            note(row, object_id, f"sealed anew, it waits {for_what}")
            self._put(row)

    def _on_wrapped(self, event: Resealed, now: Now) -> None:
        """Its key is wrapped for the readers that the old one had then; has it others now, they come first."""
        pending = self._pending.get(event.object_id)
        if self._row is None or pending is None or pending.new_id != event.new_id:
            return
        pending.asked, pending.due_ms = False, now.mono_ms
        old, new = self._outbox.find(event.object_id), self._outbox.find(event.new_id)
        if old is None or new is None:
            return  # that is looked at when the step closes
        if event.fault is not None:
            pending.due_ms += PASS_MS
            note(self._row, event.object_id, event.fault.message)
            self._put(self._row)
        elif event.readers.issuperset(readers_of(old.object)):
            self._switch(self._row, old, new, dict(event.wraps), now)

    def _switch(
        self,
        row: objects_pb2.ResealRow,
        old: objects_pb2.ObjectRow,
        new: objects_pb2.ObjectRow,
        wraps: dict[str, bytes],
        now: Now,
    ) -> None:
        made, old_id = new.object, old.object.object_id
        self._replace(old_id, made.object_id, now)
        readers = take_over(old, new, wraps, self._self_id)
        self._draft.put(OBJECTS, made.object_id.encode(), new)
        if made.name:
            self._draft.put_bytes(OBJECT_NAMES, name_key(made.name, new.name_number), made.object_id.encode())
        for wrap in readers:
            self._wrapped(wrap.node_id, wrap.sealed_key, now)
            self._tell(wrap.node_id, made.object_id, now)
        self._forget(old_id)
        unnote(row, old_id)
        self._count(row, new, now)
        self._record("sealed anew", made, old_id)

    def _count(self, row: objects_pb2.ResealRow, new: objects_pb2.ObjectRow, now: Now) -> None:
        made = new.object
        if is_due(new, row.told.before_us):
            self._put_off(row, made.object_id, "it was sealed anew under a key of before", now)
        else:
            row.told.sealed += 1
            row.told.sealed_bytes += made.size_bytes
            row.told.left -= min(1, row.told.left)
        self._put(row)

    # ---- inside

    def _new(self, new_id: str, now: Now, delay_ms: int) -> _Pending:
        row = self._outbox.find_sound(new_id)
        size_bytes = row.object.size_bytes if row is not None else 0
        return _Pending(new_id, size_bytes, now.mono_ms + delay_ms, now.mono_ms + LOOK_MS, now.mono_ms + ACKS_MS)

    def _drop(self, object_id: str, now: Now) -> None:
        """What was to take its place is not to be."""
        new_id = self._forget(object_id)
        if self._outbox.find_sound(new_id) is not None:
            self._replace(new_id, "", now)

    def _forget(self, object_id: str) -> str:
        self._draft.delete(RESEALED, object_id.encode())
        return self._pending.pop(object_id).new_id

    def _put_off(self, row: objects_pb2.ResealRow, object_id: str, why: str, now: Now) -> None:
        """To the next pass, if there is to be one."""
        row.waiting += row.told.before_us != NOTHING_IS_DUE
        if row.passed:
            self._rest(now)
        note(row, object_id, why)

    def _end(self, outcome: str) -> objects_pb2.Reencryption:
        row = self._row
        assert row is not None
        row.told.under_way, row.told.object_id = False, ""
        row.told.ClearField("waiting")
        self._put(row)
        self._row = None
        self._record(outcome)
        return row.told

    def _put(self, row: objects_pb2.ResealRow) -> None:
        self._draft.put(META, RESEALING, row)

    def _record(self, outcome: str, made: objects_pb2.Object | None = None, former: str = "") -> None:
        """One of `made`, or of all of it."""
        event = objects_pb2.ObjectEvent(outcome=outcome, owner=self._self_id, former=former)
        if made is not None:
            event.object_id, event.size_bytes = made.object_id, made.size_bytes
        self._draft.record(EventType.OBJECT_STORED, event.object_id or self._self_id, object=event)

"""What this node forgot with its disk, and hosts keep: taken back it is an object like any other that was just put,
with the name and the call that made it as this node's note of it says. What cannot be had yet is told to people, and
given up by their word, or once it was tried in vain for long enough.

In vain counts only while every member has answered, and those who claim to keep enough of it have given none of it, or
something else. Each hour counts once, so hosts that are away for a year cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import DropBlob, Rows
from offgrid_node.protocol.errors import AlreadyExists, Unavailable
from offgrid_node.protocol.objects.adding import Adding
from offgrid_node.protocol.objects.commands import AddObject, Enqueue, NotRegained, TakeBack
from offgrid_node.protocol.objects.deletion import Deletion
from offgrid_node.protocol.objects.outbox import ACCEPTED, DURABLE, Outbox, put_number
from offgrid_node.protocol.objects.reseal_rows import FORMERLY_MAX
from offgrid_node.protocol.objects.resealing import Resealing
from offgrid_node.protocol.objects.sharing import READERS_MAX, readers_of
from offgrid_node.protocol.objects.tables import (
    BACK,
    META,
    MISSING_PREFIX,
    NUMBER_BYTES,
    OBJECT_NAMES,
    OBJECTS,
    REGAINED,
    back_key,
    missing_key,
    name_key,
    name_prefix,
    number_key,
    number_of,
)

HOUR_MS = 3_600_000
HOURS_MAX = 720  # thirty days: so long who claims to keep it may give nothing
MISSING_MAX = 10_000  # that are told; of more nothing is noted, and each is found again
TROUBLE_CHARS_MAX = 256
SAME_NAME_MAX = 1_000  # objects of one name that are looked at

Forget = Callable[[str, str, Now], None]
"""An object that this node has no rows of is to be dropped by whoever keeps some, and the journal says why."""
Replace = Callable[[str, str, Now], None]
"""The first object is deleted; the second one has taken its place."""


class Regaining:
    """At the owner; a row for each object that is back, or is missing. Of those that are missing they are in memory."""

    def __init__(
        self,
        draft: Draft,
        outbox: Outbox,
        deletion: Deletion,
        adding: Adding,
        resealing: Resealing,
        forget: Forget,
        replace: Replace,
    ) -> None:
        self._draft, self._outbox, self._deletion, self._adding = draft, outbox, deletion, adding
        self._resealing, self._forget, self._replace = resealing, forget, replace
        self._missing: dict[str, objects_pb2.RegainedObject] = {}
        self._counted_ms: dict[str, int] = {}

    def load(self, rows: Rows) -> None:
        found = (
            objects_pb2.RegainedObject.FromString(value) for _, value in rows.scan(REGAINED, prefix=MISSING_PREFIX)
        )
        self._missing = {row.object_id: row for row in found}
        self._counted_ms.clear()

    # ---- questions

    @property
    def missing(self) -> int:
        """How many could not be taken back yet."""
        return len(self._missing)

    def back_since(self, utc_us: int) -> int:
        """How many were taken back, if any was from then on."""
        count, last_us = self._back()
        return count if last_us >= utc_us else 0

    def is_missing(self, object_id: str) -> bool:
        return object_id in self._missing

    # ---- inputs

    def on_take_back(self, command: TakeBack, now: Now) -> None:
        """Its bytes are here. Raises Exhausted (OutboxFull), Unavailable (NotDurable)."""
        object_id = command.body.object_id
        if self._outbox.find(object_id) is not None:
            return
        self._adding.check_room(for_job=command.note.for_job)
        if self._deletion.mark(object_id) is None and not self._is_superfluous(command):
            self._take(command, now)
            return
        self._draft.send(DropBlob(object_id))
        self._end(object_id, "superfluous", now)

    def on_missing(self, event: NotRegained, now: Now) -> None:
        object_id, row = event.object_id, self._missing.get(event.object_id)
        if self._outbox.find(object_id) is not None or self._deletion.mark(object_id) is not None:
            return
        if row is None and self.missing >= MISSING_MAX:
            return
        made = objects_pb2.RegainedObject(
            object_id=object_id,
            since_us=row.since_us if row is not None else now.utc_us,
            hours=(row.hours if row is not None else 0) + self._counts(event, now),
            trouble=event.why[:TROUBLE_CHARS_MAX],
            node=event.node,
        )
        if made.hours >= HOURS_MAX:
            self._end(object_id, "unreadable", now)
        elif made != row:
            self._missing[object_id] = made
            self._draft.put(REGAINED, missing_key(object_id), made)

    def on_unreadable(self, object_id: str, now: Now) -> None:
        """Every member has said what it keeps, and that is too little."""
        self._end(object_id, "unreadable", now)

    def give_up(self, object_id: str, now: Now) -> objects_pb2.Deletion:
        """By its owner's word."""
        self._end(object_id, "given up", now)
        mark = self._deletion.mark(object_id)
        assert mark is not None, "what is missing was not deleted before"
        return mark

    def on_added(self, object_id: str) -> None:
        """A job has left it behind: what is taken over from its host has the same id each time."""
        self._forget_missing(object_id)

    def on_gone(self, object_id: str, moved_to: str) -> None:
        """One that was this node's own again is deleted, or another one has taken its place."""
        row = self._draft.row(REGAINED, back_key(object_id), objects_pb2.RegainedObject)
        if row is None:
            return
        self._draft.delete(REGAINED, back_key(object_id))
        self._count(-1)
        if moved_to:
            row.object_id = moved_to
            self._put_back(row)

    # ---- inside

    def _counts(self, event: NotRegained, now: Now) -> int:
        """Whether this is another hour in vain."""
        counted_ms = self._counted_ms.get(event.object_id)
        if not event.in_vain or (counted_ms is not None and now.mono_ms < counted_ms + HOUR_MS):
            return 0
        self._counted_ms[event.object_id] = now.mono_ms
        return 1

    def _is_superfluous(self, command: TakeBack) -> bool:
        """Whether what it was to be is there already: it was put once more, by the same call, and is durable; or it is
        a half of one that was being sealed anew. Raises Unavailable while the other put may yet become durable."""
        note, again_id = command.note, self._made(command.note)
        made = self._outbox.find_sound(again_id) if again_id else None
        if made is not None and note.checksum and made.checksum == note.checksum:
            if made.object.state == ACCEPTED:
                text = f"it was put again as {made.object.object_id}, which is not durable yet"
                raise Unavailable(text, reason="NotDurable")
            return made.object.state == DURABLE
        if not note.replaces:
            return False
        former = self._found(note.replaces)
        return command.former_whole if former is not None else self._deletion.mark(note.replaces) is not None

    def _found(self, object_id: str) -> objects_pb2.ObjectRow | None:
        return self._outbox.find(object_id) if object_id else None

    def _made(self, note: objects_pb2.ObjectNote) -> str:
        try:
            return self._adding.made(note.request_id, note.digest)
        except AlreadyExists:
            return ""

    def _is_free(self, note: objects_pb2.ObjectNote) -> bool:
        """Whether its request id has made nothing since."""
        try:
            return not self._adding.made(note.request_id, note.digest)
        except AlreadyExists:
            return False

    def _take(self, command: TakeBack, now: Now) -> None:
        body, note, former = command.body, command.note, self._found(command.note.replaces)
        if former is not None:
            number, name = put_number(former), former.object.name
            self._replace(former.object.object_id, body.object_id, now)
        else:
            number, name = self._place(note.name, body.created_us), note.name
        request_id = note.request_id if self._is_free(note) else ""
        added = AddObject(
            command.manifest,
            body,
            name,
            command.required_milli,
            request_id,
            note.digest if request_id else b"",
            Enqueue(note.key, note.etype) if note.etype else None,
            note.checksum,
            for_job=note.for_job,
            copies=note.copies,
            size_bytes=command.size_bytes,
            name_number=number,
            regained=True,
        )
        self._adding.add(added, now)
        self._resealing.on_regained(body.object_id, now)
        if former is not None:
            row = self._outbox.get(body.object_id)
            row.request_id, row.checksum = former.request_id, former.checksum
            row.object.formerly[:] = [*former.object.formerly, former.object.object_id][-FORMERLY_MAX:]
            self._draft.put(OBJECTS, body.object_id.encode(), row)
        back = objects_pb2.RegainedObject(object_id=body.object_id, back=True, since_us=now.utc_us)
        readers = {*command.readers, *(readers_of(former.object) if former is not None else ())}
        back.readers.extend(sorted(readers)[:READERS_MAX])
        self._forget_missing(body.object_id)
        self._put_back(back)

    def _place(self, name: str, created_us: int) -> int:
        """A number below those of the objects of its name that were made later; 0 where there are none. After a restore
        numbers have gone far ahead, so there is room between."""
        later = [put_number(row) for row in self._of_name(name) if row.object.created_us > created_us]
        if not later:
            return 0
        number = min(later) - 1
        while number and self._draft.get(OBJECT_NAMES, name_key(name, number)) is not None:
            number -= 1
        return number

    def _of_name(self, name: str) -> Iterable[objects_pb2.ObjectRow]:
        rows = self._draft.committed(OBJECT_NAMES, b"", prefix=name_prefix(name)) if name else ()
        for (_, object_id), _ in zip(rows, range(SAME_NAME_MAX), strict=False):
            row = self._outbox.find_sound(object_id.decode())
            if row is not None and row.object.name == name:
                yield row

    def _end(self, object_id: str, outcome: str, now: Now) -> None:
        self._forget_missing(object_id)
        self._forget(object_id, outcome, now)

    def _forget_missing(self, object_id: str) -> None:
        self._counted_ms.pop(object_id, None)
        if self._missing.pop(object_id, None) is not None:
            self._draft.delete(REGAINED, missing_key(object_id))

    def _put_back(self, row: objects_pb2.RegainedObject) -> None:
        key = back_key(row.object_id)
        known = self._draft.get(REGAINED, key) is not None  # the one whose place it takes had come back, too
        self._draft.put(REGAINED, key, row)
        self._count(0 if known else 1, row.since_us)

    def _back(self) -> tuple[int, int]:
        """How many rows there are of what is back, and when the last came."""
        value = self._draft.get(META, BACK) or b""
        return number_of(value[:NUMBER_BYTES]), number_of(value[NUMBER_BYTES:])

    def _count(self, more: int, since_us: int = 0) -> None:
        count, last_us = self._back()
        self._draft.put_bytes(META, BACK, number_key(count + more) + number_key(max(last_us, since_us)))

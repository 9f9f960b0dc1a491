"""The destination's part: a request is taken once, answered once, and its answer kept until its source has it.

What was taken, and its answer, are remembered by source and number until the source's floor has passed them, or it is
removed: no clock decides whether a parcel that comes again is new, or an answer still wanted. A source that never
raises its floor fills its own window and nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists, Exhausted
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import node_id_bytes, node_id_from
from offgrid_node.protocol.mail.commands import DeliverParcel
from offgrid_node.protocol.mail.errands import Serve, Served
from offgrid_node.protocol.mail.outbox import Outbox
from offgrid_node.protocol.mail.parcels import PARCEL_OVERHEAD_BYTES, ParcelHead, read_parcel
from offgrid_node.protocol.mail.sender import Sender
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mail.tables import FLOORS, SEEN, number_key, number_of, parcel_key, parcel_of
from offgrid_node.protocol.timers import Timers

WINDOW_MAX = 512  # requests of one source; it has at most half as many open
WINDOW_BYTES_MAX = 4 * 1024 * 1024
SERVE_AGAIN_MS, SERVE_AGAIN_MS_MAX = 2_000, 600_000
ROW_BYTES = 64

Key = tuple[str, int]  # source, number


class _Window(msgspec.Struct):
    """What is remembered of a source's requests: what each takes here."""

    floor: int = 0
    sizes: dict[int, int] = msgspec.field(default_factory=dict)


class Inbox:
    """Requests that came by mail."""

    def __init__(self, settings: MailSettings, draft: Draft, sender: Sender, outbox: Outbox) -> None:
        self._settings, self._draft, self._sender, self._outbox = settings, draft, sender, outbox
        self._windows: dict[str, _Window] = {}
        self._due = Timers[Key]()  # to be served
        self._tries: dict[Key, int] = {}

    def load(self, rows: Rows, now: Now) -> None:
        for key, value in rows.scan(FLOORS):
            self._windows[node_id_from(key)] = _Window(number_of(value))
        for key, value in rows.scan(SEEN):
            row, (source, number) = mail_pb2.SeenRow.FromString(value), parcel_of(key)
            self._windows.setdefault(source, _Window()).sizes[number] = row.size_bytes
            if row.HasField("parcel"):
                self._due.set((source, number), now.mono_ms)

    def deadline_ms(self) -> int | None:
        return self._due.next_ms()

    def on_deliver(self, ticket: int, command: DeliverParcel, now: Now) -> None:
        """Raises Exhausted (WindowFull), AlreadyExists (NumberReused)."""
        head, answer = command.head, command.answer
        self._raise_floor(head.source, head.floor)
        if answer is not None:
            if self._outbox.on_answer(head.source, answer, now):
                self._sender.end(answer.number)
        elif head.number >= self._windows[head.source].floor:
            self._take(command, now)
        self._draft.reply(ticket, mail_pb2.DeliverParcelResponse())

    def on_offer(self, ticket: int, head: ParcelHead) -> None:
        """Wanted, unless it is a request that was taken. Whether it is an answer, nobody knows yet, so its number may
        lie below the floor, which is that of requests."""
        row = self._row((head.source, head.number))
        known = row is not None and row.digest == head.digest
        self._draft.reply(ticket, mail_pb2.DeliverParcelResponse(wanted=not known))

    def on_served(self, end: Served, now: Now) -> None:
        """Its answer sets out."""
        key = end.source, end.number
        row = self._row(key)
        if row is None or not row.HasField("parcel"):
            return
        if end.sealed is None:
            tries = self._tries[key] = self._tries.get(key, 0) + 1
            self._due.set(key, now.mono_ms + min(SERVE_AGAIN_MS << min(tries - 1, 16), SERVE_AGAIN_MS_MAX))
            return
        self._tries.pop(key, None)
        number = self._sender.next_number(now)
        floor = self._outbox.floor(end.source, number)
        expires_us = now.utc_us + self._settings.keep_us
        head = self._sender.add(end.source, number, floor, expires_us, end.sealed, now, lasting=True)
        row.ClearField("parcel")
        row.answer, row.size_bytes = number, ROW_BYTES + head.size_bytes
        self._put(key, row)
        self._tell(end.source, end.number, "answered", head.size_bytes)

    def serve_due(self, now: Now) -> None:
        """Has answered what is to be."""
        for key in self._due.take_due(now.mono_ms):
            row = self._row(key)
            if row is not None and row.HasField("parcel"):
                late = read_parcel(row.parcel).expires_us <= now.utc_us
                self._draft.send(Serve(*key, row.parcel, late))

    def on_removed(self, source: str) -> None:
        """Nothing of it is taken any more (`services/mail/handlers.py`), so nothing has to be remembered."""
        window = self._windows.pop(source, None)
        if window is not None:
            self._forget(source, list(window.sizes))
            self._draft.delete(FLOORS, node_id_bytes(source))

    # ---- inside

    def _take(self, command: DeliverParcel, now: Now) -> None:
        head, window = command.head, self._windows[command.head.source]
        key = head.source, head.number
        row = self._row(key)
        if row is not None:
            if row.digest != head.digest:
                text = f"{head.source} has sent another request as its {head.number} before"
                raise AlreadyExists(text, reason="NumberReused")
            if row.answer and command.carrier == head.source:  # it would not come itself if it had the answer
                self._sender.again(row.answer, now)
            return
        size = ROW_BYTES + head.sealed_bytes + PARCEL_OVERHEAD_BYTES
        used = sum(window.sizes.values())
        if len(window.sizes) >= WINDOW_MAX or used + size > WINDOW_BYTES_MAX:
            text = (
                f"{len(window.sizes)} requests of {head.source} with {used} bytes are here, which are not over for it"
            )
            raise Exhausted(text, reason="WindowFull")
        self._put(
            key, mail_pb2.SeenRow(digest=head.digest, taken_us=now.utc_us, parcel=command.parcel, size_bytes=size)
        )
        self._due.set(key, now.mono_ms)
        self._tell(head.source, head.number, "taken", head.size_bytes)

    def _raise_floor(self, source: str, floor: int) -> None:
        """What is below has ended at its source: it may be forgotten, and is not taken any more."""
        window = self._windows.setdefault(source, _Window())
        if floor <= window.floor:
            return
        window.floor = floor
        self._draft.put_bytes(FLOORS, node_id_bytes(source), number_key(floor))
        over = [number for number in window.sizes if number < floor]
        self._forget(source, over)
        for number in over:
            del window.sizes[number]

    def _forget(self, source: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            row = self._row((source, number))
            if row is not None and row.answer:
                self._sender.end(row.answer)
            self._due.cancel((source, number))
            self._tries.pop((source, number), None)
            self._draft.delete(SEEN, parcel_key(source, number))

    def _row(self, key: Key) -> mail_pb2.SeenRow | None:
        return self._draft.row(SEEN, parcel_key(*key), mail_pb2.SeenRow)

    def _put(self, key: Key, row: mail_pb2.SeenRow) -> None:
        self._windows[key[0]].sizes[key[1]] = row.size_bytes
        self._draft.put(SEEN, parcel_key(*key), row)

    def _tell(self, source: str, number: int, outcome: str, size_bytes: int) -> None:
        event = mail_pb2.MailEvent(
            source=source,
            destination=self._settings.node_id,
            number=number,
            outcome=outcome,
            size_bytes=size_bytes,
        )
        self._draft.record(EventType.MAIL_CHANGED, source, mail=event)

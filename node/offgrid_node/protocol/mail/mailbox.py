"""A mailbox's part: it holds others' parcels, hands them over when it sees their destination, and never drops silently
what it has acked: beyond its bounds it takes no more.

A quarter of the room is one source's, and a quarter one destination's, at most. Custody ends when the destination has
the parcel, its source says so, or at the time that the ack named.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import AlreadyExists, Exhausted, FailedPrecondition, Fault
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.mail.commands import DepositParcel, DropParcels
from offgrid_node.protocol.mail.courier import Courier, Errand, Kind, Said
from offgrid_node.protocol.mail.offers import Offers
from offgrid_node.protocol.mail.parcels import ParcelHead, read_parcel
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mail.tables import HELD, parcel_key, parcel_of

PARCELS_MAX = 4_096
SHARE = 4  # of the room, and of PARCELS_MAX: one part for a source, one for a destination
FULL_RETRY_MS = 600_000

Key = tuple[str, int]  # source, number


class _Held(msgspec.Struct, frozen=True):
    destination: str
    size_bytes: int
    until_us: int


class Mailbox:
    """What this node holds for others."""

    def __init__(self, settings: MailSettings, draft: Draft, courier: Courier) -> None:
        self._settings, self._draft, self._courier = settings, draft, courier
        self._held: dict[Key, _Held] = {}
        self._offers = Offers()

    def load(self, rows: Rows) -> None:
        for key, value in rows.scan(HELD):
            row = mail_pb2.HeldRow.FromString(value)
            head = read_parcel(row.parcel)
            self._held[parcel_of(key)] = _Held(head.destination, head.size_bytes, row.until_us)

    def __len__(self) -> int:
        return len(self._held)

    @property
    def used_bytes(self) -> int:
        return sum(held.size_bytes for held in self._held.values())

    # ---- from sources

    def on_deposit(self, ticket: int, command: DepositParcel, now: Now) -> None:
        """Raises FailedPrecondition (NotAMailbox, ParcelExpired), Exhausted (MailboxFull), AlreadyExists
        (NumberReused)."""
        head = command.head
        row = self._draft.row(HELD, parcel_key(head.source, head.number), mail_pb2.HeldRow)
        if row is None:
            row = self._keep(command, now)
        elif read_parcel(row.parcel).digest != head.digest:
            raise AlreadyExists(f"{head.source} has another parcel {head.number} here", reason="NumberReused")
        self._draft.reply(ticket, mail_pb2.DepositParcelResponse(until_us=row.until_us))

    def on_drop(self, ticket: int, command: DropParcels) -> None:
        for number in command.numbers:
            self._drop((command.source, number), "dropped")
        self._draft.reply(ticket, mail_pb2.DropParcelsResponse())

    # ---- peers and time

    def on_up(self, node: str) -> None:
        for (source, number), held in self._held.items():
            if held.destination == node:
                self._courier.want(Errand(Kind.HAND_OVER, node, number, source))

    def on_removed(self, node: str) -> None:
        """A member that comes back no more: nobody waits for what it sent, or is sent."""
        for key in [key for key, held in self._held.items() if node in (key[0], held.destination)]:
            self._drop(key, "dropped")

    def drop_expired(self, now: Now) -> None:
        for key in [key for key, held in self._held.items() if held.until_us <= now.utc_us]:
            self._drop(key, "dropped")

    # ---- errands

    def say(self, errand: Errand) -> Said | None:
        row = self._draft.row(HELD, parcel_key(errand.source, errand.number), mail_pb2.HeldRow)
        if row is None:
            return None
        request = self._offers.request((errand.source, errand.number), row.parcel)
        return Said("offgrid.v1.MailService/DeliverParcel", request)

    def on_end(self, errand: Errand, reply: object, fault: Fault | None) -> bool:
        """Of a call; whether the errand is still to be done."""
        key = errand.source, errand.number
        if fault is None and not self._offers.on_reply(key, reply):
            self._drop(key, "handed over")
        return key in self._held

    # ---- inside

    def _keep(self, command: DepositParcel, now: Now) -> mail_pb2.HeldRow:
        head, settings = command.head, self._settings
        if not settings.mailbox_bytes:
            raise FailedPrecondition("this node holds nothing for others: mail.mailbox_mb is 0", reason="NotAMailbox")
        if head.expires_us <= now.utc_us:
            text = f"parcel {head.number} has expired by this node's clock"
            raise FailedPrecondition(text, reason="ParcelExpired", metadata={"now_us": str(now.utc_us)})
        self._check_room(head)
        until_us = min(head.expires_us, now.utc_us + settings.keep_us)
        row = mail_pb2.HeldRow(parcel=command.parcel, held_us=now.utc_us, until_us=until_us)
        self._held[head.source, head.number] = _Held(head.destination, head.size_bytes, until_us)
        self._draft.put(HELD, parcel_key(head.source, head.number), row)
        self._tell((head.source, head.number), self._held[head.source, head.number], "kept")
        if head.destination in self._courier.up:
            self._courier.want(Errand(Kind.HAND_OVER, head.destination, head.number, head.source))
        return row

    def _check_room(self, head: ParcelHead) -> None:
        """Raises Exhausted (MailboxFull)."""
        everything = self._held.items()
        for whose, sizes, share in (
            ("of all", [held.size_bytes for _, held in everything], 1),
            (f"of {head.source}", [held.size_bytes for key, held in everything if key[0] == head.source], SHARE),
            (
                f"for {head.destination}",
                [held.size_bytes for _, held in everything if held.destination == head.destination],
                SHARE,
            ),
        ):
            bytes_max, count_max = self._settings.mailbox_bytes // share, PARCELS_MAX // share
            if len(sizes) >= count_max or sum(sizes) + head.size_bytes > bytes_max:
                text = f"this mailbox holds {len(sizes)} parcels {whose} with {sum(sizes)} bytes"
                room = f"{count_max} and {bytes_max} are allowed"
                raise Exhausted(f"{text}; {room}", reason="MailboxFull", retry_ms=FULL_RETRY_MS)

    def _drop(self, key: Key, outcome: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._draft.delete(HELD, parcel_key(*key))
            self._tell(key, held, outcome)

    def _tell(self, key: Key, held: _Held, outcome: str) -> None:
        event = mail_pb2.MailEvent(
            source=key[0],
            destination=held.destination,
            number=key[1],
            outcome=outcome,
            size_bytes=held.size_bytes,
        )
        self._draft.record(EventType.MAIL_CHANGED, held.destination, mail=event)

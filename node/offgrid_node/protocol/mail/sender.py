"""This node's own parcels on their way, requests and answers: to their destination where that is up, else to mailboxes.

A parcel is kept until nobody has to be told of it, whoever has custody of it: a mailbox that loses it costs time. While
its destination has not acked it, it is brought there whenever that is up, and MAILBOXES others are to have custody of
it; one is enough where the next would be reached over a slow road alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Set

import msgspec

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.mail.courier import Courier, Errand, Kind, Said
from offgrid_node.protocol.mail.offers import Offers
from offgrid_node.protocol.mail.parcels import ParcelHead, make_parcel, read_parcel
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mail.tables import LAST_NUMBER, META, OWN, number_key, number_of

MAILBOXES = 2
LEFTOVER_MAX = 4_096  # ended parcels whose mailboxes are still to be told; beyond, they keep them until they expire
DROPS_MAX = 256  # in one call
SERVICE = "offgrid.v1.MailService"


class _Own(msgspec.Struct):
    destination: str
    expires_us: int
    taken: bool
    custody: dict[str, int]  # until when, by mailbox
    lasting: bool  # no time ends it
    asked: set[str] = msgspec.field(default_factory=set)  # for custody, in line or under way
    failed: set[str] = msgspec.field(default_factory=set)  # mailboxes, or the destination, that did not take it so far


class Sender:
    """`on_custody` and `on_taken` are told by number, in the step in which that becomes durable."""

    def __init__(
        self,
        settings: MailSettings,
        draft: Draft,
        courier: Courier,
        on_custody: Callable[[int, str], None],
        on_taken: Callable[[int], None],
    ) -> None:
        self._settings, self._draft, self._courier = settings, draft, courier
        self._on_custody, self._on_taken = on_custody, on_taken
        self._own: dict[int, _Own] = {}
        self._offers = Offers()
        self._leftover: dict[str, dict[int, None]] = {}  # mailbox → numbers that it may drop

    def load(self, rows: Rows) -> None:
        for key, value in rows.scan(OWN):
            row = mail_pb2.OwnParcelRow.FromString(value)
            head = read_parcel(row.parcel)
            custody = {each.node: each.until_us for each in row.custody}
            self._own[number_of(key)] = _Own(head.destination, head.expires_us, row.taken, custody, row.lasting)

    def __len__(self) -> int:
        return len(self._own)

    def next_number(self, now: Now) -> int:
        """Rises, also for a store that was put back from a backup, as long as the clock does."""
        number = max(number_of(self._draft.get(META, LAST_NUMBER)) + 1, now.utc_us)
        self._draft.put_bytes(META, LAST_NUMBER, number_key(number))
        return number

    def add(
        self,
        destination: str,
        number: int,
        floor: int,
        expires_us: int,
        sealed: bytes,
        now: Now,
        *,
        lasting: bool = False,
    ) -> ParcelHead:
        """A parcel that sets out; it is durable with this step. A `lasting` one is renewed when it would expire."""
        signer, salt = self._settings.signer, self._settings.salt
        head, parcel = make_parcel(signer, salt, destination, number, floor, expires_us, sealed)
        self._own[number] = _Own(destination, expires_us, taken=False, custody={}, lasting=lasting)
        self._draft.put(OWN, number_key(number), mail_pb2.OwnParcelRow(parcel=parcel, lasting=lasting))
        self._plan(number, now)
        return head

    def again(self, number: int, now: Now) -> None:
        """Its destination is to get it once more, unless it has expired."""
        own = self._own.get(number)
        if own is not None:
            own.taken = False
            own.asked.clear()
            self._plan(number, now)

    def end(self, number: int) -> None:
        """Nobody has to be told of it any more."""
        own = self._own.pop(number, None)
        if own is None:
            return
        self._draft.delete(OWN, number_key(number))
        if sum(map(len, self._leftover.values())) < LEFTOVER_MAX:
            for node in own.custody:
                self._leftover.setdefault(node, {})[number] = None
                self._courier.want(Errand(Kind.DROP, node, 0))

    def take_expired(self, now: Now) -> list[int]:
        """Ends those whose time is over, and says which."""
        over = [number for number, own in self._own.items() if own.expires_us <= now.utc_us and not own.lasting]
        for number in over:
            self.end(number)
        for number, own in self._own.items():
            ends_us = min([own.expires_us, *own.custody.values()])
            if ends_us <= now.utc_us:
                own.custody = {node: until_us for node, until_us in own.custody.items() if until_us > now.utc_us}
                self._plan(number, now)
        return over

    # ---- peers

    def on_up(self, node: str, now: Now) -> None:
        for number, own in self._own.items():
            own.failed.discard(node)
            own.asked.discard(node)
            self._plan(number, now, {node})
        if node in self._leftover:
            self._courier.want(Errand(Kind.DROP, node, 0))

    def on_down(self, node: str, now: Now) -> None:
        for number, own in self._own.items():
            if node in own.asked or node == own.destination:
                own.asked.discard(node)
                self._plan(number, now)

    def on_removed(self, node: str, now: Now) -> list[int]:
        """It comes back no more: ends what was for it, and says which; what it held is for others to hold."""
        over = [number for number, own in self._own.items() if own.destination == node]
        for number in over:
            self.end(number)
        self._leftover.pop(node, None)
        for number, own in self._own.items():
            if own.custody.pop(node, None) is not None:
                self._plan(number, now)
        return over

    # ---- errands

    def say(self, errand: Errand) -> Said | None:
        if errand.kind is Kind.DROP:
            numbers = list(self._leftover.get(errand.node, ()))[:DROPS_MAX]
            request = mail_pb2.DropParcelsRequest(numbers=numbers)
            return Said(f"{SERVICE}/DropParcels", request) if numbers else None
        own = self._own.get(errand.number)
        row = self._draft.row(OWN, number_key(errand.number), mail_pb2.OwnParcelRow)
        if own is None or row is None or own.taken or errand.node in own.custody:
            return None
        if errand.kind is Kind.DELIVER:
            return Said(f"{SERVICE}/DeliverParcel", self._offers.request(errand.number, row.parcel))
        return Said(f"{SERVICE}/DepositParcel", mail_pb2.DepositParcelRequest(parcel=row.parcel))

    def on_end(self, errand: Errand, reply: object, fault: Fault | None, now: Now) -> bool:
        """Of a call; whether the errand is still to be done."""
        if errand.kind is Kind.DROP:
            return self._on_dropped(errand, reply)
        number, own = errand.number, self._own.get(errand.number)
        if own is None:
            if isinstance(reply, mail_pb2.DepositParcelResponse):  # it ended meanwhile
                self._leftover.setdefault(errand.node, {})[number] = None
                self._courier.want(Errand(Kind.DROP, errand.node, 0))
            return False
        own.asked.discard(errand.node)
        if fault is not None:
            own.failed.add(errand.node)
            self._plan(number, now)
            is_none = errand.kind is Kind.DEPOSIT and isinstance(fault, FailedPrecondition)  # no mailbox as it is now
            return not own.taken and not is_none
        if isinstance(reply, mail_pb2.DepositParcelResponse):
            own.custody[errand.node] = reply.until_us
            self._on_custody(number, errand.node)
        elif self._offers.on_reply(number, reply):
            return True
        elif not own.taken:
            own.taken = True
            self._on_taken(number)
        self._keep(number, own)
        return False

    # ---- inside

    def _on_dropped(self, errand: Errand, reply: object) -> bool:
        left = self._leftover.get(errand.node, {})
        if isinstance(reply, mail_pb2.DropParcelsResponse):
            for number in list(left)[:DROPS_MAX]:
                del left[number]
            if not left:
                self._leftover.pop(errand.node, None)
        return bool(left)

    def _keep(self, number: int, own: _Own) -> None:
        row = self._draft.row(OWN, number_key(number), mail_pb2.OwnParcelRow)
        if row is not None:
            row.taken = own.taken
            del row.custody[:]
            row.custody.extend(mail_pb2.Custody(node=node, until_us=us) for node, us in own.custody.items())
            self._draft.put(OWN, number_key(number), row)

    def _renew(self, number: int, own: _Own, now: Now) -> None:
        row = self._draft.row(OWN, number_key(number), mail_pb2.OwnParcelRow)
        assert row is not None
        settings, head, sealed = self._settings, read_parcel(row.parcel), row.parcel.sealed
        own.expires_us = now.utc_us + settings.keep_us
        terms = head.destination, number, head.floor, own.expires_us, sealed
        row.parcel.CopyFrom(make_parcel(settings.signer, settings.salt, *terms)[1])
        own.failed.clear()  # who refused it as too old
        self._draft.put(OWN, number_key(number), row)

    def _plan(self, number: int, now: Now, among: Set[str] | None = None) -> None:
        """Has done what brings it further; mailboxes are sought `among` these, or all that are up."""
        own, up = self._own[number], self._courier.up
        if own.taken or (own.expires_us <= now.utc_us and not own.lasting):
            return
        if own.expires_us <= now.utc_us:
            self._renew(number, own, now)
        if own.destination in up:
            self._courier.want(Errand(Kind.DELIVER, own.destination, number))
            if own.destination not in own.failed:
                return
        if len(own.custody) + len(own.asked) >= MAILBOXES:
            return
        known = {own.destination, *own.custody, *own.asked, *own.failed}
        others = (up if among is None else among) - known
        for slow, _, node in sorted(
            (not self._settings.paces(node).free, _rank(number, node), node) for node in others
        ):
            if len(own.custody) + len(own.asked) >= (1 if slow else MAILBOXES):
                return
            own.asked.add(node)
            self._courier.want(Errand(Kind.DEPOSIT, node, number))


def _rank(number: int, node: str) -> bytes:
    """Spreads parcels over mailboxes (rendezvous hashing)."""
    return hashlib.blake2b(node.encode(), digest_size=8, key=number_key(number)).digest()

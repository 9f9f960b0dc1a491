"""A large parcel is offered before it is brought: two mailboxes may have it, and its destination wants it once."""

from __future__ import annotations

from collections.abc import Hashable

from offgrid.v1 import mail_pb2

OFFER_BYTES = 1_024  # what is smaller is brought at once: a question would cost as much


class Offers:
    """Which parcels are wanted, by any name that tells them and their destination apart."""

    def __init__(self) -> None:
        self._wanted: set[Hashable] = set()

    def request(self, name: Hashable, parcel: mail_pb2.Parcel) -> mail_pb2.DeliverParcelRequest:
        """The parcel, or an offer of it."""
        if len(parcel.sealed) > OFFER_BYTES and name not in self._wanted:
            parcel = mail_pb2.Parcel(head=parcel.head)
        return mail_pb2.DeliverParcelRequest(parcel=parcel)

    def on_reply(self, name: Hashable, reply: object) -> bool:
        """Whether it is still to be brought."""
        if isinstance(reply, mail_pb2.DeliverParcelResponse) and reply.wanted:
            self._wanted.add(name)
            return True
        self._wanted.discard(name)
        return False

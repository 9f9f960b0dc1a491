"""What the handlers hand to the mail machine: requests checked, names resolved, signatures verified, letters opened."""

from __future__ import annotations

import msgspec

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.mail.parcels import ParcelHead


class SendMail(msgspec.Struct, frozen=True):
    """`sealed` is a letter for the destination; `expires_in_us` 0: as late as may be."""

    destination: str
    method: str
    subject: str
    sealed: bytes
    expires_in_us: int
    request_id: str
    digest: bytes


class DepositParcel(msgspec.Struct, frozen=True):
    """From the parcel's source itself."""

    head: ParcelHead
    parcel: mail_pb2.Parcel


class DeliverParcel(msgspec.Struct, frozen=True):
    """For this node, from whoever carries it. `answer` is set where it is one to a request of this node's; else it is a
    request, or cannot be opened."""

    head: ParcelHead
    parcel: mail_pb2.Parcel
    answer: mail_pb2.MailedAnswer | None
    carrier: str


class OfferParcel(msgspec.Struct, frozen=True):
    """Whoever has it would bring it."""

    head: ParcelHead


class DropParcels(msgspec.Struct, frozen=True):
    source: str
    numbers: tuple[int, ...]


class TakeMessage(msgspec.Struct, frozen=True):
    source: str
    name: str
    data: bytes
    request_id: str


class MarkRead(msgspec.Struct, frozen=True):
    message_id: str


class DeleteMessage(msgspec.Struct, frozen=True):
    message_id: str

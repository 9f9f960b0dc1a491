"""What the handlers hand to the mail machine: requests checked, names resolved, signatures verified, letters opened."""

from __future__ import annotations

from dataclasses import dataclass

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.mail.parcels import ParcelHead


@dataclass(frozen=True, slots=True)
class SendMail:
    """`sealed` is a letter for the destination; `expires_in_us` 0: as late as may be."""

    destination: str
    method: str
    subject: str
    sealed: bytes
    expires_in_us: int
    request_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class DepositParcel:
    """From the parcel's source itself."""

    head: ParcelHead
    parcel: mail_pb2.Parcel


@dataclass(frozen=True, slots=True)
class DeliverParcel:
    """For this node, from whoever carries it. `answer` is set where it is one to a request of this node's; else it is a
    request, or cannot be opened."""

    head: ParcelHead
    parcel: mail_pb2.Parcel
    answer: mail_pb2.MailedAnswer | None
    carrier: str


@dataclass(frozen=True, slots=True)
class OfferParcel:
    """Whoever has it would bring it."""

    head: ParcelHead


@dataclass(frozen=True, slots=True)
class DropParcels:
    source: str
    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TakeMessage:
    source: str
    name: str
    data: bytes
    request_id: str


@dataclass(frozen=True, slots=True)
class MarkRead:
    message_id: str


@dataclass(frozen=True, slots=True)
class DeleteMessage:
    message_id: str

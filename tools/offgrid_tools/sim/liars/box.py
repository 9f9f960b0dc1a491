"""A mailbox that lies: it acks custody and keeps nothing, or brings what it got altered, in another's name, or again
and again, long after it has ended."""

from __future__ import annotations

from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mail.parcels import ParcelHead, letter_context, make_parcel
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crypto import SimLetters
from offgrid_tools.sim.engine import SECOND
from offgrid_tools.sim.process import Process

DELIVER, DEPOSIT = "offgrid.v1.MailService/DeliverParcel", "offgrid.v1.MailService/DepositParcel"
CALL_TIMEOUT_MS = 2_000
LIE_CHANCE, BRING_CHANCE = 0.7, 0.5
LATE_US = ((1 * SECOND, 20 * SECOND), (20 * SECOND, 90 * SECOND), (90 * SECOND, 150 * SECOND))
DAY_US = 86_400 * SECOND


class LyingBox:
    """Stands before the box (`Network.liars`)."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._process, self._rng = cluster, process, cluster.engine.rng
        self.lies = 0
        cluster.network.liars[process.node_id] = self

    def answer(self, source: str, method: str, request: bytes) -> Message | None:
        """The lie, or None where the box itself may answer."""
        if method != DEPOSIT:
            return None
        parcel = mail_pb2.DepositParcelRequest.FromString(request).parcel
        for late_us in LATE_US:
            if self._rng.random() < BRING_CHANCE:
                self._cluster.engine.after(self._rng.randint(*late_us), partial(self._bring, parcel))
        if self._rng.random() >= LIE_CHANCE:
            return None
        self.lies += 1
        return mail_pb2.DepositParcelResponse(until_us=self._process.utc_us + DAY_US)

    def _bring(self, parcel: mail_pb2.Parcel) -> None:
        """As it is, altered, or another one under the same names."""
        self.lies += 1
        head = ParcelHead.decode(parcel.head.body)
        brought = self._rng.choice((self._same, self._altered, self._forged, self._claimed))(parcel, head)
        request = mail_pb2.DeliverParcelRequest(parcel=brought)
        self._cluster.network.call(
            self._process.node_id, head.destination, DELIVER, request, CALL_TIMEOUT_MS, _unheard, honest=False
        )

    def _same(self, parcel: mail_pb2.Parcel, head: ParcelHead) -> mail_pb2.Parcel:
        return parcel

    def _altered(self, parcel: mail_pb2.Parcel, head: ParcelHead) -> mail_pb2.Parcel:
        """A bit of what is sealed, or of what is signed."""
        sealed, body = bytearray(parcel.sealed), bytearray(parcel.head.body)
        part = self._rng.choice((sealed, body))
        part[self._rng.randrange(len(part))] ^= 1 << self._rng.randrange(8)
        altered = mail_pb2.Parcel(sealed=bytes(sealed))
        altered.head.body, altered.head.signature = bytes(body), parcel.head.signature
        return altered

    def _forged(self, parcel: mail_pb2.Parcel, head: ParcelHead) -> mail_pb2.Parcel:
        """Well sealed, in the source's name, by the box's own key."""
        return self._made(head, "a lie", head.source)

    def _claimed(self, parcel: mail_pb2.Parcel, head: ParcelHead) -> mail_pb2.Parcel:
        """What it got, under its own name: the letter is bound to the one who wrote it."""
        mine = ParcelHead.decode(self._made(head, "", self._process.node_id).head.body)
        return self._signed(mine, parcel.sealed)

    def _made(self, head: ParcelHead, text: str, source: str) -> mail_pb2.Parcel:
        message = mail_pb2.TakeMessageRequest(data=text.encode())
        request = mail_pb2.MailedRequest(method=0x0D0B, body=message.SerializeToString())
        content = mail_pb2.MailContent(request=request).SerializeToString()
        reader = self._cluster.monitor.evidence.keys[head.destination]
        sealed = SimLetters(self._process.signer).seal(reader, letter_context(source, head.destination), content)
        number = head.number + self._rng.randint(0, 1)
        named = ParcelHead(source, head.destination, number, head.floor, head.expires_us, 0, b"")
        return self._signed(named, sealed)

    def _signed(self, head: ParcelHead, sealed: bytes) -> mail_pb2.Parcel:
        """By its own key, whatever the head says; with the source's name put in afterwards."""
        signer, salt = self._process.signer, self._cluster.monitor.evidence.salt
        made, parcel = make_parcel(signer, salt, head.destination, head.number, head.floor, head.expires_us, sealed)
        if head.source != made.source:
            named = ParcelHead(
                head.source, made.destination, made.number, made.floor, made.expires_us, made.sealed_bytes, made.digest
            )
            parcel.head.body = named.encode()
        return parcel


def _unheard(outcome: Message | Fault) -> None:
    """It does not matter to it what comes of that."""

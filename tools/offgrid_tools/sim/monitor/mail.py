"""Rules of mail.

- once: a message comes to those to whom it was written, as it was written, and once;
- taken: what its destination has acked is on its disk, until it is told that it has ended;
- custody: what a mailbox has acked is on its disk, until its destination has it, its source says so, or its time is
  over by the mailbox's clock;
- told: whoever is told that a message was taken can rely on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from google.protobuf.message import Message

from offgrid.v1 import mail_pb2, state_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.mail.parcels import ParcelHead
from offgrid_node.protocol.mail.tables import (
    DATA,
    FLOORS,
    HELD,
    MESSAGES,
    OUTBOX,
    SEEN,
    number_of,
    parcel_key,
    parcel_of,
)
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules, Written

Key = tuple[str, int]  # source, number


class MailRules(Rules):
    """Of sources, mailboxes and destinations."""

    def __init__(self, evidence: Evidence, counts: Counter[str]) -> None:
        """`counts` is told what came of parcels, by the words of events."""
        self._evidence, self._counts = evidence, counts
        self._written: dict[tuple[str, str, str], int] = {}  # source, destination, text → how often it came
        self._came: dict[str, str] = {}  # message → at whom
        self._lying: set[tuple[str, bytes]] = set()  # messages that nobody has thrown away, by node
        self._requests: set[Key] = set()  # parcels that are such, and no answers
        self._taken: dict[str, set[Key]] = {}  # that a destination has acked
        self._acked: set[Key] = set()  # by their destinations, answers too
        self._dropped: set[Key] = set()  # that sources want held no more
        self._custody: dict[str, dict[Key, int]] = {}  # by mailbox: until when

    def expect(self, source: str, destination: str, text: str) -> None:
        """Somebody is about to write this, once."""
        self._written[source, destination, text] = 0

    def rows(self) -> Mapping[str, Written]:
        return {OUTBOX: self._on_sent, MESSAGES: self._on_message, HELD: self._on_held}

    def events(self) -> Mapping[str, Journaled]:
        return {"mail": self._count}

    def _count(self, node: str, event: state_pb2.Event) -> None:
        self._counts[f"mail {event.mail.outcome}"] += 1

    def requests(self) -> Mapping[type[Message], Passed]:
        return {mail_pb2.DropParcelsRequest: self._on_drop}

    def _on_sent(self, node: str, key: bytes, value: bytes | None) -> None:
        self._requests.add((node, number_of(key)))

    def _on_message(self, node: str, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._lying.discard((node, key))
        elif (node, key) not in self._lying:
            self._lying.add((node, key))
            self._on_new(node, mail_pb2.MessageRow.FromString(value).message)

    def _on_new(self, node: str, message: mail_pb2.Message) -> None:
        key = message.message_id.encode()
        text = (self._evidence.row(node, DATA, key) or b"").decode("utf-8", "replace")
        thing = message.source, node, text
        if thing not in self._written:
            raise Violation(f"{self._name(node)} has a message {text!r} that nobody wrote to it")
        self._written[thing] += 1
        self._came[message.message_id] = node
        if self._written[thing] > 1:
            raise Violation(f"{self._name(node)} got the message {text!r} {self._written[thing]} times")

    def _on_drop(self, source: str, mailbox: str, request: mail_pb2.DropParcelsRequest) -> None:
        self._dropped.update((source, number) for number in request.numbers)

    # ---- acks, as they leave

    def on_answered(self, node: str, request: Message, reply: Message) -> None:
        """What an honest node says, no fault."""
        if isinstance(reply, mail_pb2.DeliverParcelResponse) and reply.wanted:
            self._counts["mail offered and wanted"] += 1
            return
        if isinstance(request, mail_pb2.DeliverParcelRequest):
            self._on_taken(node, ParcelHead.decode(request.parcel.head.body))
        elif isinstance(request, mail_pb2.DepositParcelRequest):
            self._on_custody(node, ParcelHead.decode(request.parcel.head.body))

    def _on_taken(self, node: str, head: ParcelHead) -> None:
        key = head.source, head.number
        if head.destination != node:
            raise Violation(f"{self._name(node)} takes a parcel for {self._name(head.destination)}")
        self._acked.add(key)
        if key in self._requests:
            self._taken.setdefault(node, set()).add(key)
            self._check_taken(node, key)

    def _check_taken(self, node: str, key: Key) -> None:
        source, number = key
        over = number_of(self._evidence.row(node, FLOORS, node_id_bytes(source))) > number
        if not over and self._evidence.row(node, SEEN, parcel_key(source, number)) is None:
            raise Violation(f"{self._name(node)} has acked mail {number} of {self._name(source)}; its disk has not")

    def _on_custody(self, node: str, head: ParcelHead) -> None:
        key = head.source, head.number
        value = self._evidence.row(node, HELD, parcel_key(*key))
        if value is not None:
            self._custody.setdefault(node, {})[key] = mail_pb2.HeldRow.FromString(value).until_us
        elif key not in self._acked | self._dropped:
            raise Violation(f"{self._name(node)} acks custody of {key[1]}; its disk has not got it")

    def _on_held(self, node: str, key: bytes, value: bytes | None) -> None:
        parcel = parcel_of(key)
        if value is None and parcel in self._custody.get(node, {}):
            self._check_may_go(node, parcel)
            del self._custody[node][parcel]

    def _check_may_go(self, node: str, parcel: Key) -> None:
        until_us = self._custody[node][parcel]
        if parcel not in self._acked | self._dropped and self._evidence.latest_us[node]() < until_us:
            raise Violation(f"{self._name(node)} drops mail {parcel[1]} in its custody, and nobody has it")

    # ---- what people were told, and what disks keep

    def on_told(self, node: str, told: mail_pb2.GetMailResponse) -> None:
        """A writer was told how a message has ended."""
        message_id = told.message.message_id
        if told.mail.state == mail_pb2.MAIL_STATE_ANSWERED and self._came.get(message_id) != told.mail.destination:
            raise Violation(f"{self._name(node)} is told that {message_id} was taken; it never came")

    def check_store(self, node: str) -> None:
        for key in self._taken.get(node, ()):
            self._check_taken(node, key)
        for key in self._custody.get(node, ()):
            if self._evidence.row(node, HELD, parcel_key(*key)) is None:
                self._check_may_go(node, key)

    def _name(self, node: str) -> str:
        return self._evidence.name_of(node)

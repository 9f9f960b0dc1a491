"""One mail machine with its rows in memory, for tests of its parts: what it is told, and what it has done."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from google.protobuf.message import Message

from offgrid.v1 import mail_pb2, state_pb2
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Call, Effect, Record, Reply, Woke
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.mail import commands
from offgrid_node.protocol.mail.courier import Errand
from offgrid_node.protocol.mail.errands import Serve, Served
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mail.parcels import ParcelHead, make_parcel, read_parcel
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.pace import FREE, Pace
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

SALT = bytes(range(16))
ALICE, BOB, CAROL, DAVE, ERIN = (NodeKey(letter * 32) for letter in (b"a", b"b", b"c", b"d", b"e"))
HOUR_US = 3_600_000_000
START_US = 1_790_000_000_000_000
DELIVER, DEPOSIT, DROP = "DeliverParcel", "DepositParcel", "DropParcels"
TAKEN = mail_pb2.DeliverParcelResponse()
UNTIL = mail_pb2.DepositParcelResponse(until_us=START_US + 20 * HOUR_US)
SLOW = Pace(frame_us=40_000, byte_us=1_500, wait_ms=100)


@dataclass
class Post:
    """`key`'s machine. Time goes by as `after_ms` says."""

    key: NodeKey = ALICE
    mailbox_bytes: int = 1_000_000
    slow: set[NodeKey] = field(default_factory=set)  # whom a radio channel alone leads to
    store: MemoryStore = field(default_factory=MemoryStore)
    now: Now = field(default_factory=lambda: Now(1_000, START_US))
    calls: list[Call] = field(default_factory=list)
    serves: list[Serve] = field(default_factory=list)
    events: list[mail_pb2.MailEvent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A new machine over what is committed; nobody is up."""
        settings = MailSettings(self.key, SALT, self.mailbox_bytes, 24 * HOUR_US, paces=self._pace)
        self.machine = MailMachine(settings)
        self.machine.load(self.store, self.now)
        self.tell()

    def _pace(self, node_id: str) -> Pace:
        return SLOW if node_id in {key.node_id for key in self.slow} else FREE

    def tell(self, *inputs: object) -> list[Effect]:
        effects = self.machine.step(inputs or [Woke()], self.now, random.Random(1))
        batch = Batch()
        for effect in effects:
            match effect:
                case Call():
                    self.calls.append(effect)
                case Serve():
                    self.serves.append(effect)
                case Record(event):
                    assert isinstance(event, state_pb2.Event)
                    self.events.append(event.mail)
                case _ if hasattr(effect, "table"):
                    batch.writes[effect.table, effect.key] = getattr(effect, "value", None)
        self.store.commit(batch)
        self.now = Now(self.now.mono_ms + 1, self.now.utc_us + 1_000)
        return effects

    def ask(self, command: object) -> Message | Fault:
        """Its reply."""
        replies = [effect.outcome for effect in self.tell(Asked(7, "x", command)) if isinstance(effect, Reply)]
        assert len(replies) == 1
        return replies[0]

    def up(self, *keys: NodeKey) -> None:
        for key in keys:
            self.tell(PeerUp(key.node_id, "", frozenset()))

    def down(self, key: NodeKey, *, removed: bool = False) -> None:
        self.tell(PeerDown(key.node_id, removed))

    def after_ms(self, ms: int) -> None:
        self.now = Now(self.now.mono_ms + ms, self.now.utc_us + 1_000 * ms)
        self.tell()

    def take_calls(self) -> list[tuple[str, str, Message]]:
        """Node, method and request of what it has called since."""
        taken, self.calls = self.calls, []
        self._last = taken
        return [(call.node, call.method.partition("/")[2], call.request) for call in taken]

    def answer(self, reply: Message | Fault, number: int = 0) -> None:
        """The end of one of the calls that were taken last."""
        call = self._last[number]
        assert isinstance(call.tag, Errand)
        is_fault = isinstance(reply, Fault)
        self.tell(Answered(call.tag, call.node, None if is_fault else reply, reply if is_fault else None))

    def send(self, to: NodeKey = CAROL, text: bytes = b"sealed", expires_in_us: int = 0, request_id: str = "") -> int:
        reply = self.ask(commands.SendMail(to.node_id, "m", "s", text, expires_in_us, request_id, text))
        assert isinstance(reply, mail_pb2.SendMailResponse), reply
        return reply.mail.number

    def mail(self, number: int) -> mail_pb2.Mail:
        return mail_pb2.Mail.FromString(self.store.get("mail_outbox", number.to_bytes(8, "big")) or b"")

    def state(self, number: int) -> str:
        return mail_pb2.MailState.Name(self.mail(number).state).removeprefix("MAIL_STATE_")

    def rows(self, table: str) -> Sequence[tuple[bytes, bytes]]:
        return list(self.store.scan(table))

    def deliver(self, parcel: mail_pb2.Parcel, carrier: NodeKey = BOB) -> Message | Fault:
        return self.ask(commands.DeliverParcel(read_parcel(parcel), parcel, None, carrier.node_id))

    def deliver_answer(self, source: NodeKey, number: int, response: bytes = b"yes") -> Message | Fault:
        head, made = parcel(source, self.key, 9_000_000)
        answer = mail_pb2.MailedAnswer(number=number, response=response)
        return self.ask(commands.DeliverParcel(head, made, answer, source.node_id))

    def deposit(self, parcel: mail_pb2.Parcel) -> Message | Fault:
        return self.ask(commands.DepositParcel(read_parcel(parcel), parcel))

    def served(self, serve: Serve, answer: bytes | None = b"sealed answer") -> None:
        self.tell(Served(serve.source, serve.number, answer))


def parcel(
    source: NodeKey, to: NodeKey, number: int, *, floor: int = 0, sealed: bytes = b"sealed", expires_us: int = 0
) -> tuple[ParcelHead, mail_pb2.Parcel]:
    return make_parcel(source, SALT, to.node_id, number, floor or number, expires_us or START_US + 12 * HOUR_US, sealed)

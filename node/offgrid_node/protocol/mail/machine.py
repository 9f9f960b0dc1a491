"""The mail domain's machine: hands each input to source, mailbox or destination, and closes the step."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.mail import commands
from offgrid_node.protocol.mail.courier import Courier, Errand, Kind, Said
from offgrid_node.protocol.mail.errands import Served
from offgrid_node.protocol.mail.inbox import Inbox
from offgrid_node.protocol.mail.mailbox import Mailbox
from offgrid_node.protocol.mail.messages import Messages
from offgrid_node.protocol.mail.outbox import Outbox
from offgrid_node.protocol.mail.sender import Sender
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.rng import Rng

SWEEP_MS = 60_000  # how late what has expired may be noticed; the wall clock may be set at any time


class MailMachine:
    """Source, mailbox and destination of one node."""

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings
        self._draft = draft = Draft()
        self._now = Now(0, 0)
        self._courier = courier = Courier(draft)
        self._outbox = outbox = Outbox(settings, draft)
        self._sender = sender = Sender(
            settings, draft, courier, outbox.on_custody, lambda number: outbox.on_taken(number, self._now)
        )
        self._inbox = Inbox(settings, draft, sender, outbox)
        self._mailbox = Mailbox(settings, draft, courier)
        self._messages = Messages(draft)
        self._sweep_ms: int | None = None

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._outbox.load(rows, now)
        self._sender.load(rows)
        self._inbox.load(rows, now)
        self._mailbox.load(rows)
        self._messages.load(rows)
        self._sweep_ms = now.mono_ms if self._lasts else None

    @property
    def held(self) -> tuple[int, int, int]:
        """Of the mailbox: parcels, bytes, and how many bytes there may be."""
        return len(self._mailbox), self._mailbox.used_bytes, self._settings.mailbox_bytes

    @property
    def unread(self) -> int:
        """Messages that nobody has read."""
        return self._messages.unread

    @property
    def unanswered(self) -> int:
        """Own requests that wait for their answers."""
        return len(self._outbox)

    def deadline_ms(self) -> int | None:
        dues = (self._courier.deadline_ms(), self._inbox.deadline_ms(), self._outbox.deadline_ms(), self._sweep_ms)
        return min((due for due in dues if due is not None), default=None)

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        self._now = now
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    try:
                        self._ask(ticket, command, now)
                    except Internal:
                        raise
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case Answered(Errand() as errand, _, reply, fault):
                    self._on_end(errand, reply, fault, now)
                case Served():
                    self._inbox.on_served(event, now)
                case PeerUp(node_id):
                    self._on_up(node_id, now)
                case PeerDown(node_id):
                    self._on_down(event, now)
                case Woke():
                    pass  # what is due is done when the step closes
                case _:
                    raise Internal(f"the mail machine does not know {type(event).__name__}")
        self._close_step(now)
        return self._draft.take()

    # ---- inside

    @property
    def _lasts(self) -> bool:
        """Whether there is anything that may expire."""
        return bool(len(self._sender) or len(self._mailbox))

    def _ask(self, ticket: int, command: object, now: Now) -> None:
        match command:
            case commands.SendMail():
                self._outbox.on_send(ticket, command, self._sender, now)
            case commands.DepositParcel():
                self._mailbox.on_deposit(ticket, command, now)
            case commands.DeliverParcel():
                self._inbox.on_deliver(ticket, command, now)
            case commands.OfferParcel(head):
                self._inbox.on_offer(ticket, head)
            case commands.DropParcels():
                self._mailbox.on_drop(ticket, command)
            case commands.TakeMessage():
                self._messages.on_take(ticket, command, now)
            case commands.MarkRead(message_id):
                self._messages.on_read(ticket, message_id)
            case commands.DeleteMessage(message_id):
                self._messages.on_delete(ticket, message_id)
            case _:
                raise Internal(f"the mail machine does not know {type(command).__name__}")

    def _on_up(self, node: str, now: Now) -> None:
        if node != self._settings.node_id:
            self._courier.on_up(node)
            self._sender.on_up(node, now)
            self._mailbox.on_up(node)

    def _on_down(self, event: PeerDown, now: Now) -> None:
        self._courier.on_down(event.node_id)
        self._sender.on_down(event.node_id, now)
        if event.removed:
            self._outbox.on_expired(self._sender.on_removed(event.node_id, now), now)
            self._inbox.on_removed(event.node_id)
            self._mailbox.on_removed(event.node_id)

    def _on_end(self, errand: Errand, reply: object, fault: Fault | None, now: Now) -> None:
        if errand.kind is Kind.HAND_OVER:
            again = self._mailbox.on_end(errand, reply, fault)
        else:
            again = self._sender.on_end(errand, reply, fault, now)
        self._courier.on_end(errand, fault, now, again=again)

    def _say(self, errand: Errand) -> Said | None:
        return self._mailbox.say(errand) if errand.kind is Kind.HAND_OVER else self._sender.say(errand)

    def _close_step(self, now: Now) -> None:
        if self._sweep_ms is not None and self._sweep_ms <= now.mono_ms:
            self._outbox.on_expired(self._sender.take_expired(now), now)
            self._mailbox.drop_expired(now)
            self._sweep_ms = None
        if self._sweep_ms is None and self._lasts:
            self._sweep_ms = now.mono_ms + SWEEP_MS
        for number in self._outbox.take_reminders(now):
            self._sender.again(number, now)
        self._inbox.serve_due(now)
        self._courier.send(self._say, now)

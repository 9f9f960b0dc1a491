"""The source's part: requests that were sent, each until it is answered or expires, and for a while after.

    WAITING → HELD → TAKEN → ANSWERED | REFUSED     an answer may come in each of the first three
    any of the first three → EXPIRED → ANSWERED | REFUSED, where the answer comes late

Until then the parcel is this node's to bring on (`sender.py`); a mailbox that loses it costs time.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Exhausted
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.mail.commands import SendMail
from offgrid_node.protocol.mail.sender import Sender
from offgrid_node.protocol.mail.settings import MailSettings
from offgrid_node.protocol.mail.tables import OUTBOX, number_key, number_of
from offgrid_node.protocol.requests import reused
from offgrid_node.protocol.timers import Timers

OPEN_MAX = 1_024  # requests that wait for their answers
OPEN_PER_NODE_MAX = 256
ENDED_MAX = 1_000  # requests that are shown once they have ended
REMIND_MS, REMIND_MS_MAX = 600_000, 21_600_000  # who has taken it and does not answer gets it again

WAITING, HELD, TAKEN = (mail_pb2.MAIL_STATE_WAITING, mail_pb2.MAIL_STATE_HELD, mail_pb2.MAIL_STATE_TAKEN)
ANSWERED, REFUSED, EXPIRED = (
    mail_pb2.MAIL_STATE_ANSWERED,
    mail_pb2.MAIL_STATE_REFUSED,
    mail_pb2.MAIL_STATE_EXPIRED,
)
OPEN = frozenset({WAITING, HELD, TAKEN})


class Outbox:
    """This node's own requests."""

    def __init__(self, settings: MailSettings, draft: Draft) -> None:
        self._settings, self._draft = settings, draft
        self._open: dict[str, dict[int, None]] = {}  # by destination, rising
        self._ended: dict[int, None] = {}
        self._by_request_id: dict[str, int] = {}
        self._reminders = Timers[int]()
        self._reminded: dict[int, int] = {}  # pause, of those that were

    def load(self, rows: Rows, now: Now) -> None:
        for key, value in rows.scan(OUTBOX):
            mail = mail_pb2.Mail.FromString(value)
            if mail.state in OPEN:
                self._open.setdefault(mail.destination, {})[number_of(key)] = None
            else:
                self._ended[number_of(key)] = None
            if mail.request_id:
                self._by_request_id[mail.request_id] = mail.number
            if mail.state == TAKEN:
                self._reminders.set(mail.number, now.mono_ms + REMIND_MS)

    def __len__(self) -> int:
        """Those that are open."""
        return sum(map(len, self._open.values()))

    def deadline_ms(self) -> int | None:
        return self._reminders.next_ms()

    def floor(self, destination: str, number: int) -> int:
        """The lowest open request to it, `number` where there is none."""
        return next(iter(self._open.get(destination, ())), number)

    # ---- from this node's owner

    def on_send(self, ticket: int, command: SendMail, sender: Sender, now: Now) -> None:
        """Raises Exhausted (OutboxFull), AlreadyExists (RequestIdReused)."""
        mail = self._made(command)
        if mail is None:
            mail = self._send(command, sender, now)
        self._draft.reply(ticket, mail_pb2.SendMailResponse(mail=mail))

    def _made(self, command: SendMail) -> mail_pb2.Mail | None:
        known = self._by_request_id.get(command.request_id) if command.request_id else None
        mail = self._row(known) if known is not None else None
        if mail is not None and mail.request_digest != command.digest:
            raise reused(command.request_id, str(mail.number))
        return mail

    def _send(self, command: SendMail, sender: Sender, now: Now) -> mail_pb2.Mail:
        here, to_it = len(self), len(self._open.get(command.destination, ()))
        if here >= OPEN_MAX or to_it >= OPEN_PER_NODE_MAX:
            bounds = f"{OPEN_MAX} may, {OPEN_PER_NODE_MAX} of one node"
            raise Exhausted(f"{here} requests wait for answers, {to_it} of that node; {bounds}", reason="OutboxFull")
        number, destination = sender.next_number(now), command.destination
        expires_us = now.utc_us + min(command.expires_in_us or self._settings.keep_us, self._settings.keep_us)
        head = sender.add(destination, number, self.floor(destination, number), expires_us, command.sealed, now)
        self._open.setdefault(destination, {})[number] = None
        mail = mail_pb2.Mail(
            number=number,
            destination=destination,
            method=command.method,
            state=WAITING,
            size_bytes=head.size_bytes,
            sent_us=now.utc_us,
            expires_us=expires_us,
            subject=command.subject,
            request_id=command.request_id,
            request_digest=command.digest,
        )
        if command.request_id:
            self._by_request_id[command.request_id] = number
        self._put(mail, "sent")
        return mail

    # ---- on their way

    def on_custody(self, number: int, mailbox: str) -> None:
        mail = self._row(number)
        if mail is None:
            return
        if mailbox not in mail.mailboxes:
            mail.mailboxes.append(mailbox)
        if mail.state == WAITING:
            mail.state = HELD
        self._put(mail, "custody", mailbox)

    def on_taken(self, number: int, now: Now) -> None:
        mail = self._row(number)
        if mail is None or mail.state not in OPEN:
            return
        pause_ms = min(2 * self._reminded.get(number, REMIND_MS // 2), REMIND_MS_MAX)
        self._reminded[number] = pause_ms
        self._reminders.set(number, now.mono_ms + pause_ms)
        if mail.state != TAKEN:
            mail.state = TAKEN
            self._put(mail, "taken")

    def take_reminders(self, now: Now) -> list[int]:
        """Those whose destination has had them for long and does not answer."""
        return self._reminders.take_due(now.mono_ms)

    def on_answer(self, source: str, answer: mail_pb2.MailedAnswer, now: Now) -> bool:
        """An answer that came, perhaps again; whether its request may be forgotten on the way now."""
        mail = self._row(answer.number)
        if mail is None or mail.destination != source or mail.state in (ANSWERED, REFUSED):
            return False
        refused = answer.WhichOneof("outcome") == "fault"
        mail.response, mail.fault = answer.response, answer.fault
        self._end(mail, REFUSED if refused else ANSWERED, "refused" if refused else "answered", now)
        return True

    def on_expired(self, numbers: Sequence[int], now: Now) -> None:
        for number in numbers:
            mail = self._row(number)
            if mail is not None and mail.state in OPEN:
                self._end(mail, EXPIRED, "expired", now)

    # ---- inside

    def _end(self, mail: mail_pb2.Mail, state: mail_pb2.MailState.ValueType, outcome: str, now: Now) -> None:
        number = mail.number
        mail.state, mail.ended_us = state, now.utc_us
        del mail.mailboxes[:]
        waiting = self._open.get(mail.destination, {})
        waiting.pop(number, None)
        if not waiting:
            self._open.pop(mail.destination, None)
        self._reminders.cancel(number)
        self._reminded.pop(number, None)
        self._ended[number] = None
        self._put(mail, outcome)
        while len(self._ended) > ENDED_MAX:
            self._forget(next(iter(self._ended)))

    def _forget(self, number: int) -> None:
        mail = self._row(number)
        del self._ended[number]
        self._draft.delete(OUTBOX, number_key(number))
        if mail is not None and self._by_request_id.get(mail.request_id) == number:
            del self._by_request_id[mail.request_id]

    def _row(self, number: int) -> mail_pb2.Mail | None:
        return self._draft.row(OUTBOX, number_key(number), mail_pb2.Mail)

    def _put(self, mail: mail_pb2.Mail, outcome: str, mailbox: str = "") -> None:
        self._draft.put(OUTBOX, number_key(mail.number), mail)
        event = mail_pb2.MailEvent(
            source=self._settings.node_id,
            destination=mail.destination,
            number=mail.number,
            outcome=outcome,
            node=mailbox,
            size_bytes=mail.size_bytes,
        )
        self._draft.record(EventType.MAIL_CHANGED, mail.destination, mail=event)

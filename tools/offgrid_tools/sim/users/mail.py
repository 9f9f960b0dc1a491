"""Who writes to others, waits for their answers, reads what came and throws it away."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor, Violation
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

PAUSE_MAX_US, LOOK_US = 6 * SECOND, 2 * SECOND
LONG, LONG_CHANCE = " and so on" * 200, 0.5
EXPIRES_MS = (0, 0, 0, 40_000)  # 0: as the config says, days
OPEN = (mail_pb2.MAIL_STATE_WAITING, mail_pb2.MAIL_STATE_HELD, mail_pb2.MAIL_STATE_TAKEN)


class Writer(Person):
    """`mails` messages to `others`; where `sure`, each that does not expire within a seed must be
    answered; `long`: some are offered before they are brought."""

    wants = "an answer to a message"

    def __init__(
        self,
        engine: Engine,
        monitor: Monitor,
        process: Process,
        others: Sequence[str],
        mails: int,
        *,
        sure: bool,
        long: bool,
    ) -> None:
        super().__init__(engine, monitor, process)
        self._others, self._mails, self._sure, self._long = others, mails, sure, long
        self._sent = self._ended = 0

    @property
    def content(self) -> bool:
        return self._ended == self._mails

    def start(self) -> None:
        self._engine.after(LOOK_US, self._look)
        self._later()

    def _later(self) -> None:
        self._engine.after(int(self._engine.rng.random() * PAUSE_MAX_US), self._write)

    def _write(self) -> None:
        rng, self._sent = self._engine.rng, self._sent + 1
        other = rng.choice(self._others)
        text = f"{self._process.spec.name} {self._sent}"
        if self._long and rng.random() < LONG_CHANCE:
            text += LONG
        expires_in_ms = rng.choice(EXPIRES_MS)
        self._monitor.mail.expect(self.node, other, text)
        request = mail_pb2.SendMailRequest(
            node=other,
            message=mail_pb2.TakeMessageRequest(data=text.encode()),
            expires_in_ms=expires_in_ms,
            request_id=f"r{self._sent}",
        )
        self._call("MailService/SendMail", request, lambda reply: self._on_sent(reply, lasts=not expires_in_ms))
        if self._sent < self._mails:
            self._later()

    def _on_sent(self, reply: Message, *, lasts: bool) -> None:
        assert isinstance(reply, mail_pb2.SendMailResponse)
        self._ask_after(reply.mail.number, lasts)

    def _ask_after(self, number: int, lasts: bool) -> None:
        def told(reply: Message) -> None:
            assert isinstance(reply, mail_pb2.GetMailResponse)
            state = reply.mail.state
            if state in OPEN:
                self._engine.after(LOOK_US, lambda: self._ask_after(number, lasts))
                return
            if lasts and self._sure and state != mail_pb2.MAIL_STATE_ANSWERED:
                said = f"{mail_pb2.MailState.Name(state)} {reply.reason}"
                raise Violation(f"{self._process.spec.name}: mail {number} had days, and ended as {said}")
            self._monitor.mail.on_told(self.node, reply)
            self._ended += 1

        self._call("MailService/GetMail", mail_pb2.GetMailRequest(number=number), told)

    # ---- what came

    def _look(self) -> None:
        self._call("MailService/ListMessages", mail_pb2.ListMessagesRequest(), self._on_listed)

    def _on_listed(self, reply: Message) -> None:
        assert isinstance(reply, mail_pb2.ListMessagesResponse)
        for message in reply.messages:
            request = mail_pb2.ReadMessageRequest(message_id=message.message_id)
            self._call("MailService/ReadMessage", request, self._on_read, _is_gone)
        self._engine.after(LOOK_US + int(self._engine.rng.random() * 500 * MS), self._look)

    def _on_read(self, reply: Message) -> None:
        assert isinstance(reply, mail_pb2.ReadMessageResponse)
        request = mail_pb2.DeleteMessageRequest(message_id=reply.message.message_id)
        self._call("MailService/DeleteMessage", request, lambda _: None, _is_gone)


def _is_gone(fault: Fault) -> bool:
    return fault.reason == "MessageNotFound"

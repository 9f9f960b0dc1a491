"""Mail by packets alone: two nodes that are never in reach of each other, and two that carry between them."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from test_job_over_packets import PacketMesh

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN
from offgrid_transports.memory import Faults

SENDER, READER = "core", "host-a"
TEXT = b"several fragments " * 2_000


def ask(mesh: PacketMesh, at: str, method: str, request: Message) -> Any:
    """The answer to the owner of a node."""
    outcome = mesh.members[at].running.router.dispatch(ADMIN, f"offgrid.v1.MailService/{method}", request)
    while isinstance(outcome, Ticket):
        mesh.run_for(0.01)
        if outcome.outcome is not None:
            break
    ended = outcome.outcome if isinstance(outcome, Ticket) else outcome
    assert not isinstance(ended, Fault), ended
    return ended


def test_a_message_goes_by_mailboxes_over_a_lossy_link_and_its_answer_comes_back() -> None:
    mesh = PacketMesh(3, Faults(loss=0.05, duplicate=0.02, delay_ms=10, jitter_ms=10))
    mesh.run_for(10)
    mesh.packets.cut = lambda source, target: READER in (source, target)
    mesh.run_for(30)  # it is missed
    sent = mail_pb2.SendMailRequest(node=READER, message=mail_pb2.TakeMessageRequest(data=TEXT))
    number = ask(mesh, SENDER, "SendMail", sent).mail.number
    for _ in range(60):
        mesh.run_for(1)
        mail = ask(mesh, SENDER, "GetMail", mail_pb2.GetMailRequest(number=number)).mail
        if len(mail.mailboxes) == 2:
            break
    assert mail.state == mail_pb2.MAIL_STATE_HELD

    mesh.packets.cut = lambda source, target: SENDER in (source, target)
    listed: list[mail_pb2.Message] = []
    for _ in range(120):
        mesh.run_for(1)
        if listed := ask(mesh, READER, "ListMessages", mail_pb2.ListMessagesRequest()).messages:
            break
    (message,) = listed
    read = mail_pb2.ReadMessageRequest(message_id=message.message_id)
    assert ask(mesh, READER, "ReadMessage", read).data == TEXT
    mesh.run_for(30)  # its answer is on its way

    mesh.packets.cut = lambda source, target: READER in (source, target)
    for _ in range(120):
        mesh.run_for(1)
        mail = ask(mesh, SENDER, "GetMail", mail_pb2.GetMailRequest(number=number)).mail
        if mail.ended_us:
            break
    assert mail.state == mail_pb2.MAIL_STATE_ANSWERED

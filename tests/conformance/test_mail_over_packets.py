"""Mail by packets alone: two nodes that are never in reach of each other, and two that carry between them."""

from __future__ import annotations

from quiet_world import Cable, World
from test_job_over_packets import FOUR

from offgrid.v1 import mail_pb2
from offgrid_transports.memory import Faults

SENDER, READER = "core", "host-a"
TEXT = b"several fragments " * 2_000


def test_a_message_goes_by_mailboxes_over_a_lossy_link_and_its_answer_comes_back() -> None:
    cable = Cable(Faults(loss=0.05, duplicate=0.02, delay_ms=10, jitter_ms=10))
    mesh = World(FOUR, cable)
    mesh.see_each_other()
    cable.network.cut = lambda source, target: READER in (source, target)
    mesh.run_for(30)  # it is missed
    sent = mail_pb2.SendMailRequest(node=READER, message=mail_pb2.TakeMessageRequest(data=TEXT))
    number = mesh.ask(SENDER, "MailService/SendMail", sent).mail.number
    for _ in range(60):
        mesh.run_for(1)
        mail = mesh.ask(SENDER, "MailService/GetMail", mail_pb2.GetMailRequest(number=number)).mail
        if len(mail.mailboxes) == 2:
            break
    assert mail.state == mail_pb2.MAIL_STATE_HELD

    cable.network.cut = lambda source, target: SENDER in (source, target)
    listed: list[mail_pb2.Message] = []
    for _ in range(120):
        mesh.run_for(1)
        if listed := mesh.ask(READER, "MailService/ListMessages", mail_pb2.ListMessagesRequest()).messages:
            break
    (message,) = listed
    read = mail_pb2.ReadMessageRequest(message_id=message.message_id)
    assert mesh.ask(READER, "MailService/ReadMessage", read).data == TEXT
    mesh.run_for(30)  # its answer is on its way

    cable.network.cut = lambda source, target: READER in (source, target)
    for _ in range(120):
        mesh.run_for(1)
        mail = mesh.ask(SENDER, "MailService/GetMail", mail_pb2.GetMailRequest(number=number)).mail
        if mail.ended_us:
            break
    assert mail.state == mail_pb2.MAIL_STATE_ANSWERED

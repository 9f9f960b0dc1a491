"""Mail over one LoRa channel: two nodes that are never on the air together, and one that hears each of them in turn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from quiet_world import Air, World

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.events import CORE

THREE = {"anna": (CORE,), "box": (CORE,), "carl": (CORE,)}
TEXT = b"come over, the mill turns again."


class Turns(Air):
    """A channel that nodes leave and join."""

    def __init__(self, loss: float) -> None:
        super().__init__(loss)
        self._away: set[str] = set()

    def without(self, away: str) -> None:
        """Who is away now, and nobody else."""
        for name in self._away - {away}:
            self.channel.join(self.modems[name])
        if away not in self._away:
            self.channel.leave(self.modems[away])
        self._away = {away}


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_message_waits_at_the_one_between_and_so_does_its_answer(loss: float) -> None:
    air = Turns(loss)
    world = World(THREE, air)
    world.see_each_other()

    def until(question: Callable[[], bool], what: str, within_s: int = 900) -> None:
        for _ in range(within_s):
            if question():
                return
            world.run_for(1)
        raise AssertionError(f"not within {within_s} s: {what}")

    def mail() -> mail_pb2.Mail:
        found: mail_pb2.Mail = world.ask("anna", "MailService/GetMail", mail_pb2.GetMailRequest(number=number)).mail
        return found

    def holds(name: str) -> bool:
        box: mail_pb2.GetMailboxResponse = world.ask("box", "MailService/GetMailbox", mail_pb2.GetMailboxRequest())
        return [parcel.destination for parcel in box.parcels] == [world.nodes[name].node_id]

    air.without("carl")
    message = mail_pb2.SendMailRequest(node="carl", message=mail_pb2.TakeMessageRequest(data=TEXT))
    number = world.ask("anna", "MailService/SendMail", message).mail.number
    until(lambda: holds("carl"), "the box has custody")
    air.without("anna")
    until(lambda: holds("anna"), "carl has taken it, and its answer is in the box")
    (listed,) = world.ask("carl", "MailService/ListMessages", mail_pb2.ListMessagesRequest()).messages
    read = world.ask("carl", "MailService/ReadMessage", mail_pb2.ReadMessageRequest(message_id=listed.message_id))
    assert read.data == TEXT
    air.without("carl")
    until(lambda: mail().state == mail_pb2.MAIL_STATE_ANSWERED, "the answer is there")
    assert world.said.bytes["DepositParcel"] <= 4 * 300, world.said

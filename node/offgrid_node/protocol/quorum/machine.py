"""The quorum domain's machine: hands each input to owner, member or broker, and closes the step."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import Fault, Internal
from offgrid_node.protocol.events import AckArrived, CloseQuorum, OpenQuorum, PeerDown, PeerUp
from offgrid_node.protocol.quorum import commands
from offgrid_node.protocol.quorum.member import Signing
from offgrid_node.protocol.quorum.owner import Owner
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.telling import Telling
from offgrid_node.protocol.quorum.tracking import Tracking
from offgrid_node.protocol.rng import Rng


class QuorumMachine:
    """Owner, member and broker of one node."""

    def __init__(self, settings: QuorumSettings) -> None:
        self._draft = Draft()
        self._signing = Signing(settings, self._draft)
        self._telling = Telling(settings.node_id, self._draft)
        self._owner = Owner(settings, self._signing, self._draft, self._telling.on_change, self._telling.on_closed)
        self._tracking = Tracking(settings, self._draft)

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self._telling.load(now)

    def deadline_ms(self) -> int | None:
        return self._telling.deadline_ms()

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self._draft.begin(now)
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    try:
                        self._ask(ticket, command, now)
                    except Internal:
                        raise
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case Answered(commands.AckTag() as tag):
                    self._owner.on_signed(tag, event, now)
                case Answered(commands.TellTag() as tag):
                    self._telling.on_told(tag, event, now)
                case OpenQuorum():
                    self._owner.on_open(event, now)
                case CloseQuorum(quorum_id):
                    self._owner.on_close(quorum_id, now)
                case AckArrived():
                    self._owner.on_arrived(event, now)
                case PeerUp():
                    self._telling.on_up(event, now)
                case PeerDown(node_id):
                    self._telling.on_down(node_id)
                case Woke():
                    pass  # what is due is told when the step closes
                case _:
                    raise Internal(f"the quorum machine does not know {type(event).__name__}")
        self._telling.close_step(now)
        return self._draft.take()

    def _ask(self, ticket: int, command: object, now: Now) -> None:
        match command:
            case commands.CreateQuorum():
                self._owner.on_create(ticket, command, now)
            case commands.AckQuorum():
                self._owner.on_ack(ticket, command, now)
            case commands.SignAck():
                self._draft.reply(ticket, quorum_pb2.SignAckResponse(ack=self._signing.ack(command.epoch)))
            case commands.TrackQuorums():
                self._tracking.on_track(ticket, command, now)
            case _:
                raise Internal(f"the quorum machine does not know {type(command).__name__}")

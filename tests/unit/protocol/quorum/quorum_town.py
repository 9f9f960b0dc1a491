"""Nodes with a quorum machine each; calls between them lie on a table until somebody carries them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from google.protobuf.message import Message

from offgrid.v1 import quorum_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Call, Effect, Machine, Raise, Rows
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.events import BROKER, PeerDown, PeerUp
from offgrid_node.protocol.quorum.commands import AckQuorum, CreateQuorum, SignAck, TrackQuorums
from offgrid_node.protocol.quorum.machine import QuorumMachine
from offgrid_node.protocol.quorum.records import Epoch, Member
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.tables import QUORUMS, quorum_key
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.sim.crypto import SimSigner

SALT = b"s" * 16


class Ear:
    """The objects domain's place: it hears what the quorum machine tells it, and raises what it is asked to."""

    def __init__(self, heard: list[object]) -> None:
        self._heard = heard

    def load(self, rows: Rows, now: Now) -> None:
        pass

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        raised: list[Effect] = []
        for event in inputs:
            if isinstance(event, Asked):
                raised.append(Raise("quorum", event.command))
            else:
                self._heard.append(event)
        return raised

    def deadline_ms(self) -> int | None:
        return None


class Place:
    """One node; its store outlives its runtime."""

    def __init__(self, town: Town, name: str) -> None:
        self.town, self.signer, self.store = town, SimSigner(name), MemoryStore()
        self.calls: list[Call] = []
        self.heard: list[object] = []
        self.start()

    @property
    def node_id(self) -> str:
        return self.signer.node_id

    def start(self) -> None:
        """Anew, with nothing but its store."""
        self.runtime = Runtime(self._build, self.store, self.town, Random(1), self)  # type: ignore[arg-type]
        self.runtime.turn()

    def _build(self) -> dict[str, Machine]:
        settings = QuorumSettings(self.signer, SALT, self.town.fences_max, self.town.tracked_max)
        return {"quorum": QuorumMachine(settings), "objects": Ear(self.heard)}

    def call(self, call: Call) -> None:
        self.calls.append(call)

    def ask(self, command: object) -> Ticket:
        ticket = self.runtime.ask("quorum", "somebody", command)
        self.runtime.turn()
        return ticket

    def told(self, event: object) -> None:
        self.runtime.deliver("quorum", event)
        self.runtime.turn()

    # ---- as its owner asks

    def create(
        self, quorum_id: str, required_milli: int, *members: Place, named: bool = True
    ) -> Message | Fault | None:
        return self.ask(
            CreateQuorum(quorum_id, required_milli, tuple(Member(m.node_id, 1_000) for m in members), named)
        ).outcome

    def ack(self, quorum_id: str, member: Place) -> Ticket:
        return self.ask(AckQuorum(quorum_id, member.node_id))

    def row(self, quorum_id: str, owner: Place | None = None) -> quorum_pb2.QuorumRow | None:
        value = self.store.get(QUORUMS, quorum_key((owner or self).node_id, quorum_id))
        return quorum_pb2.QuorumRow.FromString(value) if value is not None else None

    def events(self) -> list[quorum_pb2.QuorumEvent]:
        return [state_pb2.Event.FromString(value).quorum for _, value in self.store.events()]


class Town:
    """Time, and whoever is asked for."""

    def __init__(self, *, fences_max: int = 100, tracked_max: int = 100) -> None:
        self.now_ms, self.fences_max, self.tracked_max = 0, fences_max, tracked_max
        self.places: dict[str, Place] = {}

    def __getitem__(self, name: str) -> Place:
        return self.places.setdefault(name, Place(self, name))

    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        for place in self.places.values():
            place.runtime.wake()
            place.runtime.turn()

    def up(self, at: Place, broker: Place, *roles: int) -> None:
        at.told(PeerUp(broker.node_id, "", frozenset(roles or {BROKER})))

    def down(self, at: Place, broker: Place) -> None:
        at.told(PeerDown(broker.node_id))

    def carry(self, source: Place, *, lose: bool = False, lose_answer: bool = False) -> int:
        """Everything that lies on the table; how many calls it were."""
        calls, source.calls = source.calls, []
        for call in calls:
            outcome: Message | Fault | None = Unavailable("lost")
            if not lose:
                target = next(place for place in self.places.values() if place.node_id == call.node)
                outcome = target.ask(self._command(source, call.request)).outcome
            if lose_answer:
                outcome = Unavailable("lost")
            reply, fault = (None, outcome) if isinstance(outcome, Fault) else (outcome, None)
            source.told(Answered(call.tag, call.node, reply, fault))
        return len(calls)

    def _command(self, source: Place, request: Message) -> object:
        if isinstance(request, quorum_pb2.SignAckRequest):
            return SignAck(Epoch.decode(request.epoch.body))
        assert isinstance(request, quorum_pb2.TrackQuorumsRequest)
        rows, closed = tuple(request.quorums), tuple(request.closed)
        return TrackQuorums(source.node_id, rows, closed, request.life, request.number)

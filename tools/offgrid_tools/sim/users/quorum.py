"""Who opens a quorum of all who are members then and asks each for its ack until enough of them have given it."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

PAUSE_MAX_US = 8 * SECOND
ASK_AGAIN_US = 700 * MS


class QuorumUser(Person):
    """One person at one node, with one quorum."""

    wants = "a quorum"

    def __init__(
        self, engine: Engine, monitor: Monitor, owner: Process, members: Sequence[Process], required_milli: int
    ) -> None:
        super().__init__(engine, monitor, owner)
        self._members, self._required_milli = members, required_milli
        self._quorum_id = f"q-{owner.spec.name}"
        self._reached = False

    @property
    def content(self) -> bool:
        return self._reached

    def start(self) -> None:
        self._engine.after(int(self._engine.rng.random() * PAUSE_MAX_US), self._create)

    def _create(self) -> None:
        request = quorum_pb2.CreateQuorumRequest(quorum_id=self._quorum_id, required_milli=self._required_milli)
        self._call("QuorumService/CreateQuorum", request, lambda reply: self._ask_next(0))

    def _ask_next(self, number: int) -> None:
        if self._reached:
            return
        member = self._members[number % len(self._members)]
        request = quorum_pb2.AckQuorumRequest(quorum_id=self._quorum_id, node=member.node_id)

        def refused(fault: Fault) -> bool:
            """Who does not answer now may never do so: the next one, then."""
            self._engine.after(ASK_AGAIN_US, lambda: self._ask_next(number + 1))
            return True

        self._call("QuorumService/AckQuorum", request, lambda reply: self._on_acked(number, reply), refused)

    def _on_acked(self, number: int, reply: Message) -> None:
        assert isinstance(reply, quorum_pb2.AckQuorumResponse)
        if reply.quorum.reached:
            self._monitor.quorum.on_reached(self.node, reply.quorum)
            self._reached = True
        else:
            self._ask_next(number + 1)

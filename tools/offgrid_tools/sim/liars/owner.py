"""An owner that lies to the members of its quorum: it asks for acks of epochs in any order, and of two things under one
number."""

from __future__ import annotations

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.quorum.records import NOTHING, Epoch, Member, sign_epoch
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.process import Process

SIGN_ACK = "offgrid.v1.QuorumService/SignAck"
CALL_TIMEOUT_MS = 2_000
PAUSE_US = (100 * MS, 2 * SECOND)
LIES_MAX, EPOCH_MAX = 30, 4


class LyingOwner:
    """Asks one member after the other, as long as it has lies left."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._process, self._rng = cluster, process, cluster.engine.rng
        self.lies = 0
        self._go_on()

    def _go_on(self) -> None:
        if self.lies < LIES_MAX:
            self._cluster.engine.after(self._rng.randint(*PAUSE_US), self._ask)

    def _ask(self) -> None:
        self.lies += 1
        self._go_on()
        me, salt = self._process.node_id, self._cluster.salt
        members = tuple(Member(process.node_id, 1_000) for process in self._cluster.processes.values())
        required = self._rng.randint(1, 3_000)
        epoch = Epoch(me, "any", self._rng.randint(1, EPOCH_MAX), NOTHING, 0, required, members)
        request = quorum_pb2.SignAckRequest(epoch=sign_epoch(epoch, self._process.signer, salt))
        member = self._rng.choice([member.node_id for member in members if member.node_id != me])
        network = self._cluster.network
        network.call(me, member, SIGN_ACK, request, CALL_TIMEOUT_MS, lambda outcome: None, honest=False)

"""Who has a key that was replaced: of a node's identity, with which he calls members in its name, or of the mesh's
root, with which he names a member of his own. Whoever has heard of the change must let him in no more, nor believe
him."""

from __future__ import annotations

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.founding import issue_member
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crypto import SimSigner, sim_certificate
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.monitor import Violation
from offgrid_tools.sim.process import Process

SYNC = "offgrid.v1.MeshService/SyncMembers"
CALL_TIMEOUT_MS = 2_000
PAUSE_US = (100 * MS, 2 * SECOND)
TRIES_MAX = 40
THIEF = SimSigner("thief")


class Thief:
    """Begins once the key is replaced."""

    def __init__(self, cluster: Cluster, victim: Process) -> None:
        self._cluster, self._victim, self._rng = cluster, victim, cluster.engine.rng
        self.lies = 0

    def begin(self) -> None:
        if self.lies < TRIES_MAX:
            self._cluster.engine.after(self._rng.randint(*PAUSE_US), self._try)

    def _try(self) -> None:
        self.lies += 1
        target = self._rng.choice([each for each in self._cluster.processes.values() if each is not self._victim])
        if target.up and not target.frozen and target.running.runtime.machines:
            self._attack(target)
        self.begin()

    def _attack(self, target: Process) -> None:
        raise NotImplementedError


class IdentityThief(Thief):
    """Has the identity key of before."""

    def _attack(self, target: Process) -> None:
        """Calls; nothing more, where he is let in."""
        stolen, directory = self._victim.keys[-1].public_key, target.running.directory
        heard = directory.current_key(self._victim.node_id) != stolen
        if heard and target.running.caller_of(node_id_of(stolen)) is not None:
            name, victim = target.spec.name, self._victim.spec.name
            raise Violation(f"{name} has heard of another key of {victim}, and lets in who has the old one")


class RootThief(Thief):
    """Has the root key of before, and the help of a node that is out of it otherwise."""

    def _attack(self, target: Process) -> None:
        """Tells of a new member."""
        directory = target.running.directory
        record = MemberRecord(THIEF.node_id, "thief", THIEF.public_key, ROLES_ALL, 1_000, "", 1)
        proof = issue_member(directory.genesis, record, sim_certificate(THIEF), SimSigner("root"))
        if directory.root.number and directory.is_member(THIEF.node_id):
            raise Violation(
                f"{target.spec.name} has heard of another root key, and believes in a member by the old one"
            )
        request, network = mesh_pb2.SyncMembersRequest(members=[proof]), self._cluster.network
        helper = self._victim.node_id
        network.call(helper, target.node_id, SYNC, request, CALL_TIMEOUT_MS, lambda outcome: None, honest=False)

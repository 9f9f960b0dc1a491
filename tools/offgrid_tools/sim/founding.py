"""The mesh that simulated nodes are born into, and how one more joins it by its invite."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import adopt_grant, all_rows, found_mesh, issue_member
from offgrid_node.protocol.mesh.held import GENESIS_KEY
from offgrid_node.protocol.mesh.joining import ask_context, grant_context, join_ask
from offgrid_node.protocol.mesh.records import PEER_KIND, ROLES_ALL, MemberRecord, PeerRecord, signed
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import (
    SimSigner,
    sim_certificate,
    sim_check_certificate,
    sim_open,
    sim_seal,
    sim_verify,
)
from offgrid_tools.sim.engine import EPOCH_US, SECOND, Engine
from offgrid_tools.sim.network import Network
from offgrid_tools.sim.process import DOOR, Process

JOIN_TIMEOUT_MS, JOIN_AGAIN_US = 2_000, SECOND
NONCE = bytes(16)


def found(processes: Sequence[Process]) -> Directory:
    """Writes one mesh into the stores of all: the first is its founder and admin, the root names the others."""
    root, founder = SimSigner("root"), processes[0]
    rows = found_mesh(
        "sim",
        root,
        founder.signer,
        sim_certificate(founder.signer),
        founder.spec.name,
        EPOCH_US,
        NONCE,
        verify=sim_verify,
        check_certificate=sim_check_certificate,
    )
    genesis = common_pb2.Signed.FromString(rows["mesh", GENESIS_KEY] or b"")
    directory = Directory(genesis, sim_verify, sim_check_certificate)
    directory.accept_member(mesh_pb2.MemberProof.FromString(rows["members", founder.node_id.encode()] or b""))
    for process in processes[1:]:
        record = MemberRecord(
            process.node_id, process.spec.name, process.signer.public_key, ROLES_ALL, 1_000, process.spec.domain, 1
        )
        directory.accept_member(issue_member(directory.genesis, record, sim_certificate(process.signer), root))
    for process in processes:
        peer = PeerRecord(process.node_id, 1, process.spec.roles, (process.address,), "sim")
        directory.accept_peer(signed(PEER_KIND, directory.salt, peer.body, process.signer))
    for process in processes:
        process.store.commit(Batch(writes=all_rows(directory)))
        process.born = process.store.copy()
    return directory


class Joiner:
    """A new machine with a token: it knocks at the founder's door until it is let in, then starts its node."""

    def __init__(
        self, engine: Engine, network: Network, process: Process, door: Process, on_member: Callable[[], None]
    ) -> None:
        self._engine, self._network, self._process, self._door = engine, network, process, door
        self._on_member = on_member
        self._invited = False
        self.joined = False

    def invite(self) -> None:
        """A person at the founder makes a token and types it in here; when none comes out, another one."""
        request = mesh_pb2.CreateInviteRequest()
        self._door.admin("offgrid.v1.MeshService/CreateInvite", request, self._on_token)
        self._engine.after(JOIN_AGAIN_US, lambda: None if self._invited else self.invite())

    def _on_token(self, outcome: Message | Fault) -> None:
        if isinstance(outcome, mesh_pb2.CreateInviteResponse) and not self._invited:
            self._invited = True
            self._knock(InviteToken.parse(outcome.token))

    def _knock(self, token: InviteToken) -> None:
        if self.joined:
            return
        signer, invite_id = self._process.signer, token.invite_id
        ask = join_ask(token.mesh_tag, invite_id, self._process.spec.name, sim_certificate(signer), signer)
        sealed = sim_seal(token.secret, ask_context(invite_id), ask.SerializeToString(deterministic=True))
        request = mesh_pb2.JoinRequest(invite_id=invite_id, sealed=sealed)

        def done(outcome: Message | Fault) -> None:
            if isinstance(outcome, mesh_pb2.JoinResponse):
                self._adopt(token, outcome)
            else:
                self._engine.after(JOIN_AGAIN_US, lambda: self._knock(token))

        self._network.call(self._process.node_id, self._door.node_id, DOOR, request, JOIN_TIMEOUT_MS, done)

    def _adopt(self, token: InviteToken, response: mesh_pb2.JoinResponse) -> None:
        if self.joined:
            return
        self.joined = True
        grant = mesh_pb2.JoinGrant.FromString(sim_open(token.secret, grant_context(token.invite_id), response.sealed))
        rows = adopt_grant(
            grant,
            token.mesh_tag,
            self._process.node_id,
            verify=sim_verify,
            check_certificate=sim_check_certificate,
        )
        store: MemoryStore = self._process.store
        store.commit(Batch(writes=rows))
        self._process.start()
        self._on_member()

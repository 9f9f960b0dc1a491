"""Several whole mesh machines in virtual time: real runtime, real keys, memory stores, a lossy network. Seeded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.message import Message
from virtual_time import VirtualTime

from offgrid.v1 import mesh_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, fingerprint_of, identity_certificate, verify
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Effect, Execute, Machine, Rows
from offgrid_node.protocol.errors import NO_ROAD, Fault, OutcomeUnknown, PermissionDenied, Unavailable
from offgrid_node.protocol.events import AdminChanged, AdminsKnown, PeerDown, PeerUp
from offgrid_node.protocol.mesh.commands import AdmitMember, CreateInvite
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import MeshRows, adopt_grant, found_mesh
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.records import ROLES_ALL
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.rotating import changed_rows
from offgrid_node.rotating_root import changed_root_rows
from offgrid_node.runtime import Runtime
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

LATENCY_MS = (1, 20)


def node_key(number: int) -> NodeKey:
    return NodeKey(number.to_bytes(32, "big"))


class Ear:
    """Stands where another machine stands and writes down what it is told of these kinds."""

    def __init__(self, heard: list[Any], *kinds: type) -> None:
        self._heard, self._kinds = heard, kinds

    def load(self, rows: Rows, now: Now) -> None:
        pass

    def step(self, inputs: Sequence[object], now: Now, rng: Random) -> list[Effect]:
        self._heard += [item for item in inputs if isinstance(item, self._kinds)]
        return []

    def deadline_ms(self) -> int | None:
        return None


class Node:
    def __init__(self, world: World, key: NodeKey, rows: MeshRows) -> None:
        self.world, self.key, self.node_id = world, key, key.node_id
        self.store = MemoryStore()
        self.store.commit(Batch(writes=rows))
        self.up, self.life, self.port = False, 0, 7000
        self.heard: list[PeerUp | PeerDown] = []
        self.told: list[AdminChanged | AdminsKnown] = []  # its ledger
        self.older: list[NodeKey] = []  # identities that it may still show
        self.start()

    def start(self) -> None:
        addresses, doors = ((self.address,), ("door:7001",)) if self.world.addresses else ((), ())
        settings = MeshSettings(ROLES_ALL, addresses, doors, "test")
        self.up, self.life, self.pump_ms = True, self.life + 1, 0

        def build() -> dict[str, Machine]:
            mesh = MeshMachine(settings, self.key, verify, check_identity_certificate)
            return {
                "mesh": mesh,
                "jobs": Ear(self.heard, PeerUp, PeerDown),
                "ledger": Ear(self.told, AdminChanged, AdminsKnown),
            }

        self.runtime = Runtime(build, self.store, self.world, self.world.rng, self, monitor=_raise)
        self.world.after(0, self.pump)

    def crash(self) -> None:
        self.up, self.life = False, self.life + 1

    @property
    def address(self) -> str:
        return f"{self.node_id[:8]}:{self.port}"

    @property
    def mesh(self) -> MeshMachine:
        machine = self.runtime.machines["mesh"]
        assert isinstance(machine, MeshMachine)
        return machine

    def pump(self) -> None:
        if not self.up:
            return
        self.runtime.wake()
        self.runtime.turn()
        due_ms = self.runtime.deadline_ms()
        if due_ms is not None and (due_ms < self.pump_ms or self.pump_ms <= self.world.now_ms):
            self.pump_ms = due_ms
            self.world.at(due_ms, self.pump)

    def ask(self, command: object, caller: str = "admin") -> Message | Fault:
        ticket = self.runtime.ask("mesh", caller, command)
        self.pump()
        assert ticket.outcome is not None
        return ticket.outcome

    # ---- Outlet

    def call(self, call: Call) -> None:
        self.world.carry(self, call)

    def execute(self, work: Execute) -> None:
        raise AssertionError("the mesh executes nothing")


def _raise(fault: Fault, cause: BaseException | None) -> None:
    raise AssertionError(fault.message) from cause


class World(VirtualTime):
    """The clock, the network and the nodes."""

    def __init__(self, seed: int, nodes: int, *, loss: float = 0.0, addresses: bool = True) -> None:
        super().__init__()
        self.rng = Random(seed)
        self.loss, self.addresses = 0.0, addresses
        self.calls = 0
        self.sides: dict[str, int] = {}
        self.broken: set[frozenset[str]] = set()  # pairs that cannot reach each other
        self.timeouts = True  # whether a caller learns that no answer came
        root, first = node_key(1), node_key(100)
        self.root = root
        rows = found_mesh(
            "home", root, first, identity_certificate(first), "node-0", 5, bytes(16),
            verify=verify, check_certificate=check_identity_certificate,
        )  # fmt: skip
        self.nodes = {first.node_id: Node(self, first, rows)}
        self.first = self.nodes[first.node_id]
        for number in range(1, nodes):
            self.run(50)
            self.join(f"node-{number}", node_key(100 + number))
        self.loss = loss

    # ---- time

    def run_until(self, done: Callable[[], bool], within_ms: int, step_ms: int = 100) -> int:
        """Virtual milliseconds until `done`; fails when it takes longer than `within_ms`."""
        for passed in range(0, within_ms + 1, step_ms):
            if done():
                return passed
            self.run(step_ms)
        raise AssertionError(f"not within {within_ms} ms of virtual time")

    # ---- network

    def carry(self, sender: Node, call: Call) -> None:
        """Each way may be lost or cut; the caller then learns it by its timeout. Without an address it learns at once
        that there is no road."""
        self.calls += 1
        known = sender.mesh.directory.addresses(call.node)
        life, ended = sender.life, [False]

        def end(reply: Message | None, fault: Fault | None) -> None:
            if not ended[0] and sender.life == life:
                ended[0] = True
                sender.runtime.deliver("mesh", Answered(call.tag, call.node, reply, fault))
                sender.pump()

        def arrive() -> None:
            target = self.nodes.get(call.node)
            if target is None or not target.up or (self.addresses and target.address not in known):
                return
            if self.cut(sender.node_id, call.node) or not self.meets(sender, target):
                return
            if not target.mesh.directory.is_member(sender.node_id):
                self.later(lambda: end(None, PermissionDenied("no member")))
                return
            request = type(call.request).FromString(call.request.SerializeToString())
            target_life = target.life
            target.runtime.ask("mesh", sender.node_id, request).when_done(
                lambda outcome: back(outcome) if target.life == target_life else None
            )
            target.pump()

        def back(outcome: Message | Fault) -> None:
            if not self.cut(sender.node_id, call.node):
                self.later(lambda: end(None, outcome) if isinstance(outcome, Fault) else end(outcome, None))

        if self.addresses and not known:
            self.after(0, lambda: end(None, Unavailable(f"no address of {call.node}", reason=NO_ROAD)))
            return
        self.later(arrive)
        if self.timeouts:
            self.after(call.timeout_ms, lambda: end(None, OutcomeUnknown("no answer")))

    def meets(self, sender: Node, target: Node) -> bool:
        """TLS: the sender means the identity that the target has now, and shows one that the target knows."""
        meant = sender.mesh.directory.certificate(target.node_id) or identity_certificate(target.key)
        known = {fingerprint_of(key.public_key) for key in (sender.key, *sender.older)}
        directory = target.mesh.directory
        shown = any(directory.node_of_fingerprint(each) == sender.node_id for each in known)
        return meant == identity_certificate(target.key) and (shown or not directory.is_member(sender.node_id))

    def rotate(self, node: Node, following: NodeKey, *, by_root: bool = False) -> None:
        """Another identity key, as `offgrid-node rotate identity` gives it to a node that stands still."""
        node.crash()
        directory = Directory.load(node.store, verify, check_identity_certificate)
        root = self.root if by_root else None
        certificate = identity_certificate(following)
        rows = changed_rows(node.store, directory, node.key, following, certificate, root, 7)
        node.store.commit(Batch(writes=rows))
        node.key, node.older = following, [node.key, *node.older][:1]
        node.start()

    def rotate_root(self, node: Node, following: NodeKey) -> None:
        """Another root key, as `offgrid-node rotate root` gives it to the mesh at a node that stands still."""
        node.crash()
        directory = Directory.load(node.store, verify, check_identity_certificate)
        node.store.commit(Batch(writes=changed_root_rows(directory, self.root, following, 9)))
        self.root = following
        node.start()

    def later(self, action: Callable[[], None]) -> None:
        delay_ms = self.rng.randint(*LATENCY_MS)
        if self.rng.random() >= self.loss:
            self.after(delay_ms, action)

    def cut(self, one: str, other: str) -> bool:
        return self.sides.get(one, 0) != self.sides.get(other, 0) or frozenset((one, other)) in self.broken

    # ---- membership

    def token(self, inviter: Node) -> InviteToken:
        made = inviter.ask(CreateInvite(ROLES_ALL, 1_000, ""))
        assert isinstance(made, mesh_pb2.CreateInviteResponse), made
        return InviteToken.parse(made.token)

    def join(self, name: str, key: NodeKey, inviter: Node | None = None) -> Node:
        inviter = inviter or self.first
        token = self.token(inviter)
        command = AdmitMember(token.invite_id, name, key.public_key, identity_certificate(key))
        grant = inviter.ask(command, "anonymous")
        assert isinstance(grant, mesh_pb2.JoinGrant), grant
        rows = adopt_grant(
            grant, token.mesh_tag, key.node_id, verify=verify, check_certificate=check_identity_certificate
        )
        self.nodes[key.node_id] = Node(self, key, rows)
        return self.nodes[key.node_id]

    # ---- questions

    def running(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up]

    def sees(self, node_id: str, liveness: int, among: Sequence[Node] | None = None) -> bool:
        """Whether all that run (or `among`) see the node so."""
        watchers = [node for node in among or self.running() if node.node_id != node_id]
        return all(node.mesh.liveness(node_id) == liveness for node in watchers)

    def agreed(self) -> bool:
        """Whether all that run and belong hold the same records."""
        return len({node.mesh.directory.digest() for node in self.running() if not node.mesh.removed}) == 1

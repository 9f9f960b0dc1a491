"""A job's whole road over packets: core, broker and two hosts joined by nothing but a lossy packet link.

The nodes are assembled as the daemon's are, only their road and their way in are packets: no service
depends on gRPC.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.node import Node
from offgrid_node.parts import Parts
from offgrid_node.protocol.effects import Execute, Executed
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.jobs.receipts import verify_receipt
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import COMPLETED, ENDED
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN, Caller
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.services.packet_road import PacketRoad
from offgrid_node.services.packet_server import PacketServer
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.memory_session_keys import MemorySessionKeys
from offgrid_tools.sim.crypto import (
    SimLetters,
    SimSigner,
    SimWraps,
    sim_check_certificate,
    sim_open,
    sim_seal,
    sim_verify,
)
from offgrid_tools.sim.engine import MS, SECOND, Engine, VirtualClock
from offgrid_tools.sim.founding import found
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.spec import Spec
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import Own
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.path import Path as LinkPath

SPECS = (
    Spec("core", frozenset({CORE}), 1, 1),
    Spec("broker", frozenset({BROKER}), 1, 1),
    Spec("host-a", frozenset({HOST}), 1, 1_000_000),
    Spec("host-b", frozenset({HOST}), 1, 2_000_000),
)
TICK_US = 5 * MS
JOBS = "offgrid.v1.JobService"


def _link_key(name: str) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def _public(name: str) -> bytes:
    return _link_key(name).public_key().public_bytes_raw()


@dataclass
class PacketNode:
    """What `founding.found` needs of a process, and the node that then runs on it."""

    spec: Spec
    signer: SimSigner
    store: MemoryStore = field(default_factory=MemoryStore)
    node: Node | None = None

    @property
    def node_id(self) -> str:
        return self.signer.node_id

    @property
    def address(self) -> str:
        return f"{self.spec.name}:1"

    @property
    def running(self) -> Node:
        assert self.node is not None
        return self.node


class PacketMesh:
    """Four nodes on one packet network, in virtual time."""

    def __init__(self, seed: int, faults: Faults) -> None:
        self.engine = Engine(seed)
        self.packets = MemoryNetwork(
            Random(seed), lambda delay_ms, fn: self.engine.after(delay_ms * MS, fn), faults=faults
        )
        self.members = {spec.name: PacketNode(spec, SimSigner(spec.name)) for spec in SPECS}
        found(cast("list[Process]", list(self.members.values())))
        for member in self.members.values():
            self._start(member)
        self._tick()

    def _start(self, member: PacketNode) -> None:
        engine, spec = self.engine, member.spec
        clock = VirtualClock(engine, 0, 0)
        schedule = self.packets.schedule
        public = {other: _public(other) for other in self.members}
        ids = {public[name]: other.node_id for name, other in self.members.items()}
        rng, stamps = Random(f"{spec.name} link"), itertools.count()
        own = Own(_link_key(spec.name), bytes(32))
        endpoint = Endpoint(own, ids.get, lambda: clock.now().mono_ms, schedule, rng, lambda: next(stamps))
        end = self.packets.attach(spec.name)
        endpoint.attach(end)
        for name, other in self.members.items():
            endpoint.introduce(other.node_id, public[name], LinkPath(end, name))

        def execute(work: Execute) -> None:
            ended = Executed(
                work.core, work.job_id, work.attempt, work.payload.input.upper(), b"", 0, "", "", 30_000, "upper"
            )
            engine.after(30 * MS, lambda: member.running.on_executed(ended))

        node = member.node = Node(
            Parts(
                store=member.store,
                clock=clock,
                rng=Random(spec.name),
                signer=member.signer,
                verify=sim_verify,
                check_certificate=sim_check_certificate,
                seal=sim_seal,
                open_sealed=sim_open,
                letters=SimLetters(member.signer),
                roads=[PacketRoad(endpoint)],
                execute=execute,
                stop=lambda work: None,
                on_input=lambda: None,
                facts=lambda: NodeFacts("test", 0, "", 0.0, "virtual"),
                mesh=MeshSettings(spec.roles, (member.address,), (), "test", 2_000),
                jobs=JobsSettings(
                    signer=member.signer,
                    salt=b"",
                    slots=spec.slots,
                    price_micro=spec.price_micro,
                    executors=spec.executors,
                ),
                objects=ObjectParts(MemoryBlobs(), Bulk(inline), SimWraps(member.signer)),
                vault=SessionVault(MemorySessionKeys()),
                data_dir=Path(),
            )
        )

        def identify(node_id: str) -> Caller | None:
            return node.member_caller(node_id) if node_id in ids.values() else None

        PacketServer(endpoint, node.router, identify, clock)

    def _tick(self) -> None:
        for member in self.members.values():
            member.running.runtime.wake()
            member.running.runtime.turn()
        self.engine.after(TICK_US, self._tick)

    def run_for(self, seconds: float) -> None:
        self.engine.run_until(self.engine.now_us + int(seconds * SECOND))

    def ask(self, method: str, request: Message) -> Any:
        """As the core's owner; runs until the answer is there."""
        outcome = self.members["core"].running.router.dispatch(ADMIN, f"{JOBS}/{method}", request)
        if isinstance(outcome, Ticket):
            while outcome.outcome is None:
                self.run_for(0.01)
            outcome = outcome.outcome
        assert not isinstance(outcome, Fault), outcome
        return outcome


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_a_job_goes_from_core_over_broker_to_host_and_back_by_packets_alone(
    loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = list[bytes]()
    carry = MemoryNetwork.carry

    def overheard(self: MemoryNetwork, source: str, target: str, frame: bytes) -> None:
        heard.append(frame)
        carry(self, source, target, frame)

    monkeypatch.setattr(MemoryNetwork, "carry", overheard)
    mesh = PacketMesh(7, Faults(loss=loss, duplicate=loss / 2, delay_ms=10, jitter_ms=10))
    mesh.run_for(10)
    mission = mesh.ask("CreateMission", jobs_pb2.CreateMissionRequest(title="m")).mission
    task = mesh.ask(
        "CreateTask", jobs_pb2.CreateTaskRequest(mission_id=mission.mission_id, name="t", kind="compute")
    ).task
    payload = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=b"(module)"), input=b"several fragments " * 1_000)
    request = jobs_pb2.CreateJobRequest(task_id=task.task_id, job=jobs_pb2.JobSpec(payload=payload))
    job = mesh.ask("CreateJob", request).job
    mesh.ask("DispatchJob", jobs_pb2.DispatchJobRequest(job_id=job.job_id))
    for _ in range(60):
        job = mesh.ask("GetJob", jobs_pb2.GetJobRequest(job_id=job.job_id)).job
        if job.state in ENDED:
            break
        mesh.run_for(1)
    winner = mesh.members["host-a"]
    assert (job.state, job.host, job.route) == (COMPLETED, winner.node_id, jobs_pb2.ROUTE_OFFGRID)
    assert job.result.output == payload.input.upper()
    salt = mesh.members["core"].running.directory.salt
    body = verify_receipt(job.result.receipt, winner.signer.public_key, sim_verify, salt)
    assert (body.node, body.job_id) == (winner.node_id, job.job_id)
    for words in (b"several fragments", b"(module)", b"SEVERAL FRAGMENTS"):
        assert not [frame for frame in heard if words in frame], "whoever listens reads neither payload nor result"
    assert job.price_micro == -(-2_000_000 * job.size_tokens // 1_000_000)  # the runner-up's price

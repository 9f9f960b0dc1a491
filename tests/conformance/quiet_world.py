"""Whole nodes with real keys in virtual time, joined by nothing but one packet link of any kind.

They are assembled as the daemon's are; an hour at rest takes seconds. What goes over the road is counted by method.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, jobs_pb2, mesh_pb2
from offgrid_node.keys import check_identity_certificate, identity_certificate, open_sealed, seal, verify
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.store import NodeKey
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.node import Node
from offgrid_node.node_links import meet
from offgrid_node.parts import Parts
from offgrid_node.protocol.effects import Execute, Executed
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import all_rows, found_mesh, issue_member
from offgrid_node.protocol.mesh.held import GENESIS_KEY
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.mesh.records import PEER_KIND, ROLES_ALL, MemberRecord, PeerRecord, signed
from offgrid_node.protocol.pace import Pace
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.client import Done
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.services.packet_links import PacketLinks
from offgrid_node.services.packet_server import PacketServer
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.memory_session_keys import MemorySessionKeys
from offgrid_node.storage.store import Batch
from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.rnode import Firmware, RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine
from offgrid_tools.sim.engine import EPOCH_US, MS, SECOND, Engine, VirtualClock
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.memory import Faults, MemoryNetwork
from offgrid_transports.transport import LinkHost, Transport

Attach = Callable[[str, LinkHost], Transport]
SF7 = Modulation(869_525_000, 125_000, 7)
UNBOUND = Band(0, 10**10, 99, ())  # no duty limit: what is said is bounded by thrift alone
WORK_US = 30 * MS


ALIVE = 1


def key_of(name: str) -> NodeKey:
    return NodeKey(name.encode().ljust(32, b"."))


@dataclass
class Said:
    """Calls that left by the road, by method: how many, and the bytes of request and answer."""

    calls: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)


class Air:
    """One LoRa channel on which each node has an RNode; a mark on it tells what was sent since."""

    def __init__(self, loss: float = 0.0) -> None:
        self._loss = loss
        self.modems: dict[str, RNodeEmulator] = {}

    def __call__(self, engine: Engine) -> Attach:
        self._engine = engine
        self.channel = Channel(engine, Random(1), loss=self._loss)
        self.mark()
        return self._attach

    def mark(self) -> None:
        self._since_us, self._air_us = self._engine.now_us, self.channel.counts.airtime_us

    @property
    def share(self) -> float:
        """Of the time since the mark somebody was sending."""
        return (self.channel.counts.airtime_us - self._air_us) / (self._engine.now_us - self._since_us)

    def _attach(self, name: str, host: LinkHost) -> Transport:
        line, modem = VirtualLine(self._engine), RNodeEmulator(name, self.channel, lambda data: None, Firmware())
        self.modems[name] = modem
        line.plug(modem)
        return RadioLink(name, line, RNode(SF7), UNBOUND, host)


class Cable:
    """One network of no radio, which loses and doubles frames; `network.cut` says who is out of reach of whom."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def __call__(self, engine: Engine) -> Attach:
        self.network = MemoryNetwork(
            Random(1), lambda delay_ms, fn: engine.after(delay_ms * MS, fn), faults=self._faults
        )
        return lambda name, host: self.network.attach(name)


class Counting:
    """A road that counts."""

    def __init__(self, road: PacketLinks, said: Said) -> None:
        self._road, self._said = road, said

    def reaches(self, node: str) -> bool:
        return self._road.reaches(node)

    @property
    def name(self) -> str:
        return self._road.name

    @property
    def kin(self) -> str:
        return self._road.kin

    def ready(self, node: str) -> bool:
        return self._road.ready(node)

    def pace(self, node: str) -> Pace:
        return self._road.pace(node)

    def call(self, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        name = method.partition("/")[2]
        self._said.calls[name] += 1
        self._said.bytes[name] += request.ByteSize()

        def ended(outcome: Message | Fault) -> None:
            if isinstance(outcome, Fault):
                self._said.calls[f"{name} failed {outcome.reason}"] += 1
            else:
                self._said.bytes[name] += outcome.ByteSize()
            done(outcome)

        self._road.call(node, method, request, timeout_ms, ended)


class World:
    """`nodes`: roles by name, the founder first; `attach` opens the one link of each. `prices` are for a million
    tokens, of hosts that ask more or less than a credit."""

    def __init__(
        self,
        nodes: Mapping[str, Sequence[int]],
        attach: Callable[[Engine], Attach],
        seed: int = 7,
        prices: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.engine = Engine(seed)
        self.said = Said()
        self.nodes: dict[str, Node] = {}
        self.links: dict[str, PacketLinks] = {}
        self.stores = {name: MemoryStore() for name in nodes}
        self._turning: set[str] = set()
        self._prices = prices
        self._roles = {name: frozenset(roles) for name, roles in nodes.items()}
        self._found()
        opened = attach(self.engine)
        for name in nodes:
            self._start(name, opened)

    def _found(self) -> None:
        names = list(self._roles)
        keys, root = {name: key_of(name) for name in names}, key_of("root")
        first = keys[names[0]]
        rows = found_mesh(
            "quiet",
            root,
            first,
            identity_certificate(first),
            names[0],
            EPOCH_US,
            bytes(16),
            verify=verify,
            check_certificate=check_identity_certificate,
        )
        genesis = common_pb2.Signed.FromString(rows["mesh", GENESIS_KEY] or b"")
        directory = Directory(genesis, verify, check_identity_certificate)
        directory.accept_member(mesh_pb2.MemberProof.FromString(rows["members", first.node_id.encode()] or b""))
        for name in names[1:]:
            key = keys[name]
            record = MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, 1_000, "", 1)
            directory.accept_member(issue_member(directory.genesis, record, identity_certificate(key), root))
        for name, key in keys.items():
            peer = PeerRecord(key.node_id, 1, self._roles[name], (), "test")
            directory.accept_peer(signed(PEER_KIND, directory.salt, peer.body, key))
        for store in self.stores.values():
            store.commit(Batch(writes=all_rows(directory)))

    def _start(self, name: str, attach: Attach) -> None:
        engine, key = self.engine, key_of(name)
        clock, rng = VirtualClock(engine, 0, 0), Random(name)
        host = LinkHost(
            rng, lambda delay_ms, fn: engine.after(delay_ms * MS, lambda: (fn(), None)[1]), lambda: clock.now().mono_ms
        )
        links = self.links[name] = PacketLinks(key.exchange_secret(), key.node_id, lambda: node.directory, host)

        def execute(work: Execute) -> None:
            end = Executed(
                work.core, work.job_id, work.attempt, work.payload.input.upper(), b"", 0, "", "", WORK_US, "upper"
            )
            engine.after(WORK_US, lambda: node.on_executed(end))

        node = self.nodes[name] = Node(
            Parts(
                store=self.stores[name],
                clock=clock,
                rng=rng,
                signer=key,
                verify=verify,
                check_certificate=check_identity_certificate,
                seal=seal,
                open_sealed=open_sealed,
                letters=Letters(key, rng.randbytes),
                roads=[Counting(links, self.said)],
                execute=execute,
                stop=lambda work: None,
                on_input=lambda: self._poke(name),
                facts=lambda: NodeFacts("test", 0, "", 0.0, "virtual"),
                mesh=MeshSettings(self._roles[name], (), (), "test"),
                jobs=JobsSettings(
                    signer=key,
                    salt=b"",
                    slots=1,
                    price_micro=self._prices.get(name, 1_000_000),
                    executors=("process", "wasm"),
                ),
                objects=ObjectParts(MemoryBlobs(), Bulk(inline), KeyWraps(key, ()), cuts_journal=True),
                vault=SessionVault(MemorySessionKeys(), rng.randbytes),
                data_dir=Path(),
                later=lambda delay_ms, step: engine.after(delay_ms * MS, step),
            )
        )
        endpoint = meet(links, node, lambda: clock.now().utc_us // 1_000)
        PacketServer(endpoint, node.router, node.member_by_id, clock)
        links.attach(attach(name, host), "lora:virtual")
        self._poke(name)

    def _poke(self, name: str) -> None:
        if name not in self._turning and name in self.nodes:
            self._turning.add(name)
            self.engine.after(0, lambda: self._turn(name))

    def _turn(self, name: str) -> None:
        self._turning.discard(name)
        runtime = self.nodes[name].runtime
        runtime.wake()
        runtime.turn()
        self._arm(name)

    def _arm(self, name: str) -> None:
        due_ms = self.nodes[name].runtime.deadline_ms()
        if due_ms is None:
            return
        now_ms = self.engine.now_us // MS
        if due_ms <= now_ms:
            self._turning.add(name)
            self.engine.after(MS if due_ms == now_ms else 0, lambda: self._turn(name))
            return
        self.engine.after(due_ms * MS - self.engine.now_us, lambda: self._ring(name, due_ms))

    def _ring(self, name: str, due_ms: int) -> None:
        now_due = self.nodes[name].runtime.deadline_ms()
        if now_due is not None and now_due <= self.engine.now_us // MS:
            self._poke(name)

    # ---- what people do

    def run_for(self, seconds: float) -> None:
        self.engine.run_until(self.engine.now_us + int(seconds * SECOND))

    def ask(self, name: str, method: str, request: Message, timeout_s: float = 600) -> Any:
        """As the owner of node `name`; runs until the answer is there."""
        outcome = self.nodes[name].router.dispatch(ADMIN, f"offgrid.v1.{method}", request)
        if isinstance(outcome, Ticket):
            until_us = self.engine.now_us + int(timeout_s * SECOND)
            while outcome.outcome is None and self.engine.now_us < until_us:
                self.run_for(0.1)
            outcome = outcome.outcome
        assert outcome is not None, f"{method}: no answer in {timeout_s} s"
        assert not isinstance(outcome, Fault), outcome
        return outcome

    def run_job(self, at: str, data: bytes, timeout_s: float = 120) -> jobs_pb2.Job:
        """One job of node `at`, until it has ended."""
        mission = self.ask(at, "JobService/CreateMission", jobs_pb2.CreateMissionRequest(title="m")).mission
        task = jobs_pb2.CreateTaskRequest(mission_id=mission.mission_id, name="t", kind="compute")
        task_id = self.ask(at, "JobService/CreateTask", task).task.task_id
        spec = jobs_pb2.JobSpec(payload=jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=b"(module)"), input=data))
        made = self.ask(at, "JobService/CreateJob", jobs_pb2.CreateJobRequest(task_id=task_id, job=spec)).job
        self.ask(at, "JobService/DispatchJob", jobs_pb2.DispatchJobRequest(job_id=made.job_id))
        until_us = self.engine.now_us + int(timeout_s * SECOND)
        job = made
        while job.state not in ENDED and self.engine.now_us < until_us:
            self.run_for(0.1)
            job = self.ask(at, "JobService/GetJob", jobs_pb2.GetJobRequest(job_id=made.job_id)).job
        return job

    def see_each_other(self, timeout_s: float = 300) -> None:
        """Runs until each sees all others alive."""
        ids = {node.node_id for node in self.nodes.values()}
        until_us = self.engine.now_us + int(timeout_s * SECOND)
        while not all(node.mesh.liveness(each) == ALIVE for node in self.nodes.values() for each in ids):
            assert self.engine.now_us < until_us, f"not all are seen after {timeout_s} s"
            self.run_for(1)

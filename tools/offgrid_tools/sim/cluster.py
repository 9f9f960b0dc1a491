"""Whole nodes in one process: their machines, the network between them, what they are supposed to agree on at last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2, state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.services.caller import ADMIN
from offgrid_tools.sim.engine import MS, SECOND, Engine, Trace
from offgrid_tools.sim.executions import Work
from offgrid_tools.sim.founding import Joiner, found
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.network import Network
from offgrid_tools.sim.plan import FIVE, JOINER
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.reload import check_reload
from offgrid_tools.sim.spec import Spec
from offgrid_tools.sim.vices import LIES

START_WITHIN_US = 400 * MS
SKEW_MAX_US = 3600 * SECOND
REMOVE_AGAIN_US = SECOND


class Cluster:
    """The first of `specs` founds the mesh and is its admin."""

    def __init__(
        self,
        seed: int,
        specs: Sequence[Spec] = FIVE,
        *,
        trace: Trace | None = None,
        work: Work | None = None,
    ) -> None:
        self.engine = Engine(seed, trace)
        self._names: dict[str, str] = {}
        self.monitor = Monitor(self.name_of, lambda: self.engine.now_us)
        self.network = Network(self.engine, self.monitor, self.name_of)
        self._work = work
        self.processes: dict[str, Process] = {}
        self.members: list[str] = [spec.name for spec in specs]
        self.removed: list[str] = []
        for spec in specs:
            self._add(spec)
        self.monitor.evidence.salt = self.salt = found(list(self.processes.values())).salt
        for process in self.processes.values():
            self.monitor.watch(process.node_id, process.store, process.blobs)

    def _add(self, spec: Spec) -> Process:
        skew_us = self.engine.rng.randint(-SKEW_MAX_US, SKEW_MAX_US)
        process = Process(self.engine, self.network, self.monitor, spec, skew_us=skew_us, work=self._work)
        self.processes[spec.name] = process
        self._names[process.node_id] = spec.name
        self.monitor.evidence.keys[process.node_id] = process.signer.public_key
        self.monitor.evidence.latest_us[process.node_id] = lambda: process.latest_us
        if spec.budget is not None:
            self.monitor.sessions.keys[process.node_id] = process.session_keys
            self.monitor.sessions.safe_seq[process.node_id] = lambda: process.running.journal_safe_seq
        self.monitor.resealing.wraps[process.node_id] = lambda: process.wraps
        return process

    def name_of(self, node_id: str) -> str:
        return self._names.get(node_id, node_id)

    @property
    def founder(self) -> Process:
        return self.processes[self.members[0]]

    def with_role(self, role: int) -> list[Process]:
        return [process for process in self.processes.values() if role in process.spec.roles]

    @property
    def hosts(self) -> list[Process]:
        return self.with_role(HOST)

    def start(self) -> None:
        """All of them, within a moment."""
        for process in list(self.processes.values()):
            self.engine.after(self.engine.rng.randint(0, START_WITHIN_US), process.start)

    def run_for(self, seconds: float) -> None:
        self.engine.run_until(self.engine.now_us + int(seconds * SECOND))

    # ---- changes of membership

    def join(self, spec: Spec = JOINER) -> None:
        """One more machine joins by invite."""
        process = self._add(spec)
        self.monitor.watch(process.node_id, process.store, process.blobs)
        Joiner(self.engine, self.network, process, self.founder, lambda: self.members.append(spec.name)).invite()

    def remove(self, name: str) -> None:
        """The founder's owner ends a membership, and repeats it until that is confirmed."""
        request = mesh_pb2.RemoveMemberRequest(node=self.processes[name].node_id)

        def done(outcome: Message | Fault) -> None:
            if isinstance(outcome, mesh_pb2.RemoveMemberResponse) and name in self.members:
                self.members.remove(name)
                self.removed.append(name)

        self.founder.admin("offgrid.v1.MeshService/RemoveMember", request, done)
        # Neither a refusal nor a daemon that died over it is an answer.
        self.engine.after(REMOVE_AGAIN_US, lambda: self.remove(name) if name in self.members else None)

    # ---- what must hold at last

    def disagreement(self, bad: Mapping[str, str] = MappingProxyType({})) -> str:
        """What the live members do not agree on yet, all but the `bad` ones of money; empty when nothing."""
        live = [process for name in self.members if not (process := self.processes[name]).dead]
        if down := [process.spec.name for process in live if not process.up]:
            return f"{down[0]} is down"
        if loading := [process for process in live if not process.running.runtime.machines]:
            return f"{loading[0].spec.name} cannot read its disk"
        if stuck := next(filter(None, (self.monitor.objects.stuck(process.node_id) for process in live)), ""):
            return stuck
        if unbacked := self._unbacked(live, bad):
            return unbacked
        everybody = [process.node_id for process in live]
        if outdated := next(filter(None, (self.monitor.comebacks.outdated(node, everybody) for node in everybody)), ""):
            return outdated
        hosts = [node for node in everybody if node not in self.monitor.evidence.rotten]
        if forgotten := next(filter(None, (self.monitor.comebacks.forgotten(node, hosts) for node in everybody)), ""):
            return forgotten
        if unfinished := next(filter(None, map(self.monitor.sessions.unfinished, everybody)), ""):
            return unfinished
        if crowded := next(filter(None, map(_crowded, live)), ""):
            return crowded
        if left := self.monitor.deletions.left(process.node_id for process in live):
            return left
        honest = [process.node_id for process in live if process.spec.name not in bad]
        if unsettled := self.monitor.ledger.unsettled(honest):
            return unsettled
        keys = {process.node_id: process.running.directory.wrapping_key(process.node_id) for process in live}
        labels = {node: key.label for node, key in keys.items() if key is not None}
        if outdated := self.monitor.access.outdated(labels) or self.monitor.access.told(everybody):
            return outdated
        digests = [process.running.directory.digest() for process in live]
        for process, digest in zip(live, digests, strict=True):
            if digest != digests[0]:
                return f"{process.spec.name} and {live[0].spec.name} hold different directories"
            mesh = process.running.mesh
            for other in live:
                if mesh.liveness(other.node_id) != ALIVE:
                    return f"{process.spec.name} does not see that {other.spec.name} is alive"
            for name in self.removed:
                if mesh.directory.is_member(self.processes[name].node_id):
                    return f"{process.spec.name} still counts {name} as a member"
        return ""

    def _unbacked(self, live: Sequence[Process], bad: Mapping[str, str]) -> str:
        """What a live host lost, or its disk spoiled, has come back to it, unless it lies."""
        hosts = {process.node_id for process in live if bad.get(process.spec.name) != LIES}
        return next(filter(None, (self.monitor.objects.unbacked(process.node_id, hosts) for process in live)), "")

    def check_end(self) -> None:
        """Nothing acked is lost, and whoever reloads comes to what it was."""
        for process in self.processes.values():
            self.monitor.check_store(process.node_id)
            if process.up and process.running.runtime.machines and not process.running.runtime.committing:
                check_reload(process.spec.name, process.running, process.store)

    def journal_digests(self) -> dict[str, str]:
        """One digest over each node's journal."""
        return {name: journal_digest(process) for name, process in self.processes.items()}


def journal_digest(process: Process) -> str:
    state = hashlib.blake2b(digest_size=8, person=b"og.sim.journal")
    for seq, data in process.store.copy().events():  # a disk that its node cannot read now
        state.update(seq.to_bytes(8, "big") + data)
    return state.hexdigest()


def _crowded(process: Process) -> str:
    """Retention brings what is kept within its budget, or says what holds it."""
    if process.spec.budget is None:
        return ""
    told = process.running.retention.get_retention(ADMIN, state_pb2.GetRetentionRequest())
    assert isinstance(told, state_pb2.GetRetentionResponse)
    full = [each.name for each in told.shares if each.name == "events" and each.used_bytes > each.budget_bytes]
    return f"{process.spec.name} keeps more {full[0]} than it may, and says nothing" if full and not told.held else ""

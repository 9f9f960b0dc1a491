"""One node put together from parts: machines, runtime, handlers, router and client. No carrier, no event loop.

The daemon gives it a disk, keys and sockets; the simulator gives it twins of all three and virtual time. What is
assembled here is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.effects import Call, Execute, Machine, Signer, Verifier
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import INPUT_BYTES_MAX
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.settings import TIMEOUT_MS, JobsSettings
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.roll import CheckCertificate
from offgrid_node.runtime import Monitor, Runtime
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.client import Client, Road
from offgrid_node.services.jobs import JobHandlers
from offgrid_node.services.join import JoinHandlers, Seal
from offgrid_node.services.ledger import LedgerHandlers
from offgrid_node.services.market import MarketHandlers, check_answer
from offgrid_node.services.mesh import MeshHandlers, NodeFacts
from offgrid_node.services.objects import ObjectHandlers
from offgrid_node.services.quorum import QuorumHandlers
from offgrid_node.services.router import Router
from offgrid_node.services.state import StateHandlers
from offgrid_node.storage.store import Store


def log_nothing(fault: Fault, cause: BaseException | None) -> None:
    """A Monitor for those who watch otherwise."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a node is made of. `jobs.salt` is filled in from the store's genesis."""

    store: Store
    clock: Clock
    rng: Random
    signer: Signer
    verify: Verifier
    check_certificate: CheckCertificate
    seal: Seal
    open_sealed: Seal
    roads: Sequence[Road]
    execute: Callable[[Execute], None]
    executing: Callable[[], Collection[ClaimKey]]
    on_input: Callable[[], None]
    facts: Callable[[], NodeFacts]
    mesh: MeshSettings
    jobs: JobsSettings
    data_dir: Path
    job_timeout_ms: int = TIMEOUT_MS
    monitor: Monitor = log_nothing


class Node:
    """A node, whole but for its carriers: they bring requests to `router` and drive `runtime`."""

    def __init__(self, parts: Parts) -> None:
        """Raises FailedPrecondition (NoMesh) when the store knows no mesh, Corrupt when its rows are damaged."""
        self.node_id = parts.signer.node_id
        self._execute = parts.execute
        self._client = Client(
            self.node_id, parts.roads, lambda: self.directory, lambda answer: check_answer(answer, self.directory)
        )
        jobs: JobsSettings | None = None

        def build() -> Mapping[str, Machine]:
            nonlocal jobs
            mesh = MeshMachine(parts.mesh, parts.signer, parts.verify, parts.check_certificate)
            if jobs is None:
                salt = Directory.load(parts.store, parts.verify, parts.check_certificate).salt
                jobs = replace(parts.jobs, salt=salt)
            return {"mesh": mesh, "jobs": JobsMachine(jobs, parts.executing)}

        self.runtime = Runtime(
            build, parts.store, parts.clock, parts.rng, self, on_input=parts.on_input, monitor=parts.monitor
        )
        self._asked_roles = parts.mesh.roles
        self.router = Router(self._handlers(parts), self.own_roles)
        self._client.bind(self.runtime, self.router)

    # ---- Outlet

    def call(self, call: Call) -> None:
        self._client.call(call)

    def execute(self, work: Execute) -> None:
        self._execute(work)

    # ---- questions

    @property
    def mesh(self) -> MeshMachine:
        """The mesh machine of now; it is replaced when a commit fails, so never keep it. Raises as Runtime.machine."""
        return self.runtime.machine("mesh", MeshMachine)

    @property
    def jobs(self) -> JobsMachine:
        return self.runtime.machine("jobs", JobsMachine)

    @property
    def directory(self) -> Directory:
        return self.mesh.directory

    def own_roles(self) -> frozenset[int]:
        """What the config asks for and the membership record allows. That is in force from the first moment, while
        the record in which this node tells the others is signed in the machines' first step."""
        record = self.directory.member(self.node_id)
        return self._asked_roles & record.roles if record and not record.removed else frozenset()

    def caller_of(self, fingerprint: str) -> Caller | None:
        """The live member whose present key has this fingerprint."""
        node_id = self.directory.node_of_fingerprint(fingerprint)
        return None if node_id is None else self.member_caller(node_id)

    def member_caller(self, node_id: str) -> Caller:
        """A member as a caller, with its roles in force now."""
        return Caller(Kind.MEMBER, node_id, self.directory.roles_in_force(node_id))

    # ---- inside

    def _handlers(self, parts: Parts) -> dict[str, object]:
        runtime, self_id = self.runtime, self.node_id
        return {
            "offgrid.v1.MeshService": MeshHandlers(runtime, self_id, parts.facts),
            "offgrid.v1.JoinService": JoinHandlers(
                runtime,
                seal=parts.seal,
                open_sealed=parts.open_sealed,
                verify=parts.verify,
                check_certificate=parts.check_certificate,
            ),
            "offgrid.v1.JobService": JobHandlers(runtime, parts.job_timeout_ms),
            "offgrid.v1.MarketService": MarketHandlers(runtime, self_id, lambda: self.directory, parts.verify),
            "offgrid.v1.ObjectService": ObjectHandlers(runtime, parts.data_dir, INPUT_BYTES_MAX),
            "offgrid.v1.QuorumService": QuorumHandlers(runtime),
            "offgrid.v1.LedgerService": LedgerHandlers(runtime),
            "offgrid.v1.StateService": StateHandlers(runtime),
        }

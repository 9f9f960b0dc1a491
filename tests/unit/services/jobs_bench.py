"""A quiet simulated mesh of five, and calls as its owner or as a member.

Every request of the tests of the jobs' handlers and of the market's meets real machines and real rows.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.orders import ORDERS, JobOrder, payload_digest
from offgrid_node.runtime import Ticket
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.crypto import SimSigner

JOBS, MARKET = "offgrid.v1.JobService", "offgrid.v1.MarketService"
WASM = jobs_pb2.WasmTask(module=b"(module)")
PAYLOAD = jobs_pb2.JobPayload(wasm=WASM, input=b"x")
SPEC = jobs_pb2.JobSpec(payload=PAYLOAD)
SETTLED_S = 8.0  # until all know who is alive and what hosts offer


def spec(**fields: Any) -> jobs_pb2.JobSpec:
    return jobs_pb2.JobSpec(**{"payload": PAYLOAD, **fields})


def builtin(name: str) -> jobs_pb2.JobPayload:
    return jobs_pb2.JobPayload(builtin=jobs_pb2.BuiltinTask(name=name))


class Bench:
    """The cluster, and calls as its owner or as a member."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        for payload in (PAYLOAD, builtin("echo")):
            self.cluster.monitor.jobs.expect(payload)
        self.cluster.start()
        self.cluster.run_for(SETTLED_S)
        self.core, self.broker, self.host = (self.cluster.processes[n] for n in ("core", "broker", "host-a"))
        self.salt = self.core.running.directory.salt

    def ask(self, process: Any, caller: Caller, method: str, request: Message) -> Any:
        """The answer; raises its fault."""
        outcome: Any = process.running.router.dispatch(caller, method, request)
        if isinstance(outcome, Ticket):
            for _ in range(100):
                if outcome.outcome is not None:
                    break
                self.cluster.run_for(0.01)
            outcome = outcome.outcome
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def own(self, method: str, request: Message) -> Any:
        return self.ask(self.core, ADMIN, f"{JOBS}/{method}", request)

    def job(self, **fields: Any) -> jobs_pb2.Job:
        mission = self.own("CreateMission", jobs_pb2.CreateMissionRequest(title="m")).mission
        task = self.own(
            "CreateTask", jobs_pb2.CreateTaskRequest(mission_id=mission.mission_id, name="t", kind="compute")
        )
        request = jobs_pb2.CreateJobRequest(
            task_id=fields.pop("task_id", task.task.task_id),
            request_id=fields.pop("request_id", ""),
            job=spec(**fields),
        )
        job: jobs_pb2.Job = self.own("CreateJob", request).job
        return job

    def order(self, payload: bytes = b"", **changes: Any) -> JobOrder:
        fields = {
            "core": self.core.node_id,
            "job_id": "j-forged",
            "attempt": 1,
            "kind": "compute",
            "needs": "wasm",
            "size_tokens": 1,
            "payload_bytes": len(payload),
            "payload_digest": payload_digest(payload),
            "timeout_ms": 1000,
            **changes,
        }
        return JobOrder(**fields)

    def sign(self, *bodies: bytes, signer: SimSigner | None = None, salt: bytes | None = None) -> bytes:
        return ORDERS.sign(bodies, signer or self.core.signer, self.salt if salt is None else salt)


def member(process: Any, *roles: int) -> Caller:
    return Caller(Kind.MEMBER, process.node_id, frozenset(roles))

"""Whatever members say to each other on the job road, in calls and in answers, no machine raises: one that does is
thrown away, and with it whatever everybody else was waiting for.

Messages are made of their own descriptors: any field, at its bounds and beyond, with the ids of real nodes and jobs and
real signatures, so that a good part of them gets as far as the machines.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from jobs_bench import MARKET, PAYLOAD, Bench, builtin, member

from offgrid.v1 import jobs_pb2
from offgrid_node.node import Node
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import BROKER, CORE, HOST
from offgrid_node.protocol.jobs.heartbeat import digest_of_page
from offgrid_node.protocol.jobs.needs import needs_of
from offgrid_node.protocol.jobs.orders import JobOrder, payload_digest
from offgrid_node.protocol.jobs.receipts import RECEIPTS, ReceiptBody, result_digest
from offgrid_node.services.caller import Caller

STEPS = 250
NUMBERS = (0, 1, 2, 3, 1_000, 10**6, 2**31 - 1, 2**32 - 1, 10**15, 2**63 - 1, 2**64 - 1, -1, -(2**31), -(2**63))
RANGES = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
}
REALS = (0.0, 0.5, -1.0, float("nan"), float("inf"))
WORDS = (
    "", "é", "completed", "failed", "wasm", "builtin:echo", "compute", "llm_call", "HostRestarted", "JobTimeout",
    "OutputLost", "HostDied", "LeaseExpired", "x" * 64, "x" * 128, "x" * 129, "cpus > 1", "\u202e", "a/b/1",
)  # fmt: skip
ENUM_MAX = 8  # one more than any has
LEFT_OUT, LIES, DEPTH_MAX = 0.35, 0.5, 5


class Liar:
    """Everybody's voice in a quiet mesh."""

    def __init__(self, seed: int) -> None:
        self.rng, self.bench = Random(seed), Bench()
        self.jobs = ["j-1", "j-1.r1", "x" * 64]
        self.nodes = {HOST: self.bench.host, CORE: self.bench.core, BROKER: self.bench.broker}
        self.taken: Counter[str] = Counter()

    # ---- messages

    def fill(self, message: Any, depth: int = 0) -> Any:
        for field in message.DESCRIPTOR.fields:
            if self.rng.random() < LEFT_OUT:
                continue
            there, count = getattr(message, field.name), self.rng.choice((1, 1, 2, 3)) if field.is_repeated else 1
            if field.message_type is None:
                values = [self.value(field) for _ in range(count)]
                there.extend(values) if field.is_repeated else setattr(message, field.name, values[0])
            elif field.message_type.GetOptions().map_entry:
                there[self.rng.choice(WORDS)] = self.rng.choice(WORDS)
            elif depth < DEPTH_MAX:
                for _ in range(count):
                    self.fill(there.add() if field.is_repeated else there, depth + 1)
        return message

    def value(self, field: Any) -> Any:
        rng = self.rng
        if field.name == "job_id":
            return rng.choice([*self.jobs, *self.jobs, rng.choice(WORDS)])
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return rng.choice((rng.choice(self.ids), rng.choice(WORDS)))
            case FieldDescriptor.TYPE_BYTES:
                return rng.choice((b"", bytes(32), rng.randbytes(rng.randrange(40))))
            case FieldDescriptor.TYPE_BOOL:
                return rng.random() < 0.5
            case FieldDescriptor.TYPE_ENUM:
                return rng.randrange(ENUM_MAX)
            case FieldDescriptor.TYPE_DOUBLE:
                return rng.choice(REALS)
            case kind:
                least, most = RANGES[kind]
                return max(least, min(most, rng.choice(NUMBERS)))

    @property
    def ids(self) -> list[str]:
        return [node.node_id for node in self.nodes.values()]

    def order(self) -> tuple[JobOrder, bytes]:
        rng, payload = self.rng, self.rng.choice((PAYLOAD, builtin("echo"), self.fill(jobs_pb2.JobPayload())))
        needs = "wasm"
        with suppress(Fault):
            needs = needs_of(payload)
        carried = payload.SerializeToString()
        order = JobOrder(
            self.bench.core.node_id,
            rng.choice(self.jobs[:3]),  # the core's real jobs are ordered by itself
            rng.choice((0, 1, 2, 2**32 - 1)),
            rng.choice(("compute", "llm_call", "")),
            needs,
            rng.choice((0, 1, 10**6, 10**15)),
            len(carried),
            payload_digest(carried),
            rng.choice((0, 1, 1_000, 86_400_000)),
            rng.choice((-100, 0, 100)),
            rng.choice((0, 1, 10**15)),
            rng.choice(("", "cpus >= 0", 'label.x == "y"')),
            tuple(rng.sample(self.ids, rng.randrange(3))),
        )
        return order, carried

    # ---- calls: each is filled at random, and then as right as its receiver checks

    def post_offers(self, request: jobs_pb2.PostOffersRequest) -> tuple[int, int]:
        request.host, request.profile.slots = self.bench.host.node_id, request.profile.slots % 1_025
        request.base_seq *= self.rng.random() < 0.3
        for offer in request.offers:
            offer.offer_id, offer.expiry_ms = 1 + offer.offer_id % 4, self.rng.choice((1_000, 3_600_000))
            offer.slots, offer.ask_micro = offer.slots % 1_025, min(offer.ask_micro, 10**15)
            offer.executors[:], offer.kinds[:] = ["wasm", "builtin:echo"], ["compute", "llm_call"]
        return HOST, BROKER

    def submit_jobs(self, request: jobs_pb2.SubmitJobsRequest) -> tuple[int, int]:
        request.orders[:] = [self.order()[0].encode() for _ in range(3)]
        request.root_signature = self.bench.sign(*request.orders)
        return CORE, BROKER

    def start_jobs(self, request: jobs_pb2.StartJobsRequest) -> tuple[int, int]:
        del request.starts[:]
        for order, payload in (self.order(), self.order()):
            price = self.rng.choice((0, 1, 10**15))
            request.starts.add(order=order.encode(), payload=payload, price_micro=price)
        request.root_signature = self.bench.sign(*(start.order for start in request.starts))
        return CORE, HOST

    def report_results(self, request: jobs_pb2.ReportResultsRequest) -> tuple[int, int]:
        host, core, bodies = self.bench.host, self.bench.core, []
        for report in request.reports:
            for name in ("blob", "files_blob", "sealed"):
                report.ClearField(name)  # type: ignore[arg-type]
            code, attempt = report.result.exit_code, report.attempt
            report.ClearField("result")
            if self.rng.random() < 0.5:
                report.error = report.error or "HostRestarted"
                continue
            report.result.exit_code, report.result.status = code, "failed" if code else "completed"
            size, price = self.rng.choice((0, 1, 10**15)), self.rng.choice((0, 1, 10**15))
            digest, paid_for = result_digest(code, b""), payload_digest(PAYLOAD.SerializeToString())
            ids = host.node_id, core.node_id, report.job_id, attempt
            body = ReceiptBody(*ids, paid_for, digest, report.result.status, size, 2**63 - 1, price, "x")
            report.result.receipt.body = body.encode()
            bodies.append(report.result.receipt.body)
        request.root_signature = RECEIPTS.sign(bodies, host.signer, self.bench.salt) if bodies else b""
        return HOST, CORE

    def renew_leases(self, request: jobs_pb2.RenewLeasesRequest) -> tuple[int, int]:
        request.digest = digest_of_page([(held.job_id, held.attempt) for held in request.held])
        return HOST, CORE

    def explain_order(self, request: jobs_pb2.ExplainOrderRequest) -> tuple[int, int]:
        request.order = self.order()[0].encode()
        return CORE, BROKER

    def call(self) -> None:
        calls: dict[str, Any] = {
            "PostOffers": self.post_offers,
            "SubmitJobs": self.submit_jobs,
            "StartJobs": self.start_jobs,
            "ReportResults": self.report_results,
            "RenewLeases": self.renew_leases,
            "ExplainOrder": self.explain_order,
            "DeliverAwards": lambda request: (BROKER, CORE),
            "CancelStarts": lambda request: (CORE, HOST),
            "CloseLeases": lambda request: (CORE, BROKER),
            "ReportProgress": lambda request: (HOST, CORE),
            "ListOffers": lambda request: (CORE, BROKER),
        }
        method = self.rng.choice(sorted(calls))
        request: Message = self.fill(getattr(jobs_pb2, f"{method}Request")())
        caller, callee = calls[method](request)
        with suppress(Fault):
            self.bench.ask(self.nodes[callee], self.member(caller), f"{MARKET}/{method}", request)
            self.taken[method] += 1

    def member(self, role: int) -> Caller:
        return member(self.nodes[role], role)

    # ---- answers, and work for all of them

    def lie(self, answer: Any) -> Any:
        """Another answer of that kind, about the same attempts."""
        if answer.DESCRIPTOR.file.name != jobs_pb2.DESCRIPTOR.name or self.rng.random() > LIES:
            return answer
        lie = self.fill(type(answer)())
        for field in answer.DESCRIPTOR.fields:
            if field.message_type is None or not field.is_repeated:
                continue
            lies = getattr(lie, field.name)
            for index, true in enumerate(getattr(answer, field.name)):
                told = lies[index] if index < len(lies) else self.fill(lies.add())
                told.job_id, told.attempt = true.job_id, true.attempt
        self.taken[type(answer).__name__] += 1
        return lie

    def work(self) -> None:
        with suppress(Fault):
            job = self.bench.job()
            self.bench.own("DispatchJob", jobs_pb2.DispatchJobRequest(job_id=job.job_id))
            self.jobs = [*self.jobs[:3], *self.jobs[3:][-7:], job.job_id]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_machine_raises_whatever_members_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    liar, checked = Liar(seed), Node._checked_answer
    monkeypatch.setattr(
        Node, "_checked_answer", lambda node, peer, answer, verify: checked(node, peer, liar.lie(answer), verify)
    )
    for step in range(STEPS):
        if step % 5 == 0:
            liar.work()
        liar.call()  # a machine that raises ends the simulation: see `Monitor.on_runtime_fault`
        if step % 3 == 0:
            liar.bench.cluster.run_for(liar.rng.choice((0.01, 0.1, 1)))
    assert len(liar.taken) > 12, "a good part of it gets as far as the machines"

"""A core's whole machine among a broker and hosts that are told what to answer; it may be loaded anew at every step."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random

from job_bench import PAYLOAD, SALT, TASK, Disk, new_job

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Call, Effect, Execute, Executed, Raise, Reply, Woke
from offgrid_node.protocol.events import BROKER, CORE, HOST, CostIncurred, ObjectAdded, PeerUp
from offgrid_node.protocol.jobs.commands import NewJob, RenewLeases, Report, ReportResults, RunJobs, Started
from offgrid_node.protocol.jobs.heartbeat import digest_of_page
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import AttemptKey, JobOrder
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED, ReceiptBody, result_digest, sign_receipts
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.terms import Terms
from offgrid_tools.sim.crypto import SimSigner

OWNER, MARKET = SimSigner("owner"), SimSigner("market")
HOSTS = {letter: SimSigner(f"host-{letter}") for letter in "abcdefghijklm"}
NAMES = {signer.node_id: letter for letter, signer in HOSTS.items()}
PRICE = 7
AUTO, OFFGRID = jobs_pb2.DISPATCH_MODE_AUTO, jobs_pb2.DISPATCH_MODE_OFFGRID


class World:
    """`hosts` are those that the broker awards to, in its order of liking; `blind`: it does not look at `avoid`."""

    def __init__(self, hosts: int = 5, *, reloads: bool = False, seed: int = 1) -> None:
        self.settings = JobsSettings(signer=OWNER, salt=SALT, executors=("wasm",), price_micro=0)
        self.hosts = list(HOSTS.values())[:hosts]
        self.disk, self.rng, self.reloads = Disk(), Random(seed), reloads
        self.blind, self.market_up = False, True
        self.executing = False  # whether this node's own work stays under way
        self.now_ms, self._ticket = 1_000, 0
        self.effects: list[Effect] = []
        self.awards: dict[AttemptKey, str] = {}
        self.running: OrderedDict[AttemptKey, JobOrder] = OrderedDict()  # started at hosts, not reported
        self.stopped: list[AttemptKey] = []
        self.reload()

    def reload(self) -> None:
        """The machine is lost, and another one begins with what is on disk."""
        self.machine = JobsMachine(self.settings)
        self.machine.load(self.disk, self.now)
        for answer in self._answers(self._step([*self._peers(), Woke()])):
            self.step(answer, reloads=False)

    def _peers(self) -> list[object]:
        ups = [PeerUp(OWNER.node_id, "", frozenset({CORE}))]
        if self.market_up:
            ups.append(PeerUp(MARKET.node_id, "", frozenset({BROKER})))
        return [*ups, *(PeerUp(host.node_id, "", frozenset({HOST})) for host in HOSTS.values())]

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    # ---- the owner

    def run(
        self,
        replicas: int = 3,
        quorum: int = 2,
        *,
        adaptive: bool = False,
        mode: jobs_pb2.DispatchMode.ValueType = OFFGRID,
        input_bytes: int = 1,
        deadline_us: int = 0,
    ) -> str:
        """The id of a redundant job that is under way."""
        payload = jobs_pb2.JobPayload(wasm=PAYLOAD.wasm, input=b"x" * input_bytes)
        terms = Terms(deadline_us=deadline_us, replicas=replicas, quorum=quorum, adaptive=adaptive)
        new: NewJob = new_job(payload)._replace(terms=terms)
        reply = self.ask(RunJobs(TASK, (new,), mode, "", bytes(16)))
        assert isinstance(reply, jobs_pb2.RunJobsResponse), reply
        return reply.job_ids[0]

    def ask(self, command: object, caller: str = "owner") -> object:
        self._ticket += 1
        effects = self.step(Asked(self._ticket, caller, command))
        return next((e.outcome for e in effects if isinstance(e, Reply) and e.ticket == self._ticket), None)

    def job(self, job_id: str) -> jobs_pb2.Job:
        """As it is on disk."""
        return jobs_pb2.Job.FromString(self.disk.rows["jobs", job_id.encode()])

    def executions(self, job_id: str) -> list[jobs_pb2.Job]:
        rows = self.disk.scan("jobs", prefix=f"{job_id}.r".encode())
        return [jobs_pb2.Job.FromString(value) for _, value in rows]

    def paid(self) -> list[str]:
        """The names of the hosts whose work was booked, in order, each time."""
        costs = [e.event for e in self.effects if isinstance(e, Raise) and isinstance(e.event, CostIncurred)]
        return [name_of(cost.payee) for cost in costs]

    def told_brokers(self) -> list[jobs_pb2.ClosedLease]:
        """Of leases that are over, in order."""
        told: list[jobs_pb2.ClosedLease] = []
        for effect in self.effects:
            request = effect.request if isinstance(effect, Call) else None
            if isinstance(request, jobs_pb2.SubmitJobsRequest):
                told += request.closed
            elif isinstance(request, jobs_pb2.CloseLeasesRequest):
                told += request.leases
        return told

    # ---- hosts

    def at(self, host: str) -> AttemptKey:
        """What has run at this host for longest."""
        return next(key for key in self.running if name_of(self.awards[key]) == host)

    def at_work(self) -> list[str]:
        return [name_of(self.awards[key]) for key in self.running]

    def finish(
        self,
        host: str,
        output: bytes = b"right",
        *,
        exit_code: int = 0,
        error: str = "",
        added: tuple[ObjectAdded, ...] = (),
    ) -> None:
        """This host brings what came of it, with a valid receipt unless it is an error."""
        key = self.at(host)
        order = self.running.pop(key)
        self.report(host, order, output, exit_code=exit_code, error=error, added=added)

    def report(
        self,
        host: str,
        order: JobOrder,
        output: bytes,
        *,
        exit_code: int = 0,
        error: str = "",
        added: tuple[ObjectAdded, ...] = (),
    ) -> None:
        """`added` are its output and its files, where these are large."""
        signer, key = HOSTS[host], (order.job_id, order.attempt)
        message = jobs_pb2.AttemptReport(job_id=key[0], attempt=key[1], error=error)
        body = None
        if not error:
            status = FAILED if exit_code else COMPLETED
            digest = result_digest(exit_code, output)
            body = ReceiptBody(
                signer.node_id,
                order.core,
                *key,
                order.payload_digest,
                digest,
                status,
                order.size_tokens,
                1,
                PRICE,
                "test/1",
            )
            message.result.status, message.result.output = status, output
            message.result.exit_code = exit_code
            ids = [each.body.object_id for each in added]
            message.result.output_object, message.result.files_object = (*ids, "", "")[:2]
            message.result.receipt.CopyFrom(sign_receipts([body.encode()], signer, SALT)[0])
        self.ask(ReportResults(signer.node_id, (Report(key, message, body, added),)), signer.node_id)

    def finish_all(self, output: bytes = b"right") -> None:
        while self.running:
            self.finish(self.at_work()[0], output)

    # ---- time and roads

    def wait(self, ms: int) -> None:
        """In steps, as timers want it."""
        end_ms = self.now_ms + ms
        while (due_ms := self.machine.deadline_ms()) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.step(*(self._renews(key) for key in self.running), Woke())
        self.now_ms = end_ms

    def _renews(self, key: AttemptKey) -> Asked:
        """Its host says that it still has it."""
        host = self.awards[key]
        return Asked(0, host, RenewLeases(host, (key,), digest_of_page([key])))

    def step(self, *inputs: object, reloads: bool = True) -> list[Effect]:
        """What these inputs lead to, and all that the others answer at once."""
        effects = self._step(inputs)
        answers = self._answers(effects)
        if self.reloads and reloads:
            self.reload()
        for answer in answers:
            self.step(answer, reloads=reloads)
        return effects

    def _answers(self, effects: Sequence[Effect]) -> list[Answered]:
        return [answer for effect in effects if isinstance(effect, Call) for answer in self._answer(effect)]

    def _step(self, inputs: Sequence[object]) -> list[Effect]:
        self.now_ms += 1
        effects = self.machine.step(list(inputs), self.now, self.rng)
        self.machine._post._durable = True
        effects += self.machine._post.take(self.now)
        self.disk.commit(effects)
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Execute) and not self.executing:  # this node's own
                end = Executed(effect.core, effect.job_id, effect.attempt, b"right", b"", 0, "", "", 1, "test/1")
                effects += self._step([end])
        return effects

    def _answer(self, call: Call) -> list[Answered]:
        request, reply = call.request, None
        if isinstance(request, jobs_pb2.SubmitJobsRequest) and self.market_up:
            reply = jobs_pb2.SubmitJobsResponse(clearings=[self._clear(body) for body in request.orders])
        elif isinstance(request, jobs_pb2.StartJobsRequest):
            return [Answered(call.tag, call.node, self._start(request), None)]
        elif isinstance(request, jobs_pb2.CancelStartsRequest):
            for lease in request.attempts:
                self.running.pop((lease.job_id, lease.attempt), None)
                self.stopped.append((lease.job_id, lease.attempt))
            reply = jobs_pb2.CancelStartsResponse()
        if reply is None:
            return []
        return [Answered(call.tag, call.node, reply, None)]

    def _clear(self, body: bytes) -> jobs_pb2.Clearing:
        order = JobOrder.decode(body)
        key = order.job_id, order.attempt
        host = self.awards.get(key)
        if host is None:
            free = [each.node_id for each in self.hosts if self.blind or each.node_id not in order.avoid]
            if not free:
                return jobs_pb2.Clearing(job_id=key[0], attempt=key[1], kind=jobs_pb2.CLEARING_KIND_NO_HOST)
            host = self.awards[key] = free[order.attempt % len(free) if self.blind else 0]
        kind = jobs_pb2.CLEARING_KIND_AWARDED
        return jobs_pb2.Clearing(job_id=key[0], attempt=key[1], kind=kind, host=host, price_micro=PRICE)

    def _start(self, request: jobs_pb2.StartJobsRequest) -> Started:
        outcomes = []
        for start in request.starts:
            order = JobOrder.decode(start.order)
            self.running.setdefault((order.job_id, order.attempt), order)
            outcomes.append(jobs_pb2.StartOutcome(job_id=order.job_id, attempt=order.attempt, accepted=True))
        return Started(tuple(outcomes), ())


def name_of(node_id: str) -> str:
    return NAMES.get(node_id, node_id)

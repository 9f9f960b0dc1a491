"""Broker, host and core as plain objects: no runtime, no roads; what they write stands in a dictionary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from types import SimpleNamespace
from typing import Any, TypeVar

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Delete, Effect, Execute, Executed, Put, Record, Reply
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import BROKER, CORE, HOST, PeerDown, PeerUp
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.closing import SERVED, Over
from offgrid_node.protocol.jobs.commands import (
    CancelJobs,
    CloseLeases,
    CountJobs,
    CreateJob,
    DispatchJob,
    NewJob,
    PostOffers,
    Report,
    ReportResults,
    Start,
    Started,
    SubmitJobs,
)
from offgrid_node.protocol.jobs.commands import StartJobs as StartCommand
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.intake import Intake
from offgrid_node.protocol.jobs.orders import AttemptKey, ClaimKey, JobOrder, payload_digest
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.starts import HOLD_MS
from offgrid_node.protocol.jobs.terms import Terms
from offgrid_node.protocol.requests import Requests
from offgrid_tools.sim.crypto import SimSigner

SALT = b""
OWNER, RIVAL, MARKET, WORKER, OTHER = (SimSigner(name) for name in ("owner", "rival", "market", "worker", "other"))
PAYLOAD = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=b"(module)"), input=b"x")
TASK = jobs_pb2.Task(task_id="t-1", mission_id="m-1", kind="compute")
M = TypeVar("M", bound=Message)


def new_job(payload: jobs_pb2.JobPayload = PAYLOAD, **terms: Any) -> NewJob:
    """`terms` as in `Terms`."""
    carried = payload.SerializeToString()
    size = len(PAYLOAD.input)
    return NewJob(carried, payload_digest(carried), "wasm", 1_000, 30_000, "", size, Terms(**terms))


def order_of(core: SimSigner = OWNER, job_id: str = "j-1", attempt: int = 1, *, kind: str = "compute") -> JobOrder:
    payload = PAYLOAD.SerializeToString()
    return JobOrder(core.node_id, job_id, attempt, kind, "wasm", 1_000, len(payload), payload_digest(payload), 30_000)


class Disk:
    """Rows, as `Rows` has them."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, bytes], bytes] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        return self.rows.get((table, key))

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for (name, key), value in sorted(self.rows.items()):
            if name == table and key >= start and key.startswith(prefix):
                yield key, value

    def commit(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Put):
                self.rows[effect.table, effect.key] = effect.value
            elif isinstance(effect, Delete):
                self.rows.pop((effect.table, effect.key), None)


class Bench:
    """What every part stands on; `signer` is the node whose part it is."""

    def __init__(self, signer: SimSigner, *, slots: int = 1, queue_max: int = 100) -> None:
        self.settings = JobsSettings(
            signer=signer, salt=SALT, slots=slots, queue_max=queue_max, price_micro=0, executors=("wasm",)
        )
        self.peers, self.post, self.disk = Peers(), Post(self.settings), Disk()
        self.rng = Random(1)
        self.effects: list[Effect] = []
        self.now_ms = 0

    @property
    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    def settle(self) -> None:
        """Closes the step. What is late must not wait here: that is `test_post.py`'s business."""
        self.post._durable = True
        effects = self.post.take(self.now)
        self.disk.commit(effects)
        self.effects += effects

    def seen(self, role: int, *signers: SimSigner) -> None:
        for signer in signers:
            self.peers.on_up(PeerUp(signer.node_id, "", frozenset({role})))

    def last_outcome(self) -> Message | Fault:
        return next(effect.outcome for effect in reversed(self.effects) if isinstance(effect, Reply))

    def replied(self, kind: type[M]) -> M:
        """The last reply."""
        outcome = self.last_outcome()
        assert isinstance(outcome, kind), outcome
        return outcome

    def calls(self, method: str) -> list[Call]:
        return [e for e in self.effects if isinstance(e, Call) and e.method.endswith(f"/{method}")]

    def executions(self) -> list[Execute]:
        return [effect for effect in self.effects if isinstance(effect, Execute)]

    def job_events(self) -> list[jobs_pb2.Job]:
        return [e.event.job for e in self.effects if isinstance(e, Record) and e.event.HasField("job")]


class BrokerBench(Bench):
    def __init__(self, *, queue_max: int = 100) -> None:
        super().__init__(MARKET, queue_max=queue_max)
        self.seen(CORE, OWNER, RIVAL)
        self.seen(HOST, WORKER, OTHER)
        self.broker = self._new()

    def _new(self) -> Broker:
        return Broker(self.settings, self.peers, self.post)

    def restart(self) -> None:
        self.peers = Peers()
        self.broker = self._new()
        self.broker.load(self.disk, self.now)

    def close_step(self) -> None:
        self.broker.clear(self.now)
        self.settle()

    def offer(
        self,
        host: SimSigner = WORKER,
        *,
        seq: int = 1,
        slots: int = 1,
        price: int = 0,
        kinds: Sequence[str] = ("compute",),
        held: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """All that the host says of itself; `more` are fields of its one offer."""
        offer = {"offer_id": 1, "slots": slots, "ask_micro": price, "executors": ["wasm"], "kinds": kinds}
        self.say(
            host, seq=seq, offers=[jobs_pb2.Offer(**{**offer, "expiry_ms": 10**9, **more})], held=held, slots=slots
        )

    def say(
        self, host: SimSigner = WORKER, *, slots: int = 1, profile: Mapping[str, Any] | None = None, **fields: Any
    ) -> Message | Fault:
        """One PostOffers, whole unless it has a base_seq."""
        if "base_seq" not in fields or profile is not None:
            fields["profile"] = jobs_pb2.HostProfile(host=host.node_id, slots=slots, **(profile or {}))
        request = jobs_pb2.PostOffersRequest(host=host.node_id, **fields)
        self.broker.on_offers(1, PostOffers(request), self.now)
        self.close_step()
        return self.last_outcome()

    def submit(
        self,
        core: SimSigner = OWNER,
        job_id: str = "j-1",
        attempt: int = 1,
        *,
        kind: str = "compute",
        doubtful: bool = False,
        **terms: Any,
    ) -> jobs_pb2.Clearing:
        order = order_of(core, job_id, attempt, kind=kind)._replace(**terms)
        in_doubt = frozenset({(job_id, attempt)} if doubtful else ())
        self.broker.on_submit(1, SubmitJobs(core.node_id, (order,), (), in_doubt), self.now)
        self.close_step()
        return self.replied(jobs_pb2.SubmitJobsResponse).clearings[0]

    def close(self, core: SimSigner, job_id: str, attempt: int, end: jobs_pb2.LeaseEnd.ValueType = SERVED) -> None:
        self.broker.on_close(1, CloseLeases(core.node_id, (Over(job_id, attempt, end),)), self.now)
        self.close_step()

    def down(self, signer: SimSigner) -> None:
        self.peers.on_down(PeerDown(signer.node_id))
        self.broker.on_peer_down(signer.node_id, self.now)
        self.close_step()

    def up(self, signer: SimSigner, role: int) -> None:
        self.seen(role, signer)
        self.broker.on_peer_up(signer.node_id)
        self.close_step()

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.broker.begin(self.now)
        self.broker.on_wake(self.now)
        self.close_step()

    def confirm(self, core: SimSigner, job_id: str = "j-1", attempt: int = 1) -> None:
        """The core answers a DeliverAwards."""
        tag = Tag("DeliverAwards", core.node_id, ((job_id, attempt),))
        answer = Answered(tag, core.node_id, jobs_pb2.DeliverAwardsResponse(), None)
        self.broker.on_awards_answered(tag, answer, self.now)
        self.settle()

    def delivered(self) -> list[str]:
        """The jobs whose awards were brought to their cores, in order."""
        awards: list[str] = []
        for call in self.calls("DeliverAwards"):
            assert isinstance(call.request, jobs_pb2.DeliverAwardsRequest)
            awards += [award.job_id for award in call.request.awards]
        return awards

    def slots_free(self, host: SimSigner = WORKER) -> int:
        return next(entry.slots_free for entry in self.broker.entries() if entry.profile.host == host.node_id)


class HostBench(Bench):
    def __init__(self, *, slots: int = 1) -> None:
        super().__init__(WORKER, slots=slots)
        self.seen(CORE, OWNER, RIVAL)
        self.seen(BROKER, MARKET)
        self.seen(HOST, WORKER)
        self.host = Host(self.settings, self.peers, self.post)

    def restart(self, still_at_work: Sequence[ClaimKey] = ()) -> None:
        """Anew from what is on disk; work goes on where but the machine was replaced."""
        self.host = Host(self.settings, self.peers, self.post, lambda: still_at_work)
        self.host.load(self.disk, self.now)

    def start(self, core: SimSigner = OWNER, job_id: str = "j-1", attempt: int = 1) -> str:
        """Why it refuses; empty when it takes the attempt on, or has it."""
        self.begin(core, job_id, attempt=attempt)
        self.wait(HOLD_MS)  # its work takes longer than that
        return self.replied(jobs_pb2.StartJobsResponse).outcomes[0].refusal

    def begin(
        self,
        core: SimSigner,
        *job_ids: str,
        attempt: int = 1,
        settled: Sequence[AttemptKey] = (),
        payload: jobs_pb2.JobPayload = PAYLOAD,
    ) -> None:
        """One call to start them, not answered yet unless nothing is taken on."""
        orders = [order_of(core, job_id, attempt) for job_id in job_ids]
        starts = tuple(Start(order, order.encode(), payload, 0) for order in orders)
        self.host.on_start(1, StartCommand(core.node_id, starts, tuple(settled)), self.now)
        self.settle()

    def finish(self, *works: Execute, output: bytes = b"done", sealed: bytes = b"", blob: bytes = b"") -> None:
        ends = [
            Executed(w.core, w.job_id, w.attempt, output, b"", 0, "", "", 1, "test/1", b"", sealed, blob) for w in works
        ]
        self.host.on_executed(ends, self.now)
        self.settle()

    def acknowledge(self, core: SimSigner, job_id: str, attempt: int, *, asked: bool = True) -> None:
        """The core answers a report; not `asked`: its answer is about something else than it was asked."""
        outcome = jobs_pb2.ReportOutcome(job_id=job_id, attempt=attempt, accepted=True)
        keys = ((job_id, attempt),) if asked else ()
        tag = Tag("ReportResults", core.node_id, keys)
        reply = jobs_pb2.ReportResultsResponse(outcomes=[outcome])
        self.host.on_reported(tag, Answered(tag, core.node_id, reply, None), self.now)
        self.settle()

    def leave_unanswered(self, core: SimSigner, job_id: str, attempt: int) -> None:
        """The core answers the call, and says nothing of this report."""
        tag = Tag("ReportResults", core.node_id, ((job_id, attempt),))
        self.host.on_reported(tag, Answered(tag, core.node_id, jobs_pb2.ReportResultsResponse(), None), self.now)
        self.settle()

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.host.on_wake(self.now)
        self.host.answer_starts(self.now)
        self.settle()

    def held(self) -> list[str]:
        self.host.on_peer_up(frozenset({BROKER}), MARKET.node_id, self.now)
        self.host.say_offer(self.now)
        self.settle()
        request = self.calls("PostOffers")[-1].request
        assert isinstance(request, jobs_pb2.PostOffersRequest)
        return list(request.held)


class CoreBench(Bench):
    """The core of OWNER; MARKET is its broker, WORKER and OTHER are hosts."""

    def __init__(self, *, queue_max: int = 100) -> None:
        super().__init__(OWNER, queue_max=queue_max)
        self.seen(BROKER, MARKET)
        self.seen(HOST, WORKER, OTHER)
        self.restart()

    def create(self, *, input_bytes: int = 1, request_id: str = "", **terms: Any) -> Message | Fault:
        payload = jobs_pb2.JobPayload(wasm=jobs_pb2.WasmTask(module=b"(module)"), input=b"x" * input_bytes)
        command = CreateJob(TASK, new_job(payload, **terms), request_id, bytes(16))
        self.intake.on_create(1, command, self.now, self.rng)
        self.settle()
        return self.last_outcome()

    def submitted(self, *, input_bytes: int = 1, **terms: Any) -> str:
        """A job whose order has gone to the broker."""
        made = self.create(input_bytes=input_bytes, **terms)
        assert isinstance(made, jobs_pb2.CreateJobResponse)
        self.dispatch(made.job.job_id, jobs_pb2.DISPATCH_MODE_OFFGRID)
        return made.job.job_id

    def dispatch(self, job_id: str, mode: jobs_pb2.DispatchMode.ValueType) -> None:
        self.intake.on_dispatch(2, DispatchJob(job_id, mode), self.now, self.rng)
        self.settle()

    def clears(self, clearing: jobs_pb2.Clearing) -> None:
        """MARKET answers the submission."""
        self.answers_submission(Tag("SubmitJobs", MARKET.node_id, ((clearing.job_id, clearing.attempt),)), [clearing])

    def answers_submission(self, tag: object, clearings: list[jobs_pb2.Clearing], *, epoch: int = 0) -> None:
        assert isinstance(tag, Tag)
        reply = jobs_pb2.SubmitJobsResponse(clearings=clearings, broker_epoch=epoch)
        self.core.broker_answers.on_submitted(tag, Answered(tag, tag.node, reply, None), self.now, self.rng)
        self.settle()

    def awarded(self, *, input_bytes: int = 1) -> str:
        """A job that MARKET has awarded to WORKER; its start has been sent."""
        job_id = self.submitted(input_bytes=input_bytes)
        self.clears(award(job_id))
        return job_id

    def answers_start(self, job_id: str, attempt: int = 1, *, refusal: str = "", fault: Fault | None = None) -> None:
        """The end of a StartJobs at WORKER."""
        tag = Tag("StartJobs", WORKER.node_id, ((job_id, attempt),))
        outcome = jobs_pb2.StartOutcome(job_id=job_id, attempt=attempt, accepted=not refusal, refusal=refusal)
        reply = None if fault else Started((outcome,), ())
        self.core.launching.on_started(tag, Answered(tag, WORKER.node_id, reply, fault), self.now, self.rng)
        self.settle()

    def answers_start_with(self, *reports: Report) -> None:
        """WORKER answers a StartJobs, and brings what came of it."""
        outcomes = tuple(jobs_pb2.StartOutcome(job_id=r.key[0], attempt=r.key[1], accepted=True) for r in reports)
        tag = Tag("StartJobs", WORKER.node_id, tuple(report.key for report in reports))
        answer = Answered(tag, WORKER.node_id, Started(outcomes, reports), None)
        self.core.launching.on_started(tag, answer, self.now, self.rng)
        self.settle()

    def start_here(self, job_id: str) -> None:
        """This very node was awarded the job, and takes it on."""
        entry = self.core.jobs.get(job_id)
        assert entry is not None
        order = self.core.jobs.order(entry.job)
        starts = (Start(order, order.encode(), PAYLOAD, entry.job.price_micro),)
        self.host.on_start(3, StartCommand(OWNER.node_id, starts), self.now)
        self.settle()

    def finish_here(self, job_id: str, output_object: str = "") -> None:
        """With a large output the host brings along what that is to become."""
        body = SimpleNamespace(object_id=output_object, size_bytes=1_000_000)
        added: Any = SimpleNamespace(body=body) if output_object else None
        end = Executed(OWNER.node_id, job_id, 1, b"", b"", 0, "", "", 1, "test/1", added=added)
        self.host.on_executed([end], self.now)
        self._hand_over()

    def _hand_over(self) -> None:
        for report, added in self.host.local_reports.take():
            self.core.reports.on_local_report(report, added, self.now, self.rng)
        self.settle()

    def report(self, report: Report) -> None:
        """WORKER brings it."""
        self.core.begin(self.now)
        self.core.reports.on_reports(9, ReportResults(WORKER.node_id, (report,)), self.now, self.rng)
        self.settle()

    def up(self, signer: SimSigner) -> None:
        self.seen(HOST, signer)
        self.core.on_peer_up(signer.node_id, frozenset({HOST}), self.now)
        self.settle()

    def down(self, signer: SimSigner) -> None:
        self.peers.on_down(PeerDown(signer.node_id))
        self.core.on_peer_down(signer.node_id, self.now, self.rng)
        self.settle()

    def wait(self, ms: int) -> None:
        self.now_ms += ms
        self.core.begin(self.now)
        self.host.on_wake(self.now)
        self._hand_over()
        self.core.on_wake(self.now, self.rng)
        self.core.jobs.say_awarded(self.now)
        self.settle()

    def cancel(self, *job_ids: str, task_id: str = "", reason: str = "") -> jobs_pb2.CancelJobsResponse:
        self.intake.on_cancel(4, CancelJobs(job_ids, task_id, reason), self.now)
        self.settle()
        return self.replied(jobs_pb2.CancelJobsResponse)

    def counts(self, task: jobs_pb2.Task = TASK) -> dict[str, int]:
        """Of the task's jobs, by the last word of their states."""
        self.intake.on_count(5, CountJobs(task))
        self.settle()
        counts = self.replied(jobs_pb2.GetTaskResponse).counts
        return {jobs_pb2.JobState.Name(count.state).removeprefix("JOB_STATE_"): count.jobs for count in counts}

    def restart(self, still_at_work: Sequence[ClaimKey] = ()) -> None:
        """The core and its own host, anew from what is on disk; work goes on where but the machines were replaced."""
        self.host = Host(self.settings, self.peers, self.post, lambda: still_at_work)
        self.host.load(self.disk, self.now)
        self.core = Core(self.settings, self.peers, self.post, self.host)
        self.core.load(self.disk, self.now)
        requests = Requests(self.post)
        requests.load(self.disk)
        self.intake = Intake(self.settings, self.peers, self.post, requests, self.core)
        self.intake.load()

    def settle(self) -> None:
        self.intake.releases.begin_step(self.now)
        self.intake.releases.pump(self.now, self.rng)
        self.core.jobs.index.close_step()
        super().settle()

    def job(self, job_id: str) -> jobs_pb2.Job:
        """As the core has it in mind while it is open, then as it is on disk."""
        entry = self.core.jobs.get(job_id)
        return entry.job if entry is not None else self.row(job_id)

    def row(self, job_id: str) -> jobs_pb2.Job:
        return jobs_pb2.Job.FromString(self.disk.rows["jobs", job_id.encode()])


def award(job_id: str, host: str = WORKER.node_id, *, attempt: int = 1, price_micro: int = 5) -> jobs_pb2.Clearing:
    return jobs_pb2.Clearing(
        job_id=job_id, attempt=attempt, kind=jobs_pb2.CLEARING_KIND_AWARDED, host=host, price_micro=price_micro
    )


def ends(bench: CoreBench) -> list[tuple[int, int]]:
    """What brokers were told: attempt and how it went."""
    bench.wait(1_000)
    requests = [call.request for name in ("SubmitJobs", "CloseLeases") for call in bench.calls(name)]
    found = []
    for request in requests:
        if isinstance(request, jobs_pb2.SubmitJobsRequest):
            found += [(lease.attempt, lease.end) for lease in request.closed]
        elif isinstance(request, jobs_pb2.CloseLeasesRequest):
            found += [(lease.attempt, lease.end) for lease in request.leases]
    return found

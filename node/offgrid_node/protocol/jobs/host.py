"""The host's part: a standing offer, leases taken on, work carried out, receipts signed and kept until acknowledged.

A lease is durable before its work starts and a receipt is durable before it is sent. After a restart a lease without
a receipt is given back (HostRestarted), unless its work still executes: that outlives machines that are replaced. What
is settled stays behind a fence (`fence.py`). So a host never runs an attempt twice nor signs two receipts for one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Execute, Executed, Rows
from offgrid_node.protocol.errors import NotFound, PermissionDenied
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.bounds import DETAIL_CHARS_MAX, PRICE_MAX
from offgrid_node.protocol.jobs.commands import Start, StartJobs
from offgrid_node.protocol.jobs.fence import Fence
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder, row_key
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Post, Tag
from offgrid_node.protocol.jobs.receipts import COMPLETED, FAILED, ReceiptBody, result_digest, sign_receipts
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.timers import Timers

LEASES, META, EPOCH_KEY = "host_leases", "meta", b"host_epoch"
OFFER_REFRESH_MS = 3_000  # a broker that restarted, or missed a change, knows the offer after this at the latest
OFFER_RETRY_MS = 100  # doubled up to the refresh: a broker refuses until gossip has told it of this host
REPORT_RETRY_MS, REPORT_RETRY_MAX_MS = 500, 30_000
REPORTS_MAX = 10_000  # receipts a core has not acknowledged; beyond it no new work is taken
OFFER_TIMER: ClaimKey = ("", "", 0)


class Host:
    """Takes leases while it has slots, and reports each to the core that holds the job."""

    def __init__(
        self,
        settings: JobsSettings,
        peers: Peers,
        post: Post,
        executing: Callable[[], Collection[ClaimKey]] = frozenset,
    ) -> None:
        """`executing` is asked at each load: what a former machine started and that has not ended."""
        self._settings, self._peers, self._post = settings, peers, post
        self._executing = executing
        self._leases: dict[ClaimKey, jobs_pb2.HostLease] = {}
        self._orders: dict[ClaimKey, JobOrder] = {}
        self._running: set[ClaimKey] = set()
        self._retries: dict[ClaimKey, int] = {}
        self._timers: Timers[ClaimKey] = Timers()
        self._seq = 0
        self._offer_due = False
        self._offer_faults = 0
        self._newest: dict[tuple[str, str], int] = {}
        self._fence = Fence(post)
        self._local: list[jobs_pb2.AttemptReport] = []

    def load(self, rows: Rows, now: Now) -> None:
        epoch = int.from_bytes(rows.get(META, EPOCH_KEY) or b"\0", "big") + 1
        self._seq = epoch << 32
        self._fence.load(rows)
        executing = self._executing()
        for _, value in rows.scan(LEASES):
            lease = jobs_pb2.HostLease.FromString(value)
            key = claim_of(lease)
            self._leases[key] = lease
            self._orders[key] = JobOrder.decode(lease.order.body)
            self._newest[key[:2]] = max(lease.attempt, self._newest.get(key[:2], 0))
            if key in executing and not lease.HasField("report"):
                self._running.add(key)
            else:
                self._timers.set(key, now.mono_ms)
        self._timers.set(OFFER_TIMER, now.mono_ms)

    # ---- questions

    @property
    def slots_free(self) -> int:
        return max(0, self._settings.slots - len(self._running))

    @property
    def slots_busy(self) -> int:
        return len(self._running)

    def deadline_ms(self) -> int | None:
        return self._timers.next_ms()

    def refusal(self, order: JobOrder, price_micro: int) -> str:
        """Why this host will not take the order now; empty when it will."""
        settings = self._settings
        if self._newest.get((order.core, order.job_id), 0) > order.attempt:
            return "a later attempt is here already"
        if self._fence.highest(order.core, order.job_id) >= order.attempt:
            return "this attempt, or a later one, is over here"
        if order.kind not in settings.kinds:
            return f"kind {order.kind!r} is not offered"
        if order.needs not in settings.executors:
            return f"{order.needs!r} is not offered"
        if price_micro < price_of(settings.price_micro, order.size_tokens):
            return "the price is below this host's offer"
        if len(self._leases) - len(self._running) >= REPORTS_MAX:
            return "too many receipts wait to be acknowledged"
        if not self.slots_free:
            return "busy"
        return ""

    # ---- inputs

    def on_start(self, ticket: int, command: StartJobs) -> None:
        outcomes = []
        for start in command.starts:
            key = start.order.key
            refusal = "" if key in self._leases else self.refusal(start.order, start.price_micro)
            outcome = jobs_pb2.StartOutcome(job_id=key[1], attempt=key[2], accepted=not refusal, refusal=refusal)
            outcomes.append(outcome)
            if refusal == "busy":
                self._offer_due = True  # the broker thinks otherwise: tell it
            elif not refusal and key not in self._leases:
                self.take(start)
        self._post.reply(ticket, jobs_pb2.StartJobsResponse(outcomes=outcomes))

    def take(self, start: Start) -> None:
        """Takes the lease on; the work starts once it is durable."""
        order, key = start.order, start.order.key
        lease = jobs_pb2.HostLease(
            core=key[0], job_id=key[1], attempt=key[2], price_micro=start.price_micro, order=start.signed
        )
        self._leases[key], self._orders[key] = lease, order
        self._newest[key[:2]] = key[2]
        self._running.add(key)
        self._post.put(LEASES, row_key(key), lease)
        self._event(EventType.JOB_AWARDED, lease, "taken")
        self._post.execute(Execute(*key, start.payload, order.timeout_ms))

    def on_executed(self, ends: Sequence[Executed], now: Now) -> None:
        """All that ended in this step share one signature. Work may have ended between two machines: what counts is
        that its lease has no report yet."""
        ended, finished = [], []
        for end in ends:
            key = end.core, end.job_id, end.attempt
            if key not in self._leases or self._leases[key].HasField("report"):
                continue
            self._running.discard(key)
            ended.append(self._leases[key])
            report = jobs_pb2.AttemptReport(job_id=end.job_id, attempt=end.attempt)
            if end.error:
                report.error, report.error_detail = end.error, end.error_detail[:DETAIL_CHARS_MAX]
            else:
                report.result.status = COMPLETED if end.exit_code == 0 else FAILED
                report.result.output, report.result.log = end.output, end.log
                report.result.exit_code = end.exit_code
                finished.append((key, self._receipt_body(end, report.result)))
            self._leases[key].report.CopyFrom(report)
        receipts = sign_receipts([body.encode() for _, body in finished], self._settings.signer, self._settings.salt)
        for (key, body), receipt in zip(finished, receipts, strict=True):
            receipt.facts.CopyFrom(body.facts())
            self._leases[key].report.result.receipt.CopyFrom(receipt)
        for lease in ended:
            self._event(EventType.JOB_EXECUTED, lease, lease.report.error or lease.report.result.status)
            self._keep_and_send(lease, now)

    def on_wake(self, now: Now) -> None:
        for key in self._timers.take_due(now.mono_ms):
            if key == OFFER_TIMER:
                self._offer_due = True
                self._timers.set(OFFER_TIMER, now.mono_ms + OFFER_REFRESH_MS)
            elif (lease := self._leases.get(key)) is not None:
                if not lease.HasField("report"):
                    self._give_back(lease)
                self._keep_and_send(lease, now)

    def on_peer_up(self, roles: frozenset[int], node_id: str, now: Now) -> None:
        self._offer_due = self._offer_due or BROKER in roles or node_id == self._settings.node_id
        for key, lease in self._leases.items():
            if lease.core == node_id and lease.HasField("report"):
                self._timers.set(key, now.mono_ms)

    def on_offered(self, answer: Answered, now: Now) -> None:
        """Nobody may wait a whole refresh for a host whose first offer came too early."""
        if answer.fault is None:
            self._offer_faults = 0
            return
        self._offer_faults += 1
        delay_ms = min(OFFER_REFRESH_MS, OFFER_RETRY_MS << min(self._offer_faults, 8))
        self._timers.set(OFFER_TIMER, now.mono_ms + delay_ms)

    def on_reported(self, tag: Tag, answer: Answered, now: Now) -> None:
        """The core has answered: accepted or refused, it is settled. Without an answer it is sent again."""
        claims = [(tag.node, *key) for key in tag.keys]  # a core settles its own attempts, nobody else's
        if isinstance(answer.reply, jobs_pb2.ReportResultsResponse):
            answered = {(tag.node, outcome.job_id, outcome.attempt) for outcome in answer.reply.outcomes}
            for key in claims:
                if key in answered:
                    self.forget(key)
            return
        if isinstance(answer.fault, PermissionDenied | NotFound) or (
            answer.fault is not None and answer.fault.reason == "NotACore"
        ):  # no member, or no core any more
            for key in claims:
                self.forget(key)
            return
        for key in claims:
            if key in self._leases:
                tries = self._retries[key] = self._retries.get(key, 0) + 1
                delay = min(REPORT_RETRY_MAX_MS, REPORT_RETRY_MS << min(tries, 8))
                self._timers.set(key, now.mono_ms + delay)

    def forget(self, key: ClaimKey) -> None:
        if self._leases.pop(key, None) is not None:
            self._orders.pop(key, None)
            if self._newest.get(key[:2]) == key[2]:
                del self._newest[key[:2]]
            self._retries.pop(key, None)
            self._timers.cancel(key)
            self._fence.settle(key)
            self._post.delete(LEASES, row_key(key))

    # ---- ends of a step

    def take_local_reports(self) -> list[jobs_pb2.AttemptReport]:
        """Reports for this very node's core, which stands in the same machine."""
        reports, self._local = self._local, []
        return reports

    def post_offer(self, rng: Rng) -> None:
        """Says the standing offer to every broker when it changed or is due again; only a host makes offers."""
        if not self._offer_due:
            return
        self._offer_due = False
        settings = self._settings
        if not settings.executors or not self._peers.has_role(settings.node_id, HOST):
            return
        if self._seq & 0xFFFFFFFF == 0:
            self._post.put_bytes(META, EPOCH_KEY, (self._seq >> 32).to_bytes(8, "big"))
        self._seq += 1
        offer = jobs_pb2.Offer(
            host=settings.node_id,
            seq=self._seq,
            slots=settings.slots,
            executors=settings.executors,
            kinds=settings.kinds,
            price_micro=settings.price_micro,
            labels=settings.labels,
            held=[f"{core}/{job_id}/{attempt}" for core, job_id, attempt in sorted(self._running)],
        )
        for broker in self._peers.with_role(BROKER):
            self._post.call(broker, "PostOffer", jobs_pb2.PostOfferRequest(offer=offer), Tag("PostOffer", broker, ()))

    # ---- inside

    def _receipt_body(self, end: Executed, result: jobs_pb2.JobResult) -> ReceiptBody:
        key = end.core, end.job_id, end.attempt
        order, lease = self._orders[key], self._leases[key]
        return ReceiptBody(
            node=self._settings.node_id,
            core=order.core,
            job_id=order.job_id,
            attempt=order.attempt,
            payload_digest=order.payload_digest,
            result_digest=result_digest(end.exit_code, end.output),
            status=result.status,
            size_tokens=order.size_tokens,
            latency_us=end.latency_us,
            price_micro=lease.price_micro,
            executor=end.executor,
        )

    def _give_back(self, lease: jobs_pb2.HostLease) -> None:
        lease.report.job_id, lease.report.attempt = lease.job_id, lease.attempt
        lease.report.error = "HostRestarted"
        lease.report.error_detail = "the host restarted while it ran the attempt"
        self._event(EventType.JOB_EXECUTED, lease, "HostRestarted")

    def _keep_and_send(self, lease: jobs_pb2.HostLease, now: Now) -> None:
        key = claim_of(lease)
        self._post.put(LEASES, row_key(key), lease)
        self._timers.set(
            key, now.mono_ms + CALL_TIMEOUT_MAX_MS + REPORT_RETRY_MS
        )  # should even the end of the call get lost
        if lease.core == self._settings.node_id:
            self._local.append(lease.report)
        else:
            self._post.add("ReportResults", lease.core, key[1:], lease.report)

    def _event(self, etype: EventType, lease: jobs_pb2.HostLease, outcome: str) -> None:
        event = jobs_pb2.AttemptEvent(
            job_id=lease.job_id,
            attempt=lease.attempt,
            core=lease.core,
            host=self._settings.node_id,
            price_micro=lease.price_micro,
            outcome=outcome,
        )
        if lease.report.result.HasField("receipt"):
            event.receipt.CopyFrom(lease.report.result.receipt)
        self._post.record(etype, lease.job_id, attempt=event)


def claim_of(lease: jobs_pb2.HostLease | jobs_pb2.BrokerLease) -> ClaimKey:
    """The attempt that a lease is for."""
    return lease.core, lease.job_id, lease.attempt


def price_of(price_micro_per_million: int, size_tokens: int) -> int:
    """What a job of this size costs at that price, rounded up, in millionths; PRICE_MAX at most."""
    return min(PRICE_MAX, -(-price_micro_per_million * size_tokens // 1_000_000))

"""The host's part: leases taken on, work carried out, receipts signed and kept until acknowledged.

A lease is durable before its work starts, or at least before its start is answered where the work leaves no traces; a
receipt is durable before it is sent. After a restart a lease without a receipt is given back (HostRestarted), unless
its work still executes: that outlives machines that are replaced. What is settled stays behind a fence (`fence.py`).
So a host never runs an attempt twice, as far as anybody could tell, nor signs two receipts for one.
What is kept of a receipt is its body; it is signed each time it is sent, together with those that go along.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Execute, Executed, Rows, Stop
from offgrid_node.protocol.errors import InvalidRequest, NotFound, PermissionDenied
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.commands import CancelStarts, Start, StartJobs, ToggleHost
from offgrid_node.protocol.jobs.duty import Duty, describe
from offgrid_node.protocol.jobs.ended import event_of, not_run, report_of
from offgrid_node.protocol.jobs.fence import Fence
from offgrid_node.protocol.jobs.heartbeat import Heartbeat, unless_usual
from offgrid_node.protocol.jobs.leases import Lease, Unsettled
from offgrid_node.protocol.jobs.local_reports import LocalReports
from offgrid_node.protocol.jobs.needs import has_references, leaves_traces
from offgrid_node.protocol.jobs.offering import Offering, offers_of, profile_of, unmet
from offgrid_node.protocol.jobs.orders import AttemptKey, ClaimKey, JobOrder
from offgrid_node.protocol.jobs.pages import Pages
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MAX_MS, Post, Tag
from offgrid_node.protocol.jobs.quarantine import Quarantine
from offgrid_node.protocol.jobs.result_blobs import ResultBlobs
from offgrid_node.protocol.jobs.rules import BUSY, Rules
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.jobs.starts import Starts
from offgrid_node.protocol.timers import Timers

REPORT_RETRY_MS, REPORT_RETRY_MAX_MS = 500, 30_000


class Host:
    """Takes leases while it has slots, and reports each to the core that holds the job."""

    def __init__(
        self,
        settings: JobsSettings,
        peers: Peers,
        post: Post,
        executing: Callable[[], Collection[ClaimKey]] = frozenset,
        at_death: Callable[[], Collection[bytes]] = frozenset,
    ) -> None:
        """`executing` is asked at each load: what a former machine started and that has not ended. So is `at_death`:
        payloads (digests) that the process before this one was at work on when it died, each of them told once."""
        self._settings, self._peers, self._post = settings, peers, post
        self._executing, self._at_death = executing, at_death
        self._leases: dict[ClaimKey, Lease] = {}
        self._running: set[ClaimKey] = set()
        self._retries: dict[ClaimKey, int] = {}
        self._timers: Timers[ClaimKey] = Timers()
        self.rules = Rules(settings, post)
        self.duty = Duty(post)
        self._quarantine = Quarantine(post)
        self._suspects: list[bytes] = []
        self.offering = Offering(settings, peers, post, lambda now: offers_of(self.rules.offers(now), settings))
        self._newest: dict[tuple[str, str], int] = {}
        self._fence = Fence(post)
        self._pages = Pages(post)
        self._starts = Starts(post, self._tell_taken)
        self._unsettled = Unsettled()
        self._heartbeat = Heartbeat(settings.node_id, peers, post)
        self._blobs = ResultBlobs(post)
        self.local_reports = LocalReports(settings.signer, settings.salt)

    def load(self, rows: Rows, now: Now) -> None:
        self.offering.load(rows, now)
        self._fence.load(rows, now)
        self.rules.load(rows, now)
        self.duty.load(rows)
        self._quarantine.load(rows)
        self._suspects += sorted(self._at_death()) if not self.duty.stopped_well else ()
        executing = self._executing()
        self._running.update(executing)  # even what is no lease: its core will ask again
        for lease in self._pages.load(rows, self._fence, now):
            key = lease.order.key
            self._leases[key] = lease
            self._newest[key[:2]] = max(key[2], self._newest.get(key[:2], 0))
            if lease.report is not None:
                self._unsettled.add(key[0], lease.report)
            if key not in executing or lease.report is not None:
                self._timers.set(key, now.mono_ms)
            if key not in executing and lease.report is None and not self.duty.stopped_well:
                self._suspects.append(lease.order.payload_digest)
            if key in executing and lease.rule:
                self.rules.occupy(key, lease.rule)
            lease.taken_ms = now.mono_ms
            self._heartbeat.watch(now)

    # ---- questions

    @property
    def slots_free(self) -> int:
        return max(0, self._settings.slots - len(self._running)) if self.duty.takes_work else 0

    @property
    def is_known(self) -> bool:
        """Whether the mesh has said what this node is called, and where it stands."""
        return self._peers.is_alive(self._settings.node_id)

    @property
    def slots_busy(self) -> int:
        return len(self._running)

    @property
    def idle(self) -> bool:
        """Nothing runs here, and no core owes an answer."""
        return not self._running and not self._leases

    def describe(self, now: Now) -> jobs_pb2.HostState:
        """For its owner."""
        state = describe(self.duty, self.slots_busy, len(self._unsettled), idle=self.idle)
        state.profile.CopyFrom(profile_of(self._settings, self._peers))
        state.offers.extend(offers_of(self.rules.offers(now), self._settings))
        state.rules.extend(self.rules.describe(now))
        return state

    def deadline_ms(self) -> int | None:
        parts = self.offering, self._heartbeat, self._starts, self._pages
        dues = (self._timers.next_ms(), *(part.deadline_ms() for part in parts))
        return min((due for due in dues if due is not None), default=None)

    def refusal(self, order: JobOrder, price_micro: int, now: Now) -> str:
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
        if why := self.duty.refusal or self._quarantine.refusal(order.payload_digest, now):
            return why
        if self._unsettled.is_full(order.core):
            return "too many receipts wait to be acknowledged"
        if not self.slots_free and order.key not in self._running:
            return BUSY
        return self._mismatch(order) or self.rules.refusal(order, price_micro, now)

    def _mismatch(self, order: JobOrder) -> str:
        """What the order asks of its host, and this one is not, whatever a broker has thought."""
        if self._settings.node_id in order.avoid:
            return "the order avoids this host"
        return self.unmet(order.requirements)

    def unmet(self, requirements: str) -> str:
        """What of them this host is not."""
        return unmet(requirements, self._settings, self._peers)

    # ---- inputs

    def on_start(self, ticket: int, command: StartJobs, now: Now) -> None:
        """Answered once the work is taken on durably; a moment later with what came of it, where it was quick."""
        if command.settled:
            self._forget_reported([(command.core, *over) for over in command.settled], now)
        answer, taken, own = jobs_pb2.StartJobsResponse(), list[ClaimKey](), command.core == self._settings.node_id
        for start in command.starts:
            key = start.order.key
            outcome = answer.outcomes.add()
            outcome.job_id, outcome.attempt = key[1], key[2]
            if (lease := self._leases.get(key)) is not None:
                outcome.accepted = True
                self._tell_taken(key)  # said again, before the first was answered perhaps
            elif refusal := self.refusal(start.order, start.price_micro, now):
                outcome.refusal = refusal
                if refusal.startswith(BUSY):
                    self.offering.hurry()  # the broker thinks otherwise: tell it
            else:
                outcome.accepted = True
                kept = own or leaves_traces(start.payload) or has_references(start.payload)
                lease = self.take(start, kept=kept, rule=self.rules.take(start.order, start.price_micro, now))
                lease.taken_ms = now.mono_ms
                taken.append(key)
        if taken:
            self._heartbeat.watch(now)
        if not own and any(outcome.accepted for outcome in answer.outcomes):
            answer.next_ms = unless_usual(self._heartbeat.promise_ms(command.core, now))
        if not taken or own:
            self._post.reply(ticket, answer)
        else:
            self._starts.hold(ticket, answer, taken, now)

    def answer_starts(self, now: Now) -> None:
        """Closes the step."""
        self._starts.answer_due(now)

    def take(self, start: Start, *, kept: bool = True, rule: str = "") -> Lease:
        """Takes the lease on. The work starts once it is durable; or at once, if it is to be `kept` only when its start
        is answered, as work may be that leaves no traces: of a crash before that nobody will ever know."""
        order, key = start.order, start.order.key
        lease = self._leases[key] = Lease(order, start.body, start.price_micro, rule=rule)
        self._newest[key[:2]] = key[2]
        if kept:
            self._tell_taken(key)
        if key not in self._running:  # else a former machine has begun with it
            self._running.add(key)
            noted = b"" if kept or start.payload.HasField("builtin") else order.payload_digest
            self._post.execute(Execute(*key, start.payload, order.timeout_ms, payload_digest=noted))
        return lease

    def on_executed(self, ends: Sequence[Executed], now: Now) -> None:
        """Work may have ended between two machines: what counts is that its lease has no report yet."""
        ended = [lease for end in ends if (lease := self._end(end, now)) is not None]
        if ended:
            self._pages.keep_ended(ended)
            for lease in ended:
                self._send(lease, now)

    def _end(self, end: Executed, now: Now) -> Lease | None:
        """Its lease, with its report; none where nobody waits for one."""
        key = end[:3]
        lease = self._leases.get(key)
        self._free(key, now)
        if lease is None or lease.report is not None:
            self._blobs.refuse(end, lease)
            return None
        report = lease.report = report_of(end, lease, self._settings.node_id)
        lease.added = tuple(added for added in (end.added, end.files_added) if added is not None)
        self._quarantine.clear(lease.order.payload_digest, now)
        self._unsettled.add(key[0], report)
        self._blobs.keep(lease)
        self._event(EventType.JOB_EXECUTED, lease, report.error or report.result.status)
        return lease

    def on_toggle(self, ticket: int, command: ToggleHost, now: Now) -> None:
        try:
            self.duty.ask(command.state)
        except InvalidRequest as fault:
            self._post.reply(ticket, fault)
            return
        self.offering.hurry()
        self._post.reply(ticket, jobs_pb2.ToggleHostResponse(host=self.describe(now)))

    def on_stop(self, ticket: int) -> None:
        self.duty.stop()
        self._post.reply(ticket, jobs_pb2.ToggleHostResponse())

    def on_cancel(self, ticket: int, command: CancelStarts, now: Now) -> None:
        for attempt in command.attempts:
            self.cancel((command.core, *attempt), now)
        self._post.reply(ticket, jobs_pb2.CancelStartsResponse())

    def cancel(self, key: ClaimKey, now: Now) -> None:
        """Its core waits for the attempt no more: work under way is stopped, nothing of it is reported or paid, and
        a start that comes later, for calls overtake each other, is refused. Its place is free once the work has ended;
        at once where it was to begin with this very step, and so never does.

        Written late: a host that dies before that gives the attempt back, and is told again that nobody wants it."""
        lease = self._leases.get(key)
        if self._post.withdraw(key):
            self._free(key, now)
        elif key in self._running:
            self._post.stop(Stop(*key))
        if lease is None:
            self._fence.settle(key[0], (key[1:],), now)
            return
        self._starts.forget(key)
        if lease.report is None:
            self._event(EventType.JOB_EXECUTED, lease, "Cancelled")
        for added in lease.added:
            self._post.drop_blob(added.body.object_id)
        self.forget(key, now)

    def on_renewed(self, tag: Tag, answer: Answered, now: Now) -> None:
        for key in self._heartbeat.on_answered(tag, answer, now):
            self.cancel(key, now)

    def on_wake(self, now: Now) -> None:
        self.duty.begin(now)
        self._quarantine.blame(self._suspects, now)
        self._suspects.clear()
        self._heartbeat.on_wake(self._leases, now)
        self.offering.on_wake(now)
        for key in self._timers.take_due(now.mono_ms):
            if (lease := self._leases.get(key)) is not None:
                if lease.report is None:
                    self._give_back(lease)
                self._send(lease, now)
        for key in self._pages.take_due(now):
            if self._timers.due_ms(key) is None:  # it went with an answer
                self._send(self._leases[key], now)

    def on_peer_up(self, roles: frozenset[int], node_id: str, now: Now) -> None:
        self.offering.on_peer_up(roles, node_id)
        for key, lease in self._leases.items():
            if key[0] == node_id and lease.report is not None:
                self._timers.set(key, now.mono_ms)

    def on_reported(self, tag: Tag, answer: Answered, now: Now) -> None:
        """The core has answered: accepted or refused, it is settled. Without an answer it is sent again."""
        claims = [(tag.node, *key) for key in tag.keys]  # a core settles its own attempts, nobody else's
        if isinstance(answer.reply, jobs_pb2.ReportResultsResponse):
            answered = {(tag.node, outcome.job_id, outcome.attempt) for outcome in answer.reply.outcomes}
            self._forget_all([key for key in claims if key in answered], now)
            for key in claims:
                self.report_later(key, now)
            return
        if isinstance(answer.fault, PermissionDenied | NotFound) or (
            answer.fault is not None and answer.fault.reason == "NotACore"
        ):  # no member, or no core any more
            self._forget_all(claims, now)
        for key in claims:
            self.report_later(key, now)

    def report_later(self, key: ClaimKey, now: Now) -> None:
        """Nobody has settled it: once more, later each time."""
        if key in self._leases:
            tries = self._retries[key] = self._retries.get(key, 0) + 1
            delay = min(REPORT_RETRY_MAX_MS, REPORT_RETRY_MS << min(tries, 8))
            self._timers.set(key, now.mono_ms + delay)

    def forget(self, key: ClaimKey, now: Now) -> None:
        """It is settled."""
        self._forget_all((key,), now)

    def _forget_all(self, keys: Sequence[ClaimKey], now: Now) -> None:
        """They are settled. That is written late: after a crash they would be reported, answered and settled again."""
        settled: dict[str, list[AttemptKey]] = {}
        for key in keys:
            if (lease := self._leases.pop(key, None)) is not None:
                settled.setdefault(key[0], []).append(key[1:])
                self._forget(key, lease, now)
        for core, attempts in settled.items():
            self._fence.settle(core, attempts, now)

    def _forget_reported(self, keys: Sequence[ClaimKey], now: Now) -> None:
        """Whoever says that before there is a report would make the host forget work that goes on."""
        leases = self._leases
        self._forget_all([key for key in keys if key in leases and leases[key].report is not None], now)

    def _forget(self, key: ClaimKey, lease: Lease, now: Now) -> None:
        if self._newest.get(key[:2]) == key[2]:
            del self._newest[key[:2]]
        if lease.report is not None:
            self._unsettled.remove(key[0], lease.report)
        self._retries.pop(key, None)
        self._timers.cancel(key)
        self._pages.settle(lease, now)
        self._blobs.drop(lease)

    # ---- ends of a step

    def say_offer(self, now: Now) -> None:
        """Closes the step."""
        self.duty.close_step(idle=self.idle)
        self.offering.paused = not self.duty.takes_work
        self.offering.say(self._running, now)

    # ---- inside

    def _free(self, key: ClaimKey, now: Now) -> None:
        self._running.discard(key)
        self.offering.on_freed(key, now)
        self.rules.release(key)

    def _tell_taken(self, key: ClaimKey) -> None:
        """The attempt is durably this host's: its core is told."""
        lease = self._leases[key]
        if lease.page is None:
            self._pages.keep(lease)
            self._event(EventType.JOB_AWARDED, lease, "taken")

    def _give_back(self, lease: Lease) -> None:
        lease.report = not_run(lease, "HostRestarted", "the host restarted while it ran the attempt")
        self._unsettled.add(lease.order.core, lease.report)
        self._event(EventType.JOB_EXECUTED, lease, "HostRestarted")
        self._pages.keep(lease)

    def _send(self, lease: Lease, now: Now) -> None:
        """The report, which is durable with this step, to whoever awaits it; and again should its answer not come."""
        report, key = lease.report, lease.order.key
        assert report is not None
        if key[0] == self._settings.node_id:
            self._send_here(lease, report)
        elif self._starts.take(key, report):
            self._pages.await_settling(lease, now)
            return
        elif lease.blobs:  # alone: its answer waits until the core has fetched the output
            self._post.add_alone("ReportResults", key[0], key[1:], report)
        else:
            self._post.add("ReportResults", key[0], key[1:], report)
        # Should even the end of the call get lost.
        self._timers.set(key, now.mono_ms + CALL_TIMEOUT_MAX_MS + REPORT_RETRY_MS)

    def _send_here(self, lease: Lease, report: jobs_pb2.AttemptReport) -> None:
        """To this very node's core."""
        if (report.result.output_object or report.result.files_object) and not lease.added:
            # What it was to become is forgotten: the bytes may be anywhere.
            lost = not_run(lease, "ResultNotKept", "the node restarted before its output had become an object")
            report.CopyFrom(lost)
            self._pages.keep(lease)
        self.local_reports.add(report, lease.added)

    def _event(self, etype: EventType, lease: Lease, outcome: str) -> None:
        self._post.tell_of(event_of(etype, lease, self._settings.node_id, outcome))

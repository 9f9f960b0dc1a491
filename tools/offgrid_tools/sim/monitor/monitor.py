"""Leads what happens anywhere in the cluster to the rules that it concerns. Sees the whole cluster from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_tools.sim.monitor.access import AccessRules
from offgrid_tools.sim.monitor.audits import AuditRules
from offgrid_tools.sim.monitor.comebacks import ComebackRules
from offgrid_tools.sim.monitor.deadly import DeadlyRules
from offgrid_tools.sim.monitor.deletions import DeletionRules
from offgrid_tools.sim.monitor.duty import DutyRules
from offgrid_tools.sim.monitor.event_types import must_carry_what_its_type_says
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.handovers import HandOverRules
from offgrid_tools.sim.monitor.jobs import JobRules
from offgrid_tools.sim.monitor.ledger import LedgerRules
from offgrid_tools.sim.monitor.lines import LineRules
from offgrid_tools.sim.monitor.lookers import Lookers
from offgrid_tools.sim.monitor.losses import LossRules
from offgrid_tools.sim.monitor.mail import MailRules
from offgrid_tools.sim.monitor.market import MarketRules
from offgrid_tools.sim.monitor.mesh import MeshRules
from offgrid_tools.sim.monitor.met import Met
from offgrid_tools.sim.monitor.objects import ObjectRules
from offgrid_tools.sim.monitor.promises import PromiseRules
from offgrid_tools.sim.monitor.quorum import QuorumRules
from offgrid_tools.sim.monitor.resealing import ResealRules
from offgrid_tools.sim.monitor.rules import Rules
from offgrid_tools.sim.monitor.schedules import ScheduleRules
from offgrid_tools.sim.monitor.secrets import SecretRules
from offgrid_tools.sim.monitor.sessions import SessionRules
from offgrid_tools.sim.monitor.stops import StopRules
from offgrid_tools.sim.monitor.summaries import SummaryRules
from offgrid_tools.sim.monitor.takeovers import TakeoverRules
from offgrid_tools.sim.monitor.winners import WinnerRules


class Monitor:
    """Every method raises Violation the moment an invariant breaks."""

    def __init__(self, name_of: Callable[[str], str], now_us: Callable[[], int] = lambda: 0) -> None:
        """`now_us` is the cluster's one true time. Rules look at what happens in the order in which they stand here."""
        evidence = self.evidence = Evidence(name_of)
        self.mesh = MeshRules(evidence)
        self.jobs = JobRules(evidence)
        self.market = MarketRules(evidence, now_us)
        self._lines, self._winners = LineRules(evidence, now_us), WinnerRules(evidence)
        self.duty, self.deadly = DutyRules(evidence), DeadlyRules(evidence)
        self._losses, self._takeovers = LossRules(evidence, now_us), TakeoverRules(evidence)
        self.schedules, self.stops = ScheduleRules(evidence), StopRules(evidence)
        self.quorum, self.deletions = QuorumRules(evidence), DeletionRules(evidence)
        self.resealing = ResealRules(evidence, self._on_replaced)
        self.objects = ObjectRules(evidence, self.quorum, self.deletions)
        self.promises = PromiseRules(evidence, self.objects)
        self.handovers = HandOverRules(evidence, self.promises)
        self.audits, self.access = AuditRules(evidence, self.objects), AccessRules(evidence)
        self.secrets, self.comebacks = SecretRules(evidence), ComebackRules(evidence)
        self.ledger = LedgerRules(evidence)
        self.met = Met(evidence)
        self.mail = MailRules(evidence, self.met.counts)
        self.sessions = SessionRules(evidence, self.met.counts)
        self.summaries = SummaryRules(evidence, self.sessions)
        self._rules = [each for each in vars(self).values() if isinstance(each, Rules)]
        self._lookers = Lookers(self._rules)
        self._seen_seq: dict[str, int] = {}
        self.jobs.on_cost, self.jobs.on_row, self.jobs.deadly = self.ledger.on_cost, self._on_job, self.deadly

    def watch(self, node: str, store: MemoryStore, blobs: MemoryBlobs) -> None:
        """A node's disk, with what its mesh began with on it."""
        self.evidence.stores[node], self.evidence.blobs[node] = store, blobs
        self._seen_seq[node] = store.journal_seq

    # ---- what leaves a node (network.Tap)

    def on_request(self, source: str, target: str, method: str, request: Message) -> None:
        if look := self._lookers.requests.get(type(request)):
            look(source, target, request)

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None:
        if not isinstance(reply, Fault) and (look := self._lookers.replies.get(type(reply))):
            look(source, target, reply)

    def on_answered(self, source: str, target: str, request: Message, reply: Message | Fault) -> None:
        if isinstance(request, jobs_pb2.CancelStartsRequest) and not isinstance(reply, Fault):
            self.stops.on_stopped(source, target, request)
        elif not isinstance(reply, Fault):
            self.mail.on_answered(source, request, reply)

    def on_bytes(self, source: str, target: str, data: bytes) -> None:
        self.secrets.on_bytes(source, target, data)

    def on_parted(self, request: Message) -> None:
        self.met.on_parted(request)

    def on_reset(self, calls: int) -> None:
        self.met.counts["calls broken by a reset"] += calls

    def on_lie(self, source: str, target: str, method: str, lie: Message) -> None:
        if look := self._lookers.lies.get(type(lie)):
            look(source, target, lie)

    # ---- what a node does

    def on_start(self, node: str) -> None:
        """A new life begins."""
        for rules in self._rules:
            rules.on_start(node)

    def on_reload(self, node: str) -> None:
        """Its machines are built anew from its disk: what they had not written is forgotten."""
        self.stops.on_start(node)
        self.deletions.on_reload(node)
        self._losses.forget(node)
        self._winners.on_start(node)

    def on_commit(self, node: str, writes: Mapping[tuple[str, bytes], bytes | None]) -> None:
        """Whatever the journal has gained, and the rows that were written with it. A commit that failed may have been
        applied all the same."""
        for seq, data in self.evidence.stores[node].events(self._seen_seq[node]):
            self._seen_seq[node] = seq
            event = state_pb2.Event.FromString(data)
            must_carry_what_its_type_says(event)
            event.seq = seq
            if look := self._lookers.events.get(event.WhichOneof("data") or ""):
                look(node, event)
        by_table: dict[str, list[tuple[bytes, bytes | None]]] = {}
        for (table, key), value in writes.items():
            if table in self._lookers.rows and self.evidence.row(node, table, key) == value:
                by_table.setdefault(table, []).append((key, value))
        for table, on_row in self._lookers.rows.items() if by_table else ():
            for key, value in by_table.get(table, ()):
                on_row(node, key, value)
        for rules in self._rules:
            rules.on_batch(node)

    def _on_job(self, core: str, job: jobs_pb2.Job) -> None:
        self.schedules.on_job(core, job)
        self._losses.on_job(core, job)
        self._takeovers.on_job(core, job)
        self.met.on_job(job)

    def _on_replaced(self, owner: str, old_id: str, new_id: str, regained: bool) -> None:
        self.deletions.on_replaced(owner, old_id, new_id)
        self.objects.on_replaced(owner, old_id, new_id)
        self.access.on_replaced(owner, old_id, new_id, forgotten=regained)
        self.met.counts["objects sealed anew"] += 1

    def on_restored(self, node: str, store: MemoryStore) -> None:
        """A backup was put in the place of its disk: what it says from now on is not vouched for."""
        self.evidence.dishonest.add(node)
        self.watch(node, store, self.evidence.blobs[node])
        for rules in self._rules:
            rules.on_restored(node)

    def on_comeback(self, node: str, store: MemoryStore, safe_seq: int) -> None:
        """A store that was to have the journal up to `safe_seq` takes the place of the node's disk."""
        self.comebacks.check(node, store, safe_seq)
        self.watch(node, store, self.evidence.blobs[node])
        for rules in self._rules:
            rules.on_comeback(node)

    def on_runtime_fault(self, fault: Fault, cause: BaseException | None) -> None:
        if isinstance(cause, Violation):  # found by what an effect or a callback set off
            raise cause
        if fault.reason in ("MachineFailed", "SettleFailed"):
            raise Violation(fault.message) from cause

    def check_store(self, node: str) -> None:
        """Nothing acked is lost, nor taken back. Called after each crash and at the end."""
        for rules in self._rules:
            rules.check_store(node)

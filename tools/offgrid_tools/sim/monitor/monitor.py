"""Leads what happens anywhere in the cluster to the rules that it concerns. Sees the whole cluster from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

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
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.handovers import HandOverRules
from offgrid_tools.sim.monitor.jobs import JobRules
from offgrid_tools.sim.monitor.ledger import LedgerRules
from offgrid_tools.sim.monitor.lines import LineRules
from offgrid_tools.sim.monitor.losses import LossRules
from offgrid_tools.sim.monitor.market import MarketRules
from offgrid_tools.sim.monitor.mesh import MeshRules
from offgrid_tools.sim.monitor.met import Met
from offgrid_tools.sim.monitor.objects import ObjectRules
from offgrid_tools.sim.monitor.promises import PromiseRules
from offgrid_tools.sim.monitor.quorum import QuorumRules
from offgrid_tools.sim.monitor.rules import Journaled, Passed, Rules, Written
from offgrid_tools.sim.monitor.schedules import ScheduleRules
from offgrid_tools.sim.monitor.secrets import SecretRules
from offgrid_tools.sim.monitor.stops import StopRules
from offgrid_tools.sim.monitor.takeovers import TakeoverRules
from offgrid_tools.sim.monitor.winners import WinnerRules

Kind = TypeVar("Kind")
Seen = ParamSpec("Seen")


class Monitor:
    """Every method raises Violation the moment an invariant breaks."""

    def __init__(self, name_of: Callable[[str], str], now_us: Callable[[], int] = lambda: 0) -> None:
        """`now_us` is the cluster's one true time."""
        self.evidence = Evidence(name_of)
        self.mesh = MeshRules(self.evidence)
        self.jobs = JobRules(self.evidence)
        self.market = MarketRules(self.evidence, now_us)
        self.duty = DutyRules(self.evidence)
        self.deadly = DeadlyRules(self.evidence)
        self._losses, self._takeovers = LossRules(self.evidence, now_us), TakeoverRules(self.evidence)
        self.schedules = ScheduleRules(self.evidence)
        self.met, self._winners = Met(self.evidence), WinnerRules(self.evidence)
        self.stops = StopRules(self.evidence)
        self.quorum = QuorumRules(self.evidence)
        self.deletions = DeletionRules(self.evidence)
        self.objects = ObjectRules(self.evidence, self.quorum, self.deletions)
        self.promises = PromiseRules(self.evidence, self.objects)
        self.handovers = HandOverRules(self.evidence, self.promises)
        self.audits, self.access = AuditRules(self.evidence, self.objects), AccessRules(self.evidence)
        self.secrets, self.comebacks = SecretRules(self.evidence), ComebackRules(self.evidence)
        self.ledger = LedgerRules(self.evidence)
        self.jobs.on_cost = self.ledger.on_cost
        self.jobs.on_row = self._on_job
        self.jobs.deadly = self.deadly
        self._rules: tuple[Rules, ...] = (
            self.mesh,
            self.jobs,
            self.market,
            LineRules(self.evidence, now_us),
            self._winners,
            self.duty,
            self.deadly,
            self._losses,
            self.schedules,
            self.stops,
            self.quorum,
            self.deletions,
            self.objects,
            self.handovers,
            self.audits,
            self.access,
            self.secrets,
            self.comebacks,
            self.ledger,
            self.met,
        )
        self._requests: dict[type[Message], Passed] = {}
        self._replies: dict[type[Message], Passed] = {}
        self._lies: dict[type[Message], Passed] = {}
        self._events: dict[str, Journaled] = {}
        self._rows: dict[str, Written] = {}
        for rules in self._rules:
            _join(self._requests, rules.requests())
            _join(self._replies, rules.replies())
            _join(self._lies, rules.lies())
            _join(self._events, rules.events())
            _join(self._rows, rules.rows())
        self._seen_seq: dict[str, int] = {}

    def watch(self, node: str, store: MemoryStore, blobs: MemoryBlobs) -> None:
        """A node's disk, with what its mesh began with on it."""
        self.evidence.stores[node], self.evidence.blobs[node] = store, blobs
        self._seen_seq[node] = store.journal_seq

    # ---- what leaves a node (network.Tap)

    def on_request(self, source: str, target: str, method: str, request: Message) -> None:
        if look := self._requests.get(type(request)):
            look(source, target, request)

    def on_reply(self, source: str, target: str, method: str, reply: Message | Fault) -> None:
        if not isinstance(reply, Fault) and (look := self._replies.get(type(reply))):
            look(source, target, reply)

    def on_answered(self, source: str, target: str, request: Message, reply: Message | Fault) -> None:
        if isinstance(request, jobs_pb2.CancelStartsRequest) and not isinstance(reply, Fault):
            self.stops.on_stopped(source, target, request)

    def on_bytes(self, source: str, target: str, data: bytes) -> None:
        self.secrets.on_bytes(source, target, data)

    def on_parted(self, request: Message) -> None:
        self.met.on_parted(request)

    def on_reset(self, calls: int) -> None:
        self.met.counts["calls broken by a reset"] += calls

    def on_lie(self, source: str, target: str, method: str, lie: Message) -> None:
        if look := self._lies.get(type(lie)):
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
            if look := self._events.get(event.WhichOneof("data") or ""):
                look(node, event)
        by_table: dict[str, list[tuple[bytes, bytes | None]]] = {}
        for (table, key), value in writes.items():
            if table in self._rows and self.evidence.row(node, table, key) == value:
                by_table.setdefault(table, []).append((key, value))
        for table, on_row in self._rows.items() if by_table else ():
            for key, value in by_table.get(table, ()):
                on_row(node, key, value)
        for rules in self._rules:
            rules.on_batch(node)

    def _on_job(self, core: str, job: jobs_pb2.Job) -> None:
        self.schedules.on_job(core, job)
        self._losses.on_job(core, job)
        self._takeovers.on_job(core, job)
        self.met.on_job(job)

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


def _join(lookers: dict[Kind, Callable[Seen, None]], more: Mapping[Kind, Callable[Seen, None]]) -> None:
    """Several rules may look at messages, or events, of one kind, or at rows of one table."""
    for kind, look in more.items():
        first = lookers.get(kind)
        lookers[kind] = look if first is None else _both(first, look)


def _both(first: Callable[Seen, None], second: Callable[Seen, None]) -> Callable[Seen, None]:
    def look(*args: Seen.args, **kwargs: Seen.kwargs) -> None:
        first(*args, **kwargs)
        second(*args, **kwargs)

    return look

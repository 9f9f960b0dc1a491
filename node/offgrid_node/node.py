"""One node put together from parts: machines, runtime, handlers, router and client. No carrier, no event loop.

The daemon gives it a disk, keys and sockets; the simulator gives it twins of all three and virtual time. What is
assembled here is the same in both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from google.protobuf.message import Message
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Progress
from offgrid_node.machines import Machines
from offgrid_node.parts import Parts
from offgrid_node.protocol.effects import Call, DropBlob, Execute, Executed, Fill, Stop, Verifier
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.mail.errands import Serve
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.objects.errands import (
    Audit,
    Compare,
    Fetch,
    KeepSegment,
    Rebuild,
    Regain,
    Reseal,
    Rewrap,
    Ship,
)
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.risks import Told
from offgrid_node.protocol.state.machine import StateMachine
from offgrid_node.protocol.state.summaries.tables import summarised_upto
from offgrid_node.protocol.state.tables import Newer
from offgrid_node.runtime import Runtime
from offgrid_node.services.backups.handlers import BackupHandlers
from offgrid_node.services.backups.making import Making
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.client import Client
from offgrid_node.services.jobs.adoption import Adoption
from offgrid_node.services.jobs.explaining import Explaining
from offgrid_node.services.jobs.filling import Filling
from offgrid_node.services.jobs.handlers import JobHandlers
from offgrid_node.services.jobs.host_service import HostHandlers
from offgrid_node.services.jobs.inputs import InputFetching, InputPlacing
from offgrid_node.services.jobs.market import MarketHandlers, check_answer
from offgrid_node.services.jobs.progress import ProgressHub
from offgrid_node.services.jobs.results import Results
from offgrid_node.services.jobs.speech import Speech
from offgrid_node.services.jobs.work import Work
from offgrid_node.services.join import JoinHandlers
from offgrid_node.services.ledger.handlers import LedgerHandlers
from offgrid_node.services.mail.room import MailRoom
from offgrid_node.services.memory.room import MemoryRoom
from offgrid_node.services.mesh import MeshHandlers
from offgrid_node.services.objects.room import ObjectRoom
from offgrid_node.services.objects.status import object_notices
from offgrid_node.services.quorum import QuorumHandlers
from offgrid_node.services.quorum import check_answer as check_quorum_answer
from offgrid_node.services.retention import CALLER as RETENTION
from offgrid_node.services.retention import Retention, Surroundings
from offgrid_node.services.roads.book import RoadBook
from offgrid_node.services.roads.chart import CarrierChart
from offgrid_node.services.roads.handlers import LinkHandlers
from offgrid_node.services.roads.peer_checks import PeerChecks
from offgrid_node.services.router import Router
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.services.shelf import Shelf
from offgrid_node.services.state import StateHandlers
from offgrid_node.storage.noting import NotingStore, end_noting


class Node:
    """A node, whole but for its carriers: they bring requests to `router` and drive `runtime`."""

    def __init__(self, parts: Parts) -> None:
        """Raises FailedPrecondition (NoMesh) when the store knows no mesh, Corrupt when its rows are damaged, and what
        a commit raises."""
        self.node_id = parts.signer.node_id
        self._noting = NotingStore(parts.store) if parts.objects.cuts_journal else None
        if self._noting is None:
            end_noting(parts.store)
        parts = replace(parts, store=self._noting or parts.store)
        self._asked_roles = parts.mesh.roles
        self._work: Work | None = None
        meters = parts.meters
        self._book = RoadBook(lambda: parts.clock.now().mono_ms)
        self._client = Client(
            self.node_id,
            parts.roads,
            lambda: self.directory,
            self._book,
            lambda node, answer: self._checked_answer(node, answer, parts.verify),
            meters.on_called if meters else None,
        )
        self.runtime = Runtime(
            Machines(parts, self._client.pace, self._executing, self._noting),
            parts.store,
            parts.clock,
            parts.rng,
            self,
            on_input=parts.on_input,
            monitor=parts.monitor,
        )
        self._speech, self._progress = Speech(self._client, parts.later), ProgressHub(self.runtime)
        self.objects = self._object_room(parts)
        self._work = self._work_for_others(parts)
        self.adoption = self._adoption(parts)
        self._market = self._market_handlers(parts)
        handlers = self._handlers(parts)
        self.router = Router(handlers, self.own_roles, meters.on_rpc if meters else None)
        self.unbound = Router(handlers)
        """For what this node does by itself, whatever its roles: a host that is no core has a queue of its own, too."""
        self._client.bind(self.runtime, self.router)
        if meters:
            self.runtime.watch(meters.on_events)

    def request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None:
        """One call to a member, as Client.request."""
        self._client.request(node, method, request, timeout_ms, done)

    def asks_quickly(self, node_id: str) -> bool:
        """Whether a member is asked at once, and for next to nothing."""
        return self._client.asks_quickly(node_id)

    # ---- Outlet

    def call(self, call: Call) -> None:
        self._client.call(call)

    def execute(self, work: Execute) -> None:
        assert self._work is not None
        self._work.begin(work)

    def stop(self, work: Stop) -> None:
        assert self._work is not None
        self._work.stop(work)

    def fill(self, work: Fill) -> None:
        self._filling.fill(work)

    def on_executed(self, end: Executed) -> None:
        """From the executors: an execution has ended."""
        assert self._work is not None
        self._speech.on_end((end.core, end.job_id, end.attempt))
        self._work.on_end(end)

    def on_said(self, key: ClaimKey, said: Progress) -> None:
        """From the executors, in any thread: what work under way says."""
        self._speech.on_said(key, said)

    def ship(self, work: Ship) -> None:
        self.objects.shipping.ship(work)

    def rebuild(self, work: Rebuild) -> None:
        self.objects.repairing.rebuild(work)

    def fetch(self, work: Fetch) -> None:
        self.objects.fetching.fetch(work)

    def drop_blob(self, work: DropBlob) -> None:
        self.objects.shipping.drop_blob(work)

    def keep_segment(self, work: KeepSegment) -> None:
        self.objects.segments.keep(work)

    def compare(self, work: Compare) -> None:
        self.objects.inventories.compare(work)

    def audit(self, work: Audit) -> None:
        self.objects.auditing.audit(work)

    def rewrap(self, work: Rewrap) -> None:
        self.objects.rewrapping.rewrap(work)

    def reseal(self, work: Reseal) -> None:
        self.objects.resealing.reseal(work)

    def regain(self, work: Regain) -> None:
        self.objects.regaining.regain(work)

    def serve(self, work: Serve) -> None:
        self.mail.serving.serve(work)

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

    @property
    def ledger(self) -> LedgerMachine:
        return self.runtime.machine("ledger", LedgerMachine)

    @property
    def journal_safe_seq(self) -> int | None:
        """Up to which event this node would come back if it lost its disk now; 0: not yet, None: it never would."""
        return self.runtime.machine("state", StateMachine).safe_events if self._noting is not None else None

    @property
    def journal_notices(self) -> tuple[str, ...]:
        if self._noting is None:
            return ()
        state, said = self.runtime.machine("state", StateMachine), list[str]()
        if state.trouble:
            said.append(state.trouble)
        if state.far_hosts:
            said.append(f"the journal waits for a faster road: slow links alone lead to hosts ({state.far_hosts})")
        if state.lost is not None:
            said.append(f"segment {state.lost} of the journal is lost at its hosts: all of it is brought there anew")
        return tuple(said)

    @property
    def backup_notices(self) -> tuple[str, ...]:
        return self.backups.notices if self.backups is not None else ()

    @property
    def mail_notices(self) -> tuple[str, ...]:
        unread = self.runtime.machine("mail", MailMachine).unread
        return (f"new messages: {unread} (offgrid mail inbox)",) if unread else ()

    @property
    def object_notices(self) -> tuple[str, ...]:
        return object_notices(self.runtime.machine("objects", ObjectsMachine), self.runtime.clock.now().utc_us)

    @property
    def risks(self) -> Told | None:
        """How many of its objects are gone or nearly so; None where that is not known yet."""
        return self.runtime.machine("objects", ObjectsMachine).risks(self.runtime.clock.now())

    @property
    def journal_newer(self) -> Newer | None:
        """What shows that this node's store is an old one, or not the only one: see StateMachine."""
        return self.runtime.machine("state", StateMachine).newer if self._noting is not None else None

    def own_roles(self) -> frozenset[int]:
        """What the config asks for and the membership record allows. That is in force from the first moment, while
        the record in which this node tells the others is signed in the machines' first step."""
        record = self.directory.member(self.node_id)
        return self._asked_roles & record.roles if record and not record.removed else frozenset()

    def caller_of(self, fingerprint: str) -> Caller | None:
        """The live member whose present key has this fingerprint."""
        node_id = self.directory.node_of_fingerprint(fingerprint)
        return None if node_id is None else self.member_caller(node_id)

    def member_by_id(self, node_id: str) -> Caller | None:
        """None for who is no member."""
        return self.member_caller(node_id) if self.directory.is_member(node_id) else None

    def member_caller(self, node_id: str) -> Caller:
        """A member as a caller, with its roles in force now."""
        return Caller(Kind.MEMBER, node_id, self.directory.roles_in_force(node_id))

    # ---- inside

    def _executing(self) -> Collection[ClaimKey]:
        """Asked whenever machines are loaded; at first there is nothing."""
        return self._work.executing() if self._work is not None else frozenset()

    def _checked_answer(self, node: str, answer: Message, verify: Verifier) -> object:
        """What a machine is to see of an answer. Raises Fault."""
        if isinstance(answer, jobs_pb2.StartJobsResponse):
            return self._market.started(node, answer)
        check_answer(answer, self.directory)
        check_quorum_answer(answer, self.directory, verify)
        return answer

    # ---- put together

    def _object_room(self, parts: Parts) -> ObjectRoom:
        return ObjectRoom(
            parts.objects,
            self.runtime,
            self._client,
            parts.signer,
            parts.verify,
            parts.rng,
            lambda: self.directory,
            parts.later,
            parts.data_dir,
            INLINE_BYTES_MAX,
            self._client.pace,
        )

    def _work_for_others(self, parts: Parts) -> Work:
        return Work(
            InputFetching(self.objects.reading),
            Results(self.node_id, parts.letters, self.objects.sealer, parts.objects.bulk),
            lambda node_id: self.directory.current_key(node_id),  # noqa: PLW0108 - the directory of then, not of now
            parts.execute,
            parts.stop,
            lambda end: self.runtime.deliver("jobs", end),
        )

    def _adoption(self, parts: Parts) -> Adoption:
        return Adoption(
            self.runtime,
            self.node_id,
            self._client,
            parts.letters,
            self.objects.sealer,
            parts.objects.blobs,
            parts.objects.bulk,
            self.objects.keeping,
            self.objects.salt,
        )

    def _link_handlers(self, parts: Parts) -> LinkHandlers:
        def addresses(node: str) -> str:
            return " ".join(self.directory.addresses(node))

        carriers = [CarrierChart(road, self._book, self._client, addresses) for road in parts.roads]
        charts = [parts.links if parts.links and each.road is parts.links.road else each for each in carriers]
        checks = PeerChecks(
            self.node_id,
            lambda: self.directory,
            self._book,
            self._client,
            [road.name for road in parts.roads],
            parts.clock,
            lambda: parts.facts().heard,
        )
        return LinkHandlers(self.node_id, lambda: self.directory, self._book, charts, parts.links, checks)

    def _market_handlers(self, parts: Parts) -> MarketHandlers:
        return MarketHandlers(
            self.runtime,
            self.node_id,
            lambda: self.directory,
            parts.verify,
            self.adoption,
            self._progress,
        )

    def _handlers(self, parts: Parts) -> dict[str, object]:
        runtime, self_id, objects = self.runtime, self.node_id, self.objects
        shelf, bulk = Shelf(runtime.store), parts.objects.bulk
        writers = parts.meters.writers if parts.meters is not None else None
        self.sessions = SessionHandlers(
            runtime, parts.vault, parts.rng, parts.reducers, parts.later, self_id, parts.privacy, bulk, writers
        )
        self.memory = MemoryRoom(runtime, parts.vault, self.sessions, bulk, parts.later, parts.compaction_interval_ms)
        self.backups = Making(runtime, self_id, parts.backups, parts.later) if parts.backups is not None else None
        around = Surroundings(
            lambda: self.journal_safe_seq,
            lambda: summarised_upto(runtime.store),
            self.memory.compacting.compact_now,
            self.sessions.summing_up,
            lambda sessions: self.sessions.shredding.purge(sessions, RETENTION),
            self.memory.joining.fold_oldest,
            self.memory.joining.drop_oldest,
        )
        self.retention = Retention(
            runtime, parts.retention, around, parts.later, interval_ms=parts.retention_interval_ms
        )
        padded = parts.objects.coding.padded
        inputs = InputPlacing(shelf, objects.uploads, objects.reading, objects.sealer, bulk, padded=padded)
        self._filling = Filling(shelf, inputs, lambda end: runtime.deliver("jobs", end))
        explaining = Explaining(runtime, shelf, self._client)
        jobs = JobHandlers(runtime, parts.job_timeout_ms, inputs, self._progress, explaining)
        self.mail = MailRoom(
            runtime,
            self_id,
            lambda: self.directory,
            parts.verify,
            parts.letters,
            jobs,
            parts.mail_jobs_from,
            self.member_by_id,
            lambda: self.router,
        )
        return {
            "offgrid.v1.MeshService": MeshHandlers(runtime, self_id, parts.facts),
            "offgrid.v1.LinkService": self._link_handlers(parts),
            "offgrid.v1.JoinService": JoinHandlers(
                runtime,
                seal=parts.seal,
                open_sealed=parts.open_sealed,
                verify=parts.verify,
                check_certificate=parts.check_certificate,
            ),
            "offgrid.v1.JobService": jobs,
            "offgrid.v1.MarketService": self._market,
            "offgrid.v1.HostService": HostHandlers(runtime),
            "offgrid.v1.ObjectService": self.objects.handlers,
            "offgrid.v1.QuorumService": QuorumHandlers(runtime, self_id, lambda: self.directory, parts.verify),
            "offgrid.v1.LedgerService": LedgerHandlers(
                runtime, parts.signer, lambda: self.directory, parts.verify, bulk, self._client, enabled=parts.economy
            ),
            "offgrid.v1.StateService": StateHandlers(runtime, self.retention),
            "offgrid.v1.SessionService": self.sessions,
            "offgrid.v1.MemoryService": self.memory.handlers,
            "offgrid.v1.BackupService": BackupHandlers(self.backups),
            "offgrid.v1.MailService": self.mail.handlers,
        }

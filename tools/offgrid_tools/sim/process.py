"""One node's process: what `daemon.py` is in the world, in virtual time. Each start begins another life of it, with an
agenda and a driver of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from google.protobuf.message import Message

from offgrid.v1 import mesh_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.node import Node
from offgrid_node.parts import Parts
from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.errors import Fault, Internal, Unavailable
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.mesh.commands import RoadLost
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.objects.settings import REQUIRED_MILLI
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import ADMIN, ANONYMOUS, Caller
from offgrid_node.services.memory.compacting import COMPACTION_INTERVAL_MS
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.scrub import Pace
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.services.retention import Budget
from offgrid_node.services.stream import Stream
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.sim.agenda import Agenda
from offgrid_tools.sim.crypto import (
    SimLetters,
    SimSigner,
    SimWraps,
    sim_check_certificate,
    sim_open,
    sim_seal,
    sim_verify,
)
from offgrid_tools.sim.driver import Driver, Springs, says_of_jobs
from offgrid_tools.sim.engine import MS, Engine, VirtualClock
from offgrid_tools.sim.executions import Executions, Work
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.network import DELAY_MIN_US, Network, Respond, SimRoad
from offgrid_tools.sim.power import Power, PowerCut, PoweredBlobs, PoweredKeys
from offgrid_tools.sim.reload import check_reload
from offgrid_tools.sim.spec import Spec

STRIPE_BYTES, PIECE_BYTES = 1_024, 600  # small, so that small objects have several; neither divides the other
SCRUB_PACE = Pace(bytes_per_s=4_000, days=0)  # a round is over while a seed lasts
SMALL_BYTES, ONE_CALL_BYTES = 300, 1_200  # rows, files that come in one call, files that come in pieces
SETTLEMENT_INTERVAL_MS = 20_000  # so a seed sees several
RETENTION_INTERVAL_MS = 2_500  # likewise
DOOR = "offgrid.v1.JoinService/Join"
NODE_PROBE_MS = 2_000


class Process:
    """A machine with a disk on which a node runs, dies and runs again."""

    def __init__(
        self,
        engine: Engine,
        network: Network,
        monitor: Monitor,
        spec: Spec,
        *,
        skew_us: int = 0,
        work: Work | None = None,
    ) -> None:
        """`work` says how long a payload takes and how it ends; by default the engine's Random and `work.py`."""
        self.spec = spec
        self.keys: tuple[SimSigner, ...] = (SimSigner(spec.name),)  # its identities, the newest first
        self.node_id = self.signer.node_id
        self.pen: Signer = self.signer  # what its orders and receipts are signed with
        self.on_killed: Callable[[], None] = self.crash  # its own work has killed it
        self.store = self.born = MemoryStore()  # `born`: as its mesh made it, before it first ran
        self.dead = self.away = False  # it never comes back; it does not yet
        self.power = Power()
        self.on_cut: Callable[[], None] = self.crash  # its power has failed amid a write
        self.session_keys = PoweredKeys(self.power)
        self.blobs = PoweredBlobs(self.power, lambda name: monitor.objects.on_deleted(self.node_id, name))
        self.node: Node | None = None
        self.refuses = True
        self.boots = 0
        self.trap = ""  # a crash that waits for its moment in a turn: BEFORE_COMMIT or AFTER_COMMIT
        self.trap_on: Springs = says_of_jobs  # and for a batch that it is worth it
        self.on_trapped: Callable[[], None] = lambda: None
        self.unreadable_us = 0  # how long the disk cannot be read once a commit has failed
        self.skew_us = skew_us
        self.port = 1
        self._clock_sets = self._halts = 0
        self._latest_us = 0  # what the wall clock has shown before it was set
        self.on_outdated: Callable[[], None] = self.crash  # it was shown that its disk is an old one
        self.when_back: list[Callable[[], None]] = []  # of whoever has to know that it goes on with another disk
        self._engine, self._network, self._monitor = engine, network, monitor
        self._executions = Executions(engine, monitor, self, work)
        self.finished: Callable[[Outcome], Outcome] = lambda outcome: outcome  # what it makes of what came of its work
        self._clock = VirtualClock(engine, skew_us, 0)
        self._agenda = Agenda(engine, self.on_cut)
        network.nodes[self.node_id] = self

    @property
    def signer(self) -> SimSigner:
        """The identity key in force."""
        return self.keys[0]

    @property
    def wraps(self) -> SimWraps:
        return SimWraps(self.signer, self.keys[1:])

    @property
    def up(self) -> bool:
        return self.node is not None

    @property
    def address(self) -> str:
        """Where its mesh port is now; another machine's old knowledge of it leads nowhere."""
        return f"{self.spec.name}:{self.port}"

    @property
    def running(self) -> Node:
        """The node of now; only while it is up."""
        assert self.node is not None
        return self.node

    # ---- life and death

    def start(self) -> None:
        """A new process on the disk as it is, unless the machine is dead or away."""
        if self.dead or self.away:
            return
        self.boots += 1
        boot = self.boots
        self._engine.note(f"start {self.spec.name} {boot}")
        self._take_keys()
        self._clock = VirtualClock(self._engine, self.skew_us, self._engine.now_us - boot * 7_000_000)
        agenda = self._agenda = Agenda(self._engine, self.on_cut)
        driver = Driver(self._engine, self._monitor, self, agenda)
        self._executions.begin()
        self._monitor.evidence.executors[self.node_id] = self.spec.executors if HOST in self.spec.roles else ()
        self._monitor.on_start(self.node_id)

        try:
            node = Node(self._parts(driver, lambda: self.boots == boot and self.node is not None))
        except PowerCut:  # while it swept what its former life had left
            agenda.end()
            self.blobs.crash(self._engine.rng)
            self.on_cut()
            return
        check_reload(self.spec.name, node, self.store)
        self.node = node
        node.objects.scrub.start()
        node.sessions.shredding.start()
        if self.spec.window_s:
            node.memory.compacting.start()
        if self.spec.budget is not None:
            node.retention.start()
        driver.poke()

    def _take_keys(self) -> None:
        """What the mesh's records on the disk say decides which key is in force, as `keys/ring.py` has it."""
        row = self.store.peek("key_changes", self.node_id.encode()) or b""
        number = len(mesh_pb2.KeyChangesRow.FromString(row).changes)
        if number != len(self.keys) - 1:
            self.keys = tuple(SimSigner(self.spec.name, each) for each in range(number, -1, -1))
            self.pen = self.signer

    def _parts(self, driver: Driver, alive: Callable[[], bool]) -> Parts:
        """Those of a node that lives as long as it is `alive`."""
        spec, agenda = self.spec, self._agenda
        return Parts(
            store=self.store,
            clock=self._clock,
            rng=Random(f"{self._engine.rng.random()} {spec.name} {self.boots}"),  # noqa: S311 - to be repeatable
            signer=self.signer,
            verify=sim_verify,
            check_certificate=sim_check_certificate,
            seal=sim_seal,
            open_sealed=sim_open,
            letters=SimLetters(self.signer, self.keys[1:]),
            roads=[SimRoad(self._network, self.node_id, lambda: self.running.directory, alive)],
            execute=lambda work: self._executions.execute(work, alive),
            stop=lambda work: self._executions.stop(work, alive),
            on_input=driver.poke,
            facts=lambda: NodeFacts("sim", 0, "", 0.0, "virtual"),
            mesh=MeshSettings(spec.roles, (self.address,), (), "sim", NODE_PROBE_MS),
            jobs=JobsSettings(
                signer=self.pen,
                salt=b"",
                mode=spec.mode,
                slots=spec.slots,
                price_micro=spec.price_micro,
                executors=spec.executors,
                rules=spec.rules,
                drop=spec.drop,
            ),
            objects=ObjectParts(
                self.blobs,
                Bulk(lambda work, ended: driver.carry(work, ended, alive)),
                self.wraps,
                stripe_bytes=STRIPE_BYTES,
                piece_bytes=PIECE_BYTES,
                scrub=SCRUB_PACE,
                small_bytes=SMALL_BYTES,
                one_call_bytes=ONE_CALL_BYTES,
                cuts_journal=bool(spec.journal_milli),
            ),
            vault=SessionVault(self.session_keys, Random(f"sessions {self.boots}").randbytes),  # noqa: S311 - to be repeatable
            data_dir=Path(),
            required_milli=spec.journal_milli or REQUIRED_MILLI,
            economy=spec.economy,
            settlement_interval_ms=SETTLEMENT_INTERVAL_MS,
            compaction_interval_ms=spec.window_s * 1_000 or COMPACTION_INTERVAL_MS,
            retention=spec.budget or Budget(),
            retention_interval_ms=RETENTION_INTERVAL_MS,
            mailbox_bytes=spec.mailbox_bytes,
            mail_keep_us=spec.mail_keep_us,
            mail_jobs_from=spec.mail_jobs_from,
            monitor=self._monitor.on_runtime_fault,
            later=lambda delay_ms, step: agenda.later(delay_ms * MS, step),
        )

    def crash(self, *, refuses: bool = True) -> None:
        """The process is gone with all that it had not committed. `refuses`: its machine still answers."""
        if self.node is not None:
            self._engine.note(f"crash {self.spec.name}")
            self.node, self.refuses, self.trap = None, refuses, ""
            self._agenda.end()
            self.store.crash()  # before anybody reads what it leaves: a disk that refused its node opens again
            self._monitor.met.on_crash(self.node_id, at_work=self.at_work)
            self.blobs.crash(self._engine.rng)
            self._monitor.check_store(self.node_id)
            if refuses:
                self._engine.after(DELAY_MIN_US, lambda: self._network.hang_up(self.node_id))

    def die(self, *, refuses: bool) -> None:
        """For good."""
        self.dead = True
        self.crash(refuses=refuses)

    def freeze(self) -> None:
        """SIGSTOP: it does nothing more, and what is sent to it waits; what its executors do goes on."""
        if self.node is not None and not self.frozen:
            self._engine.note(f"freeze {self.spec.name}")
            self._monitor.met.on_freeze(at_work=self.at_work)
            self._agenda.freeze()
            self._halts += 1

    def thaw(self) -> None:
        self._agenda.thaw()
        self._halts += 1

    @property
    def frozen(self) -> bool:
        return self._agenda.frozen

    @property
    def at_work(self) -> bool:
        """Whether its executors have anything to do."""
        return bool(self._executions)

    def restore(self, store: MemoryStore, kept: Mapping[str, bytes]) -> None:
        """Somebody puts an older copy of the disk in its place, rows and kept blobs, while the process is down."""
        self._replace(store, kept)
        self._monitor.on_restored(self.node_id, store)

    def come_back(self, store: MemoryStore, kept: Mapping[str, bytes], safe_seq: int) -> None:
        """Likewise, where the node has its journal cut: what it was told up to that event must be there."""
        self._replace(store, kept)
        self._monitor.on_comeback(self.node_id, store, safe_seq)
        for step in self.when_back:
            step()

    def _replace(self, store: MemoryStore, kept: Mapping[str, bytes]) -> None:
        assert not self.up, "a running node's disk is not replaced"
        self._engine.note(f"restore {self.spec.name}")
        self.store = store
        self.blobs.restore(kept)

    @property
    def utc_us(self) -> int:
        """What its wall clock shows."""
        return self._clock.now().utc_us

    @property
    def mono_ms(self) -> int:
        """What its other clock shows, which nobody sets."""
        return self._clock.now().mono_ms

    @property
    def latest_us(self) -> int:
        """The latest that its wall clock has ever shown."""
        return max(self._latest_us, self.utc_us)

    @property
    def life(self) -> tuple[int, int, int]:
        """Changes with each start, each halt and its end, and each setting of the clock."""
        return self.boots, self._clock_sets, self._halts

    @property
    def clock_sets(self) -> int:
        """How often its wall clock was set."""
        return self._clock_sets

    def when_thawed(self, step: Callable[[], None]) -> None:
        """Of a frozen one: does it then, should this life last."""
        self._agenda.when_thawed(step)

    def step_clock(self, skew_us: int) -> None:
        """Somebody sets the wall clock."""
        self._clock_sets += 1
        self._latest_us = self.latest_us
        self.skew_us = self._clock.skew_us = skew_us

    def on_road_lost(self, node: str) -> None:
        """As the daemon hears it from its road."""

        def hear() -> None:
            if self.running.runtime.machines:
                self.running.runtime.deliver("mesh", RoadLost(node))

        self._agenda.later(0, hear)

    # ---- requests

    def on_request(self, source: str, method: str, request: bytes, respond: Respond) -> None:
        """From the network: TLS first (members only, but for the door), then the router."""
        if self.frozen:
            self.when_thawed(lambda: self.on_request(source, method, request, respond))
            return
        node = self.running
        try:
            if method == DOOR:
                caller: Caller = ANONYMOUS
            elif self._knows(source):
                caller = node.member_caller(source)
            else:
                raise Unavailable("the handshake failed: unknown certificate", reason="NotSent")
        except Unavailable as fault:
            respond(fault)
            return
        self._dispatch(node, caller, method, request, respond)

    def _knows(self, source: str) -> bool:
        """Whoever calls shows the identity of now, or the one before to those who have not heard."""
        directory, shown = self.running.directory, self._network.nodes[source].keys[:2]
        return directory.is_member(source) and directory.current_key(source) in {key.public_key for key in shown}

    def admin(self, method: str, request: Message, respond: Respond) -> None:
        """From a person at this machine, over its own socket."""
        if self.node is None:
            respond(Unavailable("no daemon is running here", reason="NotSent"))
        elif self.frozen:
            self.when_thawed(lambda: self.admin(method, request, respond))
        else:
            # As bytes: whoever repeats the call says the same again, whatever a handler did with the request.
            self._dispatch(self.node, ADMIN, method, request.SerializeToString(), respond)

    def _dispatch(self, node: Node, caller: Caller, method: str, request: bytes, respond: Respond) -> None:
        try:
            outcome = node.router.dispatch(caller, method, request)
        except Fault as fault:
            respond(fault)
            return
        except PowerCut:  # a key was to be kept
            self.on_cut()
            return
        if isinstance(outcome, Ticket):
            outcome.when_done(respond)
        elif isinstance(outcome, Stream):
            outcome.cancel()
            respond(Internal("streams are not simulated"))
        else:
            respond(outcome)

"""The composition root: config in, running node out. It names the concrete classes, with `node_executors.py` and
`node_state.py`.

Start: store (and its lock), executors, node, every address, driver, discovery, and at last the owner's socket: who is
answered there has a node that is whole. Stop, in order: no new calls, running work killed and given back, the last
commit, the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from offgrid.installed_reducers import load_reducers
from offgrid_node import __version__
from offgrid_node.access_files import write_access_files
from offgrid_node.banner import banner
from offgrid_node.coding import choose
from offgrid_node.commit_place import INLINE_MAX_MS
from offgrid_node.config.http_ports import OFF
from offgrid_node.discovery.gateways import About
from offgrid_node.driver import Driver
from offgrid_node.drop_watch import DropWatch
from offgrid_node.event_log import log_events
from offgrid_node.executors.running import Running
from offgrid_node.finding import Finding
from offgrid_node.folder import Folder, check_store, open_store
from offgrid_node.full_disk import StoreTrouble, chunk_notices
from offgrid_node.heap import Heap
from offgrid_node.keys import NodeTls, check_identity_certificate, issue_leaf, open_sealed, seal, verify
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.listeners import Listeners
from offgrid_node.logs import fields
from offgrid_node.machine_facts import unheld_notices
from offgrid_node.node import Node
from offgrid_node.node_executors import make_executors, open_at_work
from offgrid_node.node_health import NodeHealth
from offgrid_node.node_links import links_of, start_links
from offgrid_node.node_settings import jobs_settings, mesh_settings, object_parts
from offgrid_node.node_state import NodeState
from offgrid_node.parts import Parts
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.jobs.commands import StopHost
from offgrid_node.protocol.mail.settings import DAY_US
from offgrid_node.protocol.mesh.commands import RoadLost
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.protocol.objects.verified import count_of, oldest_us
from offgrid_node.rotating import ring_of
from offgrid_node.rotating_root import end_root_rotation
from offgrid_node.services.bulk import Bulk, Threads
from offgrid_node.services.client import Road
from offgrid_node.services.flow import Later
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.ledger.reads import ledger_summary
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.status import object_risks
from offgrid_node.services.packet_links import PacketLinks
from offgrid_node.services.retention import Budget
from offgrid_node.services.roads.link_chart import LinkChart
from offgrid_node.services.sessions.privacy import Privacy
from offgrid_node.storage.blobs import FileBlobs
from offgrid_node.storage.disk import measure_fsync_ms
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Store
from offgrid_node.web import Web

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.gateway.node_view import NodeView
    from offgrid_node.meters import Meters

STOPPING_S = 1.0  # for a last word to the store
STOP_AFTER_MS = 100  # so that whoever has told the node to stop gets its answer

_log = logging.getLogger("offgrid")


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Now:
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000)


class Daemon:
    """One node on this machine's disk and network."""

    def __init__(self, folder: Folder, config: Config, problems: Sequence[str]) -> None:
        self._config = config
        self._began_ns = time.monotonic_ns()
        self._folder = folder
        self._reducers, refused = load_reducers()
        self._problems = (*problems, *refused)
        for sentence in self._problems:
            _log.warning("a part of the config is left out", extra=fields("config_left_out", why=sentence))
        self._coding = choose()
        for sentence in self._coding.refused:
            _log.warning("a coder is not used", extra=fields("coder_refused", why=sentence))
        _log.info("shards are coded", extra=fields("coder_chosen", coder=self._coding.coder.name))
        self._cleanup: list[Callable[[], Awaitable[None] | None]] = []
        self._web = Web(config)
        counted = config.metrics.listen or config.gateway.listen != OFF
        self._meters = make_meters() if counted else None
        self._store_trouble = StoreTrouble(lambda: time.monotonic_ns() // 1_000_000)
        self._drops: DropWatch | None = None
        self._heap = Heap(asyncio.get_running_loop())
        self.banner = ""
        self.told_to_stop = asyncio.Event()
        self._later = call_later_in(asyncio.get_running_loop())
        self.outdated = asyncio.Event()
        """This node must not go on: see `check_newest`."""

    def check_newest(self) -> None:
        """Raises FailedPrecondition (reason StoreOutdated) when a host has shown that this node's store is an old one,
        or that another process goes on as this node."""
        newer = self.node.journal_newer
        if newer is not None:
            raise FailedPrecondition(
                f"{self._config.storage.memory_db} is not this node's newest store: a host shows something of its "
                f"life {newer.life} that it knows nothing of (segments of its journal came to {newer.number}). Was "
                "it put back from a backup, or does this node run elsewhere? Restore it from the mesh "
                "(offgrid-node restore), or go on with the old one and lose what came after: "
                "offgrid-node run --accept-stale",
                reason="StoreOutdated",
            )

    async def start(self) -> None:
        """Everything up, or the Fault that says why not; `stop` is due in both cases."""
        loop, store = asyncio.get_running_loop(), self._open()
        ring = self._ring = ring_of(self._folder, store)
        end_root_rotation(self._folder, store)
        tls = issue_leaf(ring.key)
        running = self._executions()
        framed = FramedRoad(tls, lambda: self.node.directory)
        before = issue_leaf(ring.before) if ring.before is not None else None
        road = GrpcRoad(tls, lambda: self.node.directory, framed.learn, self._on_lost, before)
        threads = Threads(loop.call_soon_threadsafe)
        self._bulk = Bulk(threads)
        self._state = NodeState(self._config, store, loop)
        self._problems = (*self._problems, *self._state.problems)
        self._cleanup.append(self._state.close)
        self._cleanup += [self._driver.close, road.close, framed.close, running.close, threads.close, self._bulk.stop]
        self._open_traces(ring.key.node_id)
        links = links_of(self._config, ring.key, lambda: self.node)
        self._cleanup.append(links.close)
        self.node = Node(self._parts(store, [framed, road, links], links, running))
        self.node.runtime.watch(log_events)
        self.check_newest()
        self.node.sessions.shredding.start()
        if unreadable := self.node.sessions.shredding.unreadable:
            self._problems = (
                *self._problems,
                f"{unreadable} sessions cannot be read: their keys are not on this machine",
            )
        self._health = NodeHealth(self._config, self.node, self._driver, store, call_later_in(loop))
        self._cleanup.append(self._health.close)
        listeners = await self._listen(tls, road, framed)
        if self._config.links.open:
            start_links(self._config, links, self.node, SystemClock())
        self._driver.start(self.node.runtime)
        self._drops = self._watch_drops()
        self.node.objects.scrub.start()
        self.node.retention.start()
        self._health.start()
        self._cleanup.append(self.node.objects.scrub.close)
        self.node.objects.sweeping.start()
        self._cleanup.append(self.node.objects.sweeping.close)
        self.node.memory.compacting.start()
        if self.node.backups is not None:
            self.node.backups.start()
            self._cleanup.append(self.node.backups.close)
        self._state.start_mirror(self.node.node_id)
        await self._finding.start(listeners.mesh_port, listeners.door_port)
        self._heap.start()
        self._cleanup.append(self._heap.close)
        await self._listen_for_owner(listeners, tls)
        self._web.start(self._view)

    async def stop(self) -> None:
        """In the reverse order of the start; each step is taken even when another one fails."""
        await self._say_stopping()
        while self._cleanup:
            try:
                step = self._cleanup.pop()()
                if step is not None:
                    await step
            except Exception:  # noqa: BLE001 - whatever failed, the store must still be closed in order
                _log.exception("a part of the node did not stop in order", extra=fields("stop_failed"))

    def _open(self) -> LoggedStore:
        """The store, looked through, with its driver and what runs jobs in the folder that is ours now."""
        config = self._config
        store = open_store(config, create=False)
        self._cleanup.append(store.close)
        self._pool = make_executors(config)  # they empty their part of the folder
        self._problems += check_store(store)
        threaded = measure_fsync_ms(config.storage.memory_db) > INLINE_MAX_MS
        self._driver = Driver(asyncio.get_running_loop(), threaded=threaded, on_commit=self._on_commit)
        return store

    def _executions(self) -> Running:
        self._at_work = open_at_work(self._config)
        return Running(
            self._pool,
            lambda end: self.node.on_executed(end),  # noqa: PLW0108 - the node comes later
            lambda key, said: self.node.on_said(key, said),  # noqa: PLW0108 - as above
            self._at_work,
        )

    async def _listen(self, tls: NodeTls, road: GrpcRoad, framed: FramedRoad) -> Listeners:
        """Has every address but the owner's."""
        config, node, meters = self._config, self.node, self._meters
        self._finding = Finding(config, node, tls, lambda: road.closed_to_us)
        listeners = Listeners(config, node, tls, road, framed, meters.on_refused if meters else None)
        self._cleanup.append(listeners.close)
        self._cleanup.append(self._finding.close)
        self._cleanup.append(self._web.close)
        self._web.bind()
        await listeners.open_to_mesh()
        return listeners

    async def _listen_for_owner(self, listeners: Listeners, tls: NodeTls) -> None:
        """And says where this node is: to this machine's commands, and on the terminal."""
        config, node = self._config, self.node
        await listeners.open_to_owner()
        write_access_files(
            config, listeners.admin, tls, self._web.metrics, listeners.admin_framed, gateway=self._web.address
        )
        self.banner = banner(config, node, listeners.admin, listeners.mesh_port, self._web.url, self._web.metrics)

    def _open_traces(self, node_id: str) -> None:
        """Where the environment asks for them."""
        if any(name.startswith("OTEL_EXPORTER_OTLP_") for name in os.environ):
            from offgrid_node.traces import open_traces

            if (traced := open_traces(self._config.node.name, node_id, os.environ)) is not None:
                self._meters = traced
                self._cleanup.append(traced.close)

    def _view(self) -> NodeView:
        from offgrid_node.gateway.node_view import NodeView

        name, node_id = self._config.node.name, self.node.node_id
        return NodeView(
            self._config,
            node_id,
            self.node.router,
            self.node.runtime,
            self._facts,
            lambda: About(node_id, self._finding.addresses, name, __version__),
            self._meters or make_meters(),
            self.node.unbound,
            self.node.own_roles,
            self.node.request,
            self.node.asks_quickly,
            lambda: self._web.told(self._finding.addresses),
            self._folder.path,
        )

    async def _say_stopping(self) -> None:
        """For the next start: what this one breaks off did not bring the host down."""
        node, noted = getattr(self, "node", None), asyncio.Event()
        if node is not None:
            with suppress(Fault, TimeoutError):
                node.runtime.ask("jobs", "daemon", StopHost()).when_done(lambda _: noted.set())
                async with asyncio.timeout(STOPPING_S):
                    await noted.wait()

    def _parts(self, store: Store, roads: Sequence[Road], links: PacketLinks, running: Running) -> Parts:
        config, key = self._config, self._ring.key
        self._blobs = FileBlobs(config.storage.chunk_dir)
        return Parts(
            store=store,
            clock=SystemClock(),
            rng=SystemRandom(),
            signer=key,
            verify=verify,
            check_certificate=check_identity_certificate,
            seal=seal,
            open_sealed=open_sealed,
            letters=Letters(key, os.urandom, self._ring.older),
            roads=roads,
            links=LinkChart(links, lambda: SystemClock().now().mono_ms),
            execute=running.start,
            stop=running.stop,
            later=call_later_in(asyncio.get_running_loop()),
            on_input=self._driver.poke,
            facts=self._facts,
            mesh=mesh_settings(config),
            at_death=self._at_work.take_left if self._at_work is not None else frozenset,
            jobs=jobs_settings(config, key, self._pool),
            objects=object_parts(config, self._blobs, self._bulk, KeyWraps(key, self._ring.older), self._coding.coder),
            vault=self._state.vault,
            reducers=self._reducers,
            privacy=Privacy(
                config.state.store_raw_content, config.state.export_includes_content, config.state.audit_mode
            ),
            compaction_interval_ms=config.storage.compaction_interval * 1_000,
            backups=self._state.backups,
            retention=Budget(
                config.storage.retention_base_mb,
                config.storage.retention_token_level,
                config.state.cleanup_old_events_days,
                config.state.auto_purge_sessions_days,
            ),
            data_dir=config.node.data_dir,
            job_timeout_ms=config.jobs.timeout_ms,
            copies=config.storage.copies,
            required_milli=config.storage.required_milli,
            repair_after_ms=config.storage.repair_after_ms,
            audit_days=config.storage.audit_days,
            journal_interval_ms=config.storage.journal_interval_ms,
            placement=Policy(config.storage.placement),
            only_chosen_hosts=bool(config.storage.hosts),
            economy=config.economy.enabled,
            settlement_interval_ms=config.economy.settlement_interval * 1_000,
            epoch_ms=config.economy.epoch * 1_000,
            keep_ms=config.economy.keep * 86_400_000,
            mailbox_bytes=config.mail.mailbox_mb * 1024 * 1024,
            mail_keep_us=config.mail.max_days * DAY_US,
            mail_jobs_from=config.mail.jobs_from,
            monitor=self._on_fault,
            meters=self._meters,
        )

    def _watch_drops(self) -> DropWatch | None:
        if not self._config.jobs.drop_dir:
            return None
        watch = DropWatch(Path(self._config.jobs.drop_dir), self.node)
        self._cleanup.append(watch.close)
        watch.start()
        return watch

    def _on_lost(self, node_id: str) -> None:
        self.node.runtime.deliver("mesh", RoadLost(node_id))

    def _on_fault(self, fault: Fault, cause: BaseException | None) -> None:
        self._store_trouble.on_fault(fault, cause)
        self._heap.thaw()  # the machines, with all that they hold, are built anew

    def _on_commit(self, inputs: int, commit_s: float) -> None:
        with suppress(Fault):  # while machines are loaded anew
            if self.node.journal_newer is not None:
                self.outdated.set()
        self._store_trouble.on_commit(inputs, commit_s)
        if self._meters:
            self._meters.on_commit(inputs, commit_s)

    def _facts(self) -> NodeFacts:
        objects, store = self.node.objects, self.node.runtime.store
        repairs, checking, auditing = objects.repair_pace, objects.checking, objects.auditing
        return NodeFacts(
            version=__version__,
            uptime_ms=(time.monotonic_ns() - self._began_ns) // 1_000_000,
            data_dir=str(self._config.node.data_dir),
            commit_ms_p50=self._driver.commit_ms_p50,
            commit_mode=self._driver.mode,
            jobs_open=self.node.jobs.core.open_jobs,
            slots_total=self._config.host.slots if self._pool.offers else 0,
            slots_busy=self.node.jobs.host.slots_busy,
            heard=self._finding.heard,
            notices=(
                *self._problems,
                *self._coding.refused,
                *self._pool.problems,
                *unheld_notices(self._pool.isolation),
                *self._store_trouble.notices,
                *chunk_notices(self._config.storage.chunk_dir, self._blobs.free_bytes()),
                *self._finding.notices,
                *self._web.notices,
                *(self._drops.notices if self._drops else ()),
                *self.node.adoption.notices,
                *checking.notices,
                *self.node.ledger.notices,
                *self.node.object_notices,
                *self.node.mail_notices,
                *self.node.journal_notices,
                *self.node.backup_notices,
                *self._state.notices,
                *self.node.ledger.mute_notices,
                *self.node.memory.notices,
                *self.node.retention.notices,
            ),
            ledger=ledger_summary(store),
            coder=self._coding.coder.name,
            journal_safe_seq=self.node.journal_safe_seq,
            repair_bytes_per_s=repairs.bytes_per_s,
            repair_pulled_bytes=repairs.pulled_bytes,
            repair_given_bytes=repairs.given_bytes,
            scrub_read_bytes=checking.read_bytes,
            scrub_damaged=checking.damaged,
            audit_verified=count_of(store),
            audit_oldest_us=oldest_us(store),
            audit_wrong=auditing.wrong_shards,
            audit_read_bytes=auditing.read_bytes,
            retention=self.node.retention.summary,
            gateway=self._web.url,
            page_link=lambda: self._web.page_link(self._finding.addresses),
            stop=lambda: self._later(STOP_AFTER_MS, self.told_to_stop.set),
            gateway_told=self._web.told(self._finding.addresses),
            health=self._health.facts,
            objects=object_risks(risks, store) if (risks := self.node.risks) is not None else None,
            kept=lambda: self._state.kept_facts(self.node),
        )


def make_meters() -> Meters:
    from offgrid_node.meters import Meters  # for those who ask for them

    return Meters()


def call_later_in(loop: asyncio.AbstractEventLoop) -> Later:
    """May be called in any thread, and after the loop's end, when nobody waits for anything any more."""

    def later(delay_ms: int, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.call_later, delay_ms / 1000, callback)

    return later

"""The composition root: config in, running node out. It names the concrete classes, with `node_executors.py`.

Start: store (and its lock), executors, node, listeners, driver, discovery. Stop, in order: no new calls, running work
killed and given back, the last commit, the store.
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

from offgrid_node import __version__
from offgrid_node.access_files import write_access_files
from offgrid_node.banner import banner
from offgrid_node.coding import choose
from offgrid_node.commit_place import INLINE_MAX_MS
from offgrid_node.driver import Driver
from offgrid_node.drop_watch import DropWatch
from offgrid_node.event_log import log_events
from offgrid_node.executors.running import Running
from offgrid_node.finding import Finding
from offgrid_node.folder import Folder, check_store, open_store
from offgrid_node.full_disk import StoreTrouble, chunk_notices
from offgrid_node.heap import Heap
from offgrid_node.keys import NodeKey, NodeTls, check_identity_certificate, issue_leaf, open_sealed, seal, verify
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.listeners import Listeners
from offgrid_node.machine_facts import unheld_notices
from offgrid_node.node import Node, Parts
from offgrid_node.node_executors import make_executors, open_at_work
from offgrid_node.node_settings import jobs_settings, mesh_settings
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.jobs.commands import StopHost
from offgrid_node.protocol.mesh.commands import RoadLost
from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.preference import Policy
from offgrid_node.services.bulk import Bulk, Threads
from offgrid_node.services.client import Road
from offgrid_node.services.flow import Later
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.ledger.reads import ledger_summary
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.codes import CodePolicy
from offgrid_node.services.objects.room import ObjectParts
from offgrid_node.services.objects.scrub import Pace
from offgrid_node.storage.blobs import FileBlobs
from offgrid_node.storage.disk import measure_fsync_ms
from offgrid_node.storage.store import Store

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.meters import Meters

STOPPING_S = 1.0  # for a last word to the store

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
        self._key = NodeKey.load(folder.keys_path)
        self._problems = tuple(problems)
        for sentence in self._problems:
            _log.warning("%s", sentence)
        self._coding = choose()
        for sentence in self._coding.refused:
            _log.warning("%s", sentence)
        _log.info("coder %s", self._coding.coder.name)
        self._cleanup: list[Callable[[], Awaitable[None] | None]] = []
        self._meters = make_meters() if config.metrics.listen else None
        self._store_trouble = StoreTrouble(lambda: time.monotonic_ns() // 1_000_000)
        self._drops: DropWatch | None = None
        self._heap = Heap(asyncio.get_running_loop())
        self.banner = ""

    async def start(self) -> None:
        """Everything up, or the Fault that says why not; `stop` is due in both cases."""
        tls, loop = issue_leaf(self._key), asyncio.get_running_loop()
        store = self._open()
        running = self._executions()
        framed = FramedRoad(tls, lambda: self.node.directory)
        road = GrpcRoad(tls, lambda: self.node.directory, framed.learn, self._on_lost)
        threads = Threads(loop.call_soon_threadsafe)
        self._bulk = Bulk(threads)
        self._cleanup += [self._driver.close, road.close, framed.close, running.close, threads.close, self._bulk.stop]
        self.node = Node(self._parts(store, [framed, road], running))
        self.node.runtime.watch(log_events)
        await self._listen(tls, road, framed)
        self._driver.start(self.node.runtime)
        self._drops = self._watch_drops()
        self.node.objects.scrub.start()
        self._cleanup.append(self.node.objects.scrub.close)
        await self._finding.start()
        self._heap.start()
        self._cleanup.append(self._heap.close)

    async def stop(self) -> None:
        """In the reverse order of the start; each step is taken even when another one fails."""
        await self._say_stopping()
        while self._cleanup:
            try:
                step = self._cleanup.pop()()
                if step is not None:
                    await step
            except Exception:  # noqa: BLE001 - whatever failed, the store must still be closed in order
                _log.exception("while stopping")

    def _open(self) -> Store:
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

    async def _listen(self, tls: NodeTls, road: GrpcRoad, framed: FramedRoad) -> None:
        """And says where: to the mesh, to this machine's commands, on the terminal."""
        config, node, meters = self._config, self.node, self._meters
        listeners = Listeners(config, node, tls, road, framed, meters.on_refused if meters else None)
        self._cleanup.append(listeners.close)
        await listeners.open()
        self._finding = Finding(config, node, listeners.mesh_port, listeners.door_port, lambda: road.closed_to_us)
        self._cleanup.append(self._finding.close)
        metrics = await self._listen_metrics(meters) if meters else ""
        write_access_files(config, listeners.admin, tls, metrics, framed=listeners.admin_framed)
        self.banner = banner(config, node, listeners.admin, listeners.mesh_port, metrics)

    async def _listen_metrics(self, meters: Meters) -> str:
        # Only where somebody asks for them: its library takes a tenth of a second to import.
        from offgrid_node.gateway.http import HttpServer
        from offgrid_node.gateway.metrics import MetricsPage

        page = MetricsPage(meters, self.node.runtime, self._facts)
        http = HttpServer({"/metrics": page.render}, self._config.metrics.hosts)
        self._cleanup.append(http.close)
        return await http.listen(self._config.metrics.listen)

    async def _say_stopping(self) -> None:
        """For the next start: what this one breaks off did not bring the host down."""
        node, noted = getattr(self, "node", None), asyncio.Event()
        if node is not None:
            with suppress(Fault, TimeoutError):
                node.runtime.ask("jobs", "daemon", StopHost()).when_done(lambda _: noted.set())
                await asyncio.wait_for(noted.wait(), STOPPING_S)

    def _parts(self, store: Store, roads: Sequence[Road], running: Running) -> Parts:
        config, key = self._config, self._key
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
            letters=Letters(key, os.urandom),
            roads=roads,
            execute=running.start,
            stop=running.stop,
            later=call_later_in(asyncio.get_running_loop()),
            on_input=self._driver.poke,
            facts=self._facts,
            mesh=mesh_settings(config),
            at_death=self._at_work.take_left if self._at_work is not None else frozenset,
            jobs=jobs_settings(config, key, self._pool),
            objects=ObjectParts(
                blobs=self._blobs,
                bulk=self._bulk,
                wraps=KeyWraps(key),
                coder=self._coding.coder,
                scrub=Pace(config.storage.scrub_bytes_per_s, config.storage.scrub_days),
                coding=CodePolicy(
                    Code(config.storage.shards_needed, config.storage.shards_total), config.storage.coded_from_bytes
                ),
                keeps_replicas=config.storage.enabled,
                owner_share_percent=config.storage.owner_share_percent,
            ),
            data_dir=config.node.data_dir,
            job_timeout_ms=config.jobs.timeout_ms,
            copies=config.storage.copies,
            required_milli=config.storage.required_milli,
            repair_after_ms=config.storage.repair_after_ms,
            placement=Policy(config.storage.placement),
            economy=config.economy.enabled,
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
        self._store_trouble.on_commit(inputs, commit_s)
        if self._meters:
            self._meters.on_commit(inputs, commit_s)

    def _facts(self) -> NodeFacts:
        return NodeFacts(
            version=__version__,
            uptime_ms=(time.monotonic_ns() - self._began_ns) // 1_000_000,
            data_dir=str(self._config.node.data_dir),
            commit_ms_p50=self._driver.commit_ms_p50,
            commit_mode=self._driver.mode,
            jobs_open=self.node.jobs.core.open_jobs,
            slots_total=self._config.host.slots if self._pool.offers else 0,
            slots_busy=self.node.jobs.host.slots_busy,
            notices=(
                *self._problems,
                *self._coding.refused,
                *self._pool.problems,
                *unheld_notices(self._pool.isolation),
                *self._store_trouble.notices,
                *chunk_notices(self._config.storage.chunk_dir, self._blobs.free_bytes()),
                *self._finding.notices,
                *(self._drops.notices if self._drops else ()),
                *self.node.adoption.notices,
                *self.node.objects.scrub.notices,
                *self.node.ledger.notices,
            ),
            ledger=ledger_summary(self.node.runtime.store),
            coder=self._coding.coder.name,
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

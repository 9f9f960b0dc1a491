"""The composition root: the one file that names concrete classes. Config in, running node out.

Start: store (and its lock), keys, node, listeners, discovery, driver. Stop, in order: no new calls, running work
killed and given back, the last commit, the store. A second signal stops at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING

from offgrid.v1 import jobs_pb2
from offgrid_node import __version__
from offgrid_node.access_files import TOKEN_NAME, write_access_files
from offgrid_node.banner import banner
from offgrid_node.config.addresses import admin_socket, split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.driver import COMMIT_INLINE_MAX_MS, Driver
from offgrid_node.drop_watch import DropWatch
from offgrid_node.event_log import log_events
from offgrid_node.executors import cgroup_setup
from offgrid_node.executors.at_work import AtWork
from offgrid_node.executors.builtin import BuiltinExecutor
from offgrid_node.executors.cgroups import Groups
from offgrid_node.executors.executor import WASM_ISOLATION, Executor
from offgrid_node.executors.late import LateExecutor
from offgrid_node.executors.pool import ExecutorPool, Offered
from offgrid_node.executors.process import ProcessExecutor
from offgrid_node.executors.running import Running
from offgrid_node.executors.watch import Lookout
from offgrid_node.finding import Finding, listen_again
from offgrid_node.folder import MIB, Folder, open_store
from offgrid_node.full_disk import StoreTrouble, chunk_notices
from offgrid_node.heap import Heap
from offgrid_node.host_rules import local_offset_s, rules_of
from offgrid_node.hosted import Hosted, kinds_of
from offgrid_node.keys import NodeKey, NodeTls, check_identity_certificate, issue_leaf, open_sealed, seal, verify
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.machine_facts import machine_profile
from offgrid_node.members import Members
from offgrid_node.node import Node, Parts
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.protocol.jobs.commands import StopHost
from offgrid_node.protocol.jobs.settings import DROP_ALL, DROP_REST, JobsSettings
from offgrid_node.protocol.mesh.commands import RoadLost
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.services.access import ROLE_NAMES
from offgrid_node.services.bulk import Bulk, Threads
from offgrid_node.services.client import Road
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.framed_server import FramedServer
from offgrid_node.services.grpc_gate import Gate
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.grpc_server import GrpcServer
from offgrid_node.services.jobs.speech import Later
from offgrid_node.services.ledger.reads import ledger_summary
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.room import ObjectParts
from offgrid_node.storage.blobs import FileBlobs
from offgrid_node.storage.disk import measure_fsync_ms
from offgrid_node.storage.store import Store

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.config.apart import ConfigReading
    from offgrid_node.meters import Meters

ROLE_VALUES = {name: value for value, name in ROLE_NAMES.items()}
MODES = {
    "auto": jobs_pb2.DISPATCH_MODE_AUTO,
    "offgrid": jobs_pb2.DISPATCH_MODE_OFFGRID,
    "disabled": jobs_pb2.DISPATCH_MODE_DISABLED,
}

AT_WORK_NAME = "at-work"  # in the data folder
WORK_NAME = "work"  # in the data folder: what jobs are given to work in
LOOPBACK_ANY = "127.0.0.1:0"
VERIFY_BYTES_MAX = 64 * MIB  # about a quarter of a second
FINDINGS_SHOWN = 5
STOPPING_S = 1.0  # for a last word to the store

_log = logging.getLogger("offgrid")


class SystemClock:
    """The machine's clocks."""

    def now(self) -> Now:
        return Now(time.monotonic_ns() // 1_000_000, time.time_ns() // 1_000)


def hide_broken_off(record: logging.LogRecord) -> bool:
    """A filter against gRPC's traceback for an answer that nobody waits for any more: peers come and go."""
    return not str(record.msg).startswith("ExecuteBatchError raised in core by servicer method")


def serve(path: Path, reading: ConfigReading) -> None:
    """Runs the node of this folder, by its config that is being read, until SIGINT or SIGTERM. Raises ConfigError or a
    Fault when it cannot start."""
    folder = Folder(path)
    folder.check_private()
    config, unused = reading.result()
    logging.basicConfig(
        level=config.node.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # It shows a traceback for each interface that is down; what matters of mDNS is said in the node's notices.
    logging.getLogger("zeroconf").setLevel(logging.ERROR)
    logging.getLogger("grpc._cython.cygrpc").addFilter(hide_broken_off)
    sys.setswitchinterval(0.0005)  # the default lets a computing thread hold up the loop for 5 ms at a time
    asyncio.run(_serve(folder, config, unused))


async def _serve(folder: Folder, config: Config, unused: Sequence[str]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    _on_signals(loop, stopping)
    daemon = Daemon(folder, config, unused)
    try:
        await daemon.start()
        print(daemon.banner, flush=True)  # noqa: T201 - what the person at the terminal asked for
        await stopping.wait()
        _log.info("stopping")
    finally:
        await daemon.stop()


def _on_signals(loop: asyncio.AbstractEventLoop, stopping: asyncio.Event) -> None:
    """The first signal asks for an orderly stop; the next one finds the system's own handling, and ends it there."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop() -> None:
        stopping.set()
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        try:
            loop.add_signal_handler(number, stop)
        except NotImplementedError:  # Windows: the handler runs in the main thread, outside the loop
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop))


class Daemon:
    """One node on this machine's disk and network."""

    def __init__(self, folder: Folder, config: Config, problems: Sequence[str]) -> None:
        self._config = config
        self._began_ns = time.monotonic_ns()
        self._key = NodeKey.load(folder.keys_path)
        self._problems = tuple(problems)
        for sentence in self._problems:
            _log.warning("%s", sentence)
        self._cleanup: list[Callable[[], Awaitable[None] | None]] = []
        self._meters = make_meters() if config.metrics.listen else None
        self._store_trouble = StoreTrouble(lambda: time.monotonic_ns() // 1_000_000)
        self._drops: DropWatch | None = None
        self._heap = Heap(asyncio.get_running_loop())
        self.banner = ""

    async def start(self) -> None:
        """Everything up, or the Fault that says why not; `stop` is due in both cases."""
        config, tls = self._config, issue_leaf(self._key)
        store = open_store(config, create=False)
        self._cleanup.append(store.close)
        self._pool = make_executors(config)  # once the folder is ours: they empty their part of it
        self._problems += check_store(store)
        threaded = measure_fsync_ms(config.storage.memory_db) > COMMIT_INLINE_MAX_MS
        meters = self._meters
        self._driver = Driver(asyncio.get_running_loop(), threaded=threaded, on_commit=self._on_commit)
        framed = FramedRoad(tls, lambda: self.node.directory)
        self._at_work = open_at_work(config)
        running = Running(
            self._pool,
            lambda end: self.node.on_executed(end),  # noqa: PLW0108 - the node comes later
            lambda key, said: self.node.on_said(key, said),  # noqa: PLW0108 - as above
            self._at_work,
        )
        road = GrpcRoad(tls, lambda: self.node.directory, framed.learn, self._on_lost)
        threads = Threads(asyncio.get_running_loop().call_soon_threadsafe)
        self._bulk = Bulk(threads)
        self._cleanup += [self._driver.close, road.close, framed.close, running.close, threads.close, self._bulk.stop]
        self.node = Node(self._parts(store, [framed, road], running))
        self.node.runtime.watch(log_events)
        on_refused = meters.on_refused if meters else None
        server = GrpcServer(self.node.router, on_refused=on_refused)
        framed_server = FramedServer(self.node.router, server.running, on_refused)
        self._cleanup.append(lambda: _together(server.close(), framed_server.close()))
        await self._listen(server, framed_server, road, Members(self.node, server, road, framed), tls)
        self._driver.start(self.node.runtime)
        self._drops = self._watch_drops()
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

    async def _listen(
        self, server: GrpcServer, framed: FramedServer, road: GrpcRoad, members: Members, tls: NodeTls
    ) -> None:
        config, node = self._config, self.node
        address, token_file = admin_address(config)
        admin_framed = ""

        def beside_admin(gate: Gate) -> None:
            nonlocal admin_framed
            try:
                admin_framed = framed.listen_admin(address, gate)
            except FailedPrecondition as fault:  # a path that is a few characters too long, and no reason to stop
                _log.info("the owner is served by gRPC alone: %s", fault.message)

        def beside_mesh(gate: Gate) -> None:
            if config.mesh.framed_port >= 0:
                host = split_address(config.mesh.listen, port_min=0)[0]
                where = join_address(host, config.mesh.framed_port)
                server.framed_port = framed.listen_mesh(where, gate, tls, members.certificates)

        admin = await server.listen_admin(address, token_file=token_file, beside=beside_admin)
        addresses, doors = node.mesh.reach
        mesh_port = await listen_again(
            lambda address: server.listen_mesh(address, tls, members.certificates, node.caller_of, beside_mesh),
            config.mesh.listen,
            addresses,
            config.mesh.advertise,
        )
        door = config.mesh.door
        door_port = await listen_again(server.listen_door, door, doors) if door else None
        self._finding = Finding(config, node, mesh_port, door_port, lambda: road.closed_to_us)
        self._cleanup.append(self._finding.close)
        metrics = await self._listen_metrics(self._meters) if self._meters else ""
        write_access_files(config, admin, tls, metrics, framed=admin_framed)
        self.banner = banner(config, node, admin, mesh_port, metrics)

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
            mesh=MeshSettings(
                roles=frozenset(ROLE_VALUES[role] for role in config.node.roles),
                addresses=(),
                door_addresses=(),
                version=__version__,
                probe_interval_ms=config.mesh.probe_interval_ms,
            ),
            at_death=self._at_work.take_left if self._at_work is not None else frozenset,
            jobs=JobsSettings(
                signer=key,
                salt=b"",
                mode=MODES[config.jobs.mode],
                queue_max=config.jobs.queue_max,
                drop=drop_of(config),
                price_max_micro=config.jobs.price_max_micro,
                slots=config.host.slots,
                price_micro=config.host.price_micro,
                executors=Offered(self._pool),
                kinds=kinds_of(config),
                labels=dict(config.host.labels),
                profile=machine_profile(config, self._pool.isolation),
                rules=rules_of(config),
                utc_offset_s=local_offset_s,
            ),
            objects=ObjectParts(
                blobs=self._blobs,
                bulk=self._bulk,
                wraps=KeyWraps(key),
                keeps_replicas=config.storage.enabled,
                owner_share_percent=config.storage.owner_share_percent,
            ),
            data_dir=config.node.data_dir,
            job_timeout_ms=config.jobs.timeout_ms,
            copies=config.storage.copies,
            required_milli=config.storage.required_milli,
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
                *self._pool.problems,
                *self._store_trouble.notices,
                *chunk_notices(self._config.storage.chunk_dir, self._blobs.free_bytes()),
                *self._finding.notices,
                *(self._drops.notices if self._drops else ()),
                *self.node.adoption.notices,
                *self.node.ledger.notices,
            ),
            ledger=ledger_summary(self.node.runtime.store),
        )


async def _together(*ends: Awaitable[None]) -> None:
    await asyncio.gather(*ends)


def make_meters() -> Meters:
    from offgrid_node.meters import Meters  # for those who ask for them

    return Meters()


def drop_of(config: Config) -> str:
    """Which jobs of the local queue go to the drop folder."""
    if not config.jobs.drop_dir:
        return ""
    return DROP_ALL if config.jobs.drop_all else DROP_REST


def call_later_in(loop: asyncio.AbstractEventLoop) -> Later:
    """May be called in any thread, and after the loop's end, when nobody waits for anything any more."""

    def later(delay_ms: int, callback: Callable[[], None]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.call_later, delay_ms / 1000, callback)

    return later


def check_store(store: Store) -> tuple[str, ...]:
    """What is damaged in a store that is small enough to be read whole at start; each finding is logged as well."""
    if store.size_bytes() > VERIFY_BYTES_MAX:
        return ()
    findings = tuple(store.verify())
    for finding in findings:
        _log.error("the store is damaged: %s", finding)
    return tuple(f"the store is damaged: {finding}" for finding in findings[:FINDINGS_SHOWN])


def open_at_work(config: Config) -> AtWork | None:
    """None, with a warning, where the file cannot be had: a host works without it."""
    try:
        return AtWork(config.node.data_dir / AT_WORK_NAME)
    except OSError as error:
        _log.warning("payloads that bring this host down are not all noticed: %s: %s", AT_WORK_NAME, error.strerror)
        return None


def make_executors(config: Config) -> ExecutorPool:
    """The executors that the config asks for and this machine has; what is missing is among its problems."""
    executors: list[Executor] = []
    groups, lookout = _groups_of(config), Lookout()
    if config.host.wasm.enabled:
        executors.append(wasm_executor(config))
    commands = {name: Path(path) for name, path in config.host.process.commands.items()}
    process = ProcessExecutor(
        commands,
        work_dir=config.node.data_dir / WORK_NAME,
        memory_bytes=config.host.process.memory_mb * MIB,
        cpu_percent=config.host.process.cpu_percent,
        sandbox=config.host.process.sandbox,
        readable=[Path(path) for path in config.host.process.readable],
        hidden=config.node.data_dir,
        groups=groups,
        lookout=lookout,
    )
    executors.append(process)
    hosted = Hosted(config, groups, lookout)
    hosted.watch()
    return ExecutorPool([*executors, *hosted.fixed], BuiltinExecutor(), hosted.live, groups)


def _groups_of(config: Config) -> Groups | None:
    """Control groups, where anything is to run that starts processes."""
    host = config.host
    if not (host.process.commands or host.python.enabled or host.dask.scheduler):
        return None
    groups, problem = cgroup_setup.find(config.node.data_dir)
    if problem:
        _log.info("jobs' bounds are not held by the kernel: %s", problem)
    return groups


def wasm_executor(config: Config) -> Executor:
    """At once at a host, which is to find out now that it cannot."""

    def make() -> Executor:
        from offgrid_node.executors.wasm import WasmExecutor  # with wasmtime, which takes 5 MiB

        return WasmExecutor(config.host.wasm.memory_mb * MIB, config.host.slots)

    return make() if "host" in config.node.roles else LateExecutor(("wasm",), WASM_ISOLATION, make)


def admin_address(config: Config) -> tuple[str, Path | None]:
    """Where this machine's owner is listened to, and the token file where that is no unix socket."""
    socket = admin_socket(config)
    if socket is not None:
        return f"unix:{socket}", None
    return config.admin.address or LOOPBACK_ANY, config.node.data_dir / TOKEN_NAME

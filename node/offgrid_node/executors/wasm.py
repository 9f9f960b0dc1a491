"""Runs WebAssembly in this process, on wasmtime: standard streams, arguments, clocks, a folder in memory, nothing else.

Each run has a thread and, while it lasts, an engine of its own (a lane): advancing that engine's epoch is what
stops it, at once, without a ticking thread and without the interpreter lock while it computes. Lanes are reused; a
lane keeps the module that it ran last. Runs that count fuel, and runs with a folder, have lanes of their own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib.metadata import version

import msgspec
from wasmtime import ExitTrap, InstancePre, Linker, Store, Trap, WasiConfig, WasmtimeError

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.artifacts import TooMuchLeft, matching
from offgrid_node.executors.capture import failed, timeout_detail
from offgrid_node.executors.compiler import compile_apart
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, WASM_ISOLATION, Outcome, OutputFile, Usage, Work
from offgrid_node.executors.host_calls import Exported, function_of
from offgrid_node.executors.memory_folder import MemoryFolder
from offgrid_node.executors.modules import (
    TABLE_ELEMENTS_MAX,
    TABLES_MAX,
    CompiledModules,
    NotRunnable,
    digest_of_module,
    new_engine,
    short,
)
from offgrid_node.executors.wasi import HostFunctions, Run
from offgrid_node.executors.workers import Workers
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.artifacts import FILES_BYTES_MAX, FILES_MAX
from offgrid_node.protocol.jobs.needs import check_payload

VERSION = f"wasmtime/{version('wasmtime')}"
PROGRAM_NAME = "job.wasm"
# How long to wait for a stopped run to be gone. Only compiling a small module, 1.4 s at worst, cannot be stopped.
STOP_GRACE_S = 2.0


class Lane:
    """An engine with its linker. It serves one run at a time."""

    def __init__(self, modules: CompiledModules, *, metered: bool, with_files: bool) -> None:
        self.engine, self.metered = new_engine(metered=metered), metered
        self._linker = Linker(self.engine)
        self.functions = HostFunctions(self._linker, with_files=with_files)
        self._modules = modules
        self._digest = b""
        self._linked: InstancePre | None = None

    def link(self, source: bytes, run: Run) -> InstancePre:
        digest = digest_of_module(source, metered=self.metered)
        if self._linked is None or digest != self._digest:
            self._linked = None
            self._linked = self._modules.link(
                self.engine,
                self._linker,
                source,
                digest,
                lambda binary: compile_apart(binary, run, metered=self.metered),
            )
            self._digest = digest
        return self._linked


class Ended(msgspec.Struct):
    """What came of one call of `_start`; memory never shrinks, so what it has at the end is its peak."""

    exit_code: int = 0
    error: str = ""
    detail: str = ""
    memory_bytes: int = 0
    fuel: int = 0


def left_files(
    folder: MemoryFolder | None, patterns: Sequence[str], brought: Collection[str]
) -> tuple[OutputFile, ...]:
    """Those that `patterns` name. Raises TooMuchLeft."""
    if folder is None or not patterns:
        return ()
    found = {name: file for name, file in folder.files() if not file.fixed and name not in brought}
    wanted = matching(list(found), patterns)
    if len(wanted) > FILES_MAX:
        raise TooMuchLeft(f"it left {len(wanted)} files that its outputs name; at most {FILES_MAX} are allowed")
    if sum(len(found[name].data) for name in wanted) > FILES_BYTES_MAX:
        raise TooMuchLeft(f"the files that its outputs name have more than {FILES_BYTES_MAX} bytes")
    return tuple(OutputFile(name, bytes(found[name].data)) for name in wanted)


class Awaited:
    """A run in a worker's thread, awaited in a loop: its end comes by one call across threads, and a timer stops it."""

    def __init__(self, run: Run, loop: asyncio.AbstractEventLoop) -> None:
        self.run, self._loop = run, loop
        self._outcome: Outcome | Exception | None = None
        self._done: asyncio.Future[None] = loop.create_future()

    def serve(self, carry_out: Callable[[], Outcome]) -> None:
        """In the worker's thread."""
        outcome: Outcome | Exception
        try:
            outcome = carry_out()
        except Exception as error:  # noqa: BLE001 - a defect: whoever waits is told
            outcome = error
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._deliver, outcome)

    async def end(self, timeout_ms: int) -> Outcome:
        """In the loop. A run that does not end when it is stopped is left alone after STOP_GRACE_S."""
        timer = self._loop.call_later(timeout_ms / 1000, self._time_out, timeout_ms)
        try:
            await self._done
        except asyncio.CancelledError:
            self.run.stop("Cancelled", "it was cancelled")
            if self._outcome is None:
                self._done = self._loop.create_future()
                await asyncio.wait({self._done}, timeout=STOP_GRACE_S)
            raise
        finally:
            timer.cancel()
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _deliver(self, outcome: Outcome | Exception) -> None:
        if self._outcome is None:
            self._outcome = outcome
            if not self._done.done():
                self._done.set_result(None)

    def _time_out(self, timeout_ms: int) -> None:
        self.run.stop("JobTimeout", timeout_detail(timeout_ms))
        self._loop.call_later(STOP_GRACE_S, self._give_up)

    def _give_up(self) -> None:
        if self._outcome is None:
            run = self.run
            self._deliver(run.capture.failed(run.error, run.error_detail, VERSION))


class WasmExecutor:
    """An Executor of wasm payloads. `memory_bytes` bounds each run's linear memory; `memory.grow` fails beyond it.

    `runs` is how many may be under way at once, the host's slots: a further one waits, and its timeout runs.
    """

    def __init__(self, memory_bytes: int, runs: int) -> None:
        self._memory_bytes = memory_bytes
        self._modules = CompiledModules()
        self._idle: dict[tuple[bool, bool], list[Lane]] = {}
        self._awaited: set[Awaited] = set()
        self._running = 0
        self._lock = threading.Lock()
        self._workers = Workers(runs, "wasm")
        self._closed = False

    @property
    def offers(self) -> tuple[str, ...]:
        return ("wasm",)

    @property
    def problems(self) -> tuple[str, ...]:
        return ()

    @property
    def isolation(self) -> Mapping[str, str]:
        return WASM_ISOLATION

    @property
    def running(self) -> int:
        """How many runs occupy a thread at this moment."""
        return self._running

    async def run(self, work: Work) -> Outcome:
        """See Executor. The timeout covers compiling."""
        payload, timeout_ms = work.payload, work.timeout_ms
        try:
            check_payload(payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, VERSION)
        if self._closed:
            return failed("Cancelled", "the node is stopping", VERSION)
        folder = MemoryFolder(work.files) if work.files or payload.outputs else None
        run = Run(payload.input, work.say, folder)
        awaited = Awaited(run, asyncio.get_running_loop())
        self._awaited.add(awaited)
        self._workers.submit(partial(awaited.serve, partial(self._carry_out, run, payload, folder)))
        try:
            return await awaited.end(timeout_ms)
        finally:
            self._awaited.discard(awaited)

    def close(self) -> None:
        """Stops what runs and takes no more. Threads end by themselves; nothing is waited for."""
        self._closed = True
        for awaited in self._awaited:
            awaited.run.stop("Cancelled", "the node is stopping")
        self._workers.close()

    def _carry_out(self, run: Run, payload: jobs_pb2.JobPayload, folder: MemoryFolder | None) -> Outcome:
        """In a worker thread: the whole of one run."""
        metered = payload.wasm.fuel > 0
        with self._lock:
            idle = self._idle.setdefault((metered, folder is not None), [])
            lane = idle.pop() if idle else None
            self._running += 1
        lane = lane or Lane(self._modules, metered=metered, with_files=folder is not None)
        began_ns = time.thread_time_ns()
        try:
            ended = self._run_on(lane, run, lane.link(payload.wasm.module, run), payload.wasm)
        except NotRunnable as error:
            ended = Ended(error="ExecutionFailed", detail=str(error))
        finally:
            with self._lock:
                self._running -= 1
                idle.append(lane)
        usage = Usage((time.thread_time_ns() - began_ns) // 1000, ended.memory_bytes)
        label = f"{VERSION} fuel/{ended.fuel}" if metered else VERSION
        if run.stopped.is_set():
            return run.capture.failed(run.error, run.error_detail, label, usage)
        if ended.error:
            return run.capture.failed(ended.error, ended.detail, label, usage)
        try:
            files = left_files(folder, payload.outputs, [file.name for file in payload.files])
        except TooMuchLeft as error:
            return run.capture.failed("OutputTooLarge", str(error), label, usage)
        return run.capture.ended(ended.exit_code, label, usage, files)

    def _run_on(self, lane: Lane, run: Run, linked: InstancePre, task: jobs_pb2.WasmTask) -> Ended:
        ended = Ended()
        with Store(lane.engine) as store:
            store.set_limits(self._memory_bytes, TABLE_ELEMENTS_MAX, instances=1, tables=TABLES_MAX, memories=1)
            # One step of the epoch ends it; set before `begin`, so that no stop can fall in between.
            store.set_epoch_deadline(1)
            if task.fuel:
                store.set_fuel(task.fuel)
            wasi = WasiConfig()
            wasi.argv = [PROGRAM_NAME, *task.args]
            store.set_wasi(wasi)
            lane.functions.current = run
            run.begin(lane.engine.increment_epoch)
            instance = None
            try:
                if not run.stopped.is_set():
                    instance = linked.instantiate(store)
                    function_of(store, instance, b"_start")(store)
            except ExitTrap as end:
                ended.exit_code = end.code
            except Trap as trap:
                ended.error, ended.detail = "ExecutionFailed", self._explain(trap)
            except WasmtimeError as refusal:
                ended.error, ended.detail = "ExecutionFailed", short(str(refusal))
            finally:
                run.end()
                lane.functions.current = None
            memory = Exported.of_instance(store, instance) if instance is not None else None
            ended.memory_bytes = memory.size_bytes(store) if memory is not None else 0
            ended.fuel = task.fuel - store.get_fuel() if task.fuel else 0
        return ended

    def _explain(self, trap: Trap) -> str:
        """Where by number: a function's name is the owner's, and an error is written to disk in the clear."""
        frames = trap.frames
        where = f" in function {frames[0].func_index}, byte {frames[0].module_offset}" if frames else ""
        return f"{short(trap.message)}{where} (memory is limited to {self._memory_bytes} bytes)"

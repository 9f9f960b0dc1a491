"""Runs WebAssembly in this process, on wasmtime: standard streams, arguments, clocks and nothing else.

Each run has a thread and, while it lasts, an engine of its own (a lane): advancing that engine's epoch is what
stops it, at once, without a ticking thread and without the interpreter lock while it computes. Lanes are reused; a
lane keeps the module that it ran last.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

from wasmtime import ExitTrap, Func, InstancePre, Linker, Store, Trap, WasiConfig, WasmtimeError

from offgrid_node.executors.capture import failed, timeout_detail
from offgrid_node.executors.compiler import compile_apart
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.modules import CompiledModules, NotRunnable, digest_of_module, new_engine, short
from offgrid_node.executors.wasi import HostFunctions, Run
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import check_payload

VERSION = f"wasmtime/{version('wasmtime')}"
PROGRAM_NAME = "job.wasm"
TABLE_ELEMENTS_MAX = 100_000
TABLES_MAX = 8
# How long to wait for a stopped run to be gone. Only compiling a small module, 1.4 s at worst, cannot be stopped.
STOP_GRACE_S = 2.0


class Lane:
    """An engine with its linker. It serves one run at a time."""

    def __init__(self, modules: CompiledModules) -> None:
        self.engine = new_engine()
        self._linker = Linker(self.engine)
        self.functions = HostFunctions(self._linker)
        self._modules = modules
        self._digest = b""
        self._linked: InstancePre | None = None

    def link(self, source: bytes, run: Run) -> InstancePre:
        digest = digest_of_module(source)
        if self._linked is None or digest != self._digest:
            self._linked = None
            self._linked = self._modules.link(
                self.engine, self._linker, source, digest, lambda binary: compile_apart(binary, run)
            )
            self._digest = digest
        return self._linked


class WasmExecutor:
    """An Executor of wasm payloads. `memory_bytes` bounds each run's linear memory; `memory.grow` fails beyond it.

    `runs` is how many may be under way at once, the host's slots: a further one waits, and its timeout runs.
    """

    def __init__(self, memory_bytes: int, runs: int) -> None:
        self._memory_bytes = memory_bytes
        self._modules = CompiledModules()
        self._idle: list[Lane] = []
        self._runs: set[Run] = set()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(runs, thread_name_prefix="wasm")

    @property
    def offers(self) -> tuple[str, ...]:
        return ("wasm",)

    @property
    def problems(self) -> tuple[str, ...]:
        return ()

    @property
    def isolation(self) -> Mapping[str, str]:
        return {"wasm": "wasmtime"}

    @property
    def running(self) -> int:
        """How many runs occupy a thread at this moment."""
        with self._lock:
            return len(self._runs)

    async def run(self, work: Work) -> Outcome:
        """See Executor. The timeout covers compiling."""
        payload, timeout_ms = work.payload, work.timeout_ms
        try:
            check_payload(payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, VERSION)
        run = Run(payload.input)
        args = [PROGRAM_NAME, *payload.wasm.args]
        done = asyncio.wrap_future(self._threads.submit(self._carry_out, run, payload.wasm.module, args))
        try:
            await asyncio.wait({done}, timeout=timeout_ms / 1000)
            if not done.done():
                run.stop("JobTimeout", timeout_detail(timeout_ms))
                await asyncio.wait({done}, timeout=STOP_GRACE_S)
        except asyncio.CancelledError:
            run.stop("Cancelled", "it was cancelled")
            await asyncio.wait({done}, timeout=STOP_GRACE_S)
            raise
        return done.result() if done.done() else run.capture.failed(run.error, run.error_detail, VERSION)

    def close(self) -> None:
        """Stops what runs and takes no more. Threads end by themselves; nothing is waited for."""
        with self._lock:
            runs = list(self._runs)
        self._threads.shutdown(wait=False, cancel_futures=True)
        for run in runs:
            run.stop("Cancelled", "the node is stopping")

    def _carry_out(self, run: Run, module: bytes, args: Sequence[str]) -> Outcome:
        """In a worker thread: the whole of one run."""
        with self._lock:
            lane = self._idle.pop() if self._idle else None
            self._runs.add(run)
        lane = lane or Lane(self._modules)
        try:
            return self._run_on(lane, run, lane.link(module, run), args)
        except NotRunnable as error:
            if run.stopped.is_set():
                return run.capture.failed(run.error, run.error_detail, VERSION)
            return run.capture.failed("ExecutionFailed", str(error), VERSION)
        finally:
            with self._lock:
                self._runs.discard(run)
                self._idle.append(lane)

    def _run_on(self, lane: Lane, run: Run, linked: InstancePre, args: Sequence[str]) -> Outcome:
        error, detail, exit_code = "", "", 0
        with Store(lane.engine) as store:
            store.set_limits(self._memory_bytes, TABLE_ELEMENTS_MAX, instances=1, tables=TABLES_MAX, memories=1)
            # One step of the epoch ends it; set before `begin`, so that no stop can fall in between.
            store.set_epoch_deadline(1)
            wasi = WasiConfig()
            wasi.argv = args
            store.set_wasi(wasi)
            lane.functions.current = run
            run.begin(lane.engine.increment_epoch)
            try:
                if not run.stopped.is_set():
                    start = linked.instantiate(store).exports(store)["_start"]
                    assert isinstance(start, Func)
                    start(store)
            except ExitTrap as end:
                exit_code = end.code
            except Trap as trap:
                error, detail = "ExecutionFailed", self._explain(trap)
            except WasmtimeError as refusal:
                error, detail = "ExecutionFailed", short(str(refusal))
            finally:
                run.end()
                lane.functions.current = None
        if run.stopped.is_set():
            return run.capture.failed(run.error, run.error_detail, VERSION)
        return run.capture.failed(error, detail, VERSION) if error else run.capture.ended(exit_code, VERSION)

    def _explain(self, trap: Trap) -> str:
        """Where by number: a function's name is the owner's, and an error is written to disk in the clear."""
        frames = trap.frames
        where = f" in function {frames[0].func_index}, byte {frames[0].module_offset}" if frames else ""
        return f"{short(trap.message)}{where} (memory is limited to {self._memory_bytes} bytes)"

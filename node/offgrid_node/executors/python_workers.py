"""Warm processes that call functions: started ahead of need, used again for the same owner only, never for another's.

A function can leave anything behind in the process that called it, so whoever's functions a process has called owns it.
One that is fresh waits for the next owner. What is not clean afterwards, has served long or was killed is replaced.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from offgrid_node.executors import removal
from offgrid_node.executors.artifacts import TooMuchLeft, collect
from offgrid_node.executors.capture import NO_EXIT_CODE, failed, timeout_detail
from offgrid_node.executors.cgroups import Bounds, Groups
from offgrid_node.executors.executor import OUTPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.outside import Outside
from offgrid_node.executors.python_launch import START_TIMEOUT_S, Launch
from offgrid_node.executors.python_process import LOG_GRACE_S, Call, WorkerProcess
from offgrid_node.executors.sandbox import JOB_FOLDER, PROCESSES_MAX, Sandbox
from offgrid_node.executors.watch import Allowed, Lookout, Watch
from offgrid_node.executors.workplace import JobFolder, Workplace

IDLE_S = 300.0  # after which a process that nobody has used gives its memory back
DRAIN_GRACE_S = 1.0
CALLS_MAX = 1_000  # of one process: what functions leak goes with it
FOLDER_BYTES_MAX = 512 * 1024 * 1024
MEMORY_FOLDER = "/tmp"  # noqa: S108 - the sandbox's own, in memory
NOT_STARTED = "WorkerNotStarted"  # the host's fault: the next attempt goes elsewhere
CLUSTER_LOST = "ClusterLost"  # so is this
OUTPUT_TOO_LARGE = "OutputTooLarge"
DETAIL_CHARS_MAX = 2_000


Lost = Callable[[], Coroutine[Any, Any, str]]


class Kind(msgspec.Struct, frozen=True):
    """What sort of process: `imports` are loaded before it is ready, `calls_max` is when it is replaced."""

    imports: tuple[str, ...] = ()
    calls_max: int = CALLS_MAX


class Workers:
    """At most `count` processes at once. `memory_bytes` bounds the address space of each (POSIX), `groups` hold what it
    starts as well.

    Those who `run` are no more than `count` at a time: the host takes a lease per slot.
    """

    def __init__(
        self,
        kind: Kind,
        work_dir: Path | None,
        *,
        memory_bytes: int,
        count: int,
        cpu_percent: int = 0,
        sandbox: Sandbox | None = None,
        groups: Groups | None = None,
        lookout: Lookout | None = None,
    ) -> None:
        """Raises OSError when the work folder, which must be this one's alone, cannot be made."""
        self._kind, self._memory_bytes, self._count = kind, memory_bytes, count
        self._sandbox, self._lookout = sandbox, lookout or Lookout()
        self.workplace = Workplace(work_dir, Bounds(memory_bytes, PROCESSES_MAX, cpu_percent), groups)
        self.launch = Launch(kind.imports, memory_bytes, sandbox)
        self._idle: list[WorkerProcess] = []  # the one used last stands last
        self._all: set[WorkerProcess] = set()
        self._timers: dict[WorkerProcess, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def run(
        self, work: Work, settings: Mapping[str, Any], function: bytes, label: str, lost: Lost | None = None
    ) -> Outcome:
        """Calls the function with the job's input. `lost`, while the call runs, ends it by returning why."""
        deadline = asyncio.get_running_loop().time() + work.timeout_ms / 1000
        try:
            async with asyncio.timeout(work.timeout_ms / 1000):
                worker = await self._take(work.owner)
        except TimeoutError:
            return failed("JobTimeout", timeout_detail(work.timeout_ms), label)
        except OSError as error:
            return failed(NOT_STARTED, f"no process could be started for it: {error.strerror or error}", label)
        usable = False
        try:
            home = JOB_FOLDER if self._sandbox else worker.folder.name
            place = {"home": home, "cpu_s": _cpu_s(work.timeout_ms)}
            place["memory_folder"] = MEMORY_FOLDER if self._sandbox else ""
            watching = self._watch(worker)
            used = Outside(watching, worker.watched_pid, worker.folder.group, self._memory_bytes)
            call = worker.begin(work, {**settings, **place}, function, work.payload.input)
            try:
                why = await self._wait(worker, call, deadline, lost)
            finally:
                watching.end()
                usage = used.usage(call.ended.result().said if call.ended.done() else {})
            usable = call.ended.done() and bool(call.ended.result().said.get("clean"))
            if call.ended.done() and not call.log_ended.done():
                await _first({call.log_ended, worker.exited}, LOG_GRACE_S)
            outcome = replace(_outcome(worker, call, why, label, work.timeout_ms), usage=usage)
            return await _with_files(outcome, worker, work)
        finally:
            worker.finish()
            await self._give_back(worker, usable)

    def close(self) -> None:
        """Ends them all, at once."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for worker in self._all:
            worker.end()
            self._kill_strays(worker)
            worker.folder.cleanup()
        self._all.clear()
        self._idle.clear()

    async def _wait(self, worker: WorkerProcess, call: Call, deadline: float, lost: Lost | None) -> str:
        """Until it has answered, died, used up its time or is not worth waiting for; the last two say why."""
        loop = asyncio.get_running_loop()
        waited: set[asyncio.Future[Any]] = {call.ended, worker.exited}
        watching = loop.create_task(lost()) if lost is not None else None
        try:
            await _first(waited | ({watching} if watching else set()), max(0.0, deadline - loop.time()))
            if any(future.done() for future in waited):
                return ""
            return watching.result() if watching is not None and watching.done() else "JobTimeout"
        finally:
            if watching is not None:
                watching.cancel()

    def _watch(self, worker: WorkerProcess) -> Watch:
        """What no limit of one process holds; without a sandbox or a group, of what is in the folder and of this
        process alone."""
        allowed = Allowed(PROCESSES_MAX, self._memory_bytes, FOLDER_BYTES_MAX)
        namespace, group = self._sandbox is not None, worker.folder.group
        folder = Path(worker.folder.name)
        watching = Watch(allowed, folder, worker.too_much, namespace=namespace, group=group, lookout=self._lookout)
        if worker.watched_pid:
            watching.begin(worker.watched_pid)
        return watching

    # ---- the pool

    async def _take(self, owner: str) -> WorkerProcess:
        """One that is this owner's, else a fresh one. Raises OSError."""
        worker = next((one for one in reversed(self._idle) if one.owner == owner and one.served), None)
        worker = worker or next((one for one in self._idle if not one.served), None)
        if worker is not None:
            self._idle.remove(worker)
            self._timers.pop(worker).cancel()
        else:
            if len(self._all) >= self._count and self._idle:
                await self._retire(self._idle[0])
            worker = await self._start()
        worker.owner = owner
        self._keep_a_spare()
        try:
            await _first({worker.ready, worker.exited}, START_TIMEOUT_S)
            if not worker.ready.done():
                raise OSError(0, "it did not say that it is ready")
        except BaseException:
            await self._retire(worker)
            raise
        return worker

    async def _give_back(self, worker: WorkerProcess, usable: bool) -> None:
        if usable and worker.alive and worker.served < self._kind.calls_max and not self._closed:
            if not _is_empty(worker.folder.name):
                usable = await asyncio.to_thread(removal.empty, Path(worker.folder.name))
            if usable:
                self._rest(worker)
                return
        await self._retire(worker)
        self._keep_a_spare()

    def _rest(self, worker: WorkerProcess) -> None:
        self._idle.append(worker)
        loop = asyncio.get_running_loop()
        self._timers[worker] = loop.call_later(IDLE_S, lambda: self._later(self._retire(worker)))

    def _keep_a_spare(self) -> None:
        """A fresh one in the background, as long as there is room, for the next owner or call."""
        if self._closed or len(self._all) + len(self._tasks) >= self._count or any(not w.served for w in self._idle):
            return

        async def start() -> None:
            with suppress(OSError):  # whoever needs one will say so
                self._rest(await self._start())

        self._later(start())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self) -> WorkerProcess:
        folder = self.workplace.make()
        try:
            worker = await self._start_in(folder)
        except BaseException:
            folder.cleanup()
            raise
        self._all.add(worker)
        return worker

    async def _start_in(self, folder: JobFolder) -> WorkerProcess:
        removal.empty(Path(folder.name))  # a call finds nothing there but what it brings
        worker = WorkerProcess(folder)
        home = JOB_FOLDER if self._sandbox else folder.name
        with self.launch.wrapped(Path(folder.name)) as (argv, fds, status_fd):
            try:
                bounds = Bounds(self._memory_bytes, PROCESSES_MAX)
                await worker.start(folder.joining(argv), home, fds, status_fd, bounds)
            except BaseException:
                worker.abandon()
                raise
        return worker

    async def _retire(self, worker: WorkerProcess) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
            self._timers.pop(worker).cancel()
        worker.kill()
        try:
            await asyncio.to_thread(self._kill_strays, worker)
            await worker.gone(DRAIN_GRACE_S)
        finally:
            await asyncio.to_thread(worker.folder.cleanup)
            self._all.discard(worker)  # not before: when this is cut short, `close` does it

    def _kill_strays(self, worker: WorkerProcess) -> None:
        """Behind bubblewrap they have ended with their process namespace."""
        if self._sandbox is None or worker.folder.group is not None:
            worker.folder.kill_strays()


def _is_empty(folder: str) -> bool:
    try:
        return not os.listdir(folder)
    except OSError:  # the function may have changed its mode
        return False


async def _with_files(outcome: Outcome, worker: WorkerProcess, work: Work) -> Outcome:
    """With what it has left and its job wants."""
    if outcome.error or not work.payload.outputs:
        return outcome
    folder, wanted = Path(worker.folder.name), list(work.payload.outputs)
    try:
        return replace(outcome, files=tuple(await asyncio.to_thread(collect, folder, wanted, frozenset(work.files))))
    except TooMuchLeft as error:
        return replace(outcome, output=b"", exit_code=NO_EXIT_CODE, error=OUTPUT_TOO_LARGE, error_detail=str(error))


async def _first(futures: set[asyncio.Future[Any]], timeout_s: float) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


def _cpu_s(timeout_ms: int) -> int:
    return math.ceil(timeout_ms / 1000) * (os.cpu_count() or 1) + 1


def _outcome(worker: WorkerProcess, call: Call, why: str, label: str, timeout_ms: int) -> Outcome:
    """`why` it was not waited for any longer, if it was not."""
    capture = call.capture
    if not call.ended.done():
        if why == "JobTimeout":
            return capture.failed(why, timeout_detail(timeout_ms), label)
        if why:
            return capture.failed(CLUSTER_LOST, why, label)
        exit_code = worker.exited.result() if worker.exited.done() else 0
        group = worker.folder.group
        if group is not None and group.over():
            return capture.failed("ExecutionFailed", group.over(), label)
        if worker.fault or not exit_code:
            return capture.failed("ExecutionFailed", worker.fault or "it ended its process and so has no result", label)
        return capture.ended(exit_code, label)
    said, output = call.ended.result().said, call.ended.result().output
    word, detail = said.get("error"), said.get("detail")
    if word in (CLUSTER_LOST, OUTPUT_TOO_LARGE) or len(output) > OUTPUT_BYTES_MAX:
        word = OUTPUT_TOO_LARGE if len(output) > OUTPUT_BYTES_MAX else word
        return capture.failed(str(word), str(detail)[:DETAIL_CHARS_MAX], label)
    return replace(capture.ended(_exit_code(said.get("exit_code")), label), output=output)


def _exit_code(value: object) -> int:
    return value if type(value) is int and -(2**31) <= value < 2**31 else 1

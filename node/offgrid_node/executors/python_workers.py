"""Warm processes that call functions: started ahead of need, used again for the same owner only, never for another's.

A function can leave anything behind in the process that called it, so whoever's functions a process has called owns it.
One that is fresh waits for the next owner. What is not clean afterwards, has served long or was killed is replaced.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import offgrid
from offgrid_node.executors import confine
from offgrid_node.executors.capture import failed, timeout_detail
from offgrid_node.executors.executor import OUTPUT_BYTES_MAX, Outcome, Usage, Work
from offgrid_node.executors.python_process import LOG_GRACE_S, Call, WorkerProcess
from offgrid_node.executors.workplace import Workplace

PROGRAM = Path(__file__).with_name("python_worker.py")
START_TIMEOUT_S = 30.0  # a small machine imports slowly
IDLE_S = 300.0  # after which a process that nobody has used gives its memory back
DRAIN_GRACE_S = 1.0
CALLS_MAX = 1_000  # of one process: what functions leak goes with it
FILE_BYTES_MAX = 256 * 1024 * 1024
OPEN_FILES_MAX = 1024  # a function may well hold connections
CPU_S_MAX = 2**31  # of a process; each call has its own, lower bound
NOT_STARTED = "WorkerNotStarted"  # the host's fault: the next attempt goes elsewhere
CLUSTER_LOST = "ClusterLost"  # so is this
OUTPUT_TOO_LARGE = "OutputTooLarge"
DETAIL_CHARS_MAX = 2_000


Watch = Callable[[], Coroutine[Any, Any, str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What sort of process: `imports` are loaded before it is ready, `calls_max` is when it is replaced."""

    imports: tuple[str, ...] = ()
    calls_max: int = CALLS_MAX


class Workers:
    """At most `count` processes at once. `memory_bytes` bounds the address space of each (POSIX).

    Those who `run` are no more than `count` at a time: the host takes a lease per slot.
    """

    def __init__(self, kind: Kind, work_dir: Path | None, *, memory_bytes: int, count: int) -> None:
        """Raises OSError when the work folder, which must be this one's alone, cannot be made."""
        self._kind, self._memory_bytes, self._count = kind, memory_bytes, count
        self._workplace = Workplace(work_dir)
        self._prlimit, self._setpriv = confine.find_prlimit(), confine.find_setpriv()
        self._idle: list[WorkerProcess] = []  # the one used last stands last
        self._all: set[WorkerProcess] = set()
        self._timers: dict[WorkerProcess, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def idle(self) -> int:
        return len(self._idle)

    async def run(
        self, work: Work, settings: Mapping[str, Any], function: bytes, label: str, watch: Watch | None = None
    ) -> Outcome:
        """Calls the function with the job's input. `watch`, while the call runs, ends it by returning why."""
        deadline = asyncio.get_running_loop().time() + work.timeout_ms / 1000
        try:
            worker = await asyncio.wait_for(self._take(work.owner), work.timeout_ms / 1000)
        except TimeoutError:
            return failed("JobTimeout", timeout_detail(work.timeout_ms), label)
        except OSError as error:
            return failed(NOT_STARTED, f"no process could be started for it: {error.strerror or error}", label)
        usable, folder = False, tempfile.mkdtemp(prefix="call-", dir=worker.folder.name)
        try:
            place = {"folder": folder, "home": worker.folder.name, "cpu_s": _cpu_s(work.timeout_ms)}
            call = worker.begin(work, {**settings, **place}, function, work.payload.input)
            why = await self._wait(worker, call, deadline, watch)
            usable = call.ended.done() and bool(call.ended.result().said.get("clean"))
            if call.ended.done():
                await _first({call.log_ended, worker.exited}, LOG_GRACE_S)
            return _outcome(worker, call, why, label, work.timeout_ms)
        finally:
            worker.finish()
            await self._give_back(worker, folder, usable)

    def close(self) -> None:
        """Ends them all. Nothing is waited for."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        for worker in self._all:
            worker.kill()
            worker.abandon()
            worker.folder.cleanup()
        self._all.clear()
        self._idle.clear()

    async def _wait(self, worker: WorkerProcess, call: Call, deadline: float, watch: Watch | None) -> str:
        """Until it has answered, died, used up its time or is not worth waiting for; the last two say why."""
        loop = asyncio.get_running_loop()
        waited: set[asyncio.Future[Any]] = {call.ended, worker.exited}
        watching = loop.create_task(watch()) if watch is not None else None
        try:
            await _first(waited | ({watching} if watching else set()), max(0.0, deadline - loop.time()))
            if any(future.done() for future in waited):
                return ""
            return watching.result() if watching is not None and watching.done() else "JobTimeout"
        finally:
            if watching is not None:
                watching.cancel()

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

    async def _give_back(self, worker: WorkerProcess, folder: str, usable: bool) -> None:
        if usable and worker.alive and worker.served < self._kind.calls_max and not self._closed:
            self._rest(worker)
            try:
                os.rmdir(folder)
            except OSError:  # not empty
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        else:
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
        folder = self._workplace.make()
        loop = asyncio.get_running_loop()
        try:
            worker = WorkerProcess(loop, folder)
            await loop.subprocess_exec(
                lambda: worker,
                *confine.wrapped(self.argv, self._limits(), self._prlimit, dies_with_us=True, setpriv=self._setpriv),
                cwd=folder.name,
                env=confine.environment(folder.name),
                start_new_session=True,
                creationflags=confine.creation_flags(),
            )
        except BaseException:
            folder.cleanup()
            raise
        self._all.add(worker)
        return worker

    async def _retire(self, worker: WorkerProcess) -> None:
        if worker in self._idle:
            self._idle.remove(worker)
            self._timers.pop(worker).cancel()
        worker.kill()
        try:
            await worker.gone(DRAIN_GRACE_S)
        finally:
            self._all.discard(worker)
            await asyncio.to_thread(worker.folder.cleanup)

    @property
    def argv(self) -> list[str]:
        """What starts one. -I: nothing of the caller's environment or folder is looked at."""
        ours = str(Path(offgrid.__file__).parents[1])
        return [sys.executable, "-I", str(PROGRAM), f"path={ours}", *(f"import={name}" for name in self._kind.imports)]

    def _limits(self) -> confine.Limits:
        return confine.Limits(
            cpu_s=CPU_S_MAX, memory_bytes=self._memory_bytes, file_bytes=FILE_BYTES_MAX, open_files=OPEN_FILES_MAX
        )


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
        if worker.fault or not exit_code:
            return capture.failed("ExecutionFailed", worker.fault or "it ended its process and so has no result", label)
        return capture.ended(exit_code, label)
    said, output = call.ended.result().said, call.ended.result().output
    usage = Usage(cpu_us=_number(said.get("cpu_us")), memory_peak_bytes=_number(said.get("memory_peak_bytes")))
    word, detail = said.get("error"), said.get("detail")
    if word in (CLUSTER_LOST, OUTPUT_TOO_LARGE) or len(output) > OUTPUT_BYTES_MAX:
        word = OUTPUT_TOO_LARGE if len(output) > OUTPUT_BYTES_MAX else word
        return replace(capture.failed(str(word), str(detail)[:DETAIL_CHARS_MAX], label), usage=usage)
    return replace(capture.ended(_exit_code(said.get("exit_code")), label), output=output, usage=usage)


def _number(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**63 else 0


def _exit_code(value: object) -> int:
    return value if type(value) is int and -(2**31) <= value < 2**31 else 1

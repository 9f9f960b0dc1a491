"""Runs programs that the host's owner has listed by name: argv only, a private folder, limits, and a group to kill.

With bubblewrap (`sandbox.py`) a program sees nothing of the host but what it needs to run; without it, it is trusted by
the owner who lists it, and held by limits alone. Which of the two is the host's setting, found out at the start, said
in `isolation`, and never weakened afterwards. The input is standard input and never touches the disk (`stdin.py`), nor
do the files that the job brings, where the system has files in memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from offgrid_node.executors import confine
from offgrid_node.executors import sandbox as sandboxes
from offgrid_node.executors.artifacts import TooMuchLeft, collect
from offgrid_node.executors.capture import failed
from offgrid_node.executors.cgroups import Bounds, Groups
from offgrid_node.executors.child import DRAIN_GRACE_S, Child
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, OutputFile, Work
from offgrid_node.executors.sandbox import JOB_FOLDER, PROCESSES_MAX, Sandbox
from offgrid_node.executors.spawn import Spawned, spawn
from offgrid_node.executors.stdin import link_files, memory_file, open_files
from offgrid_node.executors.watch import Allowed, Lookout, Watch
from offgrid_node.executors.workplace import WATCHED, JobFolder, Workplace
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import COMMAND_NAME, check_payload

MEMORY_BYTES = 1024 * 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
FOLDER_BYTES_MAX = 512 * 1024 * 1024
OPEN_FILES_MAX = 256
LABEL_DIGEST_BYTES = 6
AUTO, BWRAP, RLIMITS = "auto", "bwrap", "rlimits"
NO_CPU = "this node has no control groups that hold processor time"


class Command(msgspec.Struct, frozen=True):
    """A listed program; `label` names its bytes, so that a receipt says what ran."""

    path: Path
    label: str


class ProcessExecutor:
    """An Executor of process payloads.

    `commands` maps names to absolute paths. Those that cannot be offered are said in `problems`, one sentence each;
    the rest are offered as "process:<name>". `sandbox` is "bwrap", "rlimits" or "auto", which is bwrap where that
    works; where "bwrap" is asked for and does not work, nothing is offered. `readable` are paths that programs in the
    sandbox may read besides the system's, `hidden` one that they never see. `memory_bytes` bounds each process's
    address space (POSIX) and what all of a job's have touched (Linux); `cpu_percent` how much of a processor they take
    together, 0: all there are. `groups` are what the kernel holds them by, where it does; `lookout` is the node's. Jobs
    have their folders below `work_dir`, which must be this executor's alone: it is emptied here, and what an earlier
    life left running there is killed (Linux). Raises OSError when that folder cannot be made.
    """

    def __init__(
        self,
        commands: Mapping[str, Path],
        *,
        work_dir: Path | None = None,
        memory_bytes: int = MEMORY_BYTES,
        cpu_percent: int = 0,
        sandbox: str = RLIMITS,
        readable: Sequence[Path] = (),
        hidden: Path | None = None,
        groups: Groups | None = None,
        lookout: Lookout | None = None,
    ) -> None:
        self._memory_bytes, self._lookout = memory_bytes, lookout or Lookout()
        self._workplace = Workplace(work_dir, Bounds(memory_bytes, PROCESSES_MAX, cpu_percent), groups)
        self._starts = asyncio.Lock()  # a start holds up the loop for a millisecond or two: one in each turn
        self._prlimit, self._setpriv = confine.find_prlimit(), confine.find_setpriv()
        self._commands: dict[str, Command] = {}
        problems = []
        for name, path in sorted(commands.items()):
            problem = _problem_of(name, path)
            if problem:
                problems.append(f"command {name!r}: {problem}")
            else:
                self._commands[name] = Command(path, f"process:{name}@{_digest_of(path)}")
        self._sandbox: Sandbox | None = None
        if self._commands and sandbox != RLIMITS:
            self._sandbox, problem = sandboxes.find(readable, hidden)
            if problem and sandbox == BWRAP:
                problems.append(f"no command is offered: host.process.sandbox is {BWRAP!r}, but {problem}")
                self._commands.clear()
            elif problem:
                problems.append(f"commands run without a sandbox, held by limits only: {problem}")
        if self._commands and cpu_percent and not self._workplace.holds_cpu:
            problems.append(f"no command is offered: host.process.cpu_percent is {cpu_percent}, but {NO_CPU}")
            self._commands.clear()
        self._problems = tuple(problems)

    @property
    def offers(self) -> tuple[str, ...]:
        return tuple(f"process:{name}" for name in self._commands)

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    @property
    def isolation(self) -> Mapping[str, str]:
        if not self._commands:
            return {}
        return held("process", self._sandbox, self._workplace)

    async def run(self, work: Work) -> Outcome:
        """See Executor. A non-zero exit code, or minus the signal that ended it, is the program's own answer; behind
        bubblewrap a signal is 128 and its number, as a shell says it."""
        name = work.payload.process.command
        try:
            check_payload(work.payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
        except InvalidRequest as error:
            return failed("ExecutionFailed", error.message, "process")
        command = self._commands.get(name)
        if command is None:
            return failed("ExecutionFailed", f"this host does not offer the command {name!r}", "process")
        # Again, since the wrapper would answer for a program that is gone with an exit code, as if it had run.
        problem = _problem_of(name, command.path)
        if problem:
            return failed("ExecutionFailed", f"{name!r} could not be started: {problem}", command.label)
        try:
            # Not in a thread: it takes a millisecond, and a cancelled task cannot lose the folder.
            folder = self._workplace.make()
        except OSError as error:
            return failed("ExecutionFailed", f"this host has no room for the job: {error.strerror}", command.label)
        try:
            return await self._run_in(folder, command, work)
        finally:
            await asyncio.to_thread(folder.cleanup)

    def close(self) -> None:
        """Nothing is held between two runs."""

    async def _run_in(self, place: JobFolder, command: Command, work: Work) -> Outcome:
        folder = Path(place.name)
        child = Child(work.say, sandboxed=self._sandbox is not None)
        allowed = Allowed(PROCESSES_MAX, self._memory_bytes, FOLDER_BYTES_MAX)
        namespace, group = self._sandbox is not None, place.group
        watch = Watch(allowed, folder, child.too_much, namespace=namespace, group=group, lookout=self._lookout)
        with ExitStack() as held:
            held.callback(child.end_status)
            try:
                async with self._starts:
                    await asyncio.sleep(0)  # before, so that nothing that was started can be lost here
                    process = await self._start(place, command, work, child, watch, held)
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) and error.strerror else error
                return failed("ExecutionFailed", f"{command.path} could not be started: {why}", command.label)
            gets_away = None if self._sandbox and not place.group else place
            timed_out = await _until_its_end(process, child, watch, work.timeout_ms, gets_away)
        usage = child.usage(watch, place.group)
        if problem := child.problem(work.timeout_ms, place.group, timed_out=timed_out):
            return child.capture.failed(*problem, command.label, usage)
        try:
            files = await asyncio.to_thread(_files_of, folder, work)
        except TooMuchLeft as error:
            return child.capture.failed("OutputTooLarge", str(error), command.label, usage)
        return child.capture.ended(child.exited.result(), command.label, usage, tuple(files))

    async def _start(
        self, place: JobFolder, command: Command, work: Work, child: Child, watch: Watch, held: ExitStack
    ) -> Spawned:
        folder = Path(place.name)
        limits = confine.Limits(
            # Several threads burn CPU time faster than the clock; the timeout is what ends a job, this its strays.
            cpu_s=math.ceil(work.timeout_ms / 1000) * (os.cpu_count() or 1) + 1,
            memory_bytes=self._memory_bytes,
            file_bytes=FILE_BYTES_MAX,
            open_files=OPEN_FILES_MAX,
        )
        bounds = Bounds(self._memory_bytes, PROCESSES_MAX)
        argv, data = [str(command.path), *work.payload.process.args], work.payload.input
        with ExitStack() as briefly:  # our side of what is handed over: no copy of the input is held meanwhile
            stdin = briefly.enter_context(memory_file(data)) or data
            if self._sandbox is None:
                link_files(folder, work.files, held)
                argv = confine.wrapped(argv, limits, self._prlimit, dies_with_us=True, setpriv=self._setpriv)
                env = confine.environment(place.name)
                process = await spawn(child, place.joining(argv), stdin=stdin, cwd=folder, env=env, bounds=bounds)
                watch.begin(process.pid)
            else:
                filter_file, handed = self._sandbox.filter_file(), open_files(work.files, briefly)
                filter_fd = briefly.enter_context(filter_file).fileno() if filter_file else -1
                status_fd = briefly.enter_context(child.status_pipe(watch.begin))
                argv = self._sandbox.command(argv, folder, limits, status_fd, filter_fd, handed)
                fds = [fd for fd in (status_fd, filter_fd, *handed.values()) if fd >= 0]
                argv, env = place.joining(argv), confine.environment(JOB_FOLDER)
                process = await spawn(child, argv, stdin=stdin, cwd=folder, env=env, bounds=bounds, pass_fds=fds)
        child.started(process)
        return process


async def _until_its_end(
    process: Spawned, child: Child, watch: Watch, timeout_ms: int, gets_away: JobFolder | None
) -> bool:
    """Whether it was its time that ended it. Nothing of it runs any more afterwards, however this was left; `gets_away`
    is the folder of a program whose descendants may leave its group."""
    try:
        await asyncio.wait({child.exited}, timeout=timeout_ms / 1000)
        return not child.exited.done()
    finally:
        watch.end()
        process.kill()
        try:
            if gets_away is not None:
                await asyncio.to_thread(gets_away.kill_strays)
            await asyncio.wait({child.closed}, timeout=DRAIN_GRACE_S)
        finally:
            process.close()


def held(kind: str, sandbox: Sandbox | None, workplace: Workplace) -> dict[str, str]:
    """What holds work of this kind back, as it is advertised: alone, and all of a job's processes together.

    Only a sandbox holds them in their group: what runs as the node's user may write where the node may, and so leave.
    """
    alone = BWRAP if sandbox else RLIMITS if confine.POSIX else "none"
    together = (workplace.limits or WATCHED) if sandbox else confine.TOGETHER
    return {kind: alone, f"{kind}_limits": together}


def _files_of(folder: Path, work: Work) -> list[OutputFile]:
    return collect(folder, list(work.payload.outputs), frozenset(work.files))


def _problem_of(name: str, path: Path) -> str:
    """Why a listed program cannot be offered; empty when it can."""
    if not COMMAND_NAME.fullmatch(name):
        return "is not a command name: 1 to 63 of a-z 0-9 . _ -, a letter or digit first"
    if not path.is_absolute():
        return f"{path} is not an absolute path"
    if not path.is_file():
        return f"{path} does not exist or is no file"
    if not os.access(path, os.X_OK | os.R_OK):
        return f"{path} is not executable and readable by this node"
    return ""


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=LABEL_DIGEST_BYTES))
    return digest.hexdigest()

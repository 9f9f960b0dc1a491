"""Runs programs that the host's owner has listed by name: argv only, a private folder, limits, and a group to kill.

The input is standard input and never touches the disk (`stdin.py`). See confine.py for what each operating system can
hold back.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from offgrid.v1 import jobs_pb2
from offgrid_node.executors import confine
from offgrid_node.executors.capture import OUTPUT_DETAIL, Capture, failed, timeout_detail
from offgrid_node.executors.executor import LARGE_INPUT_BYTES_MAX, Outcome, Work
from offgrid_node.executors.stdin import memory_file
from offgrid_node.executors.workplace import Workplace
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.needs import COMMAND_NAME, check_payload

MEMORY_BYTES = 1024 * 1024 * 1024
FILE_BYTES_MAX = 256 * 1024 * 1024
OPEN_FILES_MAX = 256
LABEL_DIGEST_BYTES = 6
STDERR = 2
# How long to wait for the streams to end once the group is dead: only a descendant that left the group holds them.
DRAIN_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """A listed program; `label` names its bytes, so that a receipt says what ran."""

    path: Path
    label: str


class ProcessExecutor:
    """An Executor of process payloads.

    `commands` maps names to absolute paths. Those that cannot be offered are said in `problems`, one sentence each;
    the rest are offered as "process:<name>". `memory_bytes` bounds each process's address space (POSIX). Jobs have
    their folders below `work_dir`, which must be this executor's alone: it is emptied here, and what an earlier life
    left running there is killed (Linux). Raises OSError when that folder cannot be made.
    """

    def __init__(
        self, commands: Mapping[str, Path], *, work_dir: Path | None = None, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._memory_bytes = memory_bytes
        self._workplace = Workplace(work_dir)
        self._prlimit, self._setpriv = confine.find_prlimit(), confine.find_setpriv()
        self._commands: dict[str, Command] = {}
        problems = []
        for name, path in sorted(commands.items()):
            problem = _problem_of(name, path)
            if problem:
                problems.append(f"command {name!r}: {problem}")
            else:
                self._commands[name] = Command(path, f"process:{name}@{_digest_of(path)}")
        self._problems = tuple(problems)

    @property
    def offers(self) -> tuple[str, ...]:
        return tuple(f"process:{name}" for name in self._commands)

    @property
    def problems(self) -> tuple[str, ...]:
        return self._problems

    @property
    def isolation(self) -> Mapping[str, str]:
        return {"process": "rlimits" if confine.POSIX else "none"}

    async def run(self, work: Work) -> Outcome:
        """See Executor. A non-zero exit code, or minus the signal that ended it, is the program's own answer."""
        payload, name = work.payload, work.payload.process.command
        try:
            check_payload(payload, input_bytes_max=LARGE_INPUT_BYTES_MAX)
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
            argv = [str(command.path), *payload.process.args]
            return await self._run_in(Path(folder.name), argv, payload, command.label, work.timeout_ms)
        finally:
            await asyncio.to_thread(folder.cleanup)

    def close(self) -> None:
        """Nothing is held between two runs."""

    async def _run_in(
        self, folder: Path, argv: list[str], payload: jobs_pb2.JobPayload, label: str, timeout_ms: int
    ) -> Outcome:
        limits = confine.Limits(
            # Several threads burn CPU time faster than the clock; the timeout is what ends a job, this its strays.
            cpu_s=math.ceil(timeout_ms / 1000) * (os.cpu_count() or 1) + 1,
            memory_bytes=self._memory_bytes,
            file_bytes=FILE_BYTES_MAX,
            open_files=OPEN_FILES_MAX,
        )
        loop = asyncio.get_running_loop()
        try:
            with memory_file(payload.input) as stdin:  # no copy of it is held while the program runs
                transport, child = await loop.subprocess_exec(
                    lambda: Child(loop),
                    *confine.wrapped(argv, limits, self._prlimit, dies_with_us=True, setpriv=self._setpriv),
                    stdin=stdin or asyncio.subprocess.PIPE,
                    cwd=folder,
                    env=confine.environment(str(folder)),
                    start_new_session=True,
                    creationflags=confine.creation_flags(),
                )
                if stdin is None:
                    feed(transport, payload.input)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            return failed("ExecutionFailed", f"{argv[0]} could not be started: {why}", label)
        try:
            await asyncio.wait({child.exited}, timeout=timeout_ms / 1000)
            timed_out = not child.exited.done()
        finally:
            child.kill()
            try:
                await asyncio.wait({child.closed}, timeout=DRAIN_GRACE_S)
            finally:
                transport.close()
        if child.too_loud:
            return child.capture.failed("OutputTooLarge", OUTPUT_DETAIL, label)
        if timed_out:
            return child.capture.failed("JobTimeout", timeout_detail(timeout_ms), label)
        return child.capture.ended(child.exited.result(), label)


def feed(transport: asyncio.SubprocessTransport, data: bytes) -> None:
    """Writes the whole input into the program's pipe, as it reads; a program that does not read it is fine."""
    pipe = transport.get_pipe_transport(0)
    assert isinstance(pipe, asyncio.WriteTransport)
    pipe.write(data)
    pipe.close()


class Child(asyncio.SubprocessProtocol):
    """What a program writes, up to the bounds, and its end.

    `exited` carries the exit code; `closed` is done when nobody holds the streams any more. (asyncio's own `wait()`
    returns only then, so that a stray in the background would hold up its parent's result.)
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.capture = Capture()
        self.too_loud = False
        self.exited: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._transport: asyncio.SubprocessTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == STDERR:
            self.capture.write_log(data)
        elif not self.capture.write_output(data):
            self.too_loud = True
            self.kill()

    def process_exited(self) -> None:
        assert self._transport is not None
        self.exited.set_result(self._transport.get_returncode() or 0)
        # What it left running in its group goes with it. At once, while its id cannot yet be another's.
        confine.kill_tree(self._transport.get_pid())

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def kill(self) -> None:
        """Kills it and all of its group, unless it has ended and `process_exited` has done so."""
        if self._transport is not None and not self.exited.done():
            confine.kill_tree(self._transport.get_pid())


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

"""Starts a program and follows it to its end: the other seam between POSIX and Windows.

POSIX: a plain fork whose pipes the loop reads. Its end is awaited by a handle where there is one (Linux), so that the
group is killed before its number can be another's, and so that what it has used is known (wait4(2)). Windows: asyncio's
own, within a job object (job_object.py).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from offgrid_node.executors import confine
from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.job_object import CREATE_SUSPENDED, JobObject

STDOUT, STDERR = 1, 2
READ_BYTES = 64 * 1024
# What is made of a program's words takes the loop's time, which is everybody's: after so much of it, the program is not
# heard for REST times as long, and waits once its pipe is full. Words of a few bytes each would take all of it.
SPENT_S, REST = 0.005, 7


class Heard(Protocol):
    """Who is told of a program: in the loop's thread, `on_exit` once, `on_closed` once nobody holds its streams."""

    def on_data(self, stream: int, data: bytes) -> None: ...

    def on_exit(self, code: int, cpu_us: int, memory_peak_bytes: int) -> None: ...

    def on_closed(self) -> None: ...


class Spawned(Protocol):
    """A program under way, or one that has ended."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None:
        """Kills it and all of its group, unless it has ended: what is left of its group was killed then."""
        ...

    def close(self) -> None:
        """Gives its streams up, whoever still holds their other ends."""
        ...

    def end(self) -> None:
        """Kills it, waits for the moment that this takes, and closes: for a loop that is about to end."""
        ...


async def spawn(
    heard: Heard,
    argv: Sequence[str],
    *,
    stdin: BinaryIO | bytes,
    cwd: Path,
    env: Mapping[str, str],
    bounds: Bounds,
    pass_fds: Sequence[int] = (),
) -> Spawned:
    """`stdin` is a file to be read from where it stands, or the bytes themselves. `bounds` are held here on Windows
    alone. Raises OSError or ValueError when it cannot be started."""
    if sys.platform == "win32":
        return await _WindowsChild.start(heard, argv, stdin, cwd, env, bounds)
    child = PosixChild(heard, argv, stdin, cwd, env, pass_fds)
    if isinstance(stdin, bytes):
        await child.feed(stdin)
    return child


async def spawn_fed(
    heard: Heard,
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    bounds: Bounds,
    pass_fds: Sequence[int] = (),
) -> tuple[Spawned, asyncio.WriteTransport]:
    """The same for a program that is written to all its life; what to write to is the caller's to close."""
    loop = asyncio.get_running_loop()
    if sys.platform == "win32":
        child = await _WindowsChild.start(heard, argv, None, cwd, env, bounds)
        return child, child.stdin
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stdin:
        # The transport closes the file; it notices at once when nobody reads any more.
        transport, _ = await loop.connect_write_pipe(asyncio.Protocol, os.fdopen(writing, "wb"))
        assert isinstance(transport, asyncio.WriteTransport)
        try:
            return PosixChild(heard, argv, stdin, cwd, env, pass_fds), transport
        except BaseException:
            transport.abort()
            raise


class PosixChild:
    def __init__(
        self,
        heard: Heard,
        argv: Sequence[str],
        stdin: BinaryIO | bytes,
        cwd: Path,
        env: Mapping[str, str],
        pass_fds: Sequence[int],
    ) -> None:
        self._heard, self._loop = heard, asyncio.get_running_loop()
        self._popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=env,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self.pid = self._popen.pid
        self._feed: _Feed | None = None
        self._exited = False
        self._handle = -1
        # On Linux a program starts with the peak of the process that it was forked from, up to the exec.
        self._inherited_bytes = _own_peak_bytes()
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._open = {STDOUT: self._popen.stdout, STDERR: self._popen.stderr}
        self._spent_s = 0.0
        for pipe in self._open.values():
            confine.never_block(pipe.fileno())
        self._listen()
        self._await_exit()

    async def feed(self, data: bytes) -> None:
        """Writes the whole input into the program's pipe, as it reads; a program that does not read it is fine."""
        transport, feed = await self._loop.connect_write_pipe(_Feed, self._popen.stdin)
        assert isinstance(transport, asyncio.WriteTransport)
        assert isinstance(feed, _Feed)
        self._feed = feed
        feed.transport = transport
        transport.write(data)
        transport.close()

    def kill(self) -> None:
        if not self._exited:
            confine.kill_tree(self.pid)

    def end(self) -> None:
        self.kill()
        if self._handle >= 0:  # elsewhere a thread waits for it
            self._on_handle()
        self.close()

    def close(self) -> None:
        if self._feed is not None:
            self._feed.abort()
        for stream in tuple(self._open):
            self._close(stream)

    def _readable(self, stream: int) -> None:
        try:
            data = os.read(self._open[stream].fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(stream)
            return
        began_s = time.thread_time()
        self._heard.on_data(stream, data)
        self._spent_s += time.thread_time() - began_s
        if self._spent_s > SPENT_S and not self._exited:
            self._rest()

    def _listen(self) -> None:
        for stream, pipe in self._open.items():
            self._loop.add_reader(pipe.fileno(), self._readable, stream)

    def _rest(self) -> None:
        for pipe in self._open.values():
            self._loop.remove_reader(pipe.fileno())
        self._loop.call_later(REST * self._spent_s, self._listen)
        self._spent_s = 0.0

    def _close(self, stream: int) -> None:
        pipe = self._open.pop(stream, None)
        if pipe is not None:
            self._loop.remove_reader(pipe.fileno())
            pipe.close()
        if not self._open and pipe is not None:
            self._heard.on_closed()

    def _await_exit(self) -> None:
        if sys.platform == "linux":
            try:
                self._handle = os.pidfd_open(self.pid)
            except OSError:  # a kernel before 5.3
                pass
            else:
                self._loop.add_reader(self._handle, self._on_handle)
                return
        threading.Thread(target=self._wait, daemon=True, name=f"wait-{self.pid}").start()

    def _on_handle(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._handle = -1
        confine.kill_tree(self.pid)  # what it left in its group; until it is waited for, the number is its own
        self._ended(*self._reap())

    def _wait(self) -> None:
        """In a thread, where there is no handle."""
        status = self._reap()
        self._loop.call_soon_threadsafe(self._ended, *status)

    def _reap(self) -> tuple[int, int, int]:
        if sys.platform == "win32":
            return -1, 0, 0
        try:
            _, status, used = os.wait4(self.pid, 0)
        except ChildProcessError:  # somebody has waited for all children
            return -1, 0, 0
        peak_bytes = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        cpu_us = round((used.ru_utime + used.ru_stime) * 1e6)
        return os.waitstatus_to_exitcode(status), cpu_us, peak_bytes if peak_bytes > self._inherited_bytes else 0

    def _ended(self, code: int, cpu_us: int, peak_bytes: int) -> None:
        self._exited = True
        self._popen.returncode = code
        if sys.platform != "linux":
            confine.kill_tree(self.pid)
        self._listen()  # what it has left in its pipes is all that comes
        self._heard.on_exit(code, cpu_us, peak_bytes)


class _Feed(asyncio.Protocol):
    """The pipe that a program reads its input from, where that is no file."""

    transport: asyncio.WriteTransport | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()


def _own_peak_bytes() -> int:
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 0 if sys.platform == "darwin" else peak * 1024


class _WindowsChild(asyncio.SubprocessProtocol):
    """The same by asyncio's own means."""

    def __init__(self, heard: Heard, job: JobObject) -> None:
        self._heard, self._job = heard, job
        self._transport: asyncio.SubprocessTransport | None = None
        self._exited = False

    @classmethod
    async def start(
        cls,
        heard: Heard,
        argv: Sequence[str],
        stdin: BinaryIO | bytes | None,
        cwd: Path,
        env: Mapping[str, str],
        bounds: Bounds,
    ) -> _WindowsChild:
        """Without `stdin` there is a pipe to write to, see `stdin`."""
        job = JobObject(bounds)
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(heard, job),
                *argv,
                stdin=asyncio.subprocess.PIPE if stdin is None or isinstance(stdin, bytes) else stdin,
                cwd=cwd,
                env=env,
                creationflags=CREATE_SUSPENDED | confine.creation_flags(),
            )
            try:
                job.take_in(int(child._whole.get_extra_info("subprocess")._handle))
            except BaseException:
                child._whole.kill()
                raise
        except BaseException:
            job.close()
            raise
        if isinstance(stdin, bytes):
            child.stdin.write(stdin)
            child.stdin.close()
        return child

    @property
    def stdin(self) -> asyncio.WriteTransport:
        pipe = self._whole.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        return pipe

    @property
    def _whole(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None
        return self._transport

    @property
    def pid(self) -> int:
        return self._whole.get_pid()

    def kill(self) -> None:
        if not self._exited:
            self._job.kill()

    def end(self) -> None:
        self.kill()
        self.close()

    def close(self) -> None:
        self._whole.close()
        self._job.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._heard.on_data(fd, data)

    def process_exited(self) -> None:
        self._exited = True
        self._job.kill()  # what it left running
        try:
            used = self._job.used()
        except OSError:  # closed meanwhile
            used = 0, 0
        self._heard.on_exit(self._whole.get_returncode() or 0, *used)

    def connection_lost(self, exc: Exception | None) -> None:
        self._heard.on_closed()

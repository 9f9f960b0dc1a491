"""One warm process that calls functions (`python_worker.py`), seen from the host's loop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from offgrid_node.executors import confine
from offgrid_node.executors.capture import Capture
from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.executor import OUTPUT_BYTES_MAX, Progress, Work, well_formed
from offgrid_node.executors.spawn import STDERR, Spawned, spawn_fed
from offgrid_node.executors.workplace import JobFolder

HEAD = struct.Struct(">cI")
SIZES = struct.Struct(">IIII")
STATUS_BYTES_MAX = 4096
CHILD_PID = re.compile(rb'"child-pid": (\d{1,9})')  # of bubblewrap's --json-status-fd
SAID_BYTES_MAX = 64 * 1024  # of JSON in one frame: read at once, in the node's loop, and ten times as large when it is
FRAME_BYTES_MAX = {b"H": SAID_BYTES_MAX, b"P": SAID_BYTES_MAX, b"E": OUTPUT_BYTES_MAX + SAID_BYTES_MAX}
# How long to wait for the last of a job's log once it has ended: it was written before the end was said.
LOG_GRACE_S = 1.0


class Ended(msgspec.Struct, frozen=True):
    """How a call ended: what the worker says of it, and the output."""

    said: Mapping[str, Any]
    output: bytes


class Call:
    """A call under way. `ended` is done when the worker has answered, `log_ended` when all that it printed is here."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Work) -> None:
        self.capture = Capture(work.say)
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self.log_ended: asyncio.Future[None] = loop.create_future()
        self.log_end = secrets.token_hex(16)
        self._work = work
        self._mark = self.log_end.encode() + b"\n"
        self._held = b""

    def on_log(self, data: bytes) -> None:
        """What might be the beginning of the mark is held back until it is known."""
        if self.log_ended.done():
            return
        data = self._held + data
        log, mark, _ = data.partition(self._mark)
        if mark:
            self.log_ended.set_result(None)
            self._held = b""
        else:
            kept = next(
                (n for n in range(min(len(data), len(self._mark) - 1), 0, -1) if self._mark.startswith(data[-n:])), 0
            )
            log, self._held = data[: len(data) - kept], data[len(data) - kept :]
        if log:
            self.capture.write_log(log)

    def on_progress(self, said: Mapping[str, Any]) -> None:
        fraction, message = said.get("fraction"), said.get("message")
        number = float(fraction) if isinstance(fraction, int | float) and 0 <= fraction <= 1 else None
        self._work.say(Progress(fraction=number, message=well_formed(message) if isinstance(message, str) else ""))


class WorkerProcess:
    """The process, its folder, and the call that it is at. Whatever it says is a stranger's: nothing of it is believed
    beyond its own job.

    `ready` is done with its first word, `exited` carries its exit code, `closed` is done when nobody holds its streams.
    """

    def __init__(self, folder: JobFolder) -> None:
        self.folder = folder
        self.owner = ""  # whose functions it has called: it is nobody else's from then on
        self.served = 0
        self.fault = ""
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[Mapping[str, Any]] = self._loop.create_future()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.closed: asyncio.Future[None] = self._loop.create_future()
        self._process: Spawned | None = None
        self._requests: asyncio.WriteTransport | None = None
        self._buffer = bytearray()
        self._call: Call | None = None
        self._status_fd, self._inner_pid = -1, 0

    async def start(
        self, argv: Sequence[str], home: str, pass_fds: Sequence[int], status_fd: int, bounds: Bounds
    ) -> None:
        """`home` is its folder as it sees it; `status_fd`, which stays the caller's, is where its sandbox tells of what
        is inside, -1 without one; `bounds` are Windows' to hold. Raises OSError or ValueError."""
        self._status_fd = os.dup(status_fd) if status_fd >= 0 else -1
        cwd, environment = Path(self.folder.name), confine.environment(home)
        self._process, self._requests = await spawn_fed(
            self, argv, cwd=cwd, env=environment, pass_fds=pass_fds, bounds=bounds
        )

    @property
    def alive(self) -> bool:
        return not self.exited.done() and not self.fault

    @property
    def watched_pid(self) -> int:
        """The process to be watched: the first inside the sandbox, once it is ready, or the process itself; 0: not
        known."""
        assert self._process is not None
        if self._status_fd < 0:
            return self._process.pid
        if not self._inner_pid:
            found = CHILD_PID.search(os.read(self._status_fd, STATUS_BYTES_MAX))
            self._inner_pid = int(found[1]) if found else 0
        return self._inner_pid

    def begin(self, work: Work, settings: Mapping[str, Any], function: bytes, call: bytes) -> Call:
        """Sends one call, with the files that the job brings. It is at one at a time."""
        assert self._requests is not None
        begun = self._call = Call(self._loop, work)
        files = [(name, len(data)) for name, data in work.files.items()]
        head = json.dumps({**settings, "log_end": begun.log_end, "files": files}).encode()
        brought = b"".join(work.files.values())
        sizes = SIZES.pack(len(head), len(function), len(call), len(brought))
        self._requests.writelines([sizes + head, function, call, brought])
        self.served += 1
        return begun

    def finish(self) -> None:
        self._call = None

    def too_much(self, detail: str) -> None:
        """It goes over a bound: it ends, and that is why."""
        self.fault = self.fault or detail
        self.kill()

    def kill(self) -> None:
        """Kills it and its group, unless it has ended."""
        if self._process is not None:
            self._process.kill()

    async def gone(self, timeout_s: float) -> None:
        """After `kill`: waits until it is, and takes its streams away from whoever still holds them."""
        ends: set[asyncio.Future[Any]] = {self.closed, self.exited}
        try:
            await asyncio.wait(ends, timeout=timeout_s)
        finally:
            self.abandon()

    def end(self) -> None:
        """Kills it and waits for the moment that this takes."""
        if self._process is not None:
            self._process.end()
        self.abandon()

    def abandon(self) -> None:
        """Gives its streams up. Twice is harmless."""
        if self._requests is not None and not self._requests.is_closing():
            self._requests.abort()
        if self._process is not None:
            self._process.close()
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    # ---- Heard, see spawn.py

    def on_data(self, stream: int, data: bytes) -> None:
        if stream == STDERR:
            if self._call is not None:
                self._call.on_log(data)
            return
        self._buffer += data
        try:
            self._take_frames()
        except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
            self._buffer.clear()
            self.too_much(f"its process says what is no answer: {error}")

    def on_exit(self, code: int, cpu_us: int, memory_peak_bytes: int) -> None:
        self.exited.set_result(code)

    def on_closed(self) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _take_frames(self) -> None:
        while len(self._buffer) >= HEAD.size:
            letter, size = HEAD.unpack_from(self._buffer)
            if size > FRAME_BYTES_MAX.get(letter, 0):
                raise ValueError(f"{size} bytes at once in a frame {letter!r}")
            if len(self._buffer) < HEAD.size + size:
                return
            data = bytes(memoryview(self._buffer)[HEAD.size : HEAD.size + size])
            del self._buffer[: HEAD.size + size]
            self._take(letter, data)

    def _take(self, letter: bytes, data: bytes) -> None:
        call = self._call
        if letter == b"H" and not self.ready.done():
            self.ready.set_result(_object(data))
        elif letter == b"P" and call is not None:
            call.on_progress(_object(data))
        elif letter == b"E" and call is not None and not call.ended.done():
            said, _, output = data.partition(b"\n")
            call.ended.set_result(Ended(_object(said), output))


def _object(data: bytes) -> dict[str, Any]:
    if len(data) > SAID_BYTES_MAX:
        raise ValueError(f"{len(data)} bytes of JSON")
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value

"""One warm process that calls functions (`python_worker.py`), seen from the host's loop."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offgrid_node.executors import confine
from offgrid_node.executors.capture import Capture
from offgrid_node.executors.executor import OUTPUT_BYTES_MAX, Progress, Work

HEAD = struct.Struct(">cI")
SIZES = struct.Struct(">IIII")
STATUS_BYTES_MAX = 4096
CHILD_PID = re.compile(rb'"child-pid": (\d{1,9})')  # of bubblewrap's --json-status-fd
FRAME_BYTES_MAX = OUTPUT_BYTES_MAX + 64 * 1024  # an output with what is said of it
STDERR = 2
# How long to wait for the last of a job's log once it has ended: it was written before the end was said.
LOG_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Ended:
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
        number = float(fraction) if isinstance(fraction, int | float) else None
        self._work.say(Progress(fraction=number, message=message if isinstance(message, str) else ""))


class WorkerProcess(asyncio.SubprocessProtocol):
    """The process, its folder, and the call that it is at. Whatever it says is a stranger's: nothing of it is believed
    beyond its own job.

    `ready` is done with its first word, `exited` carries its exit code, `closed` is done when nobody holds its streams.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, folder: tempfile.TemporaryDirectory[str], status_fd: int = -1
    ) -> None:
        """`status_fd` is where its sandbox tells of what is inside; -1 without one."""
        self.folder, self._status_fd = folder, status_fd
        self.owner = ""  # whose functions it has called: it is nobody else's from then on
        self.served = 0
        self._inner_pid = 0
        self.fault = ""
        self.ready: asyncio.Future[Mapping[str, Any]] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._transport: asyncio.SubprocessTransport | None = None
        self._buffer = bytearray()
        self._call: Call | None = None

    @property
    def alive(self) -> bool:
        return not self.exited.done() and not self.fault

    def begin(self, work: Work, settings: Mapping[str, Any], function: bytes, call: bytes) -> Call:
        """Sends one call, with the files that the job brings. It is at one at a time."""
        assert self._transport is not None
        begun = self._call = Call(self._loop, work)
        files = [(name, len(data)) for name, data in work.files.items()]
        head = json.dumps({**settings, "log_end": begun.log_end, "files": files}).encode()
        brought = b"".join(work.files.values())
        pipe = self._transport.get_pipe_transport(0)
        assert isinstance(pipe, asyncio.WriteTransport)
        sizes = SIZES.pack(len(head), len(function), len(call), len(brought))
        pipe.writelines([sizes + head, function, call, brought])
        self.served += 1
        return begun

    @property
    def watched_pid(self) -> int:
        """The process to be watched: the first inside the sandbox, once it is ready, or the process itself; 0: not
        known."""
        assert self._transport is not None
        if self._status_fd < 0:
            return self._transport.get_pid()
        if not self._inner_pid:
            found = CHILD_PID.search(os.read(self._status_fd, STATUS_BYTES_MAX))
            self._inner_pid = int(found[1]) if found else 0
        return self._inner_pid

    def finish(self) -> None:
        self._call = None

    def too_much(self, detail: str) -> None:
        """It goes over a bound: it ends, and that is why."""
        self.fault = self.fault or detail
        self.kill()

    def kill(self) -> None:
        """Kills it and its group, unless it has ended and `process_exited` has done so."""
        if self._transport is not None and not self.exited.done():
            confine.kill_tree(self._transport.get_pid())

    async def gone(self, timeout_s: float) -> None:
        """After `kill`: waits until it is, and takes its streams away from whoever still holds them."""
        try:
            await asyncio.wait({self.closed}, timeout=timeout_s)
        finally:
            self.abandon()

    def abandon(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    # ---- asyncio.SubprocessProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == STDERR:
            if self._call is not None:
                self._call.on_log(data)
            return
        self._buffer += data
        try:
            self._take_frames()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.fault = f"its process says what is no answer: {error}"
            self._buffer.clear()
            self.kill()

    def process_exited(self) -> None:
        assert self._transport is not None
        self.exited.set_result(self._transport.get_returncode() or 0)
        # What it left running in its group goes with it. At once, while its id cannot yet be another's.
        confine.kill_tree(self._transport.get_pid())

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set_result(None)

    def _take_frames(self) -> None:
        while len(self._buffer) >= HEAD.size:
            letter, size = HEAD.unpack_from(self._buffer)
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"{size} bytes at once")
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
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value

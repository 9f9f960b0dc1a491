"""A program under way as its job sees it: what it writes, how it ends, what went over a bound."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from offgrid_node.executors import confine
from offgrid_node.executors.capture import OUTPUT_DETAIL, Capture, timeout_detail
from offgrid_node.executors.cgroups import Group
from offgrid_node.executors.executor import Progress, Usage
from offgrid_node.executors.spawn import STDERR, Spawned
from offgrid_node.executors.watch import Watch

# How long to wait for the streams to end once the group is dead: only a descendant that left the group holds them.
DRAIN_GRACE_S = 1.0
STATUS_BYTES_MAX = 4096
CHILD_PID = re.compile(rb'"child-pid": (\d{1,9}),')


class Child:
    """A Heard. `exited` carries the exit code; `closed` is done when nobody holds the streams any more: a stray in the
    background must not hold up its parent's result."""

    def __init__(self, say: Callable[[Progress], None], *, sandboxed: bool) -> None:
        loop = asyncio.get_running_loop()
        self.capture = Capture(say)
        self.exited: asyncio.Future[int] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self._process: Spawned | None = None
        self._sandboxed, self._status, self._status_fd = sandboxed, b"", -1
        self._begun: Callable[[int], None] | None = None
        self._excess: tuple[str, str] | None = None
        self._cpu_us = self._peak_bytes = 0

    def started(self, process: Spawned) -> None:
        self._process = process
        if self._excess is not None:
            process.kill()

    def too_much(self, detail: str, error: str = "ExecutionFailed") -> None:
        """It goes over a bound: it ends, and that is why."""
        if self._excess is None and not self.exited.done():
            self._excess = error, detail
        if self._process is not None:
            self._process.kill()

    def problem(self, timeout_ms: int, group: Group | None, *, timed_out: bool) -> tuple[str, str] | None:
        """Error and detail when it did not come to its own end, once it has ended."""
        if self._excess is not None:
            return self._excess
        if group is not None and (over := group.over()):
            return "ExecutionFailed", over
        if timed_out:
            return "JobTimeout", timeout_detail(timeout_ms)
        if group is not None and not group.cpu_us():
            return "ExecutionFailed", "it could not be put into its control group; its log says why"
        if self._sandboxed and b'"exit-code"' not in self._status:
            return "ExecutionFailed", "the sandbox could not start it; its log says why"
        return None

    def usage(self, watch: Watch, group: Group | None) -> Usage:
        """As the kernel counted it for the group, or for the process, or as it was seen while it ran: bubblewrap does
        not wait for what is inside."""
        cpu_us = group.cpu_us() if group is not None else max(self._cpu_us, watch.cpu_us)
        memory_bytes = group.memory_peak_bytes() if group is not None else 0
        return Usage(cpu_us, memory_bytes or max(self._peak_bytes, watch.memory_peak_bytes))

    @contextmanager
    def status_pipe(self, begun: Callable[[int], None]) -> Iterator[int]:
        """Where bubblewrap tells of its child. To be held open until it has been started: `begun` gets the number of
        the first process inside."""
        reading, writing = os.pipe()
        confine.never_block(reading)
        self._begun, self._status_fd = begun, reading
        asyncio.get_running_loop().add_reader(reading, self._read_status)
        try:
            yield writing
        finally:
            os.close(writing)

    def _read_status(self) -> None:
        """As far as it has been told; closed at its end."""
        data = b""
        try:
            data = os.read(self._status_fd, STATUS_BYTES_MAX)
        except BlockingIOError:
            return
        if not data or len(self._status) > STATUS_BYTES_MAX:
            self._close_status()
            return
        self._status += data
        found = CHILD_PID.search(self._status)  # it is written piece by piece
        if found is not None and self._begun is not None:
            begun, self._begun = self._begun, None
            begun(int(found[1]))

    def end_status(self) -> None:
        """To be called once it has ended: takes what is still to be read, and closes."""
        self._begun = None
        if self._status_fd >= 0:
            self._read_status()
        self._close_status()

    def _close_status(self) -> None:
        if self._status_fd >= 0:
            asyncio.get_running_loop().remove_reader(self._status_fd)
            os.close(self._status_fd)
            self._status_fd = -1

    # ---- Heard

    def on_data(self, stream: int, data: bytes) -> None:
        if stream == STDERR:
            self.capture.write_log(data)
        elif not self.capture.write_output(data):
            self.too_much(OUTPUT_DETAIL, "OutputTooLarge")

    def on_exit(self, code: int, cpu_us: int, memory_peak_bytes: int) -> None:
        self._cpu_us, self._peak_bytes = cpu_us, memory_peak_bytes
        self.exited.set_result(code)

    def on_closed(self) -> None:
        self.closed.set_result(None)

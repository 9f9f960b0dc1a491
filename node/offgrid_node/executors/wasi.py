"""The part of WASI preview 1 that a job may touch: its standard streams, the clocks, sleep, and its folder.

wasmtime's own implementation serves the rest (arguments, an empty environment, random numbers, exit). Files are served
from memory (`wasi_files.py`). The functions here stand in for wasmtime's own, because that one (a) blocks in
`poll_oneoff` where neither deadline nor cancellation can reach it, (b) hands output to Python from foreign threads,
4 kB at a time, ten times slower and able to abort the interpreter at exit, and (c) can read input from files only.

Layouts: https://github.com/WebAssembly/WASI/blob/wasi-0.1/preview1/docs.md
"""

from __future__ import annotations

import ctypes
import struct
import threading
import time
from collections.abc import Callable, Iterator

from wasmtime import Linker

from offgrid_node.executors import host_calls
from offgrid_node.executors.capture import OUTPUT_DETAIL, Capture
from offgrid_node.executors.executor import Progress, say_nothing
from offgrid_node.executors.memory_folder import FolderError, MemoryFolder
from offgrid_node.executors.wasi_files import ERRNO, Descriptors, FileFunctions

WASI = "wasi_snapshot_preview1"
VECTORS_MAX = 1024
PIECE_BYTES = 64 * 1024  # copied at a time: what a module hands over may be all of its memory, many times
SUBSCRIPTIONS_MAX = 64

SUCCESS, EFAULT, EINVAL, EIO = 0, 21, 28, 29
CLOCK_REALTIME = 0
EVENT_CLOCK = 0  # the other kinds wait for a stream, which ours never need
ABSOLUTE = 1

VECTOR = struct.Struct("<II")
SUBSCRIPTION = struct.Struct("<QB7xI4xQQH6x")
EVENT = struct.Struct("<QHB5xQH6x")


class Run:
    """One execution: its streams, and the way to stop it from another thread."""

    def __init__(
        self, stdin: bytes, say: Callable[[Progress], None] = say_nothing, folder: MemoryFolder | None = None
    ) -> None:
        """With a `folder` it has files, below "/"."""
        self.capture = Capture(say)
        self._files = Descriptors(folder) if folder is not None else None
        self.stopped = threading.Event()
        self.error = ""
        self.error_detail = ""
        self._stdin = stdin
        self._stdin_at = 0
        self._memory: host_calls.Exported | None = None
        self._interrupt: Callable[[], None] | None = None
        self._lock = threading.Lock()

    def begin(self, interrupt: Callable[[], None]) -> None:
        """From here on `stop` calls `interrupt`, once, to end what runs now. Check `stopped` afterwards."""
        with self._lock:
            self._interrupt = interrupt

    def end(self) -> None:
        """That is over: what `interrupt` would hit is another's from here on."""
        with self._lock:
            self._interrupt = None

    def stop(self, error: str, detail: str) -> None:
        """Ends the work soon; the first reason given is the one that counts."""
        with self._lock:
            if self.stopped.is_set():
                return
            self.error, self.error_detail = error, detail
            self.stopped.set()
            if self._interrupt is not None:
                self._interrupt()

    def memory(self, caller: int) -> host_calls.Exported:
        """What its module exports, looked up once. Raises IndexError."""
        if self._memory is None:
            self._memory = host_calls.Exported.of(caller)
            if self._memory is None:
                raise IndexError("the module exports no memory")
        return self._memory

    @property
    def open_files(self) -> Descriptors:
        """Raises FolderError (EBADF) for a run that has no folder."""
        if self._files is None:
            raise FolderError("EBADF")
        return self._files

    def read_stdin(self, count: int) -> bytes:
        data = self._stdin[self._stdin_at : self._stdin_at + count]
        self._stdin_at += len(data)
        return data

    def write(self, fd: int, data: bytes) -> int:
        """Returns a WASI errno."""
        if fd == 2:
            self.capture.write_log(data)
        elif not self.capture.write_output(data):
            self.stop("OutputTooLarge", OUTPUT_DETAIL)
            return EIO
        return SUCCESS


class GuestMemory:
    """The caller's linear memory; every access is checked against its present size. Raises IndexError."""

    def __init__(self, run: Run, caller: int) -> None:
        self._run = run
        self._base, self._bytes = run.memory(caller).bounds(caller)

    def _address(self, pointer: int, count: int) -> int:
        if pointer + count > self._bytes:
            raise IndexError(f"{count} bytes at {pointer} lie outside the memory")
        return self._base + pointer

    def read(self, pointer: int, count: int) -> bytes:
        return ctypes.string_at(self._address(pointer, count), count)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(self._address(pointer, len(data)), data, len(data))

    def vectors(self, pointer: int, count: int) -> list[tuple[int, int]]:
        """The (pointer, length) pairs of an iovec array, each inside the memory."""
        if count > VECTORS_MAX:
            raise IndexError(f"{count} vectors, at most {VECTORS_MAX} allowed")
        pairs = list(VECTOR.iter_unpack(self.read(pointer, VECTOR.size * count)))
        for start, length in pairs:
            self._address(start, length)
        return pairs

    def pieces(self, pointer: int, count: int) -> Iterator[tuple[int, int]]:
        """The same, none longer than PIECE_BYTES. Ends early when the run is stopped."""
        for start, length in self.vectors(pointer, count):
            for at in range(0, max(1, length), PIECE_BYTES):
                if self._run.stopped.is_set():
                    return
                yield start + at, min(PIECE_BYTES, length - at)


class HostFunctions:
    """Our functions, for whatever Run is current. One per engine; only that engine's thread calls them."""

    def __init__(self, linker: Linker, *, with_files: bool) -> None:
        """Without files, wasmtime's own functions answer that there are none: six times as many take a millisecond."""
        self.current: Run | None = None
        linker.allow_shadowing = True
        linker.define_wasi()
        self._held = [
            host_calls.define(linker, WASI, name, kinds, self._guarded(function))
            for name, kinds, function in (
                ("fd_read", "iiii", self._fd_read),
                ("fd_write", "iiii", self._fd_write),
                ("clock_time_get", "iqi", self._clock_time_get),
                ("poll_oneoff", "iiii", self._poll_oneoff),
                ("sched_yield", "", self._sched_yield),
            )
        ]
        for name, kinds, handler in FileFunctions.table() if with_files else ():
            self._held.append(host_calls.define(linker, WASI, name, kinds, self._guarded(_on_files(handler))))

    def _guarded(self, function: Callable[..., int]) -> Callable[..., int]:
        """Nothing may be raised into the module's frames."""

        def call(caller: int, *arguments: int) -> int:
            run = self.current
            if run is None:
                return EIO
            try:
                return function(run, caller, *arguments)
            except IndexError:
                return EFAULT
            except FolderError as error:
                return ERRNO[error.errno]
            except Exception as error:  # noqa: BLE001  see above; the run itself reports it
                run.stop("ExecutionFailed", f"host function failed: {type(error).__name__}: {error}")
                return EIO

        return call

    def _fd_read(self, run: Run, caller: int, fd: int, vectors: int, count: int, result: int) -> int:
        memory = GuestMemory(run, caller)
        total = 0
        for pointer, length in memory.pieces(vectors, count):
            data = run.read_stdin(length) if fd == 0 else run.open_files.read(fd, length)
            memory.write(pointer, data)
            total += len(data)
            if len(data) < length:
                break
        memory.write(result, total.to_bytes(4, "little"))
        return SUCCESS

    def _fd_write(self, run: Run, caller: int, fd: int, vectors: int, count: int, result: int) -> int:
        memory = GuestMemory(run, caller)
        total = 0
        for pointer, length in memory.pieces(vectors, count):
            if fd in (1, 2):
                errno = run.write(fd, memory.read(pointer, length))
                if errno != SUCCESS:
                    return errno
            else:
                run.open_files.write(fd, memory.read(pointer, length))
            total += length
        memory.write(result, total.to_bytes(4, "little"))
        return SUCCESS

    def _clock_time_get(self, run: Run, caller: int, clock: int, precision: int, result: int) -> int:
        GuestMemory(run, caller).write(result, _clock_ns(clock).to_bytes(8, "little"))
        return SUCCESS

    def _sched_yield(self, run: Run, caller: int) -> int:
        return SUCCESS

    def _poll_oneoff(self, run: Run, caller: int, inputs: int, outputs: int, count: int, result: int) -> int:
        """Streams are always ready; with clocks alone it sleeps, until the earliest is due or the run is stopped."""
        if not 0 < count <= SUBSCRIPTIONS_MAX:
            return EINVAL
        memory = GuestMemory(run, caller)
        streams: list[bytes] = []
        clocks: list[tuple[int, int]] = []
        for user, kind, clock, timeout, _, flags in SUBSCRIPTION.iter_unpack(
            memory.read(inputs, SUBSCRIPTION.size * count)
        ):
            if kind == EVENT_CLOCK:
                clocks.append((timeout - (_clock_ns(clock) if flags & ABSOLUTE else 0), user))
            else:
                streams.append(EVENT.pack(user, SUCCESS, kind, 1, 0))
        events = streams
        if not streams:
            wait_ns = min(clocks)[0]
            run.stopped.wait(max(0, wait_ns) / 1e9 if wait_ns < threading.TIMEOUT_MAX * 1e9 else None)
            events = [EVENT.pack(user, SUCCESS, EVENT_CLOCK, 0, 0) for due, user in clocks if due <= wait_ns]
        memory.write(outputs, b"".join(events))
        memory.write(result, len(events).to_bytes(4, "little"))
        return SUCCESS


def _on_files(handler: Callable[[Run, GuestMemory, tuple[int, ...]], None]) -> Callable[..., int]:
    def call(run: Run, caller: int, *arguments: int) -> int:
        handler(run, GuestMemory(run, caller), arguments)
        return SUCCESS

    return call


def _clock_ns(clock: int) -> int:
    return time.time_ns() if clock == CLOCK_REALTIME else time.monotonic_ns()

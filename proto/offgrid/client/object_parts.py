"""An object's plaintext in parts: some are asked for ahead while one is used; what no host gives is asked for again.

The node opens and verifies every stripe; a part here is as much as one stripe has.
"""

from __future__ import annotations

import io
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from typing import Protocol

from offgrid.client.calls import Calls
from offgrid.client.errors import OffgridError
from offgrid.v1 import objects_pb2

Progress = Callable[[int, int], None]
"""Bytes done, and of how many (0 where that is not known yet)."""

READ_S = 900.0  # one stripe: the node gives up by itself where nothing comes, and a narrow road takes long
PATIENCE_S = 30.0  # how long it goes on asking for a part that no host gives
ASK_AGAIN_S, SILENT_S = 2.0, 5.0  # between two such questions; before it is said that nothing has come whole
NOTHING_COMES = "the next part is not all here yet"
READS_AHEAD = 3  # while one is written, the node and a host work on others
RANGE_BYTES = 1 << 20  # as a node's stripes are


def _silent(why: str) -> None:
    """Nobody looks."""


class Sink(Protocol):
    """A file, as far as a download asks."""

    def write(self, data: bytes, /) -> object: ...


class Parts:
    """Of one object."""

    def __init__(self, calls: Calls, object_id: str, timeout_s: float) -> None:
        self._calls, self._object_id, self._timeout_s = calls, object_id, timeout_s

    def copy(self, offset: int, end: int, target: Sink, on_progress: Progress, on_wait: Callable[[str], None]) -> int:
        """From `offset` to `end` into a stream; returns how much that was."""
        written, total = 0, end - offset
        on_progress(0, total)
        with closing(self.ahead(offset, end, on_wait)) as parts:
            for part in parts:
                for data in part:
                    target.write(data)
                    written += len(data)
                on_progress(written, total)
        return written

    def ahead(
        self, offset: int, end: int, on_wait: Callable[[str], None] = _silent
    ) -> Generator[Sequence[bytes], None, None]:
        """Parts in their order; READS_AHEAD of them are asked for before they are wanted. Close it to stop that."""
        stopped, troubles = threading.Event(), dict[int, str]()  # what is in the way of the part that begins there
        first = offset - offset % RANGE_BYTES  # a part is within one stripe

        def part(start: int) -> Sequence[bytes]:
            return self._range(
                max(start, offset), min(start + RANGE_BYTES, end), stopped, lambda why: troubles.update({start: why})
            )

        with ThreadPoolExecutor(READS_AHEAD, "offgrid-read") as pool:
            starts, ahead = iter(range(first, end, RANGE_BYTES)), deque[tuple[int, Future[Sequence[bytes]]]]()
            try:
                while True:
                    for start in islice(starts, READS_AHEAD - len(ahead)):
                        ahead.append((start, pool.submit(part, start)))
                    if not ahead:
                        return
                    start, reading = ahead.popleft()
                    yield _awaited(reading, lambda at=start: on_wait(troubles.get(at, NOTHING_COMES)))  # type: ignore[misc]
            finally:
                stopped.set()
                for _, reading in ahead:
                    reading.cancel()

    def _range(
        self, offset: int, end: int, stopped: threading.Event, on_trouble: Callable[[str], None]
    ) -> Sequence[bytes]:
        """The plaintext from `offset` to `end`, in as many pieces as the node gives it in."""
        pieces = []
        while offset < end:
            request = objects_pb2.ReadObjectRequest(object=self._object_id, offset=offset, length=end - offset)
            data = self._patiently(request, stopped, on_trouble).data  # protobuf copies it each time it is asked
            if not 0 < len(data) <= end - offset:
                raise OffgridError("DATA_LOSS", "WrongRead", f"{self._object_id} at {offset}: {len(data)} bytes came")
            pieces.append(data)
            offset += len(data)
        return pieces

    def _patiently(
        self, request: objects_pb2.ReadObjectRequest, stopped: threading.Event, on_trouble: Callable[[str], None]
    ) -> objects_pb2.ReadObjectResponse:
        """One call, repeated while no host gives what is asked for."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                return self._calls.unary(
                    "ObjectService/ReadObject", request, objects_pb2.ReadObjectResponse, timeout_s=READ_S
                )
            except OffgridError as error:
                if error.reason != "NoReplica" or time.monotonic() + ASK_AGAIN_S > deadline:
                    raise
                on_trouble(error.message)
                if stopped.wait(ASK_AGAIN_S):
                    raise


def _awaited(reading: Future[Sequence[bytes]], on_silence: Callable[[], None]) -> Sequence[bytes]:
    while True:
        try:
            return reading.result(timeout=SILENT_S)
        except TimeoutError:
            if reading.done():
                raise
            on_silence()


class _Reader(io.RawIOBase):
    """Reads on from where it stands; a seek begins anew from there."""

    def __init__(self, parts: Parts, size_bytes: int) -> None:
        self._parts, self._size_bytes, self._at = parts, size_bytes, 0
        self._ahead: Generator[Sequence[bytes], None, None] | None = None
        self._held = memoryview(b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"a seek to {base + offset}: there is nothing before the beginning")
        if base + offset != self._at:
            self._stop()
            self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        if not self._held and self._at < self._size_bytes:
            if self._ahead is None:
                self._ahead = self._parts.ahead(self._at, self._size_bytes)
            self._held = memoryview(b"".join(next(self._ahead)))
        size = min(len(buffer), len(self._held))
        buffer[:size] = self._held[:size]
        self._held, self._at = self._held[size:], self._at + size
        return size

    def close(self) -> None:
        self._stop()
        super().close()

    def _stop(self) -> None:
        self._held = memoryview(b"")
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.close()


def exactly(made: objects_pb2.Object) -> str:
    """What names this very object: of one that is shared with the node its owner too, for an id is nobody's."""
    is_own = made.required_milli > 0  # that of others' is not told
    return made.object_id if is_own else f"{made.owner}/{made.object_id}"


def reader_of(calls: Calls, made: objects_pb2.Object, timeout_s: float) -> io.BufferedReader:
    """See `Objects.open`."""
    return io.BufferedReader(_Reader(Parts(calls, exactly(made), timeout_s), made.size_bytes))

"""Calls to the node over its framed carrier (lane.proto): a plain socket beside gRPC's, for half of what a call costs.

Who waits for an answer reads the socket; there is no thread between. Pieces of objects are not copied on their way. A
stream has a connection of its own, so that whoever reads it slowly keeps nobody else waiting. Where the node has no
such socket, or does not let us in, there is None of all this, and gRPC is used.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from weakref import WeakValueDictionary

from google.protobuf.message import DecodeError

from offgrid.client.address import Address
from offgrid.client.errors import OffgridError, from_status
from offgrid.frames import Frames, FrameTooLong, Outgoing
from offgrid.lanes import Answer, call_parts, read_answers
from offgrid.pieces import Buffer, Parts
from offgrid.v1 import lane_pb2

SUFFIX = ".framed"
CALL_BYTES_MAX = 128 * 1024  # larger requests go by gRPC, as the node wants it
FRAME_BYTES_MAX = 4 * 1024 * 1024
CONNECT_S = 2.0  # until the node has let us in
RETRY_S = 1.0  # after it did not
CLOSED = float("inf")  # no more
LOST = "the connection was lost"


class Wire:
    """One connection. Raises OSError when it is broken, TimeoutError when the time is over; both end it."""

    def __init__(self, address: Address) -> None:
        """Raises OSError unless the node is there and lets us in."""
        self._sock = _connect(address)
        self._frames = Frames(FRAME_BYTES_MAX)
        try:
            if address.token:
                token = lane_pb2.CarryRequest(token=address.token)
                self.send((token.SerializeToString(), b""), time.monotonic() + CONNECT_S)
            if self.receive(time.monotonic() + CONNECT_S):
                raise OSError("it answers what was not asked")
        except BaseException:
            self.close()
            raise

    def send(self, message: Parts, deadline: float) -> None:
        """A CarryRequest. What is broken off in its midst breaks the connection."""
        outgoing, begun = Outgoing(), False
        outgoing.put(message)
        try:
            while rest := memoryview(outgoing.take()):
                while rest:
                    try:
                        rest, begun = rest[self._sock.send(rest) :], True
                    except BlockingIOError:
                        _wait(self._sock, deadline, writing=True)
        except BaseException as error:
            if begun:
                self.close()
                if isinstance(error, Exception):  # an interrupt stays one
                    raise ConnectionAbortedError(LOST) from error
            raise

    def receive(self, deadline: float | None) -> list[Answer]:
        """The next message; one thread at a time."""
        try:
            while (message := self._frames.next()) is None:
                try:
                    read = self._sock.recv_into(self._frames.room)
                except BlockingIOError:
                    _wait(self._sock, deadline)
                    continue
                if not read:
                    raise ConnectionResetError(LOST)
                self._frames.came(read)
            return read_answers(message)[1]
        except FrameTooLong:
            raise OSError("a message longer than any that a node sends") from None
        except DecodeError:
            raise OSError("a message that is none") from None

    def close(self) -> None:
        """From any thread; who is waiting gets an OSError."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


class _Slot:
    """A call without an answer; its thread waits for `woken` while another one reads."""

    __slots__ = ("__weakref__", "answer", "awaited", "error", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.awaited = False  # by a thread, which may read for all
        self.answer: Answer | None = None
        self.error: OffgridError | None = None

    @property
    def ended(self) -> bool:
        return self.answer is not None or self.error is not None


class FramedCalls:
    """Unary calls of any number of threads on one connection, which is opened when it is needed. Thread-safe.

    Whoever has begun several waits for them one after the other."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()  # of what follows
        self._wire: Wire | None = None
        self._not_before = 0.0
        self._number = 0
        self._slots = WeakValueDictionary[int, _Slot]()  # who has given up waiting has forgotten his
        self._sending, self._reading = threading.Lock(), threading.Lock()

    def wire(self) -> Wire | None:
        """The connection that calls share; None where gRPC is to be used."""
        with self._lock:
            if self._wire is None and time.monotonic() >= self._not_before:
                self._wire = self._open()
                if self._wire is not None and self._not_before == CLOSED:  # while the node let us in
                    self._wire.close()
                    self._wire = None
            return self._wire

    def begin(self, wire: Wire, name: str, request: Parts, timeout_s: float) -> Callable[[], Buffer]:
        """Sends it; what is returned waits for the answer, once, and raises OffgridError, as this does: UNAVAILABLE for
        a connection that was lost."""
        deadline, slot = time.monotonic() + timeout_s, _Slot()
        with self._lock:
            self._number = number = self._number + 1
            self._slots[number] = slot
        with self._faults(wire), self._sending:
            wire.send(call_parts(lane_pb2.LaneCall(number=number, name=name), request), deadline)

        def end() -> Buffer:
            with self._faults(wire):
                self._await(wire, slot, deadline)
            if slot.error is not None:
                raise slot.error
            assert slot.answer is not None
            answer, response = slot.answer
            if answer.status:
                raise from_status(answer.status)
            return response

        return end

    def stream(
        self, name: str, data: bytes, timeout_s: float | None, on_start: Callable[[Callable[[], object]], None]
    ) -> Iterator[bytes] | None:
        """The answers of a server stream on a connection of its own; None where gRPC is to be used."""
        wire = self._open() if time.monotonic() >= self._not_before else None
        return None if wire is None else _stream(wire, name, data, timeout_s, on_start)

    def close(self) -> None:
        """Ends what is under way."""
        self._not_before = CLOSED
        if self._wire is not None:
            self._lost(self._wire)

    # ---- inside

    @contextmanager
    def _faults(self, wire: Wire) -> Iterator[None]:
        """What goes wrong inside, as OffgridError."""
        try:
            yield
        except TimeoutError:
            raise OffgridError("DEADLINE_EXCEEDED", "", "no answer in time") from None
        except (OSError, ValueError) as error:  # ValueError: closed by another thread just now
            self._lost(wire)
            raise OffgridError("UNAVAILABLE", "", str(error) or LOST) from None

    def _open(self) -> Wire | None:
        try:
            return Wire(self._address)
        except (OSError, ValueError):
            self._not_before = max(self._not_before, time.monotonic() + RETRY_S)
            return None

    def _await(self, wire: Wire, slot: _Slot, deadline: float) -> None:
        """Whoever comes first reads for all; when its answer is there, the next one does."""
        slot.awaited = True
        while not slot.ended:
            if self._reading.acquire(blocking=False):
                try:
                    while not slot.ended:
                        self._told(wire.receive(deadline))
                finally:
                    self._reading.release()
                    self._wake_one()
            else:
                slot.woken.clear()
                # Between the question and the clear the reader may have gone; a short wait costs little and is rare.
                if not slot.ended and self._reading.locked():
                    slot.woken.wait(max(0.0, min(deadline - time.monotonic(), RETRY_S)))
                if time.monotonic() > deadline and not slot.ended:
                    raise TimeoutError

    def _told(self, answers: list[Answer]) -> None:
        with self._lock:
            for answer in answers:
                slot = self._slots.get(answer[0].number)
                if slot is not None:
                    slot.answer = answer
                    slot.woken.set()

    def _wake_one(self) -> None:
        """Somebody must go on reading."""
        with self._lock:
            slot = next((slot for slot in self._slots.values() if slot.awaited and not slot.ended), None)
        if slot is not None:
            slot.woken.set()

    def _lost(self, wire: Wire) -> None:
        wire.close()
        with self._lock:
            if self._wire is not wire:
                return
            self._wire = None
            for slot in self._slots.values():
                if not slot.ended:
                    slot.error = OffgridError("UNAVAILABLE", "", LOST)
                    slot.woken.set()


def _stream(
    wire: Wire, name: str, data: bytes, timeout_s: float | None, on_start: Callable[[Callable[[], object]], None]
) -> Iterator[bytes]:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    cancelled = threading.Event()

    def cancel() -> None:
        cancelled.set()
        wire.close()

    try:
        wire.send(call_parts(lane_pb2.LaneCall(number=1, name=name), (data, b"")), time.monotonic() + CONNECT_S)
        on_start(cancel)
        while True:
            for answer, response in wire.receive(deadline):
                if answer.status:
                    raise from_status(answer.status)
                if not answer.more:
                    return
                yield bytes(response)
    except TimeoutError:
        raise OffgridError("DEADLINE_EXCEEDED", "", "the time of the stream is over") from None
    except (OSError, ValueError) as error:  # ValueError: closed by another thread just now
        if cancelled.is_set():
            raise OffgridError("CANCELLED", "", "the stream was cancelled") from None
        raise OffgridError("UNAVAILABLE", "", str(error) or LOST) from None
    finally:
        wire.close()


def _connect(address: Address) -> socket.socket:
    if address.target.startswith("unix:"):
        if sys.platform == "win32":
            raise OSError("there are no unix sockets here")
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        where: str | tuple[str, int] = address.target.removeprefix("unix:") + SUFFIX
    elif address.framed:
        host, _, port = address.framed.rpartition(":")
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        where = (host.strip("[]"), int(port))
    else:
        raise OSError("the node tells of no such socket")
    try:
        sock.settimeout(CONNECT_S)
        sock.connect(where)
        sock.setblocking(False)
        if sock.family != getattr(socket, "AF_UNIX", None):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def _wait(sock: socket.socket, deadline: float | None, *, writing: bool = False) -> None:
    """Until the socket is ready. Raises TimeoutError."""
    if sock.fileno() < 0:
        raise ConnectionAbortedError(LOST)
    left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
    if sys.platform != "win32":
        poll = select.poll()
        poll.register(sock, select.POLLOUT if writing else select.POLLIN)
        ready = bool(poll.poll(None if left_s is None else left_s * 1000))
    else:
        found = select.select([] if writing else [sock], [sock] if writing else [], [], left_s)
        ready = bool(found[0] or found[1])
    if not ready:
        raise TimeoutError

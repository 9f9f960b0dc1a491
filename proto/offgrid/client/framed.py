"""Calls to the node over its framed carrier (lane.proto): a plain socket beside gRPC's, for half of what a call costs.

Who waits for an answer reads the socket; there is no thread between. A stream has a connection of its own, so that
whoever reads it slowly keeps nobody else waiting. Where the node has no such socket, or does not let us in, there is
None of all this, and gRPC is used.
"""

from __future__ import annotations

import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from google.protobuf.message import DecodeError

from offgrid.client.address import Address
from offgrid.client.errors import OffgridError, from_status
from offgrid.v1 import lane_pb2

SUFFIX = ".framed"
CALL_BYTES_MAX = 128 * 1024  # larger requests go by gRPC, as the node wants it
FRAME_BYTES_MAX = 4 * 1024 * 1024
READ_BYTES = 256 * 1024
HEAD_BYTES = 4
CONNECT_S = 2.0  # until the node has let us in
RETRY_S = 1.0  # after it did not
LOST = "the connection was lost"


def frame(request: lane_pb2.CarryRequest) -> bytes:
    data: bytes = request.SerializeToString()
    return len(data).to_bytes(HEAD_BYTES, "big") + data


class Wire:
    """One connection. Raises OSError when it is broken, TimeoutError when the time is over; both end it."""

    def __init__(self, address: Address) -> None:
        """Raises OSError unless the node is there and lets us in."""
        self._sock = _connect(address)
        self._data = bytearray()
        try:
            if address.token:
                self.send(lane_pb2.CarryRequest(token=address.token), time.monotonic() + CONNECT_S)
            if self.receive(time.monotonic() + CONNECT_S).answers:
                raise OSError("it answers what was not asked")
        except BaseException:
            self.close()
            raise

    def send(self, request: lane_pb2.CarryRequest, deadline: float) -> None:
        """What is broken off in its midst breaks the connection."""
        data, sent = frame(request), 0
        try:
            while sent < len(data):
                _wait(self._sock, deadline, writing=True)
                sent += self._sock.send(data[sent:])
        except BaseException as error:
            if sent:
                self.close()
                if isinstance(error, Exception):  # an interrupt stays one
                    raise ConnectionAbortedError(LOST) from error
            raise

    def receive(self, deadline: float | None) -> lane_pb2.CarryResponse:
        """The next message; one thread at a time."""
        while (message := self._next()) is None:
            _wait(self._sock, deadline)
            read = self._sock.recv(READ_BYTES)
            if not read:
                raise ConnectionResetError(LOST)
            self._data += read
        return message

    def close(self) -> None:
        """From any thread; who is waiting gets an OSError."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _next(self) -> lane_pb2.CarryResponse | None:
        if len(self._data) < HEAD_BYTES:
            return None
        end = HEAD_BYTES + int.from_bytes(self._data[:HEAD_BYTES], "big")
        if end - HEAD_BYTES > FRAME_BYTES_MAX:
            raise OSError("a message longer than any that a node sends")
        if len(self._data) < end:
            return None
        try:
            message = lane_pb2.CarryResponse.FromString(bytes(self._data[HEAD_BYTES:end]))
        except DecodeError:
            raise OSError("a message that is none") from None
        del self._data[:end]
        return message


class _Slot:
    """A call without an answer; its thread waits for `woken` while another one reads."""

    __slots__ = ("answer", "error", "woken")

    def __init__(self) -> None:
        self.woken = threading.Event()
        self.answer: lane_pb2.LaneAnswer | None = None
        self.error: OffgridError | None = None

    @property
    def ended(self) -> bool:
        return self.answer is not None or self.error is not None


class FramedCalls:
    """Unary calls of any number of threads on one connection, which is opened when it is needed. Thread-safe."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()  # of what follows
        self._wire: Wire | None = None
        self._not_before = 0.0
        self._number = 0
        self._slots: dict[int, _Slot] = {}
        self._sending, self._reading = threading.Lock(), threading.Lock()

    def wire(self) -> Wire | None:
        """The connection that calls share; None where gRPC is to be used."""
        with self._lock:
            if self._wire is None and time.monotonic() >= self._not_before:
                self._wire = self._open()
            return self._wire

    def unary(self, wire: Wire, name: str, data: bytes, timeout_s: float) -> bytes:
        """Raises OffgridError, UNAVAILABLE for a connection that was lost."""
        deadline, slot = time.monotonic() + timeout_s, _Slot()
        with self._lock:
            self._number = number = self._number + 1
            self._slots[number] = slot
        try:
            with self._sending:
                wire.send(
                    lane_pb2.CarryRequest(calls=[lane_pb2.LaneCall(number=number, name=name, request=data)]), deadline
                )
            self._await(wire, slot, deadline)
        except TimeoutError:
            raise OffgridError("DEADLINE_EXCEEDED", "", "no answer in time") from None
        except (OSError, ValueError) as error:  # ValueError: closed by another thread just now
            self._lost(wire)
            raise OffgridError("UNAVAILABLE", "", str(error) or LOST) from None
        finally:
            with self._lock:
                self._slots.pop(number, None)
        if slot.error is not None:
            raise slot.error
        assert slot.answer is not None
        if slot.answer.status:
            raise from_status(slot.answer.status)
        answered: bytes = slot.answer.response
        return answered

    def stream(
        self, name: str, data: bytes, timeout_s: float | None, on_start: Callable[[Callable[[], object]], None]
    ) -> Iterator[bytes] | None:
        """The answers of a server stream on a connection of its own; None where gRPC is to be used."""
        wire = self._open() if time.monotonic() >= self._not_before else None
        return None if wire is None else _stream(wire, name, data, timeout_s, on_start)

    def close(self) -> None:
        """Ends what is under way."""
        self._not_before = float("inf")
        if self._wire is not None:
            self._lost(self._wire)

    # ---- inside

    def _open(self) -> Wire | None:
        try:
            return Wire(self._address)
        except (OSError, ValueError):
            self._not_before = max(self._not_before, time.monotonic() + RETRY_S)
            return None

    def _await(self, wire: Wire, slot: _Slot, deadline: float) -> None:
        """Whoever comes first reads for all; when its answer is there, the next one does."""
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

    def _told(self, message: lane_pb2.CarryResponse) -> None:
        with self._lock:
            for answer in message.answers:
                slot = self._slots.get(answer.number)
                if slot is not None:
                    slot.answer = answer
                    slot.woken.set()

    def _wake_one(self) -> None:
        """Somebody must go on reading."""
        with self._lock:
            slot = next((slot for slot in self._slots.values() if not slot.ended), None)
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
        wire.send(
            lane_pb2.CarryRequest(calls=[lane_pb2.LaneCall(number=1, name=name, request=data)]),
            time.monotonic() + CONNECT_S,
        )
        on_start(cancel)
        while True:
            for answer in wire.receive(deadline).answers:
                if answer.status:
                    raise from_status(answer.status)
                if not answer.more:
                    return
                yield answer.response
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

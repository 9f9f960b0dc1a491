"""Frames over connections of bytes, as TCP and unix sockets are: one end listens, the other dials and dials again.

A connection counts once both hellos are there. Each has a bounded queue: who reads slowly has `send` say False, and who
reads nothing at all for STALL_S is cut. What is received is handed over in turns, and meanwhile nothing is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import msgspec

from offgrid_transports.stream_frames import Deframer, Garbage, framed, hello
from offgrid_transports.transport import BROADCAST, LINK_BYTE, LinkHost, OnEvent, OnFrame, Priority, Shown, Unshared

QUEUE_BYTES_MAX = 256 << 10  # waiting to leave on one connection, beside what the system holds
CONNECTIONS_MAX = 64
FRAMES_A_TURN = 64
HELLO_S = 5.0
STALL_S = 30.0
DIAL_S = 10.0
BACKOFF_S_MIN, BACKOFF_S_MAX = 0.1, 30.0
STEADY_S = 10.0  # a connection that held so long is dialled again at once

COUNTED = (
    "frames_sent", "frames_heard", "bytes_sent", "bytes_heard", "frames_refused", "connections_made",
    "connections_refused", "garbage", "silent", "stalled", "dials_failed",
)  # fmt: skip

Factory = Callable[[], asyncio.BaseProtocol]
Dial = Callable[[Factory], Awaitable[tuple[asyncio.BaseTransport, asyncio.BaseProtocol]]]
Serve = Callable[[Factory], Awaitable[asyncio.Server]]


class StreamSettings(msgspec.Struct, frozen=True):
    """Who listens has `serve`, who dials has `dial`. `name_peer` says the address of who is at the other end,
    `released` is called once nothing listens any more."""

    name_peer: Callable[[asyncio.Transport], str]
    dial: Dial | None = None
    serve: Serve | None = None
    prepare: Callable[[asyncio.Transport], None] = lambda transport: None
    listens: str = ""
    released: Callable[[], None] = lambda: None
    frame_bytes_max: int = 16_384
    connections_max: int = CONNECTIONS_MAX


class _Connection(asyncio.Protocol):
    """One connection and its queues. What it hears and becomes it tells its link."""

    def __init__(self, link: StreamTransport, settings: StreamSettings) -> None:
        self.name = ""
        self.frame_bytes_max = 0  # of both ends; 0 until both hellos are there
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link, self._settings = link, settings
        self._loop = asyncio.get_running_loop()
        self._in = Deframer(settings.frame_bytes_max)
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._reading = self._flushing = False

    @property
    def queued_bytes(self) -> int:
        held = self._transport.get_write_buffer_size() if self._transport else 0
        return self._out_bytes + held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if not self._link.takes(self):
            transport.abort()
            return
        self._settings.prepare(transport)
        self.name = self._settings.name_peer(transport)
        transport.set_write_buffer_limits(high=QUEUE_BYTES_MAX // 2)
        transport.write(hello(self._settings.frame_bytes_max))
        self._timer = self._loop.call_later(HELLO_S, self.cut, "silent")

    def data_received(self, data: bytes) -> None:
        self._in.feed(data)
        if not self._reading:
            self._read()

    def pause_writing(self) -> None:
        self._watch(self.queued_bytes)

    def resume_writing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._link.has_room()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.gone.done():
            self.gone.set_result(None)
        self._transport = None
        self._link.lost(self)

    def put(self, frame: bytes) -> bool:
        """False when its queue is full, or it is no connection yet or any more."""
        if not self._transport or not 0 < len(frame) <= self.frame_bytes_max or self.queued_bytes >= QUEUE_BYTES_MAX:
            return False
        self._out += (framed(frame),)
        self._out_bytes += len(self._out[-1])
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        return True

    def cut(self, why: str) -> None:
        """Closes it at once; `why` is the figure that counts it."""
        if self._transport is not None:
            self._link.counted[why] += 1
            self.abort()

    def abort(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _read(self) -> None:
        """Hands over a turn's frames; while there are more it reads nothing."""
        for _ in range(FRAMES_A_TURN):
            if self._transport is None or self._transport.is_closing():
                return
            try:
                frame = self._in.take()
            except Garbage:
                self.cut("garbage")
                return
            if self._in.offered and not self.frame_bytes_max:
                self.frame_bytes_max = min(self._in.offered, self._settings.frame_bytes_max)
                assert self._timer is not None
                self._timer.cancel()
                self._link.made(self)
            if frame is None:
                if self._reading:
                    self._reading = False
                    self._transport.resume_reading()
                return
            self._link.heard(self, frame)
        if not self._reading and self._transport is not None:
            self._reading = True
            self._transport.pause_reading()
        self._loop.call_soon(self._read)

    def _flush(self) -> None:
        self._flushing = False
        if self._transport is None or self._transport.is_closing():
            return
        data = b"".join(self._out)
        self._out, self._out_bytes = [], 0
        self._transport.write(data)
        if self.queued_bytes < QUEUE_BYTES_MAX // 2:
            self._link.has_room()

    def _watch(self, before: int) -> None:
        """Cuts a connection whose reader took nothing since the last look."""
        self._timer = self._loop.call_later(STALL_S, self._look, before)

    def _look(self, before: int) -> None:
        if self.queued_bytes >= before:
            self.cut("stalled")
        else:
            self._watch(self.queued_bytes)


class StreamTransport(Unshared):
    """All connections of one description; a `Transport`."""

    def __init__(self, settings: StreamSettings, host: LinkHost) -> None:
        self.on_frame: OnFrame = lambda address, frame: None
        self.on_room: OnEvent = lambda: None
        self.on_change: OnEvent = lambda: None
        self.counted = dict.fromkeys(COUNTED, 0)
        self._settings = settings
        self._rng: Random = host.rng
        self._loop = asyncio.get_running_loop()
        self._connections: dict[str, _Connection] = {}
        self._strangers: set[_Connection] = set()  # who have not said hello yet
        self._server: asyncio.Server | None = None
        self._refused = self._closed = False
        assert (settings.dial is None) != (settings.serve is None)
        work = self._dial(settings.dial) if settings.dial else self._listen(settings.serve)  # type: ignore[arg-type]
        self._task = self._loop.create_task(work)

    @property
    def up(self) -> bool:
        return not self._closed and (bool(self._connections) if self._settings.dial else self._server is not None)

    def mtu_bytes(self, address: str = BROADCAST) -> int:
        if address == BROADCAST:
            return min((c.frame_bytes_max for c in self._connections.values()), default=self._settings.frame_bytes_max)
        connection = self._connections.get(address)
        return connection.frame_bytes_max if connection else self._settings.frame_bytes_max

    def wait_ms(self, length: int, priority: Priority) -> float:
        return 0.0

    def send(self, address: str, frame: bytes, priority: Priority = Priority.JOB) -> bool:
        """Raises ValueError too for what is no frame. To an address that is not connected nothing can be sent."""
        if not frame or frame[0] >= LINK_BYTE:
            raise ValueError(f"a frame begins with a byte below {LINK_BYTE}; this one with {frame[:1]!r}")
        if len(frame) > self.mtu_bytes(address):
            raise ValueError(f"a frame of {len(frame)} bytes; {address} takes {self.mtu_bytes(address)}")
        if address == BROADCAST:
            taken = sum([connection.put(frame) for connection in self._connections.values()])
        else:
            connection = self._connections.get(address)
            taken = int(connection is not None and connection.put(frame))
        if not taken:
            self._refused = True
            self.counted["frames_refused"] += 1
        self.counted["frames_sent"] += taken
        self.counted["bytes_sent"] += taken * len(frame)
        return taken > 0

    def neighbours(self) -> tuple[str, ...]:
        return tuple(self._connections)

    def figures(self) -> Shown:
        queued = sum(connection.queued_bytes for connection in self._connections.values())
        where = {"listens": self._settings.listens} if self._settings.listens else {}
        return {**where, "connections": len(self._connections), "queued_bytes": queued, **self.counted}

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._settings.dial:
            self._task.cancel()
        elif self._server is not None:
            self._stop_listening(self._server)
        for connection in (*self._connections.values(), *self._strangers):
            connection.abort()
        self._connections.clear()
        self._strangers.clear()

    def takes(self, connection: _Connection) -> bool:
        """A connection came; whether it may stay."""
        if self._closed or len(self._connections) + len(self._strangers) >= self._settings.connections_max:
            self.counted["connections_refused"] += 1
            return False
        self._strangers.add(connection)
        return True

    def made(self, connection: _Connection) -> None:
        """It said hello."""
        self._strangers.discard(connection)
        self._connections[connection.name] = connection
        self.counted["connections_made"] += 1
        self.on_change()

    def heard(self, connection: _Connection, frame: bytes) -> None:
        self.counted["frames_heard"] += 1
        self.counted["bytes_heard"] += len(frame)
        self.on_frame(connection.name, frame)

    def has_room(self) -> None:
        if self._refused and not self._closed:
            self._refused = False
            self.on_room()

    def lost(self, connection: _Connection) -> None:
        self._strangers.discard(connection)
        if self._connections.get(connection.name) is connection:
            del self._connections[connection.name]
            if not self._closed:
                self.on_change()

    async def _listen(self, serve: Serve) -> None:
        server = await serve(self._connection)
        if self._closed:  # before it began
            self._stop_listening(server)
            return
        self._server = server
        self.on_change()

    async def _dial(self, dial: Dial) -> None:
        pause_s = BACKOFF_S_MIN
        while True:
            began_s = self._loop.time()
            try:
                async with asyncio.timeout(DIAL_S):
                    _, connection = await dial(self._connection)
            except (OSError, TimeoutError):
                self.counted["dials_failed"] += 1
            else:
                assert isinstance(connection, _Connection)
                await connection.gone
            pause_s = BACKOFF_S_MIN if self._loop.time() - began_s >= STEADY_S else min(BACKOFF_S_MAX, 2 * pause_s)
            await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))

    def _connection(self) -> _Connection:
        return _Connection(self, self._settings)

    def _stop_listening(self, server: asyncio.Server) -> None:
        server.close()
        self._settings.released()

"""A line to a device: bytes both ways over a serial port or TCP, opened again whenever it is lost.

`/dev/ttyUSB0`, `/dev/serial/by-id/…` or `COM3` is a serial port, 115200 8N1; `tcp/HOST:PORT` a TCP server that stands
for one. Serial ports are serialx': native asyncio on Linux, macOS and Windows, pseudo-terminals too. A device that is
unplugged ends the line, and one that is plugged in again begins a new one within REOPEN_MS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from offgrid_transports.transport import BadSpec, TransportError

REOPEN_MS = 500
OPEN_MS_MAX = 10_000
BAUD = 115_200
UNWRITTEN_BYTES_MAX = 1 << 16  # a device that takes nothing for so long is gone
PIECE_BYTES = 4096  # handed over at once, so that a flood leaves the loop to others
TCP = "tcp/"


class Line(Protocol):
    """A line that comes and goes. The callbacks are set before `start`, and none comes from within a call."""

    on_open: Callable[[], None]
    on_bytes: Callable[[bytes], None]
    on_lost: Callable[[], None]
    trouble: str
    """Why it is not open, for people."""

    def start(self) -> None:
        """Opens it, and opens it again whenever it is lost."""
        ...

    def write(self, data: bytes) -> None:
        """Nothing happens while it is not open."""
        ...

    def close(self) -> None:
        """Writes what is left to write; no callback follows."""
        ...


class _Ends(asyncio.Protocol):
    def __init__(self, line: DeviceLine) -> None:
        self._line = line
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._line.take(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)


class DeviceLine:
    """A serial port or a TCP connection, in the running asyncio loop; a `Line`."""

    def __init__(self, target: str) -> None:
        """Raises BadSpec for a target that cannot be one, TransportError when serial ports need an extra."""
        self.on_open: Callable[[], None] = lambda: None
        self.on_bytes: Callable[[bytes], None] = lambda data: None
        self.on_lost: Callable[[], None] = lambda: None
        self.trouble = "not opened yet"
        self._target = target
        self._address = _tcp_address(target) if target.startswith(TCP) else None
        if self._address is None:
            if "://" in target:
                raise BadSpec(f"{target!r}: allowed: a serial port, or tcp/HOST:PORT for one behind TCP")
            _need_serialx()
        self._transport: asyncio.WriteTransport | None = None
        self._ends: _Ends | None = None
        self._late = bytearray()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or not data or transport.is_closing():
            return
        transport.write(data)
        if transport.get_write_buffer_size() > UNWRITTEN_BYTES_MAX:
            transport.abort()

    def close(self) -> None:
        self.on_open = self.on_lost = lambda: None
        self.on_bytes = lambda data: None
        if self._task is not None:
            self._task.cancel()

    def take(self, ends: _Ends, data: bytes) -> None:
        """Hands over what came, a piece in each turn of the loop."""
        if ends is not self._ends:  # not told of as open yet: whoever asks then hears it again
            return
        if self._late or len(data) > PIECE_BYTES:
            waiting = bool(self._late)
            self._late += data
            if not waiting:
                self._take_piece(ends)
            elif len(self._late) > UNWRITTEN_BYTES_MAX and self._transport is not None:
                self._transport.abort()
        else:
            self.on_bytes(data)

    def _take_piece(self, ends: _Ends) -> None:
        if ends is not self._ends or not self._late:
            return
        piece = bytes(self._late[:PIECE_BYTES])
        del self._late[:PIECE_BYTES]
        if self._late:
            asyncio.get_running_loop().call_soon(self._take_piece, ends)
        self.on_bytes(piece)

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(OPEN_MS_MAX / 1000):
                    transport, ends = await self._connect()
            except (OSError, ValueError, TimeoutError) as error:
                self.trouble = f"{self._target} cannot be opened: {error or type(error).__name__}"
            else:
                await self._carry(transport, ends)
            await asyncio.sleep(REOPEN_MS / 1000)

    async def _carry(self, transport: asyncio.WriteTransport, ends: _Ends) -> None:
        self._transport, self._ends, self.trouble = transport, ends, ""
        try:
            self.on_open()
            error = await ends.lost
            self.trouble = f"{self._target} is gone" + (f": {error}" if error else "")
        finally:
            self._transport = self._ends = None
            self._late.clear()
            transport.close()
        self.on_lost()

    async def _connect(self) -> tuple[asyncio.WriteTransport, _Ends]:
        loop = asyncio.get_running_loop()
        if self._address is not None:
            return await loop.create_connection(lambda: _Ends(self), *self._address)
        import serialx  # an extra, and only of those who have a modem

        made: list[_Ends] = []

        def ends() -> _Ends:
            made.append(_Ends(self))
            return made[-1]

        try:
            transport, _ = await serialx.create_serial_connection(loop, ends, self._target, BAUD)
        except serialx.SerialException as error:
            raise OSError(str(error)) from error
        return transport, made[-1]


def _need_serialx() -> None:
    try:
        import serialx  # noqa: F401  late, as it is an extra
    except ImportError as error:
        raise TransportError(
            f"serial ports need the extra `lora`: pip install 'offgrid-node[lora]' ({error})"
        ) from error


def _tcp_address(target: str) -> tuple[str, int]:
    host, colon, port = target.removeprefix(TCP).rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        raise BadSpec(f"{target!r}: allowed: tcp/HOST:PORT, such as tcp/192.168.1.7:4403")
    return host.removeprefix("[").removesuffix("]"), int(port)

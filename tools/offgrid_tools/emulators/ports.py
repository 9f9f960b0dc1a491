"""Where an emulated device is plugged in, in the running asyncio loop: a pseudo-terminal by name, or a TCP port."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from pathlib import Path

from offgrid_tools.emulators.virtual import Device

UNREAD_BYTES_MAX = 1 << 16  # what nobody reads is dropped, as a UART does
READ_BYTES = 4096


class PtyPort:
    """A serial port that is a pseudo-terminal; `link` names it, as /dev/serial/by-id does. Not on Windows."""

    def __init__(self, link: Path, device: Device) -> None:
        self.link = link
        self._device = device
        self._master = self._slave = -1
        self._unread = bytearray()

    def plug(self) -> None:
        """The device is there."""
        if sys.platform == "win32":
            raise OSError("there are no pseudo-terminals on Windows")
        # else: mypy reads this file for Windows too
        import pty
        import tty

        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._device.write = self.say
        asyncio.get_running_loop().add_reader(self._master, self._read)
        self.link.parent.mkdir(parents=True, exist_ok=True)
        new = self.link.with_name(self.link.name + ".new")
        with suppress(FileNotFoundError):
            new.unlink()
        new.symlink_to(os.ttyname(self._slave))
        new.replace(self.link)

    def unplug(self) -> None:
        """The device is gone; who has the port open is told by an error."""
        if self._master < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._master)
        loop.remove_writer(self._master)
        self._device.write = lambda data: None
        self._unread.clear()
        with suppress(FileNotFoundError):
            self.link.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def say(self, data: bytes) -> None:
        """The device says this."""
        if self._master >= 0 and len(self._unread) + len(data) <= UNREAD_BYTES_MAX:
            self._unread += data
            self._write()

    def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            written = os.write(self._master, self._unread)
        except BlockingIOError:
            written = 0
        except OSError:
            return
        del self._unread[:written]
        if self._unread:
            loop.add_writer(self._master, self._write)
        else:
            loop.remove_writer(self._master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, READ_BYTES)
        except (BlockingIOError, OSError):
            return
        self._device.on_bytes(data)


class TcpPort:
    """A device behind a TCP port; whoever connects last has it."""

    def __init__(self, device: Device, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self._device = device
        self._server: asyncio.Server | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def plug(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def unplug(self) -> None:
        if self._server is not None:
            self._server.close()
            self._drop()
            await self._server.wait_closed()
            self._server = None

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._drop()
        self._writer = writer
        self._device.write = lambda data: self._say(writer, data)
        try:
            while data := await reader.read(READ_BYTES):
                self._device.on_bytes(data)
        except OSError:
            pass
        finally:
            if self._writer is writer:
                self._writer = None
            writer.close()

    @staticmethod
    def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
        if not writer.is_closing() and writer.transport.get_write_buffer_size() <= UNREAD_BYTES_MAX:
            writer.write(data)

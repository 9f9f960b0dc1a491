"""Bluetooth nodes over virtual controllers, which run in a process of their own."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from bumble import hci
from bumble.device import Device
from bumble.transport import open_transport as open_controller

from offgrid_transports.ble.adapter import BleTransport, open_transport
from offgrid_transports.registry import parse_spec
from offgrid_transports.transport import LinkHost

PATIENCE_S = 30.0  # for a machine that is busy


class BleTown:
    """Use as `async with BleTown(3, "loss=0.1") as town`."""

    def __init__(self, controllers: int, *options: str) -> None:
        self._arguments = ["0"] * controllers + list(options)
        self.ends: list[BleTransport] = []
        self.heard: dict[str, list[tuple[str, bytes]]] = {}
        self._guests: list[Any] = []

    async def __aenter__(self) -> BleTown:
        command = [sys.executable, "-m", "offgrid_tools.emulators", "ble", *self._arguments]
        self._emulator = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert self._emulator.stdout is not None
        ready = (await self._emulator.stdout.readline()).split()
        assert ready[:1] == [b"ready"]
        self.ports = [int(port) for port in ready[1:]]
        return self

    async def __aexit__(self, *error: object) -> None:
        for end in self.ends:
            end.close()
        for end in self.ends:
            await end.wait_closed()
        for guest in self._guests:
            await guest.close()
        assert self._emulator.stdin is not None
        self._emulator.stdin.close()
        await self._emulator.wait()

    def node(self, hello: bytes = b"meshmesh", query: str = "") -> BleTransport:
        """At the next controller."""
        loop = asyncio.get_running_loop()
        number = len(self.ends)
        host = LinkHost(
            Random(number),
            lambda delay_ms, fn: loop.call_later(delay_ms / 1000, fn),  # type: ignore[arg-type,return-value]
            lambda: round(loop.time() * 1000),
            hello=hello,
        )
        end = open_transport(parse_spec(f"ble:tcp-client:127.0.0.1:{self.ports[number]}{query}"), host)
        self.ends.append(end)
        heard = self.heard[end.address] = []
        end.on_frame = lambda address, frame: heard.append((address, frame))
        return end

    async def guest(self, number: int) -> Device:
        """Somebody at controller `number` who may do whatever Bumble lets him."""
        transport = await open_controller(f"tcp-client:127.0.0.1:{self.ports[number]}")
        self._guests.append(transport)
        address = hci.Address(f"C{number}:00:00:00:00:00")
        device = Device.with_hci("guest", address, transport.source, transport.sink)
        await device.power_on()
        device.host.local_le_features &= ~hci.LeFeatureMask.LE_EXTENDED_ADVERTISING
        return device

    def tell(self, command: str) -> None:
        assert self._emulator.stdin is not None
        self._emulator.stdin.write(command.encode() + b"\n")

    async def until(self, true: Callable[[], object]) -> float:
        began = time.monotonic()
        while not true():
            assert time.monotonic() < began + PATIENCE_S, [end.figures() for end in self.ends]
            await asyncio.sleep(0.005)
        return time.monotonic() - began

    async def linked(self, count: int = 1) -> float:
        return await self.until(lambda: all(len(end.neighbours()) == count for end in self.ends))

    async def send(self, end: BleTransport, address: str, frame: bytes) -> None:
        """Waits for room."""
        room = asyncio.Event()
        end.on_room = room.set
        while not end.send(address, frame):
            room.clear()
            async with asyncio.timeout(PATIENCE_S):
                await room.wait()

    async def address_of(self, device: Device, hello: bytes) -> hci.Address:
        """Where a guest sees a node that shows `hello`."""
        found: asyncio.Future[hci.Address] = asyncio.get_running_loop().create_future()
        device.on("advertisement", partial(_note, found, hello))
        await device.start_scanning(active=False)
        address = await asyncio.wait_for(found, PATIENCE_S)
        await device.stop_scanning()
        return address


def _note(found: asyncio.Future[hci.Address], hello: bytes, advertisement: Any) -> None:
    if not found.done() and hello in advertisement.data_bytes:
        found.set_result(advertisement.address)

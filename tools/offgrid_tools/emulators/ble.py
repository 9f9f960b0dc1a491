"""Virtual Bluetooth controllers for other processes:

    python -m offgrid_tools.emulators ble PLACE ... [NAME=VALUE ...]

Each PLACE is one controller, for whoever connects to it: a port (0: any), "ble:tcp-client:127.0.0.1:PORT", or the path
of a unix socket, "ble:unix-client:PATH". All are in reach of each other. It prints "ready PLACE ..." and then takes
commands, one a line, until its input ends:

    drop A B          the connection of controllers A and B (0, 1, ...) breaks
    cut A B MS        they are out of reach of each other
    stall A B MS      nothing gets through, and the connection holds
    unplug A          its host loses it, and may connect again
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

from bumble.core import InvalidPacketError
from bumble.transport.common import PacketParser

from offgrid_tools.emulators.ble_air import Air, AirSettings, VirtualController
from offgrid_transports.ble.air import Phy

PHYS = {"1m": Phy.LE_1M, "2m": Phy.LE_2M}
OPTIONS = "paced=0|1, loss=0..0.9, phy=1m|2m, octets=27..251, buffers=1..64, seed=N"


class Socket(asyncio.Protocol):
    """One controller's plug: a host at a time."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._parser = PacketParser()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._seat.plug is not None:
            transport.close()
            return
        self._seat.insert(self)
        self._parser.set_packet_sink(self._seat.controller)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except InvalidPacketError:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._seat.plug is self:
            self._seat.remove()

    def on_packet(self, packet: bytes) -> None:
        """From the controller to its host."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packet)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Seat:
    """A port, and the controller that is behind it while a host is connected."""

    def __init__(self, air: Air, number: int) -> None:
        self.plug: Socket | None = None
        self.controller: Any = None
        self._air = air
        self._number = number

    def insert(self, plug: Socket) -> None:
        self.plug = plug
        self.controller = VirtualController(f"C{self._number}", self._air, plug, f"00:00:00:00:01:{self._number:02X}")

    def remove(self) -> None:
        self.plug = None
        self.controller.go_silent()
        self._air.remove_controller(self.controller)


def parse(arguments: Sequence[str]) -> tuple[list[str], AirSettings]:
    """Ports and paths, and settings; raises ValueError with what is allowed."""
    places = [word for word in arguments if word.isdecimal() or "/" in word]
    options = dict(word.split("=", 1) for word in arguments if "=" in word and "/" not in word)
    if not places or len(places) + len(options) != len(arguments):
        raise ValueError(f"usage: ble PORT|/PATH ... [{OPTIONS}]")
    try:
        settings = AirSettings(
            paced=options.pop("paced", "1") != "0",
            loss=float(options.pop("loss", 0)),
            phy=PHYS[options.pop("phy", "2m")],
            octets=int(options.pop("octets", 251)),
            buffers=int(options.pop("buffers", 8)),
            seed=int(options.pop("seed", 1)),
        )
    except (KeyError, ValueError) as error:
        raise ValueError(f"{error}: allowed: {OPTIONS}") from error
    if options or not (0 <= settings.loss <= 0.9 and 27 <= settings.octets <= 251 and 1 <= settings.buffers <= 64):
        raise ValueError(f"allowed: {OPTIONS}")
    return places, settings


def obey(line: str, air: Air, seats: Sequence[Seat]) -> None:
    """One command; raises ValueError or IndexError for one that is none."""
    verb, *words = line.split()
    numbers = [int(word) for word in words]
    if verb == "unplug":
        plug = seats[numbers[0]].plug
        if plug is not None:
            plug.close()
        return
    one, other = seats[numbers[0]].controller, seats[numbers[1]].controller
    if verb == "drop":
        air.drop(one, other)
    elif verb == "cut":
        air.cut(one, other, numbers[2] / 1000)
    elif verb == "stall":
        air.stall(one, other, numbers[2] / 1000)
    else:
        raise ValueError(verb)


async def listen(place: str, seat: Seat) -> asyncio.Server:
    """At that port of the loopback, or on that unix socket."""
    loop = asyncio.get_running_loop()
    if sys.platform == "win32" or place.isdecimal():
        return await loop.create_server(lambda: Socket(seat), "127.0.0.1", int(place))
    return await loop.create_unix_server(lambda: Socket(seat), place)


def name_of(server: asyncio.Server) -> str:
    where = server.sockets[0].getsockname()
    return where if isinstance(where, str) else str(where[1])


async def serve(places: Sequence[str], settings: AirSettings) -> None:
    """Until the input ends."""
    loop = asyncio.get_running_loop()
    air = Air(settings)
    seats = [Seat(air, number) for number in range(len(places))]
    servers = [await listen(place, seat) for seat, place in zip(seats, places, strict=True)]
    sys.stdout.write("ready " + " ".join(map(name_of, servers)) + "\n")
    sys.stdout.flush()
    over = asyncio.Event()

    def take(line: str) -> None:
        try:
            obey(line, air, seats)
        except (ValueError, IndexError, AttributeError) as error:
            sys.stderr.write(f"{line.strip()}: {error}\n")

    def read() -> None:
        for line in sys.stdin:
            if line.strip():
                loop.call_soon_threadsafe(take, line)
        loop.call_soon_threadsafe(over.set)

    threading.Thread(target=read, daemon=True).start()
    await over.wait()


def main(arguments: Sequence[str]) -> int:
    """Serves until its input ends."""
    logging.getLogger("bumble").setLevel(logging.CRITICAL)  # hosts' oddities are what it is for
    try:
        places, settings = parse(arguments)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    asyncio.run(serve(places, settings))
    return 0

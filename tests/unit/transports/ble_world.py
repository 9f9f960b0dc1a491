"""Bluetooth radios in virtual time: an asyncio loop whose clock jumps, and radios that are objects."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, TypeVar

from offgrid_transports.ble.adapter import BleTransport
from offgrid_transports.ble.adverts import Advert, Sighting
from offgrid_transports.ble.link import BleChannel, BleError
from offgrid_transports.ble.seeking import FULL, Duty
from offgrid_transports.transport import LinkHost

T = TypeVar("T")
CONNECT_S = 0.05
MESSAGE_S = 0.005


class _Jumping(selectors.DefaultSelector):
    """Waits no time at all."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events:
            assert timeout is not None, "everybody waits for nothing"
            self.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time goes on when nothing is left to do."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run(main: Callable[[], Awaitable[T]]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())  # type: ignore[arg-type]


class FakeChannel:
    """One end; a BleChannel. `stuck` takes nothing."""

    def __init__(self, air: FakeAir, address: str, outgoing: bool) -> None:
        self.on_message: Callable[[bytes], None] = lambda message: None
        self.on_room: Callable[[], None] = lambda: None
        self.on_closed: Callable[[str], None] = lambda why: None
        self.address = address
        self.outgoing = outgoing
        self.message_bytes_max = 2048
        self.other: FakeChannel
        self.stuck = False
        self.open = True
        self.written: list[bytes] = []
        self._air = air
        self._busy = False

    def write(self, message: bytes) -> bool:
        if self.stuck or self._busy or not self.open:
            return False
        self.written.append(message)
        self._busy = True
        asyncio.get_running_loop().call_later(MESSAGE_S, self._arrive, message)
        return True

    def _arrive(self, message: bytes) -> None:
        self._busy = False
        if self.open and self.other.open:
            self.other.on_message(message)
            self.on_room()

    def airtime_ms(self, length: int) -> float:
        return 1.0 + length / 100

    def describe(self) -> str:
        return "fake"

    def close(self) -> None:
        if self.open:
            self.open = False
            asyncio.get_running_loop().call_later(MESSAGE_S, self.other.lose, "closed by the other side")

    def lose(self, why: str) -> None:
        if self.open:
            self.open = False
            self.on_closed(why)


class FakeRadio:
    """A BleRadio."""

    def __init__(self, air: FakeAir, address: str) -> None:
        self.on_sighting: Callable[[Sighting], None] = lambda sighting: None
        self.on_channel: Callable[[BleChannel], None] = lambda channel: None
        self.on_lost: Callable[[str], None] = lambda why: None
        self.psm = 0xA7
        self.address = address
        self.duty = FULL
        self.advert: Advert | None = None
        self.duties: list[str] = []
        self.attempts = 0
        self.channels: list[FakeChannel] = []
        self._air = air

    @property
    def connected(self) -> frozenset[str]:
        return frozenset(channel.address for channel in self.channels if channel.open)

    async def start(self) -> None:
        if self.address in self._air.unplugged:
            raise BleError(f"{self.address} is unplugged")
        self._air.radios[self.address] = self
        self._air.tell()

    async def seek(self, duty: Duty, advert: Advert) -> None:
        self.duty, self.advert = duty, advert
        self.duties.append(duty.name)
        self._air.tell()

    async def connect(self, sighting: Sighting) -> BleChannel:
        self.attempts += 1
        await asyncio.sleep(self._air.connect_s)
        other = self._air.radios.get(sighting.address)
        if other is None or not other.duty.advert_interval_ms:
            raise BleError("not there")
        return self._air.join(self, other)

    async def stop(self) -> None:
        if self._air.radios.get(self.address) is self:
            del self._air.radios[self.address]

    def figures(self) -> Mapping[str, str | int]:
        return {"controller": self.address}


class FakeAir:
    """All who are near."""

    def __init__(self) -> None:
        self.radios: dict[str, FakeRadio] = {}
        self.channels: list[FakeChannel] = []
        self.unplugged: set[str] = set()
        self.connect_s = CONNECT_S

    def tell(self) -> None:
        """Everybody hears everybody, now and then."""
        loop = asyncio.get_running_loop()
        for radio in self.radios.values():
            for other in self.radios.values():
                if other is not radio and radio.duty.scan_window_ms and other.duty.advert_interval_ms and other.advert:
                    loop.call_soon(radio.on_sighting, Sighting(other.address, other.advert, -50))

    async def keep_telling(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            self.tell()

    def join(self, radio: FakeRadio, other: FakeRadio) -> FakeChannel:
        here = FakeChannel(self, other.address, True)
        there = FakeChannel(self, radio.address, False)
        here.other, there.other = there, here
        self.channels += [here, there]
        radio.channels.append(here)
        other.channels.append(there)
        other.on_channel(there)
        return here

    def break_all(self) -> None:
        for channel in self.channels:
            channel.lose("lost")


class World:
    """Nodes on one air; use as `async with World() as world`."""

    def __init__(self) -> None:
        self.air = FakeAir()
        self.again = ""
        """After the name of a radio that is switched on from now on: it has another address."""
        self.ends: list[BleTransport] = []
        self.heard: dict[str, list[tuple[str, bytes]]] = {}
        self.changes: list[tuple[str, ...]] = []

    async def __aenter__(self) -> World:
        self._telling = asyncio.get_running_loop().create_task(self.air.keep_telling())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._telling.cancel()
        for end in self.ends:
            end.close()
        for end in self.ends:
            await end.wait_closed()

    def node(self, hello: bytes = b"meshmesh", *, links_max: int = 4) -> BleTransport:
        loop = asyncio.get_running_loop()
        number = len(self.ends)
        host = LinkHost(
            Random(number),
            lambda delay_ms, fn: loop.call_later(delay_ms / 1000, fn),  # type: ignore[arg-type,return-value]
            lambda: round(loop.time() * 1000),
            hello=hello,
        )

        async def make_radio() -> FakeRadio:
            return FakeRadio(self.air, f"radio{number}{self.again}")

        end = BleTransport(make_radio, host, links_max=links_max)
        heard = self.heard[end.address] = []
        end.on_frame = lambda address, frame: heard.append((address, frame))
        end.on_change = lambda: self.changes.append(end.neighbours())
        self.ends.append(end)
        return end

    async def until(self, true: Callable[[], object], seconds: float = 30) -> float:
        """How long it took, in virtual time."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not true():
            assert loop.time() < began + seconds, "it does not come about"
            await asyncio.sleep(0.01)
        return loop.time() - began

    async def linked(self, count: int = 1) -> float:
        """Until everybody has `count` neighbours."""
        return await self.until(lambda: all(len(end.neighbours()) == count for end in self.ends))

"""Modems on real pseudo-terminals: real bytes, serial ports that come and go, airtime scaled down."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import RealClock
from offgrid_tools.emulators.ports import PtyPort
from offgrid_tools.emulators.rnode import RNodeEmulator
from offgrid_tools.emulators.virtual import virtual_host
from offgrid_transports.lora.opening import open_rnode
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.registry import TransportRegistry, parse_spec
from offgrid_transports.transport import BROADCAST, BadSpec, LinkHost, TransportError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pseudo-terminals")
SPEED = 20.0
SETTINGS = "region=EU868&freq=869.525&sf=7&bw=125&cr=5&power=14"
REGISTRY = TransportRegistry({"lora": open_rnode})


async def until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits, in real time, and no longer than is certainly too long."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Bench:
    """RNodes on pseudo-terminals."""

    def __init__(self, folder: Path) -> None:
        self.clock = RealClock(SPEED)
        self.channel = Channel(self.clock, Random(1))
        self.host: LinkHost = virtual_host(self.clock, Random(2))
        self.folder = folder
        self.ports: dict[str, PtyPort] = {}
        self.rnodes: dict[str, RNodeEmulator] = {}
        self.links: dict[str, RadioLink] = {}
        self.heard: dict[str, list[bytes]] = {}

    def add(self, name: str, settings: str = SETTINGS) -> RadioLink:
        self.rnodes[name] = RNodeEmulator(name, self.channel, lambda data: None)
        port = self.ports[name] = PtyPort(self.folder / name, self.rnodes[name])
        port.plug()
        return self.open(name, settings)

    def open(self, name: str, settings: str = SETTINGS) -> RadioLink:
        link = REGISTRY.open(f"lora:{self.folder / name}?{settings}", self.host)
        assert isinstance(link, RadioLink)
        heard = self.heard.setdefault(name, [])
        link.on_frame = lambda address, frame: heard.append(frame)
        self.links[name] = link
        return link

    async def close(self) -> None:
        for link in self.links.values():
            link.close()
        await asyncio.sleep(0.05)
        for port in self.ports.values():
            port.unplug()


def on_bench(folder: Path, run: Callable[[Bench], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench(folder)
        try:
            await run(bench)
        finally:
            await bench.close()

    pytest.importorskip("serialx")
    asyncio.run(whole())


def test_two_nodes_talk_over_serial_ports(tmp_path: Path) -> None:
    async def run(bench: Bench) -> None:
        a, b = bench.add("a"), bench.add("b")
        await until(lambda: a.up and b.up)
        frames = [bytes([number]) * 250 for number in range(6)]
        for frame in frames:
            await until(lambda frame=frame: a.send(BROADCAST, frame))  # type: ignore[misc]
        await until(lambda: len(bench.heard["b"]) == len(frames))
        assert bench.heard["b"] == frames

    on_bench(tmp_path, run)


def test_a_port_that_is_not_there_yet_comes_goes_and_comes_back(tmp_path: Path) -> None:
    async def run(bench: Bench) -> None:
        link = bench.open("late")
        other = bench.add("other")
        await until(lambda: "cannot be opened" in str(link.figures().get("trouble")))
        assert not link.send(BROADCAST, b"x")
        rnode = bench.rnodes["late"] = RNodeEmulator("late", bench.channel, lambda data: None)
        port = bench.ports["late"] = PtyPort(tmp_path / "late", rnode)
        for _ in range(2):
            port.plug()
            loop = asyncio.get_running_loop()
            began = loop.time()
            await until(lambda: link.up)
            assert loop.time() - began < 10, "two seconds on an idle machine"
            await until(lambda: other.up)
            heard = len(bench.heard["other"])
            link.send(BROADCAST, b"here I am")
            await until(lambda: len(bench.heard["other"]) > heard)  # noqa: B023
            port.unplug()
            rnode.reboot()
            await until(lambda: not link.up)

    on_bench(tmp_path, run)


def test_garbage_and_a_reboot_on_a_real_port(tmp_path: Path) -> None:
    async def run(bench: Bench) -> None:
        a, b = bench.add("a"), bench.add("b")
        await until(lambda: a.up and b.up)
        bench.ports["a"].say(Random(3).randbytes(20_000))
        bench.rnodes["a"].reboot()
        await until(lambda: bench.rnodes["a"].on)
        await until(lambda: a.up)
        b.send(BROADCAST, b"hello")
        await until(lambda: b"hello" in bench.heard["a"])
        assert int(a.figures()["dropped_bytes"]) > 10_000

    on_bench(tmp_path, run)


def test_what_is_no_serial_port_is_said_and_tried_again(tmp_path: Path) -> None:
    async def run(bench: Bench) -> None:
        link = bench.open("/dev/null")
        await until(lambda: "Inappropriate ioctl" in str(link.figures().get("trouble")))
        assert not link.up

    on_bench(tmp_path, run)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lora:/dev/x?region=EU969", "region=EU969: allowed: EU433, EU868, US915"),
        ("lora:/dev/x?freq=868.1&sff=7", "did you mean 'sf'"),
        ("lora:/dev/x?sf=7", "name the frequency"),
        ("lora:/dev/x?region=EU868&freq=868.65", "no band of EU868"),
        ("lora:/dev/x?region=EU868&freq=868.1&power=20", "allows 14 dBm"),
        ("lora:/dev/x?region=EU868&power=23", "an RNode has at most 22 dBm"),
        ("lora:tcp/host?region=EU868", "allowed: tcp/HOST:PORT"),
        ("lora:socket://host:1?region=EU868", "allowed: a serial port, or tcp/HOST:PORT"),
        ("lora:/dev/x?region=EU868&regions=/none.toml", "cannot be read"),
    ],
)
def test_a_description_that_cannot_be_is_refused(text: str, says: str) -> None:
    async def run() -> None:
        with pytest.raises(BadSpec) as error:
            REGISTRY.open(text, virtual_host(RealClock(), Random(1)))
        assert says in str(error.value)

    pytest.importorskip("serialx")
    asyncio.run(run())


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        monkeypatch.setitem(sys.modules, "serialx", None)
        with pytest.raises(TransportError, match=r"offgrid-node\[lora\]"):
            open_rnode(parse_spec("lora:/dev/x?region=EU868"), virtual_host(RealClock(), Random(1)))

    asyncio.run(run())

"""LoRa links over emulated modems in virtual time."""

from __future__ import annotations

from random import Random

from offgrid_tools.emulators.channel import Channel, Reach, everybody
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_tools.emulators.meshcore import MeshCoreEmulator
from offgrid_tools.emulators.rnode import Firmware, RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_transports.keep import Keep
from offgrid_transports.lora.meshcore import MeshCore
from offgrid_transports.lora.modem import Modem
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band, load_regions
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.transport import Priority

FAST = Modulation(869_525_000, 125_000, 7)
EU = load_regions()["EU868"]
ESP32 = Firmware()
FREE = Band(0, 10**10, 99, ())  # no limit


class World:
    """Stations on one channel, each a modem and a link; what each hears is kept by name."""

    def __init__(self, seed: int = 1, *, reach: Reach = everybody, loss: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.rng = Random(seed)
        self.channel = Channel(self.clock, self.rng, reach=reach, loss=loss, logged=True)
        self.links: dict[str, RadioLink] = {}
        self.lines: dict[str, VirtualLine] = {}
        self.rnodes: dict[str, RNodeEmulator] = {}
        self.meshcores: dict[str, MeshCoreEmulator] = {}
        self.heard: dict[str, list[bytes]] = {}
        self.events: dict[str, list[str]] = {}

    def rnode(
        self,
        name: str,
        modulation: Modulation = FAST,
        band: Band | None = FREE,
        *,
        firmware: Firmware = ESP32,
        keep: Keep | None = None,
        run: str = "run",
    ) -> RadioLink:
        """A new RNode with a link on it."""
        self.rnodes[name] = RNodeEmulator(name, self.channel, lambda data: None, firmware)
        line = self.lines[name] = VirtualLine(self.clock)
        line.plug(self.rnodes[name])
        return self.link(name, line, RNode(modulation), band, keep=keep, run=run)

    def meshcore(self, name: str, modulation: Modulation = FAST, band: Band | None = FREE) -> RadioLink:
        """A new MeshCore modem with a link on it."""
        self.meshcores[name] = MeshCoreEmulator(name, self.channel, lambda data: None)
        line = self.lines[name] = VirtualLine(self.clock)
        line.plug(self.meshcores[name])
        return self.link(name, line, MeshCore(modulation), band)

    def link(
        self,
        name: str,
        line: VirtualLine,
        modem: Modem,
        band: Band | None,
        *,
        keep: Keep | None = None,
        run: str = "run",
    ) -> RadioLink:
        """A link on a line that is there."""
        link = RadioLink(name, line, modem, band, virtual_host(self.clock, self.rng, keep=keep, run=run))
        heard, events = self.heard.setdefault(name, []), self.events.setdefault(name, [])
        link.on_frame = lambda address, frame: heard.append(frame)
        link.on_change = lambda: events.append("up" if link.up else "down")
        link.on_room = lambda: events.append("room")
        self.links[name] = link
        return link

    def run(self, seconds: float) -> None:
        self.clock.run(self.clock.now_us + round(seconds * 1_000_000))

    def flood(
        self, name: str, seconds: float, length: int, priority: Priority = Priority.BULK, every_s: float = 0.05
    ) -> int:
        """Sends whenever there is room; how many frames were taken."""
        link, taken = self.links[name], 0
        until_us = self.clock.now_us + round(seconds * 1_000_000)
        while self.clock.now_us < until_us:
            while link.send("*", taken.to_bytes(4, "big") * (length // 4), priority):
                taken += 1
            self.run(every_s)
        return taken

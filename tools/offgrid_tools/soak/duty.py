"""Days of bad traffic over LoRa modems in virtual time; no window of any band may hold more than it allows.

Each day is another world: a band, a modulation and a modem; somebody who sends whenever there is room, of any priority
and length; a neighbour whose carrier keeps the channel busy for minutes; ports that are unplugged, modems that lose
power, nodes that are killed and started again (on the same run of the machine or on another), disks that fail. What
was really on the air is measured at the channel, every window of every day is looked at, and the airtime that the link
counted is compared with it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgspec

from offgrid_tools.emulators.channel import Channel
from offgrid_tools.emulators.clock import VirtualClock
from offgrid_tools.emulators.meshcore import MeshCoreEmulator
from offgrid_tools.emulators.rnode import Firmware, RNodeEmulator
from offgrid_tools.emulators.virtual import VirtualLine, virtual_host
from offgrid_transports.keep import Done, MemoryKeep
from offgrid_transports.lora.meshcore import MeshCore
from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band, load_regions
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.transport import BROADCAST, Priority

DAY_S = 86_400
STATISTICS_US = 5_000_000  # seldomer than the firmware, which is worse
SETTINGS = (
    ("EU868", 869_525_000, 125_000, (9, 10, 12)),
    ("EU868", 868_100_000, 125_000, (7, 8, 9, 12)),
    ("EU868", 864_000_000, 125_000, (7, 9, 10)),
    ("US915", 914_900_000, 125_000, (7, 8, 9)),
    ("US915", 914_900_000, 250_000, (8, 9)),
)
LINK, NEIGHBOUR = "link", "neighbour"


class Day(msgspec.Struct):
    """What one day came to."""

    frames: int
    air_us: int
    fullest: float  # of what the band allows
    counted_us: int
    violations: list[str]


def fullest_us(sent: list[tuple[int, int]], window_us: int) -> int:
    """The most air that any window holds. `sent` are (start, end), one after the other; the fullest window ends with
    one of them."""
    fullest = first = held_us = 0
    for start_us, end_us in sent:
        held_us += end_us - start_us
        while sent[first][1] <= end_us - window_us:
            held_us -= sent[first][1] - sent[first][0]
            first += 1
        fullest = max(fullest, held_us - max(0, end_us - window_us - sent[first][0]))
    return fullest


class FailingKeep(MemoryKeep):
    """A disk that is sometimes full."""

    def __init__(self, rng: Random) -> None:
        super().__init__()
        self._rng = rng

    def save(self, name: str, data: bytes, done: Done) -> None:
        if self._rng.random() < 0.02:
            done(OSError(28, "No space left on device"))
        else:
            super().save(name, data, done)


class BadDay:
    """One world and its adversary."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)  # noqa: S311  no secret
        self.clock = VirtualClock()
        self.channel = Channel(self.clock, self.rng, logged=True)
        region, freq_hz, bw_hz, sfs = self.rng.choice(SETTINGS)
        self.modulation = Modulation(freq_hz, bw_hz, self.rng.choice(sfs), self.rng.randint(5, 8))
        self.band: Band = load_regions()[region].band_for(self.modulation)
        self.keep = FailingKeep(self.rng)
        self.runs = 0
        self.counted_us = 0
        self.until_us = 0
        self.rnode = self.rng.random() < 0.7
        self.device: RNodeEmulator | MeshCoreEmulator = (
            RNodeEmulator(LINK, self.channel, _nowhere, Firmware(statistics_us=STATISTICS_US))
            if self.rnode
            else MeshCoreEmulator(LINK, self.channel, _nowhere)
        )
        self.neighbour = MeshCoreEmulator(NEIGHBOUR, self.channel, _nowhere)
        self.line = VirtualLine(self.clock)
        self.link = self.start()

    def start(self) -> RadioLink:
        """The node starts, with what its disk holds."""
        self.line = VirtualLine(self.clock)
        self.line.plug(self.device)
        modem = RNode(self.modulation) if self.rnode else MeshCore(self.modulation)
        host = virtual_host(self.clock, self.rng, keep=self.keep, run=f"run {self.runs}")
        link = RadioLink(LINK, self.line, modem, self.band, host)
        link.on_room = link.on_change = self.fill
        return link

    def fill(self) -> None:
        """Sends all that is taken."""
        link = self.link
        most = link.mtu_bytes()
        for _ in range(20):
            length = min(most, self.rng.choice((1, 20, 100, most, self.rng.randint(1, max(1, most)))))
            if not most or not link.send(BROADCAST, bytes(length), self.rng.choice(list(Priority))):
                return

    def run(self, seconds: int) -> Day:
        self.until_us = seconds * 1_000_000
        self.again(self.fill, 30)
        self.again(self.jam, 2_000)
        self.again(self.pull, 4_000)
        self.again(self.cut, 7_000)
        self.again(self.kill, 5_000)
        self.clock.run(self.until_us)
        self.counted_us += self.link.book.duty.begun_us
        sent = [(start, end) for name, start, end in self.channel.log or [] if name == LINK]
        violations, fullest = [], 0.0
        for limit in self.band.limits:
            most_us = fullest_us(sent, limit.window_us)
            fullest = max(fullest, most_us / limit.used_us)
            if most_us > limit.used_us:
                violations.append(f"{self.modulation}: a window of {limit} held {most_us} µs")
        air_us = sum(end - start for start, end in sent)
        if air_us > self.counted_us:
            violations.append(f"{self.modulation}: {air_us} µs were on the air, {self.counted_us} counted")
        return Day(len(sent), air_us, fullest, self.counted_us, violations)

    def again(self, happens: Callable[[], object], mean_s: int) -> None:
        """At random moments."""

        def now() -> None:
            happens()
            if self.clock.now_us < self.until_us:
                self.clock.after(round(self.rng.expovariate(1 / mean_s) * 1_000_000) + 1, now)

        self.clock.after(round(self.rng.expovariate(1 / mean_s) * 1_000_000) + 1, now)

    def jam(self) -> None:
        """The neighbour keeps the channel busy, for up to 40 minutes."""
        if not self.channel.sending(self.neighbour):
            symbols = self.rng.choice((100, 5_000, 60_000))
            carrier = Modulation(self.modulation.freq_hz, 125_000, self.rng.choice((9, 12)), 5, 14, symbols)
            self.channel.send(self.neighbour, carrier, bytes(200), lambda: None)

    def pull(self) -> None:
        """The port goes and comes back; the modem may have lost its power or not."""
        line = self.line
        line.unplug()
        if self.rng.random() < 0.5:
            self.device.reboot()
        self.clock.after(self.rng.randint(1, 60_000_000), lambda: line.plug(self.device) if line is self.line else None)

    def cut(self) -> None:
        """The modem starts anew."""
        self.device.reboot()

    def kill(self) -> None:
        """The node dies without a word and starts again, perhaps after a power cut."""
        self.line.unplug()  # which also has the dead link come to rest
        self.line.close()
        self.counted_us += self.link.book.duty.begun_us
        self.runs += self.rng.random() < 0.5
        self.link = self.start()


def _nowhere(data: bytes) -> None:
    """Where a device that is not plugged in says what it says."""


def soak_duty(seed: int, days: int, say: Callable[[str], None], seconds: int = DAY_S) -> list[str]:
    """Returns what was violated; says what the days came to."""
    broken: list[str] = []
    frames = air_us = counted_us = 0
    fullest = 0.0
    for number in range(days):
        day = BadDay(seed + number).run(seconds)
        broken += [f"day {seed + number}: {violation}" for violation in day.violations]
        frames, air_us, counted_us = frames + day.frames, air_us + day.air_us, counted_us + day.counted_us
        fullest = max(fullest, day.fullest)
        if number % 50 == 49 or number == days - 1:
            say(
                f"{number + 1} days: {frames} frames, {air_us / 1e6:.1f} s of air, {counted_us / 1e6:.1f} s counted; "
                f"the fullest window held {fullest:.2%} of what it may"
            )
    return broken

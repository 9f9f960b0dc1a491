"""A LoRa channel: who hears what, and when. Pure, in any clock's time.

A station hears a frame when it is within reach of the sender, set to the same frequency, bandwidth and spreading
factor, does not send itself at any moment of it, and no other frame that it could hear with the same settings is on
the air meanwhile, unless that one is weaker by CAPTURE_DB. What is left is lost with probability `loss`.

A station knows that the channel is busy only some symbols after a frame has begun: two that begin within that time
collide.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Protocol

import msgspec

from offgrid_tools.emulators.clock import Clock
from offgrid_transports.lora.modulation import Modulation

CAPTURE_DB = 6.0
SENSE_SYMBOLS = 4
USUAL_DBM = -70.0
NOISE_DBM = -117.0

Reach = Callable[[str, str], float | None]
"""(sender, hearer) to the strength in dBm with which the one hears the other; None when not at all."""


def everybody(sender: str, hearer: str) -> float | None:
    """All hear all."""
    return USUAL_DBM


class Station(Protocol):
    """A radio on the channel."""

    name: str

    @property
    def tuned(self) -> Modulation | None:
        """What it listens to; None when it is off."""
        ...

    def on_air(self, frame: bytes, rssi_dbm: float, snr_db: float) -> None:
        """It has heard a frame."""
        ...

    def on_medium(self) -> None:
        """Somebody in reach has begun or ended: `busy` may be another one."""
        ...


class Flight(msgspec.Struct):
    """A frame on the air."""

    sender: Station
    modulation: Modulation
    frame: bytes
    start_us: int
    end_us: int
    deaf: set[str] = msgspec.field(default_factory=set)  # who sent meanwhile
    over: dict[str, float] = msgspec.field(default_factory=dict)  # the strongest that disturbed, by hearer
    sensed: bool = False


class Counts(msgspec.Struct):
    """What has happened on the channel."""

    frames: int = 0
    bytes: int = 0
    airtime_us: int = 0
    heard: int = 0
    collided: int = 0
    lost: int = 0
    deaf: int = 0


class Channel:
    """Joins stations. `loss` may be changed while it runs; `log` keeps (name, start, end) of each frame when asked."""

    def __init__(
        self, clock: Clock, rng: Random, *, reach: Reach = everybody, loss: float = 0.0, logged: bool = False
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.reach = reach
        self.loss = loss
        self.counts = Counts()
        self.log: list[tuple[str, int, int]] | None = [] if logged else None
        self._stations: dict[str, Station] = {}
        self._hearers: dict[str, list[tuple[Station, float]]] = {}
        self._flights: list[Flight] = []

    def join(self, station: Station) -> None:
        """Raises ValueError when the name is taken."""
        if station.name in self._stations:
            raise ValueError(f"a station {station.name!r} is there already")
        self._stations[station.name] = station
        self._hearers.clear()

    def leave(self, station: Station) -> None:
        self._stations.pop(station.name, None)
        self._hearers.clear()

    def forget_reach(self) -> None:
        """`reach` says something else now."""
        self._hearers.clear()

    def busy(self, station: Station) -> bool:
        """Whether the station senses somebody else's frame."""
        tuned = station.tuned
        return tuned is not None and any(
            flight.sensed
            and flight.sender is not station
            and flight.modulation.freq_hz == tuned.freq_hz
            and self.reach(flight.sender.name, station.name) is not None
            for flight in self._flights
        )

    def sending(self, station: Station) -> bool:
        return any(flight.sender is station for flight in self._flights)

    def send(self, station: Station, modulation: Modulation, frame: bytes, then: Callable[[], object]) -> None:
        """Puts a frame on the air at once and calls `then` when it ends."""
        air_us, now_us = modulation.airtime_us(len(frame)), self.clock.now_us
        flight = Flight(station, modulation, frame, now_us, now_us + air_us)
        for other in self._flights:
            flight.deaf.add(other.sender.name)
            other.deaf.add(station.name)
            if _same(flight.modulation, other.modulation):
                self._disturb(flight, other)
                self._disturb(other, flight)
        self._flights.append(flight)
        self.counts.frames += 1
        self.counts.bytes += len(frame)
        self.counts.airtime_us += air_us
        if self.log is not None:
            self.log.append((station.name, now_us, now_us + air_us))
        self.clock.after(round(SENSE_SYMBOLS * modulation.symbol_us), lambda: self._sense(flight))
        self.clock.after(air_us, lambda: self._end(flight, then))

    def _disturb(self, flight: Flight, by: Flight) -> None:
        for station, dbm in self._heard_by(by.sender):
            flight.over[station.name] = max(dbm, flight.over.get(station.name, dbm))

    def _heard_by(self, sender: Station) -> list[tuple[Station, float]]:
        hearers = self._hearers.get(sender.name)
        if hearers is None:
            hearers = []
            for name, station in self._stations.items():
                dbm = self.reach(sender.name, name) if name != sender.name else None
                if dbm is not None:
                    hearers.append((station, dbm))
            self._hearers[sender.name] = hearers
        return hearers

    def _sense(self, flight: Flight) -> None:
        flight.sensed = True
        for station, _ in self._heard_by(flight.sender):
            station.on_medium()

    def _end(self, flight: Flight, then: Callable[[], object]) -> None:
        self._flights.remove(flight)
        for station, dbm in self._heard_by(flight.sender):
            tuned = station.tuned
            if tuned is None or not _same(tuned, flight.modulation):
                continue
            if station.name in flight.deaf:
                self.counts.deaf += 1
            elif dbm - flight.over.get(station.name, -999.0) < CAPTURE_DB:
                self.counts.collided += 1
            elif self.rng.random() < self.loss:
                self.counts.lost += 1
            else:
                self.counts.heard += 1
                station.on_air(flight.frame, dbm, min(dbm - NOISE_DBM, 12.0))
        then()
        for station, _ in self._heard_by(flight.sender):
            station.on_medium()


def _same(one: Modulation, other: Modulation) -> bool:
    return (one.freq_hz, one.bw_hz, one.sf) == (other.freq_hz, other.bw_hz, other.sf)

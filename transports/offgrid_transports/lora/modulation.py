"""What a LoRa radio is set to: frequency, bandwidth, spreading factor, coding rate, power and preamble. Pure."""

from __future__ import annotations

from functools import lru_cache

import msgspec
from msgspec.structs import replace

from offgrid_transports.lora.airtime import airtime_us
from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import BadSpec

BANDWIDTHS_HZ = (7_800, 10_400, 15_600, 20_800, 31_250, 41_700, 62_500, 125_000, 250_000, 500_000)
FREQ_HZ_MIN, FREQ_HZ_MAX = 137_000_000, 1_020_000_000
SF_MIN, SF_MAX = 5, 12
CR_MIN, CR_MAX = 5, 8
POWER_DBM_MIN, POWER_DBM_MAX = 0, 27
PREAMBLE_MIN, PREAMBLE_MAX = 6, 65_535
PARAMETERS = ("freq", "bw", "sf", "cr", "power")


class Modulation(msgspec.Struct, frozen=True):
    """One setting of a radio; `cr` is the coding rate's denominator, `preamble` is in symbols."""

    freq_hz: int
    bw_hz: int = 125_000
    sf: int = 8
    cr: int = 5
    power_dbm: int = 14
    preamble: int = 8

    def __post_init__(self) -> None:
        if self.bw_hz not in BANDWIDTHS_HZ:
            allowed = ", ".join(f"{hz / 1000:g}" for hz in BANDWIDTHS_HZ)
            raise ValueError(f"bw={self.bw_hz / 1000:g}: allowed: {allowed} kHz")
        for name, value, low, high in (
            ("freq_hz", self.freq_hz, FREQ_HZ_MIN, FREQ_HZ_MAX),
            ("sf", self.sf, SF_MIN, SF_MAX),
            ("cr", self.cr, CR_MIN, CR_MAX),
            ("power_dbm", self.power_dbm, POWER_DBM_MIN, POWER_DBM_MAX),
            ("preamble", self.preamble, PREAMBLE_MIN, PREAMBLE_MAX),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name}={value}: allowed: {low} to {high}")

    def __str__(self) -> str:
        channel = f"{self.freq_hz / 1e6:.3f} MHz, {self.bw_hz / 1000:g} kHz"
        return f"{channel}, SF{self.sf}, CR 4/{self.cr}, {self.power_dbm} dBm"

    @property
    def symbol_us(self) -> float:
        return (1 << self.sf) * 1_000_000 / self.bw_hz

    @property
    def bitrate_bps(self) -> int:
        """What the modulation carries, without preamble and header."""
        return self.sf * self.bw_hz * 4 // ((1 << self.sf) * self.cr)

    def airtime_us(self, length: int) -> int:
        return _airtime_us(length, self.sf, self.bw_hz, self.cr, self.preamble)

    def with_preamble(self, preamble: int) -> Modulation:
        return replace(self, preamble=preamble)


@lru_cache(maxsize=4096)
def _airtime_us(length: int, sf: int, bw_hz: int, cr: int, preamble: int) -> int:
    return airtime_us(length, sf, bw_hz, cr, preamble)


def from_spec(spec: LinkSpec, default_hz: int) -> Modulation:
    """What a description asks for: freq in MHz, bw in kHz, sf, cr, power in dBm; raises BadSpec.

    `default_hz` 0: the frequency has to be named.
    """
    if "freq" not in spec.params and not default_hz:
        raise BadSpec(f"{spec}: name the frequency in MHz, such as freq=869.525, or a region that has a usual one")
    freq_mhz = spec.number("freq", default_hz / 1e6, FREQ_HZ_MIN / 1e6, FREQ_HZ_MAX / 1e6)
    bw_khz = spec.number("bw", 125, BANDWIDTHS_HZ[0] / 1000, BANDWIDTHS_HZ[-1] / 1000)
    try:
        return Modulation(
            round(freq_mhz * 1_000_000),
            round(bw_khz * 1000),
            spec.whole("sf", 8, SF_MIN, SF_MAX),
            spec.whole("cr", 5, CR_MIN, CR_MAX),
            spec.whole("power", 14, POWER_DBM_MIN, POWER_DBM_MAX),
        )
    except ValueError as error:
        raise BadSpec(f"{spec}: {error}") from error

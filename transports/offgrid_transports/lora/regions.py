"""What may be sent where: regions, their bands, and the windows of airtime that each band allows.

The figures live in regions.toml, whose head describes the form; a file of the user's own adds regions or replaces
ours. A mistake in one is said with its place.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import msgspec

from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.transport import BadSpec

FILE_BYTES_MAX = 1 << 20
WINDOW_S_MAX = 7 * 86_400
REGION_KEYS = ("about", "usual_mhz", "gain_free_dbi", "bands")
BAND_KEYS = ("low_mhz", "high_mhz", "power_dbm", "bw_khz_min", "bw_khz_max", "limits")
LIMIT_KEYS = ("window_s", "used_ms")

Table = dict[str, object]


class Limit(msgspec.Struct, frozen=True):
    """At most `used_us` of air in any `window_us`."""

    window_us: int
    used_us: int


class Band(msgspec.Struct, frozen=True):
    """A stretch of spectrum with one set of rules, for bandwidths from `bw_hz_min` to `bw_hz_max`."""

    low_hz: int
    high_hz: int
    power_dbm: float
    limits: tuple[Limit, ...]
    bw_hz_min: int = 0
    bw_hz_max: int = 10**9

    def __str__(self) -> str:
        shares = ", ".join(
            f"{limit.used_us * 100 / limit.window_us:g} % of {limit.window_us // 1_000_000} s" for limit in self.limits
        )
        return f"{self.low_hz / 1e6:g}-{self.high_hz / 1e6:g} MHz, {self.power_dbm:g} dBm, {shares or 'no duty limit'}"

    def holds(self, modulation: Modulation) -> bool:
        half_hz = modulation.bw_hz / 2
        return (
            self.low_hz <= modulation.freq_hz - half_hz
            and modulation.freq_hz + half_hz <= self.high_hz
            and self.bw_hz_min <= modulation.bw_hz <= self.bw_hz_max
        )


class Region(msgspec.Struct, frozen=True):
    """A country's or a union's rules."""

    name: str
    about: str
    usual_hz: int
    gain_free_dbi: float
    bands: tuple[Band, ...]

    def band_for(self, modulation: Modulation, gain_dbi: float = 0.0) -> Band:
        """The band whose rules hold; raises BadSpec when there is none or the power is too high for it."""
        band = next((band for band in self.bands if band.holds(modulation)), None)
        if band is None:
            bands = "; ".join(map(str, self.bands))
            raise BadSpec(f"{modulation}: no band of {self.name} holds that channel. Allowed: {bands}")
        excess_db = max(0.0, gain_dbi - self.gain_free_dbi)
        if modulation.power_dbm + excess_db > band.power_dbm:
            raise BadSpec(
                f"{modulation}: {self.name} allows {band.power_dbm:g} dBm there"
                + (f", {band.power_dbm - excess_db:g} with an antenna of {gain_dbi:g} dBi" if excess_db else "")
            )
        return band


def load_regions(own: str = "") -> dict[str, Region]:
    """Our regions, and those of the file `own`, which win; raises BadSpec with the place of a mistake."""
    regions = parse_regions(files(__package__).joinpath("regions.toml").read_text(encoding="utf-8"), "regions.toml")
    if own:
        try:
            with Path(own).open("rb") as file:
                data = file.read(FILE_BYTES_MAX + 1)
            if len(data) > FILE_BYTES_MAX:
                raise BadSpec(f"{own}: a file of regions has at most {FILE_BYTES_MAX} bytes")
            text = data.decode("utf-8")
        except (OSError, ValueError) as error:  # which a name with a NUL is as well
            raise BadSpec(f"{own}: the regions cannot be read: {error}") from error
        regions |= parse_regions(text, own)
    return regions


def parse_regions(text: str, place: str) -> dict[str, Region]:
    """Regions by name; raises BadSpec."""
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadSpec(f"{place}: {error}") from error
    return {
        name: _region(name, _table(f"{place}: [{name}]", table, REGION_KEYS), place) for name, table in tables.items()
    }


def _region(name: str, table: Table, place: str) -> Region:
    where = f"{place}: [{name}]"
    bands = tuple(
        _band(f"{where} band {number}", _table(f"{where} band {number}", item, BAND_KEYS))
        for number, item in enumerate(_tables(where, table, "bands"), 1)
    )
    if not bands:
        raise BadSpec(f"{where}: a region has at least one band")
    usual_hz = round(_number(where, table, "usual_mhz", 0, 6000, 0.0) * 1e6)
    return Region(
        name, str(table.get("about", "")), usual_hz, _number(where, table, "gain_free_dbi", -20, 60, 0.0), bands
    )


def _band(where: str, table: Table) -> Band:
    limits = []
    for item in _tables(where, table, "limits"):
        limit = _table(f"{where} limit", item, LIMIT_KEYS)
        window_s = _number(where, limit, "window_s", 1, WINDOW_S_MAX)
        used_ms = _number(where, limit, "used_ms", 0, window_s * 1000)
        limits.append(Limit(round(window_s * 1_000_000), round(used_ms * 1000)))
    band = Band(
        round(_number(where, table, "low_mhz", 1, 6000) * 1e6),
        round(_number(where, table, "high_mhz", 1, 6000) * 1e6),
        _number(where, table, "power_dbm", -30, 60),
        tuple(limits),
        round(_number(where, table, "bw_khz_min", 0, 10**6, 0.0) * 1000),
        round(_number(where, table, "bw_khz_max", 0, 10**6, 1e6) * 1000),
    )
    if band.low_hz >= band.high_hz or band.bw_hz_min > band.bw_hz_max:
        raise BadSpec(f"{where}: the lower edge has to be below the upper one")
    return band


def _table(where: str, value: object, keys: tuple[str, ...]) -> Table:
    if not isinstance(value, dict):
        raise BadSpec(f"{where}: a table is expected, with {', '.join(keys)}")
    unknown = sorted(set(value) - set(keys))
    if unknown:
        raise BadSpec(f"{where}: unknown {unknown[0]!r}; allowed: {', '.join(keys)}")
    return value


def _tables(where: str, table: Table, key: str) -> list[object]:
    value = table.get(key, [])
    if not isinstance(value, list):
        raise BadSpec(f"{where}: {key}: a list of tables is expected")
    return value


def _number(where: str, table: Table, key: str, low: float, high: float, default: float | None = None) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadSpec(f"{where}: {key}: a number from {low:g} to {high:g} is expected")
    return value

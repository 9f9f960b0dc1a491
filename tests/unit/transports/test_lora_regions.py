"""What a region allows, and files that add one."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_transports.lora.modulation import Modulation
from offgrid_transports.lora.regions import Limit, load_regions, parse_regions
from offgrid_transports.transport import BadSpec

HOUR_US = 3_600_000_000
REGIONS = load_regions()
KITE = """
[KITE]
usual_mhz = 433.5
gain_free_dbi = 3
[[KITE.bands]]
low_mhz = 433.0
high_mhz = 434.0
power_dbm = 12
limits = [{ window_s = 60, used_ms = 100 }, { window_s = 3600, used_ms = 2000 }]
"""


@pytest.mark.parametrize(
    ("region", "freq_mhz", "bw_khz", "limits", "power_dbm"),
    [
        ("EU868", 864.0, 125, (Limit(HOUR_US, 3_600_000),), 14),
        ("EU868", 868.1, 125, (Limit(HOUR_US, 36_000_000),), 14),
        ("EU868", 868.95, 250, (Limit(HOUR_US, 3_600_000),), 14),
        ("EU868", 869.525, 250, (Limit(HOUR_US, 360_000_000),), 27),
        ("EU868", 869.85, 125, (Limit(HOUR_US, 36_000_000),), 14),
        ("EU433", 433.775, 125, (Limit(HOUR_US, 360_000_000),), 10),
        ("US915", 906.875, 500, (), 27),
        ("US915", 906.875, 250, (Limit(10_000_000, 400_000),), 24),
        ("US915", 906.875, 62.5, (Limit(20_000_000, 400_000),), 27),
    ],
)
def test_bands_are_those_of_the_rules(
    region: str, freq_mhz: float, bw_khz: float, limits: tuple[Limit, ...], power_dbm: int
) -> None:
    modulation = Modulation(round(freq_mhz * 1e6), round(bw_khz * 1000), 7, 5, power_dbm=10)
    band = REGIONS[region].band_for(modulation)
    assert (band.limits, band.power_dbm) == (limits, power_dbm)


def test_the_whole_channel_has_to_lie_within_a_band() -> None:
    assert REGIONS["EU868"].band_for(Modulation(869_587_500, 125_000))
    for freq_hz in (869_587_501, 868_650_000, 869_300_000):
        with pytest.raises(
            BadSpec, match=r"no band of EU868 holds that channel\. Allowed: 863-865 MHz, 14 dBm, 0\.1 %"
        ):
            REGIONS["EU868"].band_for(Modulation(freq_hz, 125_000))


def test_power_is_limited_and_an_antenna_that_gains_more_takes_it_off() -> None:
    eu = REGIONS["EU868"]
    assert eu.band_for(Modulation(868_100_000, power_dbm=14), gain_dbi=2.0)
    with pytest.raises(BadSpec, match="allows 14 dBm"):
        eu.band_for(Modulation(868_100_000, power_dbm=15))
    with pytest.raises(BadSpec, match=r"10\.15 with an antenna of 6 dBi"):
        eu.band_for(Modulation(868_100_000, power_dbm=14), gain_dbi=6.0)


def test_a_file_of_ones_own_adds_a_region(tmp_path: Path) -> None:
    own = tmp_path / "regions.toml"
    own.write_text(KITE, encoding="utf-8")
    regions = load_regions(str(own))
    assert set(regions) > {"EU868", "KITE"}
    assert regions["KITE"].usual_hz == 433_500_000
    band = regions["KITE"].band_for(Modulation(433_500_000, power_dbm=12))
    assert band.limits == (Limit(60_000_000, 100_000), Limit(HOUR_US, 2_000_000))
    with pytest.raises(BadSpec, match="cannot be read"):
        load_regions(str(tmp_path / "none.toml"))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[KITE]", "[KITE", "x.toml: "),
        ("usual_mhz", "usual_mzh", r"x.toml: [KITE]: unknown 'usual_mzh'"),
        ("low_mhz = 433.0", "low_mhz = 435", "band 1: the lower edge"),
        ("low_mhz = 433.0", "", "band 1: low_mhz: a number from 1 to 6000"),
        ("power_dbm = 12", 'power_dbm = "12"', "band 1: power_dbm: a number"),
        ("power_dbm = 12", "power_dbm = nan", "band 1: power_dbm: a number"),
        ("used_ms = 100 ", "used_ms = 60001 ", "band 1: used_ms: a number from 0 to 60000"),
        ("window_s = 60,", "windows = 60,", "limit: unknown 'windows'"),
        ("[[KITE.bands]]", "[KITE.bands]", "bands: a list of tables"),
    ],
)
def test_a_mistake_in_a_file_is_said_with_its_place(old: str, new: str, says: str) -> None:
    assert old in KITE
    with pytest.raises(BadSpec) as error:
        parse_regions(KITE.replace(old, new), "x.toml")
    assert says in str(error.value)

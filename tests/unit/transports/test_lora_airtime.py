"""Airtime by Semtech's papers, and what a radio may be set to."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.lora.airtime import airtime_us
from offgrid_transports.lora.modulation import BANDWIDTHS_HZ, Modulation, from_spec
from offgrid_transports.registry import parse_spec
from offgrid_transports.transport import BadSpec

SFS, CRS, BANDS = st.integers(5, 12), st.integers(5, 8), st.sampled_from(BANDWIDTHS_HZ)


@pytest.mark.parametrize(
    ("length", "sf", "cr", "preamble", "us"),
    [
        (13, 9, 5, 8, 164_864),  # the worked example of AN1200.13
        (10, 7, 5, 8, 41_216),
        (10, 11, 5, 8, 577_536),
        (255, 7, 5, 24, 416_000),
        (255, 12, 5, 18, 9_347_072),
    ],
)
def test_airtime_is_what_published_examples_say(length: int, sf: int, cr: int, preamble: int, us: int) -> None:
    assert airtime_us(length, sf, 125_000, cr, preamble) == us


@given(st.integers(0, 255), SFS, BANDS, CRS, st.integers(6, 300), st.booleans(), st.booleans())
def test_airtime_is_the_formula_rounded_up_to_a_microsecond(
    length: int, sf: int, bw_hz: int, cr: int, preamble: int, crc: bool, implicit: bool
) -> None:
    symbol_s = Fraction(1 << sf, bw_hz)
    optimised = symbol_s > Fraction(16, 1000)
    bits = 8 * length - 4 * sf + 16 * crc + (0 if implicit else 20) + (8 if sf >= 7 else 0)
    symbols = 8 + max(0, math.ceil(Fraction(bits, 4 * (sf - 2 * optimised)))) * cr
    whole_s = (preamble + Fraction(17 if sf >= 7 else 25, 4) + symbols) * symbol_s
    assert airtime_us(length, sf, bw_hz, cr, preamble, crc=crc, implicit=implicit) == math.ceil(whole_s * 10**6)


def test_a_frame_that_lora_cannot_carry_is_refused() -> None:
    for length in (-1, 256):
        with pytest.raises(ValueError, match="0 to 255"):
            airtime_us(length, 7, 125_000, 5, 8)


def test_settings_come_from_a_description() -> None:
    modulation = from_spec(parse_spec("lora:x?freq=869.525&sf=7&bw=250&cr=6&power=20"), 0)
    assert modulation == Modulation(869_525_000, 250_000, 7, 6, 20)
    assert str(modulation) == "869.525 MHz, 250 kHz, SF7, CR 4/6, 20 dBm"
    assert from_spec(parse_spec("lora:x"), 868_100_000) == Modulation(868_100_000)
    assert Modulation(868_000_000, 125_000, 7).bitrate_bps == 5468


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lora:x", "name the frequency"),
        ("lora:x?freq=27", "from 137 to 1020"),
        ("lora:x?freq=nan", "from 137 to 1020"),
        ("lora:x?freq=868&bw=126", "allowed: 7.8, 10.4"),
        ("lora:x?freq=868&sf=13", "from 5 to 12"),
        ("lora:x?freq=868&sf=7.5", "whole number"),
        ("lora:x?freq=868&cr=4", "from 5 to 8"),
        ("lora:x?freq=868&power=30", "from 0 to 27"),
    ],
)
def test_settings_that_no_radio_has_are_refused(text: str, says: str) -> None:
    with pytest.raises(BadSpec) as error:
        from_spec(parse_spec(text), 0)
    assert says in str(error.value)

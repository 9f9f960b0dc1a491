"""What the RNode firmware reckons with (RNode_Firmware: Config.h, Utilities.h, RNode_Firmware.ino). Pure."""

from __future__ import annotations

import math

from offgrid_transports.lora.airtime import low_rate
from offgrid_transports.lora.modulation import Modulation

PREAMBLE_SYMBOLS_MIN, PREAMBLE_MS, FAST_BPS, FAST_MS = 18, 24, 30_000, 18
SLOT_SYMBOLS, SLOT_MS_MIN, SLOT_MS_MAX, DIFS_SLOTS, WINDOW_SLOTS = 12, 24, 100, 2, 15
BANDS, BAND_1_PERCENT, BAND_N_PERCENT = 4, 7, 85
STATISTICS_MS = 15_000  # the time that the short airtime figure covers
STATISTICS_UNITS = 10_000
GUARD_BPS = 14_000  # where the modulation is faster, it sends one packet at a time, else all that it has
QUEUE_BYTES_MAX = 6144  # what comes on top is cut off


def preamble_symbols(modulation: Modulation) -> int:
    """The preamble that the firmware chooses: 24 ms, less on fast links, and 18 symbols at least."""
    target_ms = PREAMBLE_MS - (FAST_MS if modulation.bitrate_bps > FAST_BPS else 0)
    return max(PREAMBLE_SYMBOLS_MIN, math.ceil(target_ms * 1000 / modulation.symbol_us))


def slot_ms(modulation: Modulation) -> int:
    """One slot of the firmware's medium access."""
    least_ms = SLOT_MS_MIN - (FAST_MS if modulation.bitrate_bps > FAST_BPS else 0)
    slot = min(int(modulation.symbol_us * SLOT_SYMBOLS / 1000), SLOT_MS_MAX)
    return slot if slot >= SLOT_MS_MIN else least_ms


def told_ms(modulation: Modulation, length: int) -> int:
    """What the firmware adds to its airtime for a LoRa frame of `length` bytes, header included."""
    bits = 8 * length + 16 - 4 * modulation.sf + 20 + (8 if modulation.sf >= 7 else 0)
    per_group = 4 * (modulation.sf - 2 * low_rate(modulation.sf, modulation.bw_hz))
    sync = 0.25 if modulation.sf >= 7 else 2.25
    symbols = bits / per_group * modulation.cr + modulation.preamble + sync + 8
    return int(symbols * modulation.symbol_us / 1000)


def contention_window(units: int) -> tuple[int, int]:
    """The fewest and the most slots that the firmware waits, by the share of the last seconds that it was sending: it
    steps back the longer, the more it sends."""
    percent, band = units * 100 // STATISTICS_UNITS, 1
    if percent > BAND_1_PERCENT:
        band = min(BANDS, 2 + percent * (BANDS - 2) // (BAND_N_PERCENT - BAND_1_PERCENT))
    return (band - 1) * WINDOW_SLOTS, band * WINDOW_SLOTS - (1 if band == 1 else 2)

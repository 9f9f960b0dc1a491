"""How long a LoRa frame is on the air, to the microsecond. Pure.

Semtech AN1200.13 and the SX1276 data sheet 4.1.1.7 for spreading factors 7 to 12, the SX1261/2 data sheet 6.1.4 for 5
and 6 (whose preamble is two symbols longer). All in integers and rounded up: what is counted is never less than what
was sent.
"""

from __future__ import annotations

LOW_RATE_SYMBOL_US = 16_000  # symbols longer than this are sent with low data rate optimisation
PREAMBLE_QUARTERS = 17  # 4.25 symbols of sync word and start of frame
PREAMBLE_QUARTERS_SF5 = 25  # 6.25 for spreading factors 5 and 6
HEADER_SYMBOLS = 8
PAYLOAD_BYTES_MAX = 255


def low_rate(sf: int, bw_hz: int) -> bool:
    """Whether frames are sent with low data rate optimisation."""
    return (1 << sf) * 1_000_000 > LOW_RATE_SYMBOL_US * bw_hz


def payload_symbols(length: int, sf: int, cr: int, *, crc: bool, implicit: bool, optimised: bool) -> int:
    """The symbols after the preamble; `cr` is the coding rate's denominator, 5 to 8."""
    bits = 8 * length - 4 * sf + 16 * crc + 20 * (not implicit) + (8 if sf >= 7 else 0)
    per_group = 4 * (sf - 2 * optimised)
    return HEADER_SYMBOLS + max(0, -(-bits // per_group)) * cr


def airtime_us(
    length: int, sf: int, bw_hz: int, cr: int, preamble: int, *, crc: bool = True, implicit: bool = False
) -> int:
    """Microseconds of air for `length` bytes, rounded up. `preamble` is in symbols, as set in the radio."""
    if not 0 <= length <= PAYLOAD_BYTES_MAX:
        raise ValueError(f"a LoRa frame has 0 to {PAYLOAD_BYTES_MAX} bytes, not {length}")
    symbols = payload_symbols(length, sf, cr, crc=crc, implicit=implicit, optimised=low_rate(sf, bw_hz))
    quarters = 4 * (preamble + symbols) + (PREAMBLE_QUARTERS if sf >= 7 else PREAMBLE_QUARTERS_SF5)
    return -(-quarters * (1 << sf) * 1_000_000 // (4 * bw_hz))

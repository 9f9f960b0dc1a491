"""What sessions and small calls cost on the air at SF7, and whether rules of the air are kept. In virtual time.

Real endpoints, real adapters, emulated RNodes and their channel; what Reticulum takes for the same is measured in
`transports_lora.py`, in real time on the same emulators.
"""

from __future__ import annotations

import itertools
import statistics
from fractions import Fraction
from math import ceil

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import quantile
from offgrid_tools.bench.lora_pair import METHOD, NAMES, TIMEOUT_MS, LoraPair
from offgrid_tools.soak.duty import soak_duty
from offgrid_transports.lora.airtime import airtime_us

SESSIONS, SESSIONS_QUICK = 1_000, 50
LOSS = 0.2
CALL_BYTES = 32
LONG_BYTES = 255  # no hello has room for it
DAYS, DAYS_QUICK = 30, 2
SEED = 800
LENGTHS = (1, 16, 51, 100, 222, 255)
PREAMBLES = (8, 16, 18, 24)
BANDWIDTHS_HZ = (62_500, 125_000, 250_000, 500_000)


def measure(plan: Plan) -> list[Figure]:
    plan.say("transports: sessions and small calls on the air")
    bytes_, air_ms = _handshake()
    made, waits_s = _handshakes(plan.rounds(SESSIONS, SESSIONS_QUICK))
    return [
        Figure("handshake_bytes", bytes_, note="two frames, without the modem's own byte in each"),
        Figure("handshake_air_ms_sf7", air_ms),
        Figure("handshakes_of_1000_loss20", made, note=f"of {plan.rounds(SESSIONS, SESSIONS_QUICK)}"),
        Figure("handshake_p95_s_loss20", quantile(waits_s, 0.95), note=f"p50 {statistics.median(waits_s):.2f}"),
        Figure("rpc32_air_ms_sf7", _call_air_ms(), note="one hop, both ways"),
        *_rules(plan),
    ]


def _handshake() -> tuple[int, float]:
    pair = LoraPair(1)
    _begin(pair)
    counts = pair.channel.counts
    return counts.bytes - counts.frames, counts.airtime_us / 1000


def _begin(pair: LoraPair) -> float:
    """Seconds until there is a session, of which the hello brought nothing."""
    began_us = pair.clock.now_us
    pair.ends[0].call(NAMES[1], METHOD, pair.rng.randbytes(LONG_BYTES), TIMEOUT_MS, lambda reply: None)
    pair.run_until(lambda: pair.ends[0].session_of(NAMES[1]) is not None)
    return (pair.clock.now_us - began_us) / 1_000_000


def _handshakes(count: int) -> tuple[int, list[float]]:
    """How many of so many pairs had a session in the end, and how long each took."""
    waits_s = []
    for seed in range(count):
        try:
            waits_s.append(_begin(LoraPair(seed, loss=LOSS)))
        except TimeoutError:
            continue
    return len(waits_s), waits_s


def _call_air_ms() -> float:
    pair = LoraPair(1, answer_bytes=CALL_BYTES)
    pair.call(b"")
    pair.run(20)
    before_us = pair.channel.counts.airtime_us
    pair.call(pair.rng.randbytes(CALL_BYTES))
    pair.run(20)
    return (pair.channel.counts.airtime_us - before_us) / 1000


def _rules(plan: Plan) -> list[Figure]:
    days = plan.rounds(DAYS, DAYS_QUICK)
    plan.say(f"transports: {days} days of bad traffic")
    said: list[str] = []
    broken = soak_duty(SEED, days, said.append)
    return [
        Figure("duty_violations", len(broken), note=said[-1]),
        Figure("airtime_error_percent", 100 * _airtime_error(), note="against Semtech's formula in exact fractions"),
    ]


def _airtime_error() -> float:
    """The largest, as a share."""
    settings = itertools.product(range(7, 13), BANDWIDTHS_HZ, range(5, 9), PREAMBLES, LENGTHS)
    return max(
        abs(airtime_us(length, sf, bw_hz, cr, preamble) / _semtech_us(length, sf, bw_hz, cr, preamble) - 1)
        for sf, bw_hz, cr, preamble, length in settings
    )


def _semtech_us(length: int, sf: int, bw_hz: int, cr: int, preamble: int) -> float:
    """AN1200.13: explicit header, checksum, optimized for low rates where a symbol is longer than 16 ms."""
    symbol_us = Fraction(2**sf * 1_000_000, bw_hz)
    slow = 2 if symbol_us > 16_000 else 0
    groups = ceil(Fraction(8 * length - 4 * sf + 28 + 16, 4 * (sf - slow)))
    return float((preamble + Fraction(17, 4) + 8 + max(0, groups) * cr) * symbol_us)

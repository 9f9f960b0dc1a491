"""How well sessions use a LoRa channel, over emulated RNodes in virtual time: SF7, 125 kHz, 5,468 bit/s."""

from __future__ import annotations

import statistics

import pytest

from offgrid_tools.bench.lora_pair import SF7, LoraPair

LONG_BYTES = 10_000
SEEDS = range(15)


def share(seed: int, loss: float) -> float:
    """Of the modulation's rate, from the call to its answer, in a session that is there."""
    pair = LoraPair(seed, loss=loss)
    pair.call(b"")
    return LONG_BYTES * 8 / SF7.bitrate_bps / pair.call(pair.rng.randbytes(LONG_BYTES))


@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.78), (0.1, 0.62), (0.2, 0.52)])
def test_ten_kilobytes_take_the_share_of_the_rate_that_is_promised(loss: float, least: float) -> None:
    assert statistics.median(share(seed, loss) for seed in SEEDS) >= least


def test_a_call_of_32_bytes_takes_two_short_frames_of_air() -> None:
    pair = LoraPair(1, answer_bytes=32)
    pair.call(b"")
    pair.run(20)
    before_us = pair.channel.counts.airtime_us
    pair.call(bytes(32))
    pair.run(20)
    assert pair.channel.counts.airtime_us - before_us <= 230_000


def test_a_handshake_takes_two_frames_of_160_bytes_in_all() -> None:
    pair = LoraPair(1)
    pair.ends[0].call("answering", 1, bytes(255), 60_000, lambda reply: None)  # no room for it in the hello
    while pair.ends[0].session_of("answering") is None:
        pair.run(0.001)
    counts = pair.channel.counts
    assert (counts.frames, counts.bytes) == (2, 160 + 2), "and a byte of the modem's in each"
    assert counts.airtime_us <= 320_000

"""How well sessions use a LoRa channel, over emulated RNodes in virtual time: SF7, 125 kHz, 5,468 bit/s."""

from __future__ import annotations

import statistics
from random import Random

import pytest

from offgrid_tools.bench.lora_pair import METHOD, NAMES, SF7, TIMEOUT_MS, LoraPair, end_of
from offgrid_transports.calls import End, Reply
from offgrid_transports.session import FRAME_TYPE, SID_BYTES, UNREAD_MAX
from offgrid_transports.transport import BROADCAST

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


@pytest.mark.parametrize("seed", range(3))
def test_who_begins_anew_is_not_spoken_to_in_the_session_before(seed: int) -> None:
    """Its last answer is still unacknowledged there: nobody waits for it any more."""
    pair = LoraPair(seed, answer_bytes=32)
    pair.call(bytes(32))
    pair.ends[0] = end_of(*NAMES, pair.links[0], Random(seed), pair.clock)
    assert pair.channel.log is not None
    before = len(pair.channel.log)
    pair.call(pair.rng.randbytes(3_000))
    said = [name for name, _, _ in pair.channel.log[before:] if name == NAMES[1]]
    assert len(said) == 2, "the welcome and the answer"


def test_a_session_that_was_replaced_goes_on_when_the_medium_is_still() -> None:
    """An answer was on its way in pieces when its caller began anew; those that ask for it wait for the burst."""
    pair = LoraPair(1, answer_bytes=3_000)
    pair.ends[0].call(NAMES[1], METHOD, b"", TIMEOUT_MS, lambda reply: None)
    pair.run_until(lambda: pair.answered)
    pair.links[0].on_frame = lambda address, frame: None
    pair.run(20)
    session = pair.ends[1].session_of(NAMES[0])
    assert session is not None
    assert session.silent, "it has asked in vain"
    pair.ends[0] = end_of(*NAMES, pair.links[0], Random(1), pair.clock)
    assert pair.channel.log is not None
    before = len(pair.channel.log)
    pair.ends[0].call(NAMES[1], METHOD, pair.rng.randbytes(3_000), TIMEOUT_MS, lambda reply: None)
    pair.run_until(lambda: pair.answered == 2)
    said = [name for name, _, _ in pair.channel.log[before:] if name == NAMES[1]]
    assert (len(said), session.silent) == (1, 0), "the welcome"
    pair.run(60)
    assert session.silent, "it asks again"


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (3, 0.0), (0, 0.15), (6, 0.15)])
def test_a_session_that_was_replaced_goes_on_however_much_is_said_in_the_new_one(seed: int, loss: float) -> None:
    """Its answer is on its way in pieces, and its caller asks for more and more."""
    pair = LoraPair(seed, loss=loss)
    caller, answering = pair.ends
    answering.on_request = lambda request: answering.respond(request, bytes(32 if request.body else LONG_BYTES))
    pair.call(bytes(32))
    replies = list[Reply]()
    caller.call(NAMES[1], METHOD, b"", 120_000, replies.append)
    pair.run(1)
    replaced = caller.session_of(NAMES[1])
    assert replaced is not None
    for _ in range(UNREAD_MAX):
        pair.links[0].on_frame(BROADCAST, bytes((FRAME_TYPE,)) + replaced.ours.to_bytes(SID_BYTES) + bytes(20))

    def ask(reply: Reply | None = None) -> None:
        caller.call(NAMES[1], METHOD, pair.rng.randbytes(3_000), TIMEOUT_MS, ask)

    ask()
    ask()
    pair.run_until(lambda: replies)
    assert caller.session_of(NAMES[1]) is not replaced
    assert replies[0].end is End.OK, replies[0].detail

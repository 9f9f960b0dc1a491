"""Any symbols give the payload back, once there are enough; what is none is refused."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports.coding import NUMBER_MAX, SYMBOLS_MAX, CodingError, Decoder, Encoder, split

SEED = b"seed"


@given(st.binary(min_size=1, max_size=600), st.integers(10, 60), st.randoms(use_true_random=False))
def test_any_symbols_give_it_back_once_none_is_missing(payload: bytes, room: int, rng: Random) -> None:
    encoder = Encoder(SEED, payload, room)
    decoder = Decoder(SEED, len(payload), encoder.symbol_bytes)
    numbers = iter(rng.sample(range(NUMBER_MAX + 1), encoder.count + 20))
    while decoder.missing:
        before, number = decoder.missing, next(numbers)
        assert decoder.add(number, encoder.symbol(number)) == (decoder.missing == before - 1)
    assert decoder.payload() == payload


@given(st.binary(min_size=1, max_size=300), st.integers(10, 60))
def test_a_symbol_that_comes_twice_is_nothing_new(payload: bytes, room: int) -> None:
    encoder = Encoder(SEED, payload, room)
    decoder = Decoder(SEED, len(payload), encoder.symbol_bytes)
    for number in (0, encoder.count + 7):
        decoder.add(number, encoder.symbol(number))
        assert not decoder.add(number, encoder.symbol(number))


def test_the_first_ones_are_the_payload_itself() -> None:
    payload = bytes(range(250))
    encoder = Encoder(SEED, payload, 100)
    assert b"".join(encoder.symbol(number) for number in range(encoder.count))[:250] == payload


def test_as_many_as_there_are_rarely_fail_to_be_enough() -> None:
    payload, rng, more = Random(1).randbytes(2_000), Random(2), 0
    encoder = Encoder(SEED, payload, 200)
    for _ in range(300):
        decoder = Decoder(SEED, len(payload), encoder.symbol_bytes)
        for number in rng.sample(range(NUMBER_MAX), encoder.count):
            decoder.add(number, encoder.symbol(number))
        more += decoder.missing
    assert more < 6, "one in 250, in the mean"


@pytest.mark.parametrize(("length", "room"), [(0, 10), (10, 0), (SYMBOLS_MAX * 10 + 1, 10), (-1, 10)])
def test_no_payload_and_one_that_is_too_long_are_refused(length: int, room: int) -> None:
    with pytest.raises(CodingError):
        split(length, room)


def test_symbols_of_another_length_are_refused() -> None:
    with pytest.raises(CodingError, match="would be enough"):
        Decoder(SEED, 250, 130)
    decoder = Decoder(SEED, 250, 125)
    for number, symbol in ((0, bytes(124)), (0, bytes(126)), (-1, bytes(125)), (NUMBER_MAX + 1, bytes(125))):
        with pytest.raises(CodingError):
            decoder.add(number, symbol)

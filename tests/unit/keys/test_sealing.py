"""What is sealed opens with the same secret and context, and with nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.keys import open_sealed, seal
from offgrid_node.keys.sealing import PLAINTEXT_BYTES_MAX
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

SECRET, CONTEXT, TEXT = b"s" * 16, b"join ask", b"let me in"


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=100), st.binary(max_size=1000))
def test_it_opens_again(secret: bytes, context: bytes, plaintext: bytes) -> None:
    sealed = seal(secret, context, plaintext)
    assert len(sealed) == len(plaintext) + 40
    assert open_sealed(secret, context, sealed) == plaintext


def test_the_same_text_never_looks_the_same() -> None:
    assert len({seal(SECRET, CONTEXT, TEXT) for _ in range(100)}) == 100


def refusal_of(secret: bytes, context: bytes, sealed: bytes) -> tuple[str, str]:
    with pytest.raises(PermissionDenied) as caught:
        open_sealed(secret, context, sealed)
    return caught.value.message, caught.value.reason


def test_every_refusal_is_the_same() -> None:
    sealed = seal(SECRET, CONTEXT, TEXT)
    refusals = {
        refusal_of(b"t" * 16, CONTEXT, sealed),
        refusal_of(SECRET, b"join grant", sealed),
        refusal_of(SECRET, CONTEXT, b""),
        refusal_of(SECRET, CONTEXT, sealed[:39]),
        refusal_of(SECRET, CONTEXT, sealed + b"\x00"),
        refusal_of(SECRET, CONTEXT, bytes(PLAINTEXT_BYTES_MAX + 41)),
    }
    assert len(refusals) == 1


def test_no_flipped_bit_opens() -> None:
    sealed = seal(SECRET, CONTEXT, TEXT)
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        refusal_of(SECRET, CONTEXT, bytes(damaged))


def test_the_bound_on_plaintext_is_reached_and_held() -> None:
    assert len(open_sealed(SECRET, CONTEXT, seal(SECRET, CONTEXT, bytes(PLAINTEXT_BYTES_MAX)))) == PLAINTEXT_BYTES_MAX
    with pytest.raises(InvalidRequest, match="at most"):
        seal(SECRET, CONTEXT, bytes(PLAINTEXT_BYTES_MAX + 1))


def test_a_secret_short_enough_to_guess_is_a_defect_of_the_caller() -> None:
    with pytest.raises(ValueError, match="guessed"):
        seal(b"1234", CONTEXT, TEXT)

"""Sealed stripes: each opens alone, and only in its own place."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt

from offgrid_node.keys.stripes import StripeSealer, open_size, open_stripe, seal_size, seal_stripe
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.manifest import COPY, SEALED_SIZE_BYTES, TAG_BYTES, Manifest, stripe_aad

KEY, NONCE = bytes(range(32)), bytes(range(16))
STRIPE = 16


def sealed(data: bytes, cuts: tuple[int, ...] = ()) -> list[bytes]:
    """The stripes of `data`, which came in pieces."""
    sealer, places = StripeSealer(KEY, NONCE, STRIPE), sorted({0, *(min(c, len(data)) for c in cuts), len(data)})
    stripes = [stripe for a, b in pairwise(places) for stripe in sealer.feed(data[a:b])]
    assert sealer.size_bytes == len(data)
    return [*stripes, sealer.finish()]


def opened(stripes: list[bytes], key: bytes = KEY, nonce: bytes = NONCE) -> bytes:
    last = len(stripes) - 1
    return b"".join(open_stripe(key, nonce, i, i == last, stripe) for i, stripe in enumerate(stripes))


def test_golden_vectors() -> None:
    """The format of what lies on disks: it never changes."""
    assert seal_stripe(KEY, NONCE, 0, True, b"").hex() == "a953161783d02b649fea1e56608cd8d1"
    assert seal_stripe(KEY, NONCE, 7, False, b"offgrid").hex() == "cfb3610c425958ff739430890bbd76036225a8547d09b6"
    stripes = sealed(bytes(range(40)))
    assert [len(stripe) - TAG_BYTES for stripe in stripes] == [16, 16, 8]
    assert (
        hashlib.sha256(b"".join(stripes)).hexdigest()
        == "e9a3f8de7b5153072b5cca808a1a72c5e61bfac3019170b72b5338db0905f4e0"
    )


@given(key=st.binary(min_size=32, max_size=32), nonce=st.binary(min_size=16, max_size=16), data=st.binary(max_size=80))
def test_a_stripe_is_what_libsodium_seals(key: bytes, nonce: bytes, data: bytes) -> None:
    theirs = crypto_aead_xchacha20poly1305_ietf_encrypt(
        data, stripe_aad(nonce, 5, True), nonce + (5).to_bytes(8, "big"), key
    )
    assert seal_stripe(key, nonce, 5, True, data) == theirs


@given(data=st.binary(max_size=100), cuts=st.lists(st.integers(0, 100)))
def test_what_goes_in_comes_out_whatever_the_pieces(data: bytes, cuts: list[int]) -> None:
    stripes = sealed(data, tuple(cuts))
    assert stripes == sealed(data), "the pieces leave no trace"
    assert len(stripes) == max(1, -(-len(data) // STRIPE))
    assert opened(stripes) == data


@given(data=st.binary(min_size=STRIPE + 1, max_size=80), draw=st.data())
def test_no_other_row_of_the_same_stripes_opens(data: bytes, draw: st.DataObject) -> None:
    stripes = sealed(data)
    other = draw.draw(st.lists(st.sampled_from(stripes), min_size=1, max_size=len(stripes) + 1))
    if other == stripes:
        assert opened(other) == data
    else:
        with pytest.raises(Corrupt):
            opened(other)


@given(data=st.binary(max_size=40), at=st.integers(0), bit=st.integers(0, 7))
def test_no_flipped_bit_opens(data: bytes, at: int, bit: int) -> None:
    stripes = sealed(data)
    which = at % len(stripes)
    stripe = bytearray(stripes[which])
    stripe[at % len(stripe)] ^= 1 << bit
    with pytest.raises(Corrupt):
        opened([*stripes[:which], bytes(stripe), *stripes[which + 1 :]])


@pytest.mark.parametrize("length", [0, 1, TAG_BYTES - 1, TAG_BYTES, 20])
def test_a_stripe_cut_short_does_not_open(length: int) -> None:
    stripe = seal_stripe(KEY, NONCE, 0, True, b"offgrid")
    with pytest.raises(Corrupt):
        open_stripe(KEY, NONCE, 0, True, stripe[:length])


def test_another_objects_key_or_nonce_opens_nothing() -> None:
    stripes = sealed(b"x" * 20)
    for key, nonce in ((bytes(32), NONCE), (KEY, bytes(16))):
        with pytest.raises(Corrupt):
            opened(stripes, key, nonce)


def test_the_place_is_bound_twice() -> None:
    """The nonce already tells stripes apart; the last flag stands in the associated data alone."""
    stripe = seal_stripe(KEY, NONCE, 3, True, b"offgrid")
    for index, last in ((2, True), (4, True), (3, False)):
        with pytest.raises(Corrupt):
            open_stripe(KEY, NONCE, index, last, stripe)


class TestTheSizeOfWhatIsPadded:
    def of(self, padded_bytes: int, sealed_size: bytes, nonce: bytes = NONCE) -> Manifest:
        return Manifest("", nonce, padded_bytes, STRIPE, 1, COPY, (bytes(32),), 1, sealed_size=sealed_size)

    def test_golden_vector(self) -> None:
        sealed_size = seal_size(KEY, NONCE, 1_024, 1_000)
        assert sealed_size.hex() == "add4caa95d5913c93a940d51384457a5ecf1913afb44685d"
        assert len(sealed_size) == SEALED_SIZE_BYTES

    def test_opens_with_its_key_in_its_place_alone(self) -> None:
        sealed_size = seal_size(KEY, NONCE, 1_024, 1_000)
        assert open_size(KEY, self.of(1_024, sealed_size)) == 1_000
        wrong = [(bytes(32), 1_024, NONCE, sealed_size), (KEY, 1_056, NONCE, sealed_size),
                 (KEY, 1_024, bytes(16), sealed_size), (KEY, 1_024, NONCE, bytes(24))]  # fmt: skip
        for key, padded_bytes, nonce, said in wrong:
            with pytest.raises(Corrupt, match="does not open"):
                open_size(key, self.of(padded_bytes, said, nonce))

    def test_is_no_larger_than_what_it_is_filled_up_to(self) -> None:
        assert open_size(KEY, self.of(1_024, seal_size(KEY, NONCE, 1_024, 1_024))) == 1_024
        with pytest.raises(Corrupt, match="1025 bytes in 1024"):
            open_size(KEY, self.of(1_024, seal_size(KEY, NONCE, 1_024, 1_025)))

    def test_of_what_is_not_padded_is_in_the_manifest(self) -> None:
        assert open_size(b"whatever", self.of(1_000, b"")) == 1_000

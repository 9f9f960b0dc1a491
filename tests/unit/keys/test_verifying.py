"""Ed25519 is verified strictly: a key that could vouch for anything vouches for nothing."""

from __future__ import annotations

import hashlib
import secrets

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_scalar_reduce,
    crypto_scalarmult_ed25519_base_noclamp,
)

from offgrid_node.keys import NodeKey, check_public_key, verify
from offgrid_node.protocol.errors import InvalidRequest

P = 2**255 - 19
Y_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826  # y of a point of order 8


def encoding(y: int, sign: int) -> bytes:
    return (y | sign << 255).to_bytes(32, "little")


CANONICAL = [encoding(1, 0), encoding(P - 1, 0)] + [encoding(y, s) for y in (0, Y_8, P - Y_8) for s in (0, 1)]
# y not reduced (only 0 and 1 leave room for it), or a sign bit on x = 0
NON_CANONICAL = [encoding(y, s) for y in (P, P + 1) for s in (0, 1)] + [encoding(1, 1), encoding(P - 1, 1)]
SMALL_ORDER = CANONICAL + NON_CANONICAL


def a_digest() -> bytes:
    return secrets.token_bytes(32)


def test_the_table_holds_all_eight_points_and_their_six_other_encodings() -> None:
    assert len(set(CANONICAL)) == 8
    assert len(set(SMALL_ORDER)) == 14


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_a_small_order_key_is_refused(key: bytes) -> None:
    with pytest.raises(InvalidRequest, match="small-order"):
        check_public_key(key)


@pytest.mark.parametrize("key", SMALL_ORDER, ids=bytes.hex)
def test_nothing_verifies_under_a_small_order_key(key: bytes) -> None:
    # Under such a key S·B = R + h·A holds for R = S·B whenever h·A vanishes: one digest in eight, or all of them.
    scalar = crypto_core_ed25519_scalar_reduce(hashlib.sha512(key).digest())
    commitments = [*SMALL_ORDER, crypto_scalarmult_ed25519_base_noclamp(scalar)]
    for _ in range(32):
        digest = a_digest()
        for commitment in commitments:
            assert not verify(key, digest, commitment + scalar)
            assert not verify(key, digest, commitment + bytes(32))


def test_another_verifier_does_take_one_signature_for_every_digest() -> None:
    """Why the choice of verifier matters, and that the forgeries above are real ones."""
    scalar = crypto_core_ed25519_scalar_reduce(hashlib.sha512(b"any").digest())
    forged = crypto_scalarmult_ed25519_base_noclamp(scalar) + scalar
    lax = Ed25519PublicKey.from_public_bytes(encoding(1, 0))
    for _ in range(32):
        lax.verify(forged, a_digest())  # raises when it refuses


@pytest.mark.parametrize("y", range(P + 2, 2**255))
def test_a_key_not_reduced_is_refused(y: int) -> None:
    with pytest.raises(InvalidRequest, match="canonical"):
        check_public_key(encoding(y, 0))


def test_a_key_with_a_small_order_part_is_refused() -> None:
    mixed = crypto_core_ed25519_add(NodeKey(bytes(32)).public_key, encoding(Y_8, 0))
    with pytest.raises(InvalidRequest, match="prime-order"):
        check_public_key(mixed)


def test_a_key_off_the_curve_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prime-order"):
        check_public_key(encoding(2, 0))  # (y²-1)/(dy²+1) is no square


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(InvalidRequest, match=f"{size} bytes"):
        check_public_key(bytes(size))


@given(st.binary(min_size=32, max_size=32))
def test_every_honest_key_passes(seed: bytes) -> None:
    check_public_key(NodeKey(seed).public_key)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_a_key_signs_verifies(seed: bytes, digest: bytes) -> None:
    key = NodeKey(seed)
    assert verify(key.public_key, digest, key.sign(digest))


def test_one_flipped_bit_anywhere_does_not_verify() -> None:
    key, digest = NodeKey(bytes(32)), bytes(range(32))
    signature = key.sign(digest)
    parts = (key.public_key, digest, signature)
    assert verify(*parts)
    for index, part in enumerate(parts):
        for bit in range(len(part) * 8):
            damaged = bytearray(part)
            damaged[bit // 8] ^= 1 << bit % 8
            assert not verify(*(bytes(damaged) if at == index else whole for at, whole in enumerate(parts)))


def test_the_same_signature_with_an_unreduced_scalar_does_not_verify() -> None:
    key, digest = NodeKey(bytes(32)), bytes(32)
    signature = key.sign(digest)
    order = 2**252 + 27742317777372353535851937790883648493
    again = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    assert not verify(key.public_key, digest, again)


@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_anything_malformed_is_false_and_no_exception(key: bytes, digest: bytes, signature: bytes) -> None:
    assert verify(key, digest, signature) is False


def test_only_digests_are_signed() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NodeKey(bytes(32)).sign(b"a certificate body, say, which is longer than any digest")


def test_rfc_8032_test_2() -> None:
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    assert NodeKey(seed).public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"

"""Key wraps: for one reader, repeatable from the same entropy, and nothing that another could open."""

from __future__ import annotations

import pytest
from nacl.public import SealedBox
from nacl.signing import SigningKey

from offgrid_node.keys import NodeKey
from offgrid_node.keys.wraps import ENTROPY_BYTES, WRAP_BYTES_MAX, KeyWraps
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied

ALICE, BOB = NodeKey(b"a" * 32), NodeKey(b"b" * 32)
GOLDEN = (
    "636b36d306a7eba24fe513c8398d9a955848e711313f3d87c387308f4c939b4b",
    "8dba1328129626fb5a035cabeef17919e054265132ab337d75ef9047e3d4ebee1d813eae37305fc8423da48f24b250c2",
)
SECRET, ENTROPY = b"s" * 32, b"e" * ENTROPY_BYTES


def test_the_reader_opens_it_and_nobody_else() -> None:
    wrapped = KeyWraps(ALICE).wrap(BOB.public_key, SECRET, ENTROPY)
    assert KeyWraps(BOB).unwrap(wrapped) == SECRET
    with pytest.raises(PermissionDenied, match="another"):
        KeyWraps(ALICE).unwrap(wrapped)


def test_it_is_the_sealed_box_that_libsodium_knows() -> None:
    wrapped = KeyWraps(ALICE).wrap(BOB.public_key, SECRET, ENTROPY)
    assert SealedBox(SigningKey(b"b" * 32).to_curve25519_private_key()).decrypt(wrapped) == SECRET
    theirs = SealedBox(SigningKey(b"b" * 32).verify_key.to_curve25519_public_key()).encrypt(SECRET)
    assert KeyWraps(BOB).unwrap(theirs) == SECRET


def test_golden_vector() -> None:
    """The format of what lies in rows: it never changes."""
    ephemeral, sealed = GOLDEN
    assert KeyWraps(ALICE).wrap(BOB.public_key, SECRET, ENTROPY).hex() == ephemeral + sealed


def test_the_same_entropy_gives_the_same_wrap_and_other_another() -> None:
    wraps = KeyWraps(ALICE)
    first = wraps.wrap(BOB.public_key, SECRET, ENTROPY)
    assert first == wraps.wrap(BOB.public_key, SECRET, ENTROPY)
    assert first != wraps.wrap(BOB.public_key, SECRET, b"f" * ENTROPY_BYTES)


@pytest.mark.parametrize("at", [0, 31, 32, 47, 48, -1])
def test_a_damaged_wrap_does_not_open(at: int) -> None:
    wrapped = bytearray(KeyWraps(ALICE).wrap(BOB.public_key, SECRET, ENTROPY))
    wrapped[at] ^= 1
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB).unwrap(bytes(wrapped))


@pytest.mark.parametrize("wrapped", [b"", b"x" * 47, b"x" * (WRAP_BYTES_MAX + 1)])
def test_what_is_no_wrap_does_not_open(wrapped: bytes) -> None:
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB).unwrap(wrapped)


@pytest.mark.parametrize("public_key", [b"", bytes(32), b"\xff" * 32, b"x" * 31])
def test_nothing_is_wrapped_for_a_key_that_is_none(public_key: bytes) -> None:
    with pytest.raises(InvalidRequest):
        KeyWraps(ALICE).wrap(public_key, SECRET, ENTROPY)


def test_short_entropy_is_a_defect() -> None:
    with pytest.raises(ValueError, match="entropy"):
        KeyWraps(ALICE).wrap(BOB.public_key, SECRET, b"e")

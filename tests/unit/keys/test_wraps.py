"""Key wraps: for one reader's key and one use, the same from the same entropy, and nothing that another could open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.keys import NodeKey
from offgrid_node.keys.wraps import ENTROPY_BYTES, WRAP_BYTES_MAX, KeyWraps
from offgrid_node.protocol.errors import InvalidRequest, PermissionDenied
from offgrid_node.protocol.mesh.wrapping import WRAP_NUMBER_MAX, WrappingKey

ALICE, BOB, BOB_ANEW = NodeKey(b"a" * 32), NodeKey(b"b" * 32), NodeKey(b"c" * 32)
SECRET, USE, ENTROPY = b"s" * 32, b"o-some-object", b"e" * ENTROPY_BYTES
NUMBERS = st.integers(0, WRAP_NUMBER_MAX)
GOLDEN = {
    0: "0000bc79498d"
    "fb41b1fcf75c1227fa08876056a5ed07ac44fe0c116ec2de80b8e523959d7824"
    "2d5ccdaad53a7df5ce6a2a5b54c03c2e813eeefbcbf8b08ffa76ba109037a97df7628fd8c248482b4f7ce834bc14d7a4",
    1: "00013cc9edc1"
    "fb41b1fcf75c1227fa08876056a5ed07ac44fe0c116ec2de80b8e523959d7824"
    "0d93f1d7c6d1b3aa904270eed34f25460e9abaa7fcf3b8a9c940ea326c34fbacbefbb9cee2dfdda97d329a46bfba8a5b",
}


def wrap(reader: WrappingKey, use: bytes = USE, entropy: bytes = ENTROPY) -> bytes:
    (sealed,) = KeyWraps(ALICE).wrap(reader, [(SECRET, use)], entropy)
    return sealed


@given(NUMBERS)
def test_the_reader_opens_it_and_nobody_else(number: int) -> None:
    wrapped = wrap(BOB.wrapping_key(number))
    assert KeyWraps(BOB).unwrap(wrapped, USE) == SECRET
    with pytest.raises(PermissionDenied, match="another"):
        KeyWraps(ALICE).unwrap(wrapped, USE)


@pytest.mark.parametrize("number", GOLDEN)
def test_golden_vectors(number: int) -> None:
    """The format of what lies in rows, and the keys that recovery words bring back: they never change."""
    assert wrap(BOB.wrapping_key(number)).hex() == GOLDEN[number]


def test_a_wrap_begins_with_the_label_of_its_readers_key_and_each_key_has_another() -> None:
    keys = [key.wrapping_key(number) for key in (ALICE, BOB) for number in range(100)]
    assert len({key.label for key in keys}) == len(keys)
    assert all(wrap(key).startswith(key.label) for key in keys)


def test_an_identity_of_before_still_opens_what_was_wrapped_for_it() -> None:
    wrapped = wrap(BOB.wrapping_key(3))
    assert KeyWraps(BOB_ANEW, [BOB]).unwrap(wrapped, USE) == SECRET
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB_ANEW).unwrap(wrapped, USE)


def test_an_older_key_of_a_reader_opens_nothing_that_is_wrapped_for_the_next() -> None:
    wrapped = wrap(BOB.wrapping_key(4))
    relabelled = BOB.wrapping_key(3).label + wrapped[6:]
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB).unwrap(relabelled, USE)


def test_many_for_one_reader_share_their_head_and_each_opens_for_its_own_use_only() -> None:
    uses = [f"object {i}".encode() for i in range(5)]
    secrets = [bytes([i]) * 32 for i in range(5)]
    wrapped = KeyWraps(ALICE).wrap(BOB.wrapping_key(1), list(zip(secrets, uses, strict=True)), ENTROPY)
    assert len({each[:38] for each in wrapped}) == 1
    assert {len(each) for each in wrapped} == {86}
    for i, each in enumerate(wrapped):
        assert KeyWraps(BOB).unwrap(each, uses[i]) == secrets[i]
        with pytest.raises(PermissionDenied):
            KeyWraps(BOB).unwrap(each, uses[i - 1])


def test_the_same_entropy_gives_the_same_wrap_and_other_another() -> None:
    key = BOB.wrapping_key(1)
    assert wrap(key) == wrap(key)
    assert wrap(key) != wrap(key, entropy=b"f" * ENTROPY_BYTES)


@pytest.mark.parametrize("at", range(0, 86, 5))
def test_a_damaged_wrap_does_not_open(at: int) -> None:
    wrapped = bytearray(wrap(BOB.wrapping_key(2)))
    wrapped[at] ^= 1
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB).unwrap(bytes(wrapped), USE)


@given(st.binary(max_size=WRAP_BYTES_MAX + 1))
def test_what_is_no_wrap_does_not_open(wrapped: bytes) -> None:
    with pytest.raises(PermissionDenied):
        KeyWraps(BOB).unwrap(wrapped, USE)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("key", [b"", bytes(32), b"x" * 31])
def test_nothing_is_wrapped_for_a_key_that_is_none(number: int, key: bytes) -> None:
    with pytest.raises(InvalidRequest):
        wrap(WrappingKey(number, key))


def test_short_entropy_is_a_defect() -> None:
    with pytest.raises(ValueError, match="entropy"):
        wrap(BOB.wrapping_key(0), entropy=b"e")

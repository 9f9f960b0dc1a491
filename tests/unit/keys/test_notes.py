"""Notes: nobody but who wrote one opens it, nobody else can write one, and its length says next to nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.keys import NodeKey
from offgrid_node.keys.notes import STEP_BYTES
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.protocol.errors import PermissionDenied

ALICE, BOB = NodeKey(b"a" * 32), NodeKey(b"b" * 32)
USE, NOTE = b"o-some-object", b"a name, and what else an owner knows"
GOLDEN = (
    "a63ede8366077ccc0ec1a516bd05a4b2aab948fbb6491ed3c6aa92009163cff8c2369c57dfe4607e4275495a60d7d35f"
    "bb89b5e0af36c6d10d1e677e5715b212725f630d282234382907bb06cd955dcadf7db94ccb21488332f91c11d5e18371"
    "5456ae8caa3b5c7820d7a26a5fddf73c5e162879516fb89e215eb6e5d88c7e37398973114218514ea0a75fbf7ad466e2"
    "d2601ddd3ff0c863162192d2"
)


def seal(note: bytes = NOTE, use: bytes = USE) -> bytes:
    return KeyWraps(ALICE).seal_note(note, use)


@given(st.binary(max_size=1_000))
def test_who_wrote_it_opens_it(note: bytes) -> None:
    assert KeyWraps(ALICE).open_note(seal(note), USE) == note


def test_nobody_else_does_and_it_is_for_nothing_else() -> None:
    for wraps, sealed, use in (
        (KeyWraps(BOB), seal(), USE),
        (KeyWraps(ALICE), seal(), b"o-another"),
        (KeyWraps(ALICE), seal(use=b"o-another"), USE),
        (KeyWraps(ALICE), KeyWraps(BOB).seal_note(NOTE, USE), USE),
    ):
        with pytest.raises(PermissionDenied):
            wraps.open_note(sealed, use)


@given(st.integers(0, 8 * len(seal()) - 1))
def test_one_wrong_bit_is_seen(bit: int) -> None:
    wrong = bytearray(seal())
    wrong[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PermissionDenied):
        KeyWraps(ALICE).open_note(bytes(wrong), USE)


@given(st.binary(max_size=200))
def test_what_is_none_opens_as_none(anything: bytes) -> None:
    with pytest.raises(PermissionDenied):
        KeyWraps(ALICE).open_note(anything, USE)


def test_names_of_other_lengths_look_alike() -> None:
    assert len({len(seal(bytes(length))) for length in range(STEP_BYTES - 1)}) == 1
    assert len(seal(bytes(STEP_BYTES))) == len(seal()) + STEP_BYTES


def test_an_identity_of_before_still_opens_its_own() -> None:
    assert KeyWraps(BOB, [ALICE]).open_note(seal(), USE) == NOTE


def test_golden_vector() -> None:
    """The format of what hosts keep, and the key that recovery words bring back: they never change."""
    assert seal(b"name", b"use").hex() == GOLDEN

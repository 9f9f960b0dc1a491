"""Packed bodies come out as they went in, are never longer, and garbage comes out as an error, not as memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_transports import packing
from offgrid_transports.folding import ESCAPE, RUN_CHARS_MAX, FoldError, fold, unfold
from offgrid_transports.packing import BLOCK_BYTES_MAX, NEWEST, RATIO_MAX, Packing, PackingError, Words

NODE_ID = b"cytqnipjck5ni22vi44abd75npfuv53j"
ANSWER = b"\n\x41\n\x1ej-2al2dlj7dxo5fjrlsjn7uvvs-000\x10\x01\x18\x01\x22\x20" + NODE_ID + b"\x28\xfc\xda\x09\x10\x01"
PACKING = Packing()
with_dictionary = pytest.mark.skipif(not NEWEST, reason="this machine has no zstandard")
bodies = st.lists(
    st.one_of(st.binary(max_size=40), st.sampled_from([NODE_ID, ANSWER, b"completed", bytes((ESCAPE,)), b"a" * 600]))
).map(b"".join)


@given(bodies)
def test_ids_are_folded_and_unfolded(body: bytes) -> None:
    assert unfold(fold(body)) == body


def test_an_id_takes_five_eighths_and_two_bytes() -> None:
    assert len(fold(NODE_ID)) == 2 + 20
    assert len(fold(b"a" * 2 * RUN_CHARS_MAX)) == 2 * (2 + RUN_CHARS_MAX * 5 // 8)


@pytest.mark.parametrize(
    "folded", [b"\xf5", b"x\xf5\x0f" + bytes(10), b"\xf5\xf9" + bytes(160), b"\xf5\x10" + bytes(9), b"\xf5\x11\xff" * 9]
)
def test_what_was_not_folded_is_refused(folded: bytes) -> None:
    with pytest.raises(FoldError):
        unfold(folded)


@given(bodies, st.integers(0, NEWEST + 1))
def test_a_body_is_packed_only_where_that_is_shorter(body: bytes, known: int) -> None:
    packed = PACKING.pack(body, known)
    if packed is not None:
        assert len(packed) < len(body)
        assert packed[0] <= known
        assert PACKING.unpack(packed) == body


@with_dictionary
def test_what_nodes_say_takes_two_thirds() -> None:
    folded, packed = PACKING.pack(ANSWER, 0), PACKING.pack(ANSWER, NEWEST)
    assert folded is not None
    assert packed is not None
    assert len(packed) < len(folded) < len(ANSWER)
    assert len(packed) <= len(ANSWER) * 2 / 3


@given(st.binary(max_size=300))
def test_garbage_is_no_packed_body(garbage: bytes) -> None:
    with contextlib.suppress(PackingError):
        assert len(PACKING.unpack(garbage)) <= RATIO_MAX * len(garbage)


@with_dictionary
@pytest.mark.parametrize("number", [NEWEST + 1, 255])
def test_a_dictionary_that_is_not_known_is_named(number: int) -> None:
    with pytest.raises(PackingError, match=f"dictionary {number}; {NEWEST} is known"):
        PACKING.unpack(bytes((number,)) + b"anything")


@with_dictionary
def test_few_bytes_do_not_become_many() -> None:
    zeros = bytes(BLOCK_BYTES_MAX)
    assert PACKING.pack(zeros, NEWEST) is None, "nobody sends what would be refused"
    bomb = bytes((NEWEST,)) + PACKING._tables[NEWEST - 1].compressed(zeros)
    assert RATIO_MAX * len(bomb) < BLOCK_BYTES_MAX
    with pytest.raises(PackingError):
        PACKING.unpack(bomb)


def test_what_is_too_long_for_a_block_travels_as_it_is() -> None:
    assert PACKING.pack(NODE_ID * (BLOCK_BYTES_MAX // 32) + b"x", NEWEST) is None
    unfolded = bytes(1) + fold(b"abcdefgh" * (BLOCK_BYTES_MAX // 8 + 31))
    with pytest.raises(PackingError, match=f"{BLOCK_BYTES_MAX} are taken"):
        PACKING.unpack(unfolded)


@with_dictionary
def test_a_peer_is_told_nothing_in_a_dictionary_that_it_has_not_shown() -> None:
    asking, answering = Words(PACKING), Words(PACKING, known=NEWEST)  # the hello has told the one that is asked
    first, packed = asking.shorten(ANSWER)
    assert (packed, first[0]) == (True, 0)
    assert answering.lengthen(first) == ANSWER
    answer, packed = answering.shorten(ANSWER)
    assert (packed, answer[0]) == (True, NEWEST)
    assert asking.lengthen(answer) == ANSWER
    assert asking.shorten(ANSWER)[0][0] == NEWEST


def test_dictionaries_are_numbered_without_a_gap() -> None:
    there = sorted(path.name for path in (Path(packing.__file__).parent / "dictionaries").iterdir())
    assert there == [f"{number}.dict" for number in range(1, len(there) + 1)]
    assert NEWEST in (0, len(there))

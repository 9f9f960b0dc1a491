"""A page token survives the round trip, and nothing else is taken for one."""

from __future__ import annotations

import pytest
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.services.paging import (
    PAGE_BYTES_MAX,
    PASSED_OVER_MAX,
    TOKEN_BYTES_MAX,
    decode_token,
    encode_token,
    page_bounds,
    take_page,
)


@pytest.mark.parametrize(
    ("asked", "given_size"), [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000), (2**31 - 1, 1_000)]
)
def test_a_page_has_a_default_and_a_largest_size(asked: int, given_size: int) -> None:
    assert page_bounds(asked) == given_size


def test_a_negative_page_size_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest) as caught:
        page_bounds(-1)
    assert [violation.field for violation in caught.value.violations] == ["page_size"]


@given(
    sizes=st.lists(st.sampled_from([0, 10, 900_000, 2_000_000, 5_000_000]), max_size=12),
    page_size=st.integers(min_value=0, max_value=4),
)
@settings(max_examples=30)  # megabytes are moved
def test_pages_hold_every_row_once_within_count_and_bytes(sizes: list[int], page_size: int) -> None:
    rows = [(bytes([place]), BytesValue(value=bytes(size))) for place, size in enumerate(sizes)]
    seen, token = [], ""
    while True:
        at = decode_token(token)
        page, token = take_page((row for row in rows if row[0] >= at), page_size)
        seen += page
        assert len(page) <= page_bounds(page_size)
        assert len(page) <= 1 or sum(item.ByteSize() for item in page) <= PAGE_BYTES_MAX
        if not token:
            break
    assert seen == [row for _, row in rows]


def test_a_page_ends_after_so_many_that_it_passes_over_and_the_next_goes_on_there() -> None:
    kept = {PASSED_OVER_MAX + 7, PASSED_OVER_MAX + 8}
    count = 2 * PASSED_OVER_MAX + 9
    rows = [(n.to_bytes(4, "big"), BytesValue(value=b"x") if n in kept else None) for n in range(count)]
    lengths, token = [], ""
    while token or not lengths:
        at = decode_token(token)
        page, token = take_page((row for row in rows if row[0] >= at), 0)
        lengths.append(len(page))
    assert lengths == [0, 2, 0]


@given(st.binary(max_size=TOKEN_BYTES_MAX))
def test_a_token_gives_its_position_back(position: bytes) -> None:
    assert decode_token(encode_token(position)) == position


@pytest.mark.parametrize("token", ["!", "AA==", "A", "AB", "é", "A" * 4_000, "\x00", "AA\n"])
def test_what_was_never_a_token_is_refused_by_name(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        decode_token(token)
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@given(st.text(max_size=40))
def test_any_text_is_a_token_or_is_refused(text: str) -> None:
    try:
        position = decode_token(text)
    except InvalidRequest:
        return
    assert encode_token(position) == text

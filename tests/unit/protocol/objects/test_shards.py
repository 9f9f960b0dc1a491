"""A shard on a disk: where its stripes and rows lie."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.manifest import REED_SOLOMON, TAG_BYTES, Manifest
from offgrid_node.protocol.objects.shards import blob_name, row_parts, row_span, stripe_span

OWNER = base32(bytes(20))


def manifest(size: int, stripe: int = 64) -> Manifest:
    return Manifest(OWNER, bytes(16), size, stripe, 1, 0, (bytes(32),), 1)


@given(size=st.integers(0, 1_000), stripe=st.integers(1, 100))
def test_its_stripes_lie_one_behind_the_other_and_end_with_it(size: int, stripe: int) -> None:
    body = manifest(size, stripe)
    spans = [stripe_span(body, index) for index in range(body.stripes)]
    assert spans[0][0] == 0
    assert all(offset + length == after for (offset, length), (after, _) in pairwise(spans))
    assert sum(spans[-1]) == body.sealed_bytes == size + TAG_BYTES * body.stripes
    assert all(length == stripe + TAG_BYTES for _, length in spans[:-1])


@given(size=st.integers(0, 1_000), stripe=st.integers(1, 100), k=st.integers(1, 13))
def test_a_shard_has_a_row_of_each_stripe_and_k_of_them_hold_it_all(size: int, stripe: int, k: int) -> None:
    body = Manifest(OWNER, bytes(16), size, stripe, k, REED_SOLOMON, (bytes(32),) * (k + 1), 1)
    rows = [row_span(body, index) for index in range(body.stripes)]
    assert rows[0][0] == 0
    assert all(offset + length == after for (offset, length), (after, _) in pairwise(rows))
    assert sum(rows[-1]) == body.shard_bytes
    for index, (_, length) in enumerate(rows):
        assert 0 <= length * k - stripe_span(body, index)[1] < k


@given(size=st.integers(0, 1_000), k=st.integers(1, 13), pieces=st.lists(st.integers(1, 200)))
def test_bytes_that_come_in_any_pieces_are_parted_where_its_rows_end(size: int, k: int, pieces: list[int]) -> None:
    body = Manifest(OWNER, bytes(16), size, 64, k, REED_SOLOMON, (bytes(32),) * (k + 1), 1)
    data = bytes(range(256)) * 8
    rows, row, offset = list[bytes](), b"", 0
    for length in [*pieces, body.shard_bytes]:
        piece = data[: body.shard_bytes][offset : offset + length]
        for part, ends in row_parts(body, offset, piece):
            row += part
            if ends:
                rows, row = [*rows, row], b""
        offset += len(piece)
    assert row == b""
    assert rows == [data[at : at + length] for at, length in (row_span(body, index) for index in range(body.stripes))]


def test_it_has_no_more_bytes_than_its_rows() -> None:
    body = manifest(150)
    with pytest.raises(ValueError, match="1 more came"):
        list(row_parts(body, body.shard_bytes - 1, b"ab"))


def test_of_a_copy_rows_are_its_stripes() -> None:
    body = manifest(150)
    assert [row_span(body, index) for index in range(3)] == [stripe_span(body, index) for index in range(3)]
    assert body.shard_bytes == body.sealed_bytes


class TestOfACodedObject:
    """Three of five: a host holds shards 1 and 4."""

    @pytest.fixture
    def body(self) -> Manifest:
        roots = tuple(bytes([shard]) * 32 for shard in range(5))
        return Manifest(OWNER, bytes(16), 150, 64, 3, REED_SOLOMON, roots, 1)

    def test_each_shard_has_a_name_of_its_own(self, body: Manifest) -> None:
        assert [blob_name(body, shard) for shard in (0, 4)] == [f"{body.object_id}.0", f"{body.object_id}.4"]
        assert blob_name(manifest(150), 0) == manifest(150).object_id

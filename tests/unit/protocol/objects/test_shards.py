"""A shard on a disk: where its stripes lie, what they hash to, and what vouches for having them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.manifest import (
    REED_SOLOMON,
    TAG_BYTES,
    Manifest,
    object_id_of,
    shard_root,
    stripe_digest,
)
from offgrid_node.protocol.objects.shards import (
    blob_name,
    hash_shards,
    possession_of,
    row_span,
    rows_at,
    stripe_span,
    wrong_shards,
)

OWNER, HOST, OTHER = base32(bytes(20)), base32(b"h" * 20), base32(b"o" * 20)
SALT = bytes(range(16))


def manifest(size: int, stripe: int = 64) -> Manifest:
    return Manifest(OWNER, bytes(16), size, stripe, 1, 0, (bytes(32),), 1)


def shard(body: Manifest) -> bytes:
    return bytes(index * 7 % 256 for index in range(body.sealed_bytes))


def hashed(body: Manifest, data: bytes, host: str = HOST, epoch: int = 1, salt: bytes = SALT) -> tuple[bytes, bytes]:
    rows = rows_at(body, (0,), lambda _, offset, length: data[offset : offset + length])
    (root,), possession = hash_shards(body, (0,), rows, salt, host, epoch)
    assert possession_of(body, rows, salt, host, epoch) == possession
    return root, possession


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


def test_of_a_copy_rows_are_its_stripes() -> None:
    body = manifest(150)
    assert [row_span(body, index) for index in range(3)] == [stripe_span(body, index) for index in range(3)]
    assert body.shard_bytes == body.sealed_bytes


def test_golden_vectors() -> None:
    """What acks and object ids are made of: it never changes."""
    body = manifest(150)
    root, possession = hashed(body, shard(body))
    assert root.hex() == "dc154da608f311677d59b271947027c549d9d340ae978a9a8895dae8a37064bd"
    assert possession.hex() == "2d2d5be2798f8848c63bafd9ca8a1ab97a5d78a1ded5ebf1eb16e4ee5244febe"
    assert object_id_of((root,)) == "o-o76mbieycs3yi67jbbgkhgua65s4hts5"


def test_its_root_is_that_of_its_stripes_digests() -> None:
    body = manifest(150)
    data = shard(body)
    stripes = [data[offset : offset + length] for offset, length in (stripe_span(body, index) for index in range(3))]
    assert hashed(body, data)[0] == shard_root([stripe_digest(SALT, stripe) for stripe in stripes])


@given(at=st.integers(0, 197), bit=st.integers(0, 7))
def test_every_bit_counts_for_both(at: int, bit: int) -> None:
    body = manifest(150)
    data = bytearray(shard(body))
    before = hashed(body, bytes(data))
    data[at] ^= 1 << bit
    after = hashed(body, bytes(data))
    assert before[0] != after[0]
    assert before[1] != after[1]


@pytest.mark.parametrize("change", [{"host": OTHER}, {"epoch": 2}, {"salt": bytes(16)}])
def test_possession_is_of_one_host_in_one_epoch_and_mesh(change: dict[str, object]) -> None:
    body = manifest(150)
    data = shard(body)
    assert hashed(body, data)[1] != hashed(body, data, **change)[1]  # type: ignore[arg-type]


class TestOfACodedObject:
    """Three of five: a host holds shards 1 and 4."""

    @pytest.fixture
    def body(self) -> Manifest:
        roots = tuple(bytes([shard]) * 32 for shard in range(5))
        return Manifest(OWNER, bytes(16), 150, 64, 3, REED_SOLOMON, roots, 1)

    def test_each_shard_has_a_name_of_its_own(self, body: Manifest) -> None:
        assert [blob_name(body, shard) for shard in (0, 4)] == [f"{body.object_id}.0", f"{body.object_id}.4"]
        assert blob_name(manifest(150), 0) == manifest(150).object_id

    def test_all_its_shards_here_are_hashed_in_one_pass(self, body: Manifest) -> None:
        data = {blob_name(body, shard): bytes([shard]) * body.shard_bytes for shard in (1, 4)}
        seen: list[tuple[str, int]] = []

        def read(name: str, offset: int, length: int) -> bytes:
            seen.append((name, offset))
            return data[name][offset : offset + length]

        roots, possession = hash_shards(body, (1, 4), rows_at(body, (1, 4), read), SALT, HOST, 1)
        assert seen == [(name, index * body.row_bytes) for index in range(body.stripes) for name in data]
        for root, of in zip(roots, data.values(), strict=True):
            rows = [of[offset : offset + length] for offset, length in (row_span(body, i) for i in range(3))]
            assert root == shard_root([stripe_digest(SALT, row) for row in rows])
        one = hash_shards(body, (1,), rows_at(body, (1,), read), SALT, HOST, 1)[1]
        assert possession != one, "it is of all the shards"

    def test_a_shard_with_another_root_is_wrong(self, body: Manifest) -> None:
        assert wrong_shards(body, (1, 4), (body.roots[1], body.roots[4])) == []
        assert wrong_shards(body, (1, 4), (body.roots[1], body.roots[1])) == [4]

"""What shards hash to as their bytes come, and what vouches for having them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.hashing import (
    Possession,
    ShardHashes,
    pieces_at,
    possession_of,
    wrong_shards,
)
from offgrid_node.protocol.objects.manifest import REED_SOLOMON, Manifest, object_id_of, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import blob_name, row_span

OWNER, HOST, OTHER = base32(bytes(20)), base32(b"h" * 20), base32(b"o" * 20)
SALT = bytes(range(16))
SHARDS = (1, 4)


def coded(data: dict[int, bytes] | None = None) -> Manifest:
    """Three of five, with the roots of these shards."""
    plain = Manifest(OWNER, bytes(16), 150, 64, 3, REED_SOLOMON, (bytes(32),) * 5, 1)
    roots = tuple(root_of(plain, data[shard]) if data and shard in data else bytes(32) for shard in range(5))
    return Manifest(OWNER, bytes(16), 150, 64, 3, REED_SOLOMON, roots, 1)


def root_of(body: Manifest, data: bytes) -> bytes:
    spans = (row_span(body, index) for index in range(body.stripes))
    return shard_root([stripe_digest(SALT, data[offset : offset + length]) for offset, length in spans])


def shards_of(body: Manifest) -> dict[int, bytes]:
    return {shard: bytes((shard + index * 7) % 256 for index in range(body.shard_bytes)) for shard in SHARDS}


@pytest.fixture
def data() -> dict[int, bytes]:
    return shards_of(coded())


@pytest.fixture
def body(data: dict[int, bytes]) -> Manifest:
    return coded(data)


def possession(body: Manifest, data: dict[int, bytes], host: str = HOST, epoch: int = 1, salt: bytes = SALT) -> bytes:
    return possession_of(body, tuple(data), data.items(), salt, host, epoch)


def test_golden_vectors() -> None:
    """What acks and object ids are made of: it never changes."""
    body = Manifest(OWNER, bytes(16), 150, 64, 1, 0, (bytes(32),), 1)
    data = bytes(index * 7 % 256 for index in range(body.sealed_bytes))
    root = root_of(body, data)
    assert root.hex() == "c52dc767979864faec623f04cc7c680ba003ff0316230d072dbb9a15ff3f0f42"
    assert possession(body, {0: data}).hex() == "203b60849a8623e7e3281ecd2a65798100cd6a6ba0d32f2fc95cc8869b42b248"
    assert object_id_of((root,)) == "o-xcft5qql3tndznm6yv6ffncpabsyatvt"


@given(cuts=st.lists(st.tuples(st.sampled_from(SHARDS), st.integers(1, 70))))
def test_pieces_may_come_in_any_size_and_shards_in_any_order(cuts: list[tuple[int, int]]) -> None:
    data = shards_of(coded())
    body = coded(data)
    hashes = ShardHashes(body, SHARDS, SALT, HOST, 1)
    for shard, length in [*cuts, *((shard, body.shard_bytes) for shard in SHARDS)]:
        hashes.add(shard, data[shard][hashes.reached(shard) :][:length])
    assert hashes.wrong() == []
    assert hashes.possession() == possession(body, data)


@given(shard=st.sampled_from(SHARDS), at=st.integers(0, 65), bit=st.integers(0, 7))
def test_every_bit_counts_for_both(shard: int, at: int, bit: int) -> None:
    data = shards_of(coded())
    body, flipped = coded(data), bytearray(data[shard])
    flipped[at % body.shard_bytes] ^= 1 << bit
    damaged = {**data, shard: bytes(flipped)}
    assert wrong_shards(body, SHARDS, data.items(), SALT) == []
    assert wrong_shards(body, SHARDS, damaged.items(), SALT) == [shard]
    assert possession(body, damaged) != possession(body, data)


@pytest.mark.parametrize("change", [{"host": OTHER}, {"epoch": 2}, {"salt": bytes(16)}])
def test_possession_is_of_one_host_in_one_epoch_and_mesh(
    body: Manifest, data: dict[int, bytes], change: dict[str, object]
) -> None:
    assert possession(body, data) != possession(body, data, **change)  # type: ignore[arg-type]


def test_possession_is_of_all_the_shards(body: Manifest, data: dict[int, bytes]) -> None:
    assert possession(body, data) != possession(body, {1: data[1]})
    assert possession(body, {1: data[1], 4: data[1]}) != possession(body, {1: data[1]})


def test_possession_is_whole_with_the_last_byte_of_the_last_shard(body: Manifest, data: dict[int, bytes]) -> None:
    digest = Possession(body, SHARDS, SALT, HOST, 1)
    digest.add(4, data[4])
    digest.add(1, data[1][:-1])
    assert not digest.is_whole
    digest.add(1, data[1][-1:])
    assert digest.is_whole
    assert digest.digest() == digest.digest() == possession(body, data)


def test_a_shard_that_begins_again_is_hashed_anew(body: Manifest, data: dict[int, bytes]) -> None:
    hashes = ShardHashes(body, SHARDS, SALT, HOST, 1)
    hashes.add(1, data[4])
    hashes.add(4, data[4])
    assert hashes.wrong() == [1]
    hashes.restart(1)
    assert (hashes.reached(1), hashes.reached(4)) == (0, body.shard_bytes)
    hashes.add(1, data[1])
    assert hashes.wrong() == []
    assert hashes.possession() == possession(body, data)


def test_shards_are_read_from_their_blobs_row_by_row(body: Manifest, data: dict[int, bytes]) -> None:
    blobs = {blob_name(body, shard): of for shard, of in data.items()}
    seen: list[tuple[str, int]] = []

    def pieces() -> Iterator[tuple[int, bytes]]:
        def read(name: str, offset: int, length: int) -> bytes:
            seen.append((name, offset))
            return blobs[name][offset : offset + length]

        return pieces_at(body, SHARDS, read)

    assert wrong_shards(body, SHARDS, pieces(), SALT) == []
    assert seen == [(name, index * body.row_bytes) for name in blobs for index in range(body.stripes)]
    assert possession_of(body, SHARDS, pieces(), SALT, HOST, 1) == possession(body, data)

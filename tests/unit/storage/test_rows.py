"""Row checksums: a value counts only under its own table and key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.storage.rows import KeyRange, RowSeal

KEYS = st.binary(min_size=1, max_size=20)


@given(KEYS, st.binary(max_size=50))
def test_a_value_comes_back(key: bytes, value: bytes) -> None:
    seal = RowSeal("jobs")
    assert seal.unwrap(key, seal.wrap(key, value)) == value


@given(KEYS, st.binary(max_size=50), st.data())
def test_any_changed_bit_is_refused(key: bytes, value: bytes, data: st.DataObject) -> None:
    seal = RowSeal("jobs")
    stored = bytearray(seal.wrap(key, value))
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))
    stored[bit // 8] ^= 1 << bit % 8
    assert not seal.holds(key, bytes(stored))
    with pytest.raises(Corrupt) as caught:
        seal.unwrap(key, bytes(stored))
    assert caught.value.reason == "ChecksumMismatch"
    assert caught.value.metadata == {"table": "jobs", "key": key.hex()}


@given(KEYS, KEYS, st.binary(max_size=20))
def test_a_value_counts_only_in_its_own_place(key: bytes, other: bytes, value: bytes) -> None:
    stored = RowSeal("jobs").wrap(key, value)
    assert RowSeal("jobs").holds(other, stored) == (other == key)
    assert not RowSeal("job").holds(key, stored)
    assert not RowSeal("job").holds(b"s" + key, stored)


@pytest.mark.parametrize("length", range(8))
def test_a_value_shorter_than_its_checksum_is_refused(length: int) -> None:
    seal = RowSeal("jobs")
    assert not seal.holds(b"k", bytes(length))
    with pytest.raises(Corrupt, match=r"row jobs/'k'"):
        seal.unwrap(b"k", bytes(length))


@given(st.binary(max_size=4), st.binary(max_size=4), st.binary(min_size=1, max_size=5))
def test_a_range_holds_the_prefix_from_the_start_on(start: bytes, prefix: bytes, key: bytes) -> None:
    assert (key in KeyRange.of("jobs", start, prefix)) == (key.startswith(prefix) and key >= start)

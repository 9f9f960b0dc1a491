"""Size classes, bit for bit as the paper's algorithm says."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.sizes import size_class, stored_bytes


def padme(length: int) -> int:
    """Algorithm 1 of the paper, in its own words. Floats are exact enough for so little."""
    exponent = math.floor(math.log2(length))
    significant = math.floor(math.log2(exponent)) + 1
    last_bits = exponent - significant
    mask = 2**last_bits - 1
    return (length + mask) & ~mask


def test_up_to_65536_they_are_the_papers() -> None:
    assert [size_class(size) for size in range(4)] == [0, 1, 2, 3], "too small for the paper's logarithms"
    assert all(size_class(size) == padme(size) for size in range(4, (1 << 16) + 1))


@pytest.mark.parametrize(
    ("size", "expected"),
    [(9, 10), (1_000_000, 1_015_808), (10_000_000, 10_223_616), (123_456_789, 123_731_968),
     (1_000_000_000, 1_006_632_960), ((1 << 30) + 1, (1 << 30) + (1 << 25)), (10**12, 1_005_022_347_264),
     ((1 << 40) - 1, 1 << 40), ((1 << 40) + 1, (1 << 40) + (1 << 34)), (1 << 50, 1 << 50)],
)  # fmt: skip
def test_golden_values(size: int, expected: int) -> None:
    assert size_class(size) == expected


@given(st.integers(0, 1 << 60), st.integers(0, 1 << 20))
def test_hold_what_they_are_of_cost_little_and_keep_order(size: int, more: int) -> None:
    padded = size_class(size)
    assert size <= padded <= size * 1.12
    assert size_class(padded) == padded
    assert size_class(size + more) >= padded


@given(st.integers(0, 60))
def test_powers_of_two_are_classes_so_the_largest_object_can_be_padded(exponent: int) -> None:
    assert size_class(1 << exponent) == 1 << exponent


def test_hosts_know_what_it_is_filled_up_to() -> None:
    assert stored_bytes(objects_pb2.Object(size_bytes=5)) == 5
    assert stored_bytes(objects_pb2.Object(size_bytes=1_000, padded_bytes=1_024)) == 1_024

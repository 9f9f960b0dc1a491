"""The numbers of the code: a field, a matrix whose first rows are the data, and inverses for any k of n."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.objects import code

BYTES = st.integers(0, 255)


@given(BYTES, BYTES, BYTES)
def test_a_field(a, b, c):
    assert code.multiply(a, b) == code.multiply(b, a)
    assert code.multiply(a, code.multiply(b, c)) == code.multiply(code.multiply(a, b), c)
    assert code.multiply(a, b ^ c) == code.multiply(a, b) ^ code.multiply(a, c)


def test_every_byte_but_nothing_has_an_inverse():
    assert all(code.multiply(value, code.inverse(value)) == 1 for value in range(1, 256))
    with pytest.raises(ZeroDivisionError):
        code.inverse(0)


def test_two_is_doubled_by_the_polynomial():
    assert code.multiply(2, 0x80) == code.POLYNOMIAL & 0xFF


def test_known_rows_of_zfecs_matrix():
    assert code.matrix(3, 5) == (b"\x01\0\0", b"\0\x01\0", b"\0\0\x01", b"\x0f\x08\x06", b"-0\x1c")
    assert code.matrix(1, 3) == (b"\x01",) * 3


@pytest.mark.parametrize(("k", "n"), [(1, 1), (1, 4), (2, 4), (3, 6), (4, 7)])
def test_any_k_rows_are_enough(k, n):
    for have in itertools.permutations(range(n), k):
        back = code.rows_for(k, n, have, tuple(range(n)))
        wide = [bytes(code.matrix(k, n)[row]) for row in have]
        assert tuple(code.combination(row, wide) for row in back) == code.matrix(k, n)


def test_the_widest_code_there_may_be():
    assert len(code.matrix(127, 255)) == 255


@pytest.mark.parametrize(("k", "n"), [(0, 1), (2, 1), (1, 256), (-1, 4)])
def test_refuses_a_code_that_cannot_be(k, n):
    with pytest.raises(ValueError, match=f"a code of {k} of {n}"):
        code.matrix(k, n)


@pytest.mark.parametrize("have", [(0,), (0, 0), (0, 1, 2), (0, 4), (0, -1)])
def test_refuses_rows_that_are_not_k_different_ones(have):
    with pytest.raises(ValueError, match="2 different ones of 4 are needed"):
        code.rows_for(2, 4, have, (1,))

"""The fastest coder that proves itself is taken, and what failed is named."""

import pytest

from offgrid_node.coding.choice import FASTEST_FIRST, choose, self_test
from offgrid_node.coding.fallback import Fallback


class Absent:
    def __init__(self) -> None:
        raise ImportError("no such library")


class Wrong(Fallback):
    """Right but for one byte of one row."""

    name = "wrong"

    def _sums(self, sums, rows):
        first, *others = super()._sums(sums, rows)
        return [bytes([first[0] ^ 1]) + first[1:], *others]


class Forgetful(Fallback):
    """Encodes well; what it gives back is what it has."""

    name = "forgetful"

    def rebuild(self, k, n, have, wanted):
        return [bytes(next(iter(have.values()))) for _ in wanted]


class Blind(Fallback):
    name = "blind"

    def combine(self, sums, rows):
        return [bytes(rows[0]) for _ in sums]


def test_the_first_that_works_is_taken():
    choice = choose([Fallback, Absent])
    assert (choice.coder.name, choice.absent, choice.refused) == ("python", (), ())


def test_what_is_not_there_or_wrong_is_named_and_passed_over():
    choice = choose([Absent, Wrong, Forgetful, Blind, Fallback])
    assert choice.coder.name == "python"
    assert choice.absent == ("no such library",)
    assert choice.refused == (
        "coder Wrong is not used: it makes other shards than zfec",
        "coder Forgetful is not used: it does not give lost rows back",
        "coder Blind is not used: a row and itself are not nothing to it",
    )


def test_none_that_works_is_an_error():
    with pytest.raises(RuntimeError, match="no coder works: coder Wrong is not used: it makes other shards"):
        choose([Wrong])


@pytest.mark.parametrize("maker", FASTEST_FIRST)
def test_those_that_are_here_pass(maker):
    try:
        coder = maker()
    except ImportError as error:
        pytest.skip(str(error))
    self_test(coder)


def test_there_is_always_one():
    assert choose().coder.name in {"isa-l", "zfec", "python"}

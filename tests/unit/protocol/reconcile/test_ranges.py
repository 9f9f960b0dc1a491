"""Ranges: any two sets are told apart, recent tails for few bytes, and nobody who lies makes it wrong or endless."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import ranges
from offgrid_node.protocol.reconcile.ranges import MESSAGE_BYTES_MAX, Asking, Item, Ordered, answer

KEY = bytes(range(16))
ITEMS = st.sets(
    st.builds(Item, st.integers(0, 2**40) | st.sampled_from([7, 8]), st.binary(min_size=16, max_size=16)), max_size=80
)


def made(rng: Random, count: int, start: int = 0) -> set[Item]:
    return {Item(start + n, rng.randbytes(16)) for n in range(count)}


def reconcile(here: set[Item], there: set[Item]) -> tuple[Asking, int, int]:
    """To the end; how many bytes and rounds that took."""
    asking, other = Asking(Ordered(KEY, here)), Ordered(KEY, there)
    message, size, rounds = asking.begin(), 0, 0
    while message:
        told = answer(other, message)
        size, rounds = size + len(message) + len(told), rounds + 1
        assert max(len(message), len(told)) <= MESSAGE_BYTES_MAX
        message = asking.on_answer(told)
    return asking, size, rounds


class TestAnyTwoSets:
    @given(ITEMS, ITEMS, ITEMS)
    def test_are_told_apart(self, shared: set[Item], here: set[Item], there: set[Item]) -> None:
        here, there = here | shared, there | shared
        asking, _, _ = reconcile(here, there)
        assert (asking.here, asking.there) == (here - there, there - here)

    @settings(max_examples=25)
    @given(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 2_000), st.integers(0, 2**32))
    def test_large_ones_too(self, here_only: int, there_only: int, shared: int, seed: int) -> None:
        rng = Random(seed)
        common = made(rng, shared)
        here, there = common | made(rng, here_only), common | made(rng, there_only)
        asking, _, _ = reconcile(here, there)
        assert (asking.here, asking.there) == (here - there, there - here)

    def test_one_of_which_is_empty(self) -> None:
        many = made(Random(5), 10_000)
        for here, there in ((set[Item](), many), (many, set[Item]())):
            asking, _, _ = reconcile(here, there)
            assert (asking.here, asking.there) == (here - there, there - here)


class TestBytes:
    def test_a_recent_tail_is_cheap(self) -> None:
        rng = Random(1)
        shared = made(rng, 20_000)
        asking, size, rounds = reconcile(shared | made(rng, 50, 20_000), shared | made(rng, 50, 20_000))
        assert len(asking.here) == len(asking.there) == 50
        assert size < 5_000
        assert rounds <= 5

    def test_equal_sets_are_told_in_one_round(self) -> None:
        same = made(Random(2), 20_000)
        _, size, rounds = reconcile(same, same)
        assert rounds == 1
        assert size < 600


class TestALiar:
    @given(st.binary(max_size=200))
    def test_who_sends_anything_is_refused_or_answered(self, raw: bytes) -> None:
        ordered = Ordered(KEY, made(Random(3), 100))
        for take in (lambda: answer(ordered, raw), lambda: Asking(ordered).on_answer(raw)):
            try:
                assert len(take()) <= MESSAGE_BYTES_MAX
            except PeerFault as fault:
                assert fault.reason == "BadRanges"  # noqa: PT017 - some bytes are ranges

    def test_who_asks_for_everything_gets_no_more_than_a_message(self) -> None:
        """Many empty lists: each would be answered with all that is in its range."""
        ordered = Ordered(KEY, made(Random(4), 50_000))
        asked = b"".join(bytes([ranges._LIST]) + b"\x64\x00\x00" for _ in range(500))
        told = answer(ordered, asked)
        assert len(asked) < 2_001
        assert len(told) <= MESSAGE_BYTES_MAX

    def test_who_never_agrees_is_left(self) -> None:
        asking = Asking(Ordered(KEY, made(Random(6), 100)))
        always = bytes([ranges._FINGERPRINT | ranges._LAST]) + bytes(16)
        for _ in range(ranges.ROUNDS_MAX):
            assert asking.on_answer(always)
        with pytest.raises(PeerFault, match="still differ") as error:
            asking.on_answer(always)
        assert error.value.reason == "NoEnd"

    def test_who_tells_more_than_a_message_is_refused(self) -> None:
        with pytest.raises(PeerFault, match="at most"):
            answer(Ordered(KEY, ()), bytes(MESSAGE_BYTES_MAX + 1))

    def test_who_lists_items_outside_the_range_is_refused(self) -> None:
        one = Item(5, bytes(16))
        raw = ranges._written(Item(0, b""), ranges._Range(Item(4, b""), items=(one,)))
        with pytest.raises(PeerFault, match="out of place"):
            answer(Ordered(KEY, ()), raw)


class TestTheWireForm:
    def test_is_this(self) -> None:
        """Golden: another version of this code must say the same of the same sets."""
        few = [Item(n, bytes([n]) * 16) for n in (1, 2)]
        assert Asking(Ordered(KEY, few)).begin().hex() == "0602" + "01" + "01" * 16 + "01" + "02" * 16
        many = Ordered(KEY, [Item(n, n.to_bytes(16, "big")) for n in range(33)])
        assert (
            Asking(many).begin().hex()[:76]
            == "0102009d105bd1a0d06a7880ee57b74f8d0c640102006a6e779c7fef70b7110f5c0aa3b72e89"
        )

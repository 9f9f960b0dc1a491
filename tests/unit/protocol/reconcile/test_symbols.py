"""Coded symbols: any two sets are told apart, nobody who lies makes it wrong or endless, and the wire form stays."""

from __future__ import annotations

from itertools import chain, combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.reconcile import symbols as module
from offgrid_node.protocol.reconcile.symbols import (
    FIRST_SYMBOLS,
    Decoder,
    Sketch,
    Symbol,
    SymbolCode,
    decode_symbols,
    encode_symbols,
)

KEY = bytes(range(16))
CODE = SymbolCode(KEY, 8)


def sketch(code: SymbolCode, ids: set[int], first: int, count: int) -> list[Symbol]:
    made = Sketch(code, first, count)
    made.add(ids)
    return made.symbols()


def reconcile(code: SymbolCode, here: set[int], there: set[int]) -> tuple[Decoder, int]:
    """To the end, over the wire form; how many bytes of symbols that took."""
    decoder, size = Decoder(code), 0
    decoder.surplus = len(there) - len(here)
    while not decoder.complete:
        first, count = decoder.fed, decoder.next_count()
        raw = encode_symbols(code, sketch(code, there, first, count))
        size += len(raw)
        decoder.feed(decode_symbols(code, raw, count), sketch(code, here, first, count))
    return decoder, size


IDS = st.sets(st.integers(0, 2**64 - 1), max_size=60)


class TestAnyTwoSets:
    @given(IDS, IDS, IDS, st.binary(min_size=16, max_size=16))
    def test_are_told_apart(self, shared: set[int], here: set[int], there: set[int], key: bytes) -> None:
        here, there = here | shared, there | shared
        decoder, _ = reconcile(SymbolCode(key, 8), here, there)
        assert decoder.there == there - here
        assert decoder.here == here - there

    @settings(max_examples=20)
    @given(st.sets(st.integers(0, 2**256 - 1), max_size=20), st.sets(st.integers(0, 2**256 - 1), max_size=20))
    def test_of_wide_ids_too(self, here: set[int], there: set[int]) -> None:
        decoder, _ = reconcile(SymbolCode(KEY, 32), here, there)
        assert (decoder.there, decoder.here) == (there - here, here - there)

    def test_all_small_ones(self) -> None:
        ids = (0, 1, 2, 2**64 - 1)
        subsets = [set(some) for some in chain.from_iterable(combinations(ids, n) for n in range(5))]
        for here in subsets:
            for there in subsets:
                decoder, _ = reconcile(CODE, here, there)
                assert (decoder.there, decoder.here) == (there - here, here - there)

    def test_one_of_which_is_empty(self) -> None:
        many = {Random(n).getrandbits(64) for n in range(3_000)}
        for here, there in ((set[int](), many), (many, set[int]())):
            decoder, _ = reconcile(CODE, here, there)
            assert (decoder.there, decoder.here) == (there - here, here - there)
            assert decoder.fed < 1.6 * len(many)


class TestBytes:
    def test_follow_the_difference_and_not_the_sets(self) -> None:
        rng = Random(7)
        shared = {rng.getrandbits(64) for _ in range(20_000)}
        here, there = (shared | {rng.getrandbits(64) for _ in range(50)} for _ in range(2))
        _, size = reconcile(CODE, here, there)
        assert size < 3_000

    def test_few_symbols_are_asked_for_in_vain(self) -> None:
        """Whether the sets differ on one side or on both."""
        rng = Random(8)
        for here_too in (0, 400):
            there = {rng.getrandbits(64) for _ in range(400)}
            here = {rng.getrandbits(64) for _ in range(here_too)}
            asked, decoder = 0, Decoder(CODE)
            decoder.surplus = len(there) - len(here)
            while not decoder.complete:
                first, count = decoder.fed, decoder.next_count()
                asked += count
                decoder.feed(sketch(CODE, there, first, count), sketch(CODE, here, first, count))
            assert asked < 2 * (400 + here_too)


class TestASketch:
    def test_kept_while_ids_come_and_go_is_that_of_the_set(self) -> None:
        made = Sketch(CODE, 5, 40)
        made.add([1, 2, 3])
        made.add([2], sign=-1)
        made.add([4])
        assert made.symbols() == sketch(CODE, {1, 3, 4}, 5, 40)

    def test_in_parts_is_the_same_as_in_one(self) -> None:
        whole = sketch(CODE, set(range(30)), 0, 64)
        assert sketch(CODE, set(range(30)), 0, 10) + sketch(CODE, set(range(30)), 10, 54) == whole

    def test_of_an_id_that_is_there_twice_is_not_that_of_none(self) -> None:
        made = Sketch(CODE, 0, 1)
        made.add([9, 9])
        assert made.symbols()[0].count == 2


class TestALiar:
    def feed(self, theirs: list[Symbol], here: set[int]) -> Decoder:
        decoder = Decoder(CODE)
        decoder.feed(theirs, sketch(CODE, here, 0, len(theirs)))
        return decoder

    @given(st.lists(st.tuples(st.integers(0, 2**96 - 1), st.integers(-3, 3)), min_size=1, max_size=64))
    def test_who_makes_symbols_up_costs_no_more_than_them(self, made_up: list[tuple[int, int]]) -> None:
        decoder = self.feed([Symbol(*each) for each in made_up], {1, 2, 3})
        assert len(decoder.there) + len(decoder.here) <= len(made_up)

    def test_who_puts_an_id_where_it_does_not_belong_gets_to_no_end(self) -> None:
        """Taking it out of its own symbols does not empty that one: it would be found for ever."""
        state, check = CODE.trace(77)
        own, index = set[int](), 0
        while index < 64:
            own.add(index)
            index, state = module.following(index, state)
        wrong = next(index for index in range(64) if index not in own)
        symbols = [Symbol(0, 0)] * 64
        symbols[0], symbols[wrong] = Symbol(5, 1), Symbol(77 << 32 | check, 1)
        decoder = self.feed(symbols, set())
        assert (decoder.there, decoder.here) == ({77}, set())
        assert not decoder.complete

    def test_who_never_ends_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SYMBOLS_MAX", 256)
        rng, decoder = Random(3), Decoder(CODE)
        while decoder.fed < 256:
            count = decoder.next_count()
            theirs = [Symbol(rng.getrandbits(96), 2) for _ in range(count)]
            decoder.feed(theirs, [Symbol(0, 0)] * count)
        with pytest.raises(PeerFault, match="256 symbols told") as error:
            decoder.next_count()
        assert error.value.reason == "NoEnd"


class TestTheWireForm:
    def test_is_this(self) -> None:
        """Golden: another version of this code must find the same symbols in the same places."""
        raw = encode_symbols(CODE, sketch(CODE, {1, 2, 2**64 - 1}, 0, 6))
        assert raw.hex() == (
            "000000000000000457756fe9030000000000000001e9f94262020000000000000000000000000000"
            "000000000000000000000000ffffffffffffffffee5ee90a0100000000000000000000000000"
        )

    @given(IDS, st.integers(0, 500), st.integers(1, 64))
    def test_is_read_as_it_was_written(self, ids: set[int], first: int, count: int) -> None:
        symbols = sketch(CODE, ids, first, count)
        raw = encode_symbols(CODE, symbols)
        assert decode_symbols(CODE, raw, count) == symbols

    @given(st.binary(max_size=100), st.integers(1, 8))
    def test_of_anything_else_is_refused(self, raw: bytes, count: int) -> None:
        try:
            symbols = decode_symbols(CODE, raw, count)
        except PeerFault as fault:
            assert fault.reason == "BadSymbols"  # noqa: PT017 - most bytes are refused, some are symbols
        else:
            assert len(symbols) == count

    def test_cut_short_or_with_something_behind_it_is_refused(self) -> None:
        raw = encode_symbols(CODE, sketch(CODE, {1, 2, 3}, 0, FIRST_SYMBOLS))
        for wrong in (raw[:-1], raw + b"\0", raw[:5], b""):
            with pytest.raises(PeerFault):
                decode_symbols(CODE, wrong, FIRST_SYMBOLS)


def test_items_are_shortened_by_a_key_that_nobody_knows_beforehand() -> None:
    assert SymbolCode(KEY, 8).shorten(b"item") != SymbolCode(bytes(16), 8).shorten(b"item")
    assert SymbolCode(KEY, 8).shorten(b"item") < 2**64

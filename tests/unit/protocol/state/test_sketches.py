"""What summaries are made of: nothing seen is missed, errors stay within bounds, and joining loses nothing."""

from __future__ import annotations

from collections import Counter
from functools import reduce
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.summaries import figures, hitters, keyset
from offgrid_node.protocol.state.summaries.figures import FIGURES_MAX, Figure, Figures
from offgrid_node.protocol.state.summaries.hitters import HITTERS_MAX, Hitters, hitters_of
from offgrid_node.protocol.state.summaries.keyset import KEY_BYTES_MAX, PLACES, encode, may_have, place_of, places
from offgrid_node.protocol.state.summaries.sample import SAMPLE_MAX, TEXT_BYTES_MAX, Reservoir, Sampled, smallest
from offgrid_node.protocol.state.summaries.windows import DAY_US, SECOND_US, WEEK_US, Window, span_of, window_at

PLACE = st.integers(0, PLACES - 1)
KEYS = st.lists(st.sampled_from([f"k{n}" for n in range(60)]), max_size=300)


class TestKeyset:
    def test_has_a_form_that_stays(self) -> None:
        assert place_of("j-abc") == 0xD9028AD3
        assert encode([0, 7, 0xFFFFFFFF]).hex() == "0400000003000000011e0000000000000007ffffffff"
        assert encode([]) == b""

    @given(st.sets(PLACE, max_size=200))
    def test_gives_back_what_was_put_in(self, wanted: set[int]) -> None:
        assert places(encode(wanted)) == sorted(wanted)
        assert keyset.count(encode(wanted)) == len(wanted)

    @given(st.sets(PLACE, max_size=100), PLACE)
    def test_misses_nothing_and_finds_nothing_else(self, wanted: set[int], other: int) -> None:
        made = encode(wanted)
        assert all(may_have(made, place) for place in wanted)
        assert may_have(made, other) == (other in wanted)

    @given(st.lists(st.sets(PLACE, max_size=50), max_size=5))
    def test_is_joined_in_any_order_without_loss(self, several: list[set[int]]) -> None:
        made = [encode(each) for each in several]
        joined = keyset.union(made)
        assert joined == encode(set().union(*several))
        assert joined == reduce(lambda one, other: keyset.union([other, one]), made, b"")

    @pytest.mark.parametrize("number", [1, 30, 1_000, 20_000])
    def test_is_small_in_every_form(self, number: int) -> None:
        wanted = {place_of(f"key {n}") for n in range(number)}
        made = encode(wanted)
        assert len(made) < number * (4.2 if number < 100 else 3.2) + 50
        assert {*places(made)} == wanted
        assert all(may_have(made, place_of(f"key {n}")) for n in range(0, number, max(1, number // 50)))

    def test_errs_in_far_less_than_one_answer_of_a_hundred(self) -> None:
        made = encode(place_of(f"seen {n}") for n in range(16_384))
        assert keyset.false_positive(keyset.count(made)) < 1e-5
        assert not any(may_have(made, place_of(f"never {n}")) for n in range(20))

    @given(st.text(max_size=400))
    def test_takes_of_a_long_key_what_counts(self, key: str) -> None:
        counted = keyset.counted(key)
        assert len(counted.encode()) <= KEY_BYTES_MAX
        assert keyset.counted(counted) == counted
        assert place_of(counted) == place_of(key)

    @pytest.mark.parametrize("cut", [1, 3, 20])
    def test_says_when_it_is_damaged(self, cut: int) -> None:
        made = encode(range(0, 1 << 30, 1 << 22))
        with pytest.raises(Corrupt):
            places(made[:-cut])


class TestHitters:
    @given(st.lists(KEYS, min_size=1, max_size=6), st.randoms())
    def test_keep_their_bound_however_they_are_joined(self, lists: list[list[str]], random: Random) -> None:
        true = Counter(key for keys in lists for key in keys)
        parts = [hitters_of(Counter(keys)) for keys in lists]
        while len(parts) > 1:
            one, other = (parts.pop(random.randrange(len(parts))) for _ in range(2))
            joined = hitters.join(one, other)
            assert joined == hitters.join(other, one)
            parts.append(joined)
        found = parts[0]
        assert len(found.counts) <= HITTERS_MAX
        assert found.error * (HITTERS_MAX + 1) <= true.total()
        for key in [*true, "never"]:
            least, most = found.bounds(key)
            assert least <= true[key] <= most

    def test_are_exact_while_there_are_few_keys(self) -> None:
        assert hitters_of({"a": 3, "b": 1}) == Hitters({"a": 3, "b": 1}, 0)


class TestSample:
    def test_is_the_same_wherever_it_is_drawn(self) -> None:
        assert [drawn(500)[0].number, drawn(500)[1].number] == [62, 137]
        assert drawn(500) == drawn(500)
        assert len(drawn(500)) == SAMPLE_MAX
        assert drawn(500, "window_1800") != drawn(500)

    @given(st.sets(st.integers(1, 2_000), max_size=120), st.integers(1, 5))
    def test_of_parts_is_that_of_the_whole(self, numbers: set[int], parts: int) -> None:
        split = [drawn_of(n for n in numbers if n % parts == part) for part in range(parts)]
        whole = drawn_of(numbers)
        assert smallest(each for part in split for each in part) == whole
        assert smallest(reversed([each for part in reversed(split) for each in part])) == whole

    def test_takes_each_as_often_as_any_other(self) -> None:
        """Each of 64 events in half of the samples of 32: 400 of 800, with a deviation of 14."""
        often = Counter(each.number for seed in range(800) for each in drawn(64, f"window_{seed}"))
        assert len(often) == 64
        assert all(abs(times - 400) < 70 for times in often.values())

    def test_leaves_long_texts_out(self) -> None:
        reservoir = Reservoir("w")
        reservoir.offer(1, 1, "a", "x" * TEXT_BYTES_MAX)
        reservoir.offer(2, 1, "a", "x" * TEXT_BYTES_MAX + "x")
        assert {len(each.text) for each in reservoir.sample()} == {TEXT_BYTES_MAX, 0}


class TestFigures:
    @given(st.lists(st.lists(st.tuples(st.integers(0, 90), st.integers(-100, 100)), max_size=80), max_size=4))
    def test_of_parts_are_those_of_the_whole(self, parts: list[list[tuple[int, int]]]) -> None:
        whole = [pair for part in parts for pair in part]
        assert figures.join(figures_of(part) for part in parts) == figures_of(whole)
        assert figures.join(reversed([figures_of(part) for part in parts])) == figures_of(whole)

    def test_say_least_most_and_mean(self) -> None:
        found = figures_of([(1, 5), (1, -3), (1, 4)])["f001"]
        assert (found, found.mean) == (Figure(3, -3.0, 5.0, 6.0), 2.0)

    def test_are_bounded(self) -> None:
        kept = figures_of([(n, n) for n in reversed(range(1_000))])
        assert [*kept] == [f"f{n:03}" for n in range(FIGURES_MAX)]

    def test_leave_out_what_no_sum_can_hold(self) -> None:
        found = Figures()
        for number in (float("nan"), float("inf"), 10**400, 1e300, 1):
            found.add("a", number)
        found.add("x" * 200, 1)
        assert found.figures() == {"a": Figure(1, 1.0, 1.0, 1.0)}


class TestWindow:
    def test_is_named_by_the_second_of_its_beginning(self) -> None:
        window = window_at(1_800 * SECOND_US + 5, 1_800 * SECOND_US)
        assert (window.window_id, window.end_us) == ("window_1800", 3_600 * SECOND_US)

    @pytest.mark.parametrize(("at", "takes"), [(99, False), (100, True), (150, True), (299, True), (300, False)])
    def test_takes_what_a_small_step_of_the_clock_brings(self, at: int, *, takes: bool) -> None:
        assert Window(200, 300).takes(at) == takes

    def test_lies_in_a_day_and_in_a_week_that_begins_on_monday(self) -> None:
        monday = 4 * DAY_US
        assert span_of(monday, WEEK_US) == span_of(monday + WEEK_US - 1, WEEK_US) != span_of(monday - 1, WEEK_US)
        assert span_of(monday, DAY_US) != span_of(monday + DAY_US, DAY_US)


def drawn(number: int, seed: str = "window_0") -> list[Sampled]:
    return drawn_of(range(1, number + 1), seed)


def drawn_of(numbers, seed: str = "window_0") -> list[Sampled]:
    reservoir = Reservoir(seed)
    for number in numbers:
        reservoir.offer(number, number, "type", "text")
    return reservoir.sample()


def figures_of(pairs: list[tuple[int, int]]) -> dict[str, Figure]:
    found = Figures()
    for name, number in pairs:
        found.add(f"f{name:03}", number)
    return found.figures()

"""Counters and histograms: every value falls into one bucket, and labels that strangers choose cannot fill memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.meters import Counter, Histogram
from offgrid_node.meters.instruments import LABEL_CHARS_MAX, OTHER, SERIES_MAX


@given(st.lists(st.floats(-1e9, 1e9)), st.sets(st.floats(-1e6, 1e6), min_size=1))
def test_each_value_is_in_the_first_bucket_whose_bound_is_not_below_it(values: list[float], bounds: set[float]) -> None:
    histogram = Histogram("h_seconds", "A histogram.", sorted(bounds, reverse=True))
    for value in values:
        histogram.add(value)
    [(_, spread)] = histogram.samples()
    assert sum(spread.counts) == len(values)
    for index, bound in enumerate(histogram.bounds):
        assert sum(spread.counts[: index + 1]) == sum(value <= bound for value in values)
    assert spread.total == pytest.approx(sum(values))


def test_what_has_no_labels_is_there_from_the_start() -> None:
    assert dict(Counter("c_total", "A counter.").samples()) == {(): 0}
    assert [spread.counts for _, spread in Histogram("h_seconds", "A histogram.", (1, 2)).samples()] == [[0, 0, 0]]


def test_beyond_its_bound_all_further_series_are_one() -> None:
    counter, histogram = (
        Counter("c_total", "A counter.", ("a", "b")),
        Histogram("h_seconds", "A histogram.", (1,), ("a", "b")),
    )
    for number in range(SERIES_MAX + 10):
        counter.add(str(number), "x")
        histogram.add(0, str(number), "x")
    counter.add("0", "x")
    counts = dict(counter.samples())
    assert len(counts) == len(dict(histogram.samples())) == SERIES_MAX + 1
    assert (counts[OTHER, OTHER], counts["0", "x"]) == (10, 2)


def test_a_long_label_is_cut_and_stays_one_series() -> None:
    counter = Counter("c_total", "A counter.", ("a",))
    counter.add("x" * 1000)
    counter.add("x" * 1000)
    assert dict(counter.samples()) == {("x" * LABEL_CHARS_MAX,): 2}


def test_labels_that_an_instrument_does_not_have_are_a_defect() -> None:
    with pytest.raises(ValueError, match="c_total has the labels"):
        Counter("c_total", "A counter.", ("a",)).add("x", "y")

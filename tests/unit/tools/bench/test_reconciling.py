"""The figures of set reconciliation: of the same seed the same bytes, and within what is promised."""

from __future__ import annotations

from offgrid_tools.bench.reconciling import measure_reconciling, measure_stream, reconcile


def test_bytes_follow_the_difference() -> None:
    small, large = (reconcile(items, 100, seed=1) for items in (500, 4_000))
    assert small.size_bytes == reconcile(500, 100, seed=1).size_bytes
    assert large.size_bytes < 4_000
    assert abs(large.size_bytes - small.size_bytes) < 1_000


def test_in_sync_is_a_summary() -> None:
    figures = {figure.name: figure.value for figure in measure_reconciling(200, 1)}
    assert figures["reconcile_in_sync_bytes"] < 50


def test_one_stream_of_a_hundred_differences_is_within_what_is_promised() -> None:
    figures = {figure.name: figure.value for figure in measure_stream(1_000, 15)}
    assert figures["reconcile_stream_100_bytes"] <= 2_200

"""The figures of a rotation: within what is promised, and nothing of an object moves."""

from __future__ import annotations

from offgrid_tools.bench.rotation import measure_rotation


def test_an_object_costs_its_reader_under_a_hundred_bytes_and_moves_nowhere() -> None:
    size, moves, _ = measure_rotation(300)
    assert size.value <= 100
    assert moves.value == 0

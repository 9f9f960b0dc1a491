"""The model of a mesh that was cut in two: of the same seed the same bytes, and few more than a spanning tree's."""

from __future__ import annotations

from offgrid_tools.bench.spreading import Shape, measure_spreading, spread

SMALL = Shape(nodes=40, writers=4, blocks=20, hours=0.5)


def test_halves_come_together_in_little_more_than_a_spanning_trees_bytes() -> None:
    told = spread(SMALL)
    assert told.blocks == 80
    assert told.ratio <= 1.3
    assert told.healing_ratio <= 1.15
    assert told.healed_s <= 60


def test_of_the_same_seed_it_is_the_same() -> None:
    small = Shape(nodes=14, writers=4, blocks=3, hours=0.1)
    assert spread(small, seed=3) == spread(small, seed=3)
    assert spread(small, seed=3) != spread(small, seed=4)


def test_the_goal_is_for_a_thousand_nodes_alone() -> None:
    figures = [figure.name for figure in measure_spreading(Shape(nodes=8, writers=2, blocks=2, hours=0.02))]
    assert "spread_bytes_of_tree" not in figures
    assert "spread_bytes_of_tree_small" in figures

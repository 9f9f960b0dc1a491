"""A Merkle root over leaves that come one by one."""

from __future__ import annotations

import pytest

from offgrid_node.protocol.merkle import Peaks, root_of


@pytest.mark.parametrize("count", range(1, 70))
def test_it_is_the_root_over_all_of_them_at_once(count: int) -> None:
    leaves, peaks = [bytes([leaf]) * 32 for leaf in range(count)], Peaks()
    for leaf in leaves:
        peaks.add(leaf)
    assert peaks.root() == root_of(leaves)

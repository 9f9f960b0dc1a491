"""Some of the storms of `soak links`: whatever the link does, each call ends once and is carried out once at most."""

from __future__ import annotations

import pytest

from offgrid_tools.soak.links import Storm


@pytest.mark.parametrize("seed", [*range(1, 7), 11])
def test_a_storm_breaks_no_promise(seed: int) -> None:
    assert Storm(seed).run() == []

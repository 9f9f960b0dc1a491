"""Simulated hosts take pieces so small that an object needs several, some of them lost or late."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from offgrid_node.services.objects.replicas import Replicas
from offgrid_tools.sim.main import simulate

SEEDS = 6


def test_replicas_come_in_several_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: dict[tuple[int, str], set[int]] = defaultdict(set)
    write = Replicas.write

    def noted(self: Replicas, caller: Any, request: Any) -> Any:
        starts[id(self), request.object_id].add(request.offset)
        return write(self, caller, request)

    monkeypatch.setattr(Replicas, "write", noted)
    for seed in range(SEEDS):
        simulate(seed)
        if max(map(len, starts.values()), default=0) > 3:
            return
    pytest.fail(f"no replica came in more than three pieces in {SEEDS} seeds")

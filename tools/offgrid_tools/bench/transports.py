"""transports: what links carry, each kind a part of its own with `measure(plan)`."""

from __future__ import annotations

from importlib import import_module

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan

PARTS = (
    "offgrid_tools.bench.transports_lora",
    "offgrid_tools.bench.transports_air",
    "offgrid_tools.bench.transports_words",
    "offgrid_tools.bench.transports_udp",
    "offgrid_tools.bench.transports_ble",
    "offgrid_tools.bench.transports_mesh",
)


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group, part by part."""
    return [figure for part in PARTS for figure in import_module(part).measure(plan)]

"""What status and metrics tell of a node's health."""

from __future__ import annotations

import msgspec

from offgrid.v1 import mesh_pb2


class HealthFacts(msgspec.Struct, frozen=True):
    """`told`: how often, by way and outcome. Bytes are 0 where they are not known."""

    alerts: tuple[mesh_pb2.Alert, ...] = ()
    told: tuple[tuple[str, str, int], ...] = ()
    notices: tuple[str, ...] = ()
    store_used_bytes: int = 0
    memory_bytes: int = 0

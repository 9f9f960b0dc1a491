"""What watches over a running node, put together: its own figures, those of applications, and who is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from offgrid_node.alert_hooks import AlertHooks
from offgrid_node.driver import Driver
from offgrid_node.node import Node
from offgrid_node.own_memory import resident_bytes
from offgrid_node.services.flow import Later
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.health.heartbeats import MEMORY_MB, QUEUE_DEPTH
from offgrid_node.services.health.watching import (
    DATABASE_MB,
    OBJECTS_AT_RISK,
    OBJECTS_DEGRADED,
    OBJECTS_GONE,
    WRITE_LATENCY_MS,
    Health,
    Thresholds,
)

if TYPE_CHECKING:
    from offgrid_node.config import Config

MIB = 1024 * 1024


class UsedStore(Protocol):
    """A store with a file: what of it holds something, and what it may take."""

    def used_bytes(self) -> int: ...

    def limit_bytes(self) -> int: ...


class NodeHealth:
    """Of one node. Belongs to the loop's thread."""

    def __init__(self, config: Config, node: Node, driver: Driver, store: UsedStore, later: Later) -> None:
        self._node, self._driver, self._store = node, driver, store
        wanted, limit_mb = config.health, store.limit_bytes() / MIB
        thresholds = Thresholds(
            wanted.queue_depth,
            wanted.write_latency_ms,
            wanted.frame_us / 1_000,
            wanted.memory_mb,
            limit_mb * wanted.database_warn_percent / 100,
            limit_mb * wanted.database_critical_percent / 100,
            wanted.objects_gone,
            wanted.objects_at_risk,
            wanted.objects_degraded,
        )
        self._hooks = AlertHooks(wanted.command, wanted.webhook, config.node.name, node.node_id)
        heartbeats, tell = node.sessions.heartbeats, self._hooks.tell
        self._health = Health(node.runtime, thresholds, heartbeats, self._own, later, tell, wanted.interval_ms)

    def start(self) -> None:
        self._health.start()

    async def close(self) -> None:
        self._health.close()
        await self._hooks.close()

    @property
    def facts(self) -> HealthFacts:
        return HealthFacts(
            self._health.alerts,
            self._hooks.counts,
            self._hooks.notices,
            self._store.used_bytes(),
            resident_bytes() or 0,
        )

    def _own(self) -> Mapping[str, float]:
        known = {
            QUEUE_DEPTH: self._node.runtime.inbox_depth,
            WRITE_LATENCY_MS: self._driver.take_commit_ms(),
            DATABASE_MB: self._store.used_bytes() / MIB,
            MEMORY_MB: memory / MIB if (memory := resident_bytes()) is not None else None,
        }
        risks = self._node.risks
        if risks is not None:
            known |= {OBJECTS_GONE: risks.gone, OBJECTS_AT_RISK: risks.at_risk, OBJECTS_DEGRADED: risks.degraded}
        return {name: value for name, value in known.items() if value is not None}

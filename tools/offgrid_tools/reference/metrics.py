"""docs/reference/metrics.md: every metric that a node serves, from the page that serves it.

The page asks a runtime and facts in which everything that a page may tell of is there once.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

from prometheus_client.parser import text_string_to_metric_families

from offgrid.v1 import mesh_pb2
from offgrid_node.gateway.metrics import MetricsPage
from offgrid_node.meters import Meters
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.kept_facts import Backups, KeptFacts
from offgrid_node.services.mesh import NodeFacts

HEAD = """# Metrics

What a node serves to Prometheus at `/metrics`, as text or as OpenMetrics. `_info` is a constant 1 whose labels say
something, a histogram has `_bucket`, `_sum` and `_count`. Where there is a `/proc` the process's own figures
(`process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and their like) stand beside them.
[grafana/](../../grafana) has a dashboard and alerts of these.

| metric | type | labels | what it is |
|---|---|---|---|"""
_TRANSIENT = mesh_pb2.Alert(name="frame_ms", about="s-1", state=mesh_pb2.ALERT_STATE_CRITICAL, value=40, threshold=16)


class Served(NamedTuple):
    """One metric as it is named in a query, with the names of its labels in their order."""

    name: str
    kind: str
    labels: tuple[str, ...]
    about: str


def text() -> str:
    return "\n".join([HEAD, *map(_line, sorted(served()))]) + "\n"


def served() -> Iterator[Served]:
    """Every metric but the process's own."""
    known = {instrument.name: instrument.labels for instrument in Meters()}
    for family in text_string_to_metric_families(page_text().decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not name.startswith("process_"):
            labels = {label: None for sample in family.samples for label in sample.labels if label != "le"}
            yield Served(name, family.type, tuple(known.get(name, labels)), family.documentation)


def page_text() -> bytes:
    """As Prometheus reads it."""
    return MetricsPage(Meters(), cast(Any, _runtime()), _facts).render("")[1]


def _line(metric: Served) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.about} |"


def _facts() -> NodeFacts:
    health = HealthFacts((_TRANSIENT,), (("command", "done", 1),), (), 1, 1)
    kept = KeptFacts(shares=(("events", 1, 1),), backups=Backups(1, 0, 1, 1), mirror_seq=0)
    return NodeFacts(
        "", 0, "", 0.0, "inline", audit_oldest_us=1, health=health, objects=mesh_pb2.ObjectRisks(), kept=lambda: kept
    )


def _runtime() -> SimpleNamespace:
    machine = SimpleNamespace(
        directory=SimpleNamespace(live=lambda: ["a"]),
        liveness=lambda node: ALIVE,
        outbox_age_ms=lambda now: 0,
        outbox_depth=0,
        held=(0, 0, 0),
        unanswered=0,
        unread=0,
        notices=[],
    )
    store = SimpleNamespace(journal_seq=1, journal_floor=0, size_bytes=lambda: 1, limit_bytes=lambda: 2)
    return SimpleNamespace(
        machine=lambda name, kind: machine,
        clock=SimpleNamespace(now=lambda: None),
        store=store,
        inbox_depth=0,
        failures=0,
    )

"""What `grafana/` shows and warns of: every metric that it names is one that a node serves, with those labels."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from offgrid.v1 import mesh_pb2
from offgrid_node.gateway.metrics import MetricsPage
from offgrid_node.meters import Meters
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.kept_facts import Backups, KeptFacts
from offgrid_node.services.mesh import NodeFacts

GRAFANA = Path(__file__).parents[3] / "grafana"
METRIC = re.compile(r"\b(offgrid_[a-z_]+)(?:\{([^}]*)\})?")
FROM_PROMETHEUS = {"instance", "le"}
ALERT = mesh_pb2.Alert(name="frame_ms", about="s-1", state=mesh_pb2.ALERT_STATE_CRITICAL, value=40, threshold=16.67)


def served() -> dict[str, set[str]]:
    """The names of samples that a node's page has, and their labels."""
    health = HealthFacts((ALERT,), (("command", "done", 3),), (), 4_096, 1 << 20)
    kept = KeptFacts(
        shares=(("events", 2, 1),), backups=Backups(done=1, newest_us=1_000_000, newest_bytes=1), mirror_seq=0
    )
    facts = NodeFacts("0.1.0", 1_000, "/data", 1.0, "inline", health=health, kept=lambda: kept)
    directory = SimpleNamespace(live=lambda: ["a"])
    machine = SimpleNamespace(
        directory=directory,
        liveness=lambda node: ALIVE,
        outbox_age_ms=lambda now: 0,
        outbox_depth=0,
        held=(0, 0, 0),
        unanswered=0,
        unread=0,
    )
    store = SimpleNamespace(journal_seq=1, journal_floor=0, size_bytes=lambda: 1, limit_bytes=lambda: 2)
    runtime = SimpleNamespace(
        machine=lambda name, kind: machine,
        clock=SimpleNamespace(now=lambda: None),
        store=store,
        inbox_depth=0,
        failures=0,
    )
    meters = Meters()
    meters.on_commit(1, 0.001)
    page = MetricsPage(meters, cast(Any, runtime), lambda: facts)
    text = page.render("")[1].decode()
    labels = {counter.name: set(counter.labels) for counter in meters}
    for family in text_string_to_metric_families(text):
        known = labels.get(family.name, labels.get(f"{family.name}_total", set()))
        names = {sample.name for sample in family.samples} or {family.name, f"{family.name}_total"}
        for name in names:
            labels[name] = known | {label for sample in family.samples for label in sample.labels}
    return labels


SERVED = served()


def named(expression: str) -> list[tuple[str, set[str]]]:
    """The metrics that it names, with the labels that it asks for."""
    return [(name, set(re.findall(r"(\w+)\s*[=!]", matchers or ""))) for name, matchers in METRIC.findall(expression)]


DASHBOARD = json.loads((GRAFANA / "offgrid.json").read_text("utf-8"))
RULES = [
    rule for group in yaml.safe_load((GRAFANA / "alerts.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]
EXPRESSIONS = [
    *(target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]),
    *(rule["expr"] for rule in RULES),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_one_that_a_node_serves(expression: str) -> None:
    assert named(expression)
    for name, labels in named(expression):
        assert name in SERVED
        assert labels - FROM_PROMETHEUS <= SERVED[name], name


def test_one_that_is_not_served_would_be_found() -> None:
    assert named('rate(offgrid_no_such_total{why="x"}[5m])') == [("offgrid_no_such_total", {"why"})]
    assert "offgrid_no_such_total" not in SERVED


def test_panels_lie_side_by_side_and_fill_the_width() -> None:
    taken = {
        (x, y)
        for panel in DASHBOARD["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    }
    assert len(taken) == sum(panel["gridPos"]["w"] * panel["gridPos"]["h"] for panel in DASHBOARD["panels"])
    assert max(x for x, _ in taken) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_an_alert_is_on_the_page_as_a_number() -> None:
    assert SERVED["offgrid_alert_state"] == {"name", "about"}


def test_both_states_of_an_alert_have_a_rule() -> None:
    severities = {rule["expr"]: rule["labels"]["severity"] for rule in RULES if "offgrid_alert_state" in rule["expr"]}
    assert severities == {"offgrid_alert_state == 2": "critical", "offgrid_alert_state == 1": "warning"}

"""What `grafana/` shows and warns of: every metric that it names is one that a node serves, with those labels."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from offgrid_node.meters import Meters
from offgrid_tools.reference.metrics import page_text, served

GRAFANA = Path(__file__).parents[3] / "grafana"
METRIC = re.compile(r"\b(offgrid_[a-z_]+)(?:\{([^}]*)\})?")
FROM_PROMETHEUS = {"instance", "le"}


def samples() -> dict[str, set[str]]:
    """The names of samples that a node's page has, and their labels."""
    labels = {}
    for metric in served():
        names = [f"{metric.name}_{end}" for end in ("bucket", "sum", "count")] if metric.kind == "histogram" else []
        labels |= {name: set(metric.labels) for name in (metric.name, *names)}
    return labels


SERVED = samples()


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
    assert severities == {
        'offgrid_alert_state{name!="objects_gone"} == 2': "critical",
        'offgrid_alert_state{name="objects_gone"} == 2': "critical",
        'offgrid_alert_state{name!="objects_at_risk"} == 1': "warning",
        'offgrid_alert_state{name="objects_at_risk"} == 1': "warning",
    }


def test_what_guesses_tokens_is_seen_by_its_first_try() -> None:
    """increase() of a series that begins at 1 is 0."""
    (rule,) = (rule["expr"] for rule in RULES if rule["alert"] == "OffgridGatewayGuessed")
    asked = set(re.findall(r'reason=~"([^"]+)"', rule)[0].split("|"))
    assert {(reason,) for reason in asked} <= dict(Meters().http.refused.samples()).keys()


def test_how_long_jobs_and_calls_take_and_what_fails_between_nodes_is_on_the_dashboard() -> None:
    shown = {name for panel in DASHBOARD["panels"] for each in panel["targets"] for name, _ in named(each["expr"])}
    assert shown >= {
        "offgrid_job_duration_seconds_bucket",
        "offgrid_execution_duration_seconds_bucket",
        "offgrid_rpc_duration_seconds_bucket",
        "offgrid_call_errors_total",
        "offgrid_broker_errors_total",
        "offgrid_transfer_finality_seconds_bucket",
    }


PROMTOOL = shutil.which("promtool")


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_prometheus_own_tool_finds_nothing_wrong_with_the_rules_and_the_page() -> None:
    assert PROMTOOL is not None
    rules = subprocess.run([PROMTOOL, "check", "rules", GRAFANA / "alerts.yml"], capture_output=True, check=False)
    assert b"SUCCESS: %d rules found" % len(RULES) in rules.stdout, rules.stderr
    page = subprocess.run([PROMTOOL, "check", "metrics"], input=page_text(), capture_output=True, check=False)
    assert page.returncode == 0, page.stderr

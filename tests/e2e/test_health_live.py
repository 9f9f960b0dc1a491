"""A real node watches over an application and over itself: an alert begins, is told everywhere, and ends."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid

from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.services.health.alerts import FALL

# A program as an owner would write it: it keeps each alert, a line each.
TELL = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
INTERVAL_MS = 200
LIMIT_MB = 16
FULL_PERCENT = 1  # of it: 160 kB, which a few events take


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told") / "alerts"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, told: Path) -> Iterator[LocalMesh]:
    with mesh_of(
        tmp_path_factory.mktemp("mesh"),
        {"lone": ["core"]},
        health__interval_ms=INTERVAL_MS,
        health__command=[sys.executable, "-c", TELL, str(told)],
        health__database_warn_percent=FULL_PERCENT,
        storage__limit_mb=LIMIT_MB,
        metrics__listen="127.0.0.1:0",
    ) as mesh:
        yield mesh


def journaled(node: LocalNode, name: str) -> list[tuple[str, str]]:
    done = offgrid(node, "events", "--type", "HEALTH_CHANGED", "--json")
    alerts = [each["alert"] for each in json.loads(done.out)["events"]]
    return [(each["about"], each["state"]) for each in alerts if each["name"] == name]


def metric(node: LocalNode, name: str, about: str) -> str:
    """The state as Prometheus sees it, "" where it is shown no more."""
    lines = offgrid(node, "metrics").out.splitlines()
    wanted = ("offgrid_alert_state{", f'name="{name}"', f'about="{about}"')
    return next((line.split()[-1] for line in lines if all(part in line for part in wanted)), "")


def said(told: Path, name: str) -> list[tuple[str, str]]:
    alerts = [json.loads(line) for line in told.read_text().splitlines()] if told.exists() else []
    return [(each["about"], each["state"]) for each in alerts if each["name"] == name]


def test_an_alert_begins_is_told_everywhere_and_ends(mesh: LocalMesh, told: Path) -> None:
    lone, name = mesh["lone"], "queue_depth"
    with lone.client() as client, client.session("flight") as flight:
        about = flight.session_id

        def status() -> str:
            return offgrid(lone, "status").out

        def says(depth: int, wanted: list[str]) -> bool:
            """Another heartbeat; whether the alert has had these states by now."""
            flight.record("health.heartbeat", {"queue_depth": depth})
            assert flight.flush()
            return [state for _, state in said(told, name)] == wanted

        eventually(lambda: says(600, ["warn"]), "it is told of")
        assert f"{name} 600, more than 500 of session {about}" in status()
        assert metric(lone, name, about) == "1.0"

        for _ in range(2 * FALL):
            time.sleep(INTERVAL_MS / 1000)
            assert says(480, ["warn"]), "below the threshold, and not well below"
        assert f"{name} was more than 500, and is 480 now" in status()

        eventually(lambda: says(10, ["warn", "ok"]), "it is over")
        assert name not in status()
        assert metric(lone, name, about) == "0.0"
        assert said(told, name) == [(about, "warn"), (about, "ok")]
        both = [(about, "ALERT_STATE_WARN"), (about, "ALERT_STATE_OK")]
        eventually(lambda: journaled(lone, name) == both, "the journal has both")

        figures, page = flight.figures, offgrid(lone, "metrics").out.splitlines()
        assert f'offgrid_session_events_total{{kind="health.heartbeat"}} {figures.durable:.1f}' in page
        assert f"offgrid_writer_accepted_total {figures.accepted:.1f}" in page


def test_a_store_that_fills_is_told_of_with_its_figures(mesh: LocalMesh, told: Path) -> None:
    lone, name = mesh["lone"], "database_size_mb"
    assert not said(told, name)
    with lone.client() as client, client.session("long") as session:
        for number in range(20):
            session.record("health.heartbeat", {"pad": bytes([number]).hex() * 10_000})
            session.flush()
    eventually(lambda: said(told, name), "it is told of")
    (alert,) = [json.loads(line) for line in told.read_text().splitlines() if name in line]
    assert (alert["node"], alert["node_id"], alert["about"], alert["state"]) == ("lone", lone.node_id, "", "warn")
    assert alert["threshold"] == LIMIT_MB * FULL_PERCENT / 100 < alert["value"] < LIMIT_MB
    assert metric(lone, name, "") == "1.0"
    eventually(lambda: journaled(lone, name) == [("", "ALERT_STATE_WARN")], "the journal has it")
    assert f"{name} 0." in offgrid(lone, "status").out

"""Hosts die until one more would end an object, and then that one: status, doctor, metrics and hooks say so."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid, promised

from offgrid_node.local_mesh import LocalMesh, LocalNode

TELL = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"
HOSTS = ("host-a", "host-b", "host-c")
WITHIN_S = 5.0  # of a host's death, which members notice within two


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("told") / "alerts"


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, told: Path) -> Iterator[LocalMesh]:
    nodes = {"owner": ["core"], **{host: ["host"] for host in HOSTS}}
    with mesh_of(
        tmp_path_factory.mktemp("mesh"),
        nodes,
        health__interval_ms=200,
        health__command=[sys.executable, "-c", TELL, str(told)],
        metrics__listen="127.0.0.1:0",
    ) as mesh:
        yield mesh


def line(node: LocalNode) -> str:
    """What status says of objects."""
    lines = offgrid(node, "status").out.splitlines()
    return "\n".join(each.split(None, 1)[1] for each in lines if each.startswith("objects"))


def alerts(told: Path) -> list[tuple[str, str]]:
    found = [json.loads(each) for each in told.read_text().splitlines()] if told.exists() else []
    return [(each["name"], each["state"]) for each in found if each["name"].startswith("objects_")]


def found(node: LocalNode) -> dict[str, str]:
    checks = json.loads(offgrid(node, "--json", "doctor").out)["findings"]
    return {each["state"]: each["sentence"] for each in checks if each["check"] == "objects"}


def test_what_one_more_loss_ends_is_said_and_over_when_hosts_are_back(mesh: LocalMesh, told: Path) -> None:
    owner = mesh["owner"]

    with owner.client() as client:

        def says(gone: int, at_risk: int, wanted: str) -> None:
            def counts() -> tuple[int, int]:
                told = client.mesh.status().objects
                return told.gone, told.at_risk

            eventually(lambda: counts() == (gone, at_risk), f"{gone} gone, {at_risk} at risk")
            assert line(owner) == wanted

        def kill(host: str, gone: int, at_risk: int, wanted: str) -> None:
            before_s, began = promised(WITHIN_S), time.monotonic()
            mesh[host].kill()
            says(gone, at_risk, wanted)
            took_s = time.monotonic() - began
            assert took_s < max(before_s, promised(WITHIN_S))  # others may have begun to use this machine meanwhile

        client.objects.put(os.urandom(5_000), name="film", code=(2, 3))
        client.objects.put(b"x", name="one copy", copies=1, required_milli=1_000)
        eventually(lambda: not any(made.local for made in client.objects.list()), "all lies at hosts")
        keeper = client.objects.get("one copy").acks[0].node_id
        others = [host for host in HOSTS if mesh[host].node_id != keeper]
        says(0, 0, "")

        kill(others[0], 0, 1, "1 object is lost with one more host: film → offgrid doctor")
        eventually(lambda: ("objects_at_risk", "warn") in alerts(told), "the hook is told")
        sentence = f"1 object is lost with one more host: film; their hosts that are away: {others[0]}"
        eventually(lambda: found(owner) == {"warning": sentence}, "the doctor says it")
        assert [made.name for made in client.objects.list(endangered_only=True)] == ["film"]
        figures = offgrid(owner, "metrics").out
        assert 'offgrid_endangered_objects{risk="at_risk"} 1.0' in figures

        kill(others[1], 1, 0, "1 object cannot be read now: film → offgrid doctor")
        eventually(lambda: ("objects_gone", "critical") in alerts(told), "the hook is told")
        eventually(lambda: found(owner).keys() == {"fault"}, "the doctor says it")

        for host in others:
            mesh[host].run("run")
        says(0, 0, "")
        eventually(lambda: ("objects_gone", "ok") in alerts(told), "it is over")
        eventually(lambda: found(owner).keys() == {"ok"}, "the doctor says it")

"""Where the doctor looks for a copy of the node: everywhere that is told as its place, but where it is itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from offgrid_node.doctor import lan
from offgrid_node.doctor.meeting import Met
from offgrid_node.doctor.subject import Subject
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey

ADAPTERS = [SimpleNamespace(name="eth0", ips=[SimpleNamespace(ip="192.0.2.2"), SimpleNamespace(ip=("fd00::2", 0, 0))])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("identity") / "node"
    found(made, "home", "attic", ("core",), {"mesh.listen": "[::]:7440", "mesh.mdns": False, "storage.limit_mb": 16})
    return made


@pytest.mark.parametrize(
    ("place", "asked"),
    [
        ("127.0.0.1:7440", False),
        ("127.0.1.1:7440", False),  # the machine's own name, by the hosts file of many a Linux
        ("[::1]:7440", False),
        ("192.0.2.2:7440", False),
        ("[fd00::2]:7440", False),
        ("[fd00:0::2]:7440", False),
        ("198.51.100.7:7440", False),  # as mesh.advertise says: a router leads back from there
        ("127.0.0.1:7450", True),
        ("192.0.2.2:7450", True),
        ("192.0.2.3:7440", True),
        ("[fd00::3]:7440", True),
    ],
)
def test_a_copy_is_looked_for_where_the_node_is_not_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str, asked: bool
) -> None:
    mine = NodeKey.load(folder / "keys").node_id
    monkeypatch.setattr(lan, "meet", lambda _: (Met.THERE, mine))
    monkeypatch.setattr("ifaddr.get_adapters", lambda: ADAPTERS)
    environ = {"OFFGRID_MESH__PEERS": place, "OFFGRID_MESH__ADVERTISE": "198.51.100.7:7440"}
    [check] = [each for each in lan.CHECKS if each.name == "identity"]
    said = [each.sentence for each in check.look(Subject(folder, environ))]
    assert [f"another process is this very node, at {place}" in each for each in said] == [True] * asked

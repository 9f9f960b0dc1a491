"""Nodes that are named by the URL of their gateway: what a node makes of what those say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from offgrid_node import finding
from offgrid_node.config import Config
from offgrid_node.discovery.gateways import About
from offgrid_node.finding import Finding
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.commands import BrokerPreferred
from offgrid_node.protocol.mesh.commands import AddressSeen
from offgrid_node.protocol.objects.commands import HostsChosen

SELF, MARKET, WORKER = "a" * 32, "b" * 32, "c" * 32
MARKET_URL, WORKER_URL = "http://192.0.2.1:9000", "http://192.0.2.2:8081"
ROLES = {SELF: {HOST}, MARKET: {BROKER}, WORKER: {HOST}}
SAID = {MARKET_URL: About(MARKET, ("192.0.2.1:7440",)), WORKER_URL: About(WORKER, ("192.0.2.2:7440",))}


class Gateways:
    """In place of the real ones: what they say is in SAID."""

    notices: tuple[str, ...] = ()

    def __init__(self, named_in: str, urls: list[str]) -> None:
        self.known = [SAID[url] for url in urls]

    def ask(self) -> list[About]:
        return self.known


def look(folder: Path, monkeypatch: pytest.MonkeyPatch, tables: Mapping[str, Any]) -> tuple[set[Any], tuple[str, ...]]:
    """What a node with such a config hears in its first look, and its notices after it."""
    monkeypatch.setattr(finding, "Gateways", Gateways)
    base = {"mesh": {"name": "m", "mdns": False, "hosts_file": str(folder / "mesh_hosts.json")}}
    config = Config.model_validate({"node": {"data_dir": str(folder)}, **base, **tables})
    heard: set[Any] = set()
    directory = SimpleNamespace(
        genesis=SimpleNamespace(mesh_tag=b""), live=lambda: list(ROLES), roles_in_force=lambda node: ROLES.get(node, ())
    )
    node = SimpleNamespace(
        node_id=SELF,
        directory=directory,
        mesh=SimpleNamespace(liveness=lambda node: 1),
        runtime=SimpleNamespace(deliver=lambda domain, event: heard.add((domain, event))),
    )

    async def once() -> tuple[str, ...]:
        found = Finding(config, cast(Any, node), cast(Any, None), lambda: 0)
        found._listed()
        await found._ask_gateways()
        return found.notices

    return heard, asyncio.run(once())


def test_the_broker_of_broker_url_is_found_and_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, notices = look(tmp_path, monkeypatch, {"jobs": {"broker_url": MARKET_URL}})
    assert heard == {("mesh", AddressSeen(MARKET, "192.0.2.1:7440")), ("jobs", BrokerPreferred(MARKET))}
    assert notices == ()


def test_who_is_no_broker_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, notices = look(tmp_path, monkeypatch, {"jobs": {"broker_url": WORKER_URL}})
    assert notices == (f"jobs.broker_url: {WORKER_URL} is node {WORKER}, no broker of this mesh",)


def test_hosts_of_the_file_are_where_their_gateways_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mesh_hosts.json").write_text(f'["{WORKER_URL}", "192.0.2.3:7440"]')
    heard, _ = look(tmp_path, monkeypatch, {})
    assert heard == {("mesh", AddressSeen(WORKER, "192.0.2.2:7440"))}


def test_those_of_storage_hosts_are_the_only_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard, _ = look(tmp_path, monkeypatch, {"storage": {"hosts": [WORKER_URL]}})
    assert ("objects", HostsChosen(frozenset({WORKER}))) in heard

"""Two machines and a cable: two network namespaces that find each other by mDNS, and nothing else.

Done when: they find each other, join with one token, run a job; removed, the member is out within 5 s.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import BIN, REMOVED_WITHIN_S, eventually, log_of, offgrid, promised, run
from netns import NEEDS_ROOT, Machine, ip, namespaces

from offgrid.client import OffgridError
from offgrid_node.local_mesh import LocalNode
from offgrid_node.protocol.mesh.token import InviteToken

pytestmark = NEEDS_ROOT


@pytest.fixture
def cable() -> Iterator[tuple[str, str]]:
    """Two namespaces joined by one veth pair, with addresses and no way out."""
    with namespaces("l", "r") as (left, right):
        ip("link", "add", "og0", "netns", left, "type", "veth", "peer", "name", "og0", "netns", right)
        for name, address in ((left, "10.77.0.1/24"), (right, "10.77.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", "og0")
            ip("-n", name, "link", "set", "og0", "up")
        yield left, right


def alive(node: LocalNode) -> set[str]:
    """Names of those that this node sees alive; empty while it does not answer."""
    try:
        with node.client(2.0) as client:
            return {peer.member.name for peer in client.mesh.peers() if peer.liveness == 1}
    except OffgridError:
        return set()


def test_found_joined_worked_removed(cable: tuple[str, str], tmp_path: Path) -> None:
    left, right = cable
    first = Machine("first", ("core", "broker"), tmp_path / "a")
    second = Machine("second", ("host",), tmp_path / "b")
    text = tmp_path / "text.txt"
    text.write_text("a b c\n")
    figures = {}
    try:
        roles = ["--role", "core", "--role", "broker"]
        made = run([BIN / "offgrid-node", "init", "--mesh", "lan", "--name", "first", *roles, "--dir", first.folder])
        assert made.code == 0, made.said
        first.start(left, "run")
        first.wait_ready()
        invited = offgrid(first, "mesh", "invite", "--json")
        with_addresses = InviteToken.parse(_token(invited.out))
        assert any(address.startswith("10.77.0.1:") for address in with_addresses.addresses)
        bare = str(InviteToken(with_addresses.mesh_tag, with_addresses.secret))

        began = time.monotonic()
        wc = 'host.process.commands={ wc = "/usr/bin/wc" }'
        second.start(right, "join", bare, "--name", "second", "--role", "host", "--set", wc)
        eventually(lambda: "joined mesh lan" in log_of(second) or not second.alive, "the token is redeemed")
        assert second.alive, second.log_tail()
        figures["joined"] = time.monotonic() - began
        second.wait_ready()
        both = {"first", "second"}
        eventually(lambda: alive(first) == both == alive(second), "they see each other")
        figures["seen"] = time.monotonic() - began

        began = time.monotonic()
        done = offgrid(first, "job", "run", text, "--command", "wc", "--output", tmp_path / "out", "--", "-w")
        assert done.code == 0, done.said
        assert (tmp_path / "out").read_text().split() == ["3"]
        assert "second" in done.out
        figures["job"] = time.monotonic() - began

        within_s = promised(REMOVED_WITHIN_S)
        began = time.monotonic()
        assert offgrid(first, "mesh", "remove", "--yes", "second").code == 0
        eventually(lambda: alive(first) == {"first"}, "the first lists it no more", within_s)
        eventually(lambda: _removed(second), "the second says so", within_s - (time.monotonic() - began))
        figures["removed"] = time.monotonic() - began
    finally:
        codes = {node.name: node.stop() for node in (first, second)}
    assert codes == {"first": 0, "second": 0}
    for node in (first, second):
        log_of(node)
    sys.stdout.write(", ".join(f"{what} {seconds:.2f} s" for what, seconds in figures.items()))


def _token(out: str) -> str:
    return str(json.loads(out)["token"])


def _removed(node: LocalNode) -> bool:
    with node.client() as client:
        return client.mesh.status().removed

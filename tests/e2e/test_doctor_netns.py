"""Two machines on a switch, which find each other by mDNS, joined by two commands; then the network is made wrong.

A filter of tc(8) stands for a firewall: what comes in is dropped before anything sees it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from live import BIN, eventually, log_of, offgrid, promised, run
from netns import NEEDS_ROOT, Machine, namespaces

from offgrid_tools.namespaces import IP, Switch

TC = shutil.which("tc") or ""
pytestmark = [*NEEDS_ROOT, pytest.mark.skipif(not TC, reason="needs tc(8)")]
JOINED_WITHIN_S = 15.0  # promised
NAMES = ("attic", "barn")
TCP, UDP = 6, 17
PORTS = "mesh.framed_port=7442"  # with mesh.listen all that members call
# Classic BPF over an Ethernet frame: IPv4, that protocol and destination ports from first to last are dropped.
DROPS = (
    "10,40 0 0 12,21 0 6 2048,48 0 0 23,21 0 4 {protocol},177 0 0 14,72 0 0 16,53 0 1 {first},37 0 1 {last},"
    "6 0 0 4294967295,6 0 0 2"
)


class Network:
    """The machines, and where each is plugged in: port1 of the hub and up, in their order."""

    def __init__(self, hub: str, spaces: dict[str, str], folder: Path) -> None:
        self.hub, self.spaces, self.switch = hub, spaces, Switch(hub, spaces)
        self.nodes = {name: Machine(name, ("core", "broker", "host"), folder / name) for name in spaces}

    def inside(self, name: str, *words: str | Path) -> tuple[str, ...]:
        return (IP, "netns", "exec", self.spaces[name], *map(str, words))

    def doctor(self, name: str) -> dict[str, dict[str, str]]:
        """All that it says is wrong with that machine's node, by check."""
        done = run(self.inside(name, BIN / "offgrid-node", "doctor", "--dir", self.nodes[name].folder, "--json"))
        told = json.loads(done.out)["findings"]
        told = [each for each in told if each["check"] not in ("alerts", "memory")]  # of a machine that others use, too
        return {each["check"]: each for each in told if each["state"] in ("fault", "warning")}

    def start(self, name: str) -> None:
        self.nodes[name].start(self.spaces[name], "run")
        self.nodes[name].wait_ready()

    @contextmanager
    def dropped(self, name: str, protocol: int, first: int, last: int) -> Iterator[None]:
        """What comes in at that machine to those ports."""
        where = ["-n", self.spaces[name]]
        program = ["bpf", "da", "bytecode", DROPS.format(protocol=protocol, first=first, last=last)]
        subprocess.run([TC, *where, "qdisc", "add", "dev", "og0", "clsact"], check=True)
        subprocess.run([TC, *where, "filter", "add", "dev", "og0", "ingress", *program], check=True)
        try:
            yield
        finally:
            subprocess.run([TC, *where, "qdisc", "del", "dev", "og0", "clsact"], check=True)

    def see_each_other(self) -> None:
        for node in self.nodes.values():
            eventually(lambda node=node: alive(node) == set(self.nodes), f"{node.name} sees the others")


def alive(node: Machine) -> set[str]:
    with node.client() as client:
        return {peer.member.name for peer in client.mesh.peers() if peer.liveness == 1}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with namespaces("hub", *NAMES) as (hub, *spaces):
        for space in spaces:  # by which they would hear each other all the same
            off = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6"
            subprocess.run([IP, "netns", "exec", space, "/bin/sh", "-c", off], check=True)
        net = Network(hub, dict(zip(NAMES, spaces, strict=True)), tmp_path_factory.mktemp("n"))
        try:
            yield net
        finally:
            for node in net.nodes.values():
                node.stop()
        assert all(log_of(node) for node in net.nodes.values())


def test_from_nothing_to_a_second_machine_by_two_commands(network: Network) -> None:
    first, second = network.nodes.values()
    made = run(
        [BIN / "offgrid-node", "init", "--mesh", "home", "--name", "attic", "--set", PORTS, "--dir", first.folder]
    )
    assert made.code == 0, made.said
    network.start("attic")
    before_s, began = promised(JOINED_WITHIN_S), time.monotonic()
    invited = offgrid(first, "mesh", "invite")
    second.start(network.spaces["barn"], "join", invited.out.strip(), "--name", "barn", "--set", PORTS)
    second.wait_ready()
    eventually(lambda: alive(first) == set(NAMES), "the first sees the second")
    took_s = time.monotonic() - began
    sys.stdout.write(f"joined {took_s:.2f} s")
    assert took_s < max(before_s, promised(JOINED_WITHIN_S))  # others may have begun to use this machine meanwhile
    assert "note:" not in log_of(second)
    network.see_each_other()


def test_healthy_machines_have_no_findings(network: Network) -> None:
    for name in NAMES:
        eventually(lambda name=name: network.doctor(name) == {}, f"all is well at {name}", 20.0)


def test_a_firewall_that_drops_what_members_call(network: Network) -> None:
    with network.dropped("attic", TCP, 7440, 7442):
        found = eventually(lambda: network.doctor("attic").get("reached"), "barn has tried", 40.0)
    assert "barn cannot call this node at 10.79.0.1:7440" in found["sentence"]
    assert found["command"] == "sudo ufw allow 7440/tcp"


def test_a_firewall_that_drops_mdns(network: Network) -> None:
    network.see_each_other()
    network.nodes["attic"].terminate()
    network.nodes["attic"].wait_stopped()
    with network.dropped("attic", UDP, 5353, 5353):
        network.start("attic")
        network.see_each_other()
        eventually(lambda: "multicast" in network.doctor("attic"), "it has run for long enough", 40.0)
        attic, barn = map(network.doctor, NAMES)
    assert set(attic) == set(barn) == {"multicast"}
    assert "mDNS of barn does not come in here" in attic["multicast"]["sentence"]
    assert attic["multicast"]["command"].startswith("OFFGRID_MESH__PEERS=10.79.0.2:7440 offgrid-node run")
    assert "mDNS of this node does not reach attic" in barn["multicast"]["sentence"]

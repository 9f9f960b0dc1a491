"""Machines in network namespaces of their own, on one switch: what the end-to-end tests and `bench faults` cut apart.

Linux alone has them, and only root may make them; `LACKING` says why there are none here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from offgrid_node.protocol.errors import Unavailable

IP = shutil.which("ip") or ""
USABLE = sys.platform == "linux" and os.geteuid() == 0 and bool(IP)
LACKING = "" if USABLE else "needs root and ip(8) on Linux"


def ip(*arguments: str) -> None:
    subprocess.run([IP, *arguments], check=True, capture_output=True)


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[str, ...]]:
    """Fresh network namespaces, each with its loopback up. Raises Unavailable where there can be none."""
    own = tuple(f"og-{name}-{os.getpid()}" for name in names)
    made = []
    try:
        for name in own:
            try:
                ip("netns", "add", name)
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip()
                raise Unavailable(f"no network namespaces here: {said}", reason="NoNamespaces") from error
            made.append(name)
            ip("-n", name, "link", "set", "lo", "up")
        yield own
    finally:
        for name in made:
            ip("netns", "delete", name)


class Switch:
    """One switch in a namespace of its own; `machines` hang on it, by name and namespace, from 10.79.0.1 on."""

    def __init__(self, hub: str, machines: Mapping[str, str]) -> None:
        self._hub = hub
        self._ports: dict[str, str] = {}
        self.addresses: dict[str, str] = {}
        self.runners = {name: (IP, "netns", "exec", space) for name, space in machines.items()}
        ip("-n", hub, "link", "add", "switch", "type", "bridge")
        ip("-n", hub, "link", "set", "switch", "up")
        for number, (name, space) in enumerate(machines.items(), 1):
            port = self._ports[name] = f"port{number}"
            self.addresses[name] = f"10.79.0.{number}"
            ip("link", "add", "og0", "netns", space, "type", "veth", "peer", "name", port, "netns", hub)
            self.join(name)
            ip("-n", hub, "link", "set", port, "up")
            ip("-n", space, "address", "add", f"{self.addresses[name]}/24", "dev", "og0")
            ip("-n", space, "link", "set", "og0", "up")

    def cut(self, name: str) -> None:
        """What it sends, and what is sent to it, vanishes; no connection is reset and no end is told."""
        ip("-n", self._hub, "link", "set", self._ports[name], "nomaster")

    def join(self, name: str) -> None:
        ip("-n", self._hub, "link", "set", self._ports[name], "master", "switch")

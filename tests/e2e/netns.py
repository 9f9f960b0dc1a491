"""Machines in network namespaces of their own, and what joins them: a cable, or two switches that can be cut apart."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest
from live import BIN

from offgrid_node.local_mesh import LocalNode
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.namespaces import IP, LACKING, ip
from offgrid_tools.namespaces import namespaces as fresh

NEEDS_ROOT = [pytest.mark.root, pytest.mark.skipif(bool(LACKING), reason=LACKING)]


class Machine(LocalNode):
    """A node in a network namespace of its own; its unix socket is reached as any other."""

    def start(self, namespace: str, *arguments: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [IP, "netns", "exec", namespace, str(BIN / "offgrid-node"), *arguments, "--dir", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def namespaces(*names: str) -> Iterator[tuple[str, ...]]:
    """Fresh network namespaces, each with its loopback up; skips the test where there can be none."""
    with ExitStack() as stack:
        try:
            made = stack.enter_context(fresh(*names))
        except Unavailable as fault:
            pytest.skip(fault.message)
        yield made


class Halves:
    """Two switches and the link between them; every machine hangs on one of the two, with address 10.77.0.1 and up."""

    def __init__(self, hub: str, left: Sequence[str], right: Sequence[str]) -> None:
        self._hub = hub
        for switch in ("left", "right"):
            ip("-n", hub, "link", "add", switch, "type", "bridge")
            ip("-n", hub, "link", "set", switch, "up")
        ip("-n", hub, "link", "add", "trunk", "type", "veth", "peer", "name", "trunk-end")
        ip("-n", hub, "link", "set", "trunk", "master", "left")
        ip("-n", hub, "link", "set", "trunk-end", "master", "right")
        self.join()
        for number, (machine, switch) in enumerate(
            [*((name, "left") for name in left), *((name, "right") for name in right)], 1
        ):
            port = f"port{number}"
            ip("link", "add", "og0", "netns", machine, "type", "veth", "peer", "name", port, "netns", hub)
            ip("-n", hub, "link", "set", port, "master", switch)
            ip("-n", hub, "link", "set", port, "up")
            ip("-n", machine, "address", "add", f"10.77.0.{number}/24", "dev", "og0")
            ip("-n", machine, "link", "set", "og0", "up")

    def join(self) -> None:
        ip("-n", self._hub, "link", "set", "trunk", "up")
        ip("-n", self._hub, "link", "set", "trunk-end", "up")

    def cut(self) -> None:
        """Nothing passes from one half to the other, and nobody is told."""
        ip("-n", self._hub, "link", "set", "trunk", "down")

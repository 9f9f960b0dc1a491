"""A whole mesh on this machine: one process and one folder per node, the first founds, the others join by token.

What the demo shows and what the end-to-end tests and the soak run on. Nodes are real: their own daemons, keys,
stores and ports; only the addresses are loopback.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import msgspec

from offgrid.client import Client, OffgridError, connect
from offgrid_node.protocol.errors import Unavailable

READY_TIMEOUT_S = 120.0  # far more than it takes: several nodes may start at once on a machine that is slow
STOP_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 30.0
POLL_S = 0.03
LOG_NAME = "node.log"
LOCAL: Mapping[str, object] = {
    "mesh.listen": "127.0.0.1:0",
    "mesh.door": "127.0.0.1:0",
    "mesh.mdns": False,
    "gateway.listen": "off",
    "mesh.probe_interval_ms": 300,
    "storage.journal_interval_ms": 0,  # nobody restores a node of such a mesh, but for the test of that
}


class LocalNode(msgspec.Struct):
    """One node: its folder and, while it runs, its process."""

    name: str
    roles: tuple[str, ...]
    folder: Path
    settings: Mapping[str, object] = msgspec.field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    node_id: str = ""
    runner: tuple[str, ...] = ()  # a command that runs its command elsewhere, as `ip netns exec NAME` does

    @property
    def log_path(self) -> Path:
        return self.folder / LOG_NAME

    @property
    def socket(self) -> str:
        return f"unix:{self.folder / 'data' / 'offgrid.sock'}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def client(self, timeout_s: float = CALL_TIMEOUT_S) -> Client:
        return connect(str(self.folder), timeout_s=timeout_s)

    def run(self, *arguments: str) -> None:
        """Starts `offgrid-node ARGUMENTS` as this node's process, in a session of its own."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = start_command([*arguments, "--dir", str(self.folder)], log, self.runner)

    def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the node answers; raises Unavailable with the end of its log when it does not."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise Unavailable(f"node {self.name} ended while it started:\n{self.log_tail()}", reason="NodeEnded")
            try:
                with self.client() as client:
                    self.node_id = client.mesh.status().node_id
                return
            except OffgridError:
                time.sleep(POLL_S)
        raise Unavailable(f"node {self.name} was not ready in {timeout_s:g} s:\n{self.log_tail()}", reason="NotReady")

    def kill(self) -> None:
        """kill -9: no farewell, no flush."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self) -> None:
        """SIGTERM, once: a second one would cut short the orderly stop that `wait_stopped` waits for."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """SIGTERM and wait; returns the exit code, or None when it had to be killed."""
        self.terminate()
        return self.wait_stopped(timeout_s)

    def wait_stopped(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """The exit code, or None when it had to be killed."""
        if self.process is None:
            return 0
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return None

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


def start_command(arguments: Sequence[str], log: IO[bytes], runner: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """`offgrid-node` with this very interpreter; Ctrl-C at the terminal does not reach it."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("OFFGRID_")}
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW  # else it ends with the console
    else:
        flags = 0
    return subprocess.Popen(
        [*runner, sys.executable, "-P", "-m", "offgrid_node", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environ,
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )


class LocalMesh:
    """Several LocalNodes of one mesh. Use it in a `with` block: leaving it stops what still runs."""

    def __init__(self, folder: Path, name: str, nodes: Mapping[str, Sequence[str]], **settings: object) -> None:
        """`nodes` maps names to roles, the founder first; `settings` with dots as double underscores go to all."""
        common = {**LOCAL, **{key.replace("__", "."): value for key, value in settings.items()}}
        self.name, self._folder, self._settings = name, folder, common
        self.nodes = {node: LocalNode(node, tuple(roles), folder / node, common) for node, roles in nodes.items()}

    def __getitem__(self, name: str) -> LocalNode:
        return self.nodes[name]

    def __enter__(self) -> LocalMesh:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def founder(self) -> LocalNode:
        return next(iter(self.nodes.values()))

    def found(self) -> None:
        """Founds the mesh, in this very process, and runs the founder until it answers."""
        from offgrid_node.founding import found

        first = self.founder
        found(first.folder, self.name, first.name, first.roles, first.settings)
        first.run("run")
        first.wait_ready()

    def start(self, at_once: int | None = None) -> None:
        """Founds it, lets the others join, so many `at_once` (None: all), and waits until each answers. They join in
        this very process as well; what a node needs for that, it would import for each."""
        self.found()
        others = list(self.nodes.values())[1:]
        step = at_once or max(1, len(others))
        for some in (others[at : at + step] for at in range(0, len(others), step)):
            self._join(some)

    def join(self, name: str, roles: Sequence[str]) -> LocalNode:
        """One more node, of a mesh that runs."""
        node = self.nodes[name] = LocalNode(name, tuple(roles), self._folder / name, self._settings)
        self._join([node])
        return node

    def _join(self, some: Sequence[LocalNode]) -> None:
        from offgrid_node.joining import join

        with self.founder.client() as client:
            for node in some:
                token = client.mesh.invite().token
                join(node.folder, token, node.name, node.roles, node.settings, READY_TIMEOUT_S)
                node.run("run")
        for node in some:
            node.wait_ready()

    def wait_alive(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the founder sees every running node alive."""
        wanted = {node.node_id for node in self.nodes.values() if node.alive}
        deadline = time.monotonic() + timeout_s
        with self.founder.client() as client:
            while time.monotonic() < deadline:
                alive = {peer.member.node_id for peer in client.mesh.peers() if peer.liveness == 1}
                if wanted <= alive:
                    return
                time.sleep(POLL_S)
        raise Unavailable(
            f"{len(wanted - alive)} nodes are not seen alive after {timeout_s:g} s", reason="NotConverged"
        )

    def wait_offers(self, count: int, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Until the first broker's book holds `count` offers."""
        broker = next(node for node in self.nodes.values() if "broker" in node.roles)
        deadline = time.monotonic() + timeout_s
        with broker.client() as client:
            while time.monotonic() < deadline:
                if len(client.market.offers().entries) >= count:
                    return
                time.sleep(POLL_S)
        raise Unavailable(f"fewer than {count} hosts offered after {timeout_s:g} s", reason="NoOffers")

    def by_id(self, node_id: str) -> LocalNode:
        return next(node for node in self.nodes.values() if node.node_id == node_id)

    def stop(self) -> dict[str, int | None]:
        """SIGTERM to all at once; exit codes by name (None: had to be killed)."""
        running = [node for node in self.nodes.values() if node.alive]
        for node in running:
            node.terminate()
        return {node.name: node.wait_stopped() for node in running}

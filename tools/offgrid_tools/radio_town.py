"""Two nodes with a radio link between them and nothing else, each a process; the radios are emulated in another one.

The second one joins over the radio: the first one's door is shut, so its invite names no address. Each has a network
namespace of its own where there are any. Elsewhere nobody is told where the other listens: members are told to look
where nobody is (192.0.2.0/24, RFC 5737).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.namespaces import IP, USABLE, namespaces

NOWHERE = "192.0.2.1:7440"
READY_S = 30.0
JOIN_S = 120
NODES = {"hut": ["core", "broker"], "mill": ["core", "host"]}


class RadioTown:
    """Use it in a `with` block. `medium`: "lora" or "ble"; `options` are the emulator's."""

    def __init__(self, folder: Path, medium: str, *options: str, **settings: object) -> None:
        self._folder, self._medium, self._options = folder, medium, options
        self._stats = folder / "air.json"
        self._namespaces = ExitStack()
        self.apart = False
        self.mesh = LocalMesh(folder, "radio", NODES, mesh__advertise=[NOWHERE], mesh__door="", **settings)

    @property
    def hut(self) -> LocalNode:
        return self.mesh["hut"]

    @property
    def mill(self) -> LocalNode:
        return self.mesh["mill"]

    def __enter__(self) -> RadioTown:
        self._folder.mkdir(parents=True, exist_ok=True)
        places = [str(self._folder / f"radio-{name}") for name in NODES]
        if self._medium == "lora":
            wanted = ["lora", "rnode", *places, f"stats={self._stats}"]
        else:
            wanted = ["ble", *(places if sys.platform != "win32" else ("0", "0"))]
        command = [sys.executable, "-m", "offgrid_tools.emulators", *wanted, *self._options]
        self._emulator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._emulator.stdout is not None
        ready = self._emulator.stdout.readline().split()
        if ready[:1] != ["ready"]:
            self._end()
            raise RuntimeError(f"the emulated radios did not start: {command}")
        for node, place in zip(self.mesh.nodes.values(), places if self._medium == "lora" else ready[1:], strict=True):
            node.settings = {**node.settings, "links.open": [self._link(place)]}
        self._part()
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.stop()
        self._end()
        self._namespaces.close()

    def start(self) -> None:
        """Until each sees the other alive, over the air."""
        self.mesh.found()
        with self.hut.client() as hut:
            token = hut.mesh.invite().token
        settings = [f"--set={key}={json.dumps(value)}" for key, value in self.mill.settings.items()]
        roles = [f"--role={role}" for role in self.mill.roles]
        self.mill.run("join", token, "--name=mill", *roles, f"--timeout={JOIN_S}", *settings)
        self.mill.wait_ready()
        self.mesh.wait_alive()
        self.mesh.wait_offers(1)

    def air(self) -> Mapping[str, int]:
        """What has gone over the air until now: frames, bytes, airtime_us. Of LoRa alone."""
        before, deadline = self._stats.stat().st_mtime_ns if self._stats.exists() else 0, time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self._stats.exists() and self._stats.stat().st_mtime_ns != before:
                found: Mapping[str, int] = json.loads(self._stats.read_text("utf-8"))
                return found
            time.sleep(0.05)
        raise TimeoutError("the emulated radios tell nothing")

    # ---- inside

    def _link(self, place: str) -> str:
        if self._medium == "lora":
            return f"lora:{place}?region=EU868&sf=7"
        return f"ble:tcp-client:127.0.0.1:{place}" if place.isdecimal() else f"ble:unix-client:{place}"

    def _part(self) -> None:
        """Each gets a network of its own, with nobody else in it."""
        if not USABLE:
            return
        try:
            made = self._namespaces.enter_context(namespaces(*(f"{self._medium}-{name}" for name in NODES)))
        except Unavailable:
            return
        self.apart = True
        for node, name in zip(self.mesh.nodes.values(), made, strict=True):
            node.runner = (IP, "netns", "exec", name)

    def _end(self) -> None:
        assert self._emulator.stdin is not None
        self._emulator.stdin.close()
        try:
            self._emulator.wait(READY_S)
        except subprocess.TimeoutExpired:
            self._emulator.kill()
            self._emulator.wait()
        assert self._emulator.stdout is not None
        self._emulator.stdout.close()

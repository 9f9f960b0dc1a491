"""Two nodes with a radio link between them and nothing else, each a process; the radios are emulated in another one.

Where members are told to find them by IP nobody is (192.0.2.0/24, RFC 5737), and each says so from its first start. The
second one joins by the first one's door, on this machine: that is the one thing for which IP is used.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from offgrid_node.local_mesh import LocalMesh, LocalNode

NOWHERE = "192.0.2.1:7440"
READY_S = 30.0
NODES = {"hut": ["core", "broker"], "mill": ["core", "host"]}


class RadioTown:
    """Use it in a `with` block. `medium`: "lora" or "ble"; `options` are the emulator's."""

    def __init__(self, folder: Path, medium: str, *options: str, **settings: object) -> None:
        self._folder, self._medium, self._options = folder, medium, options
        self._stats = folder / "air.json"
        self.mesh = LocalMesh(folder, "radio", NODES, mesh__advertise=[NOWHERE], **settings)

    @property
    def hut(self) -> LocalNode:
        return self.mesh["hut"]

    @property
    def mill(self) -> LocalNode:
        return self.mesh["mill"]

    def __enter__(self) -> RadioTown:
        self._folder.mkdir(parents=True, exist_ok=True)
        links = [str(self._folder / f"radio-{name}") for name in NODES]
        wanted = ["lora", "rnode", *links, f"stats={self._stats}"] if self._medium == "lora" else ["ble", "0", "0"]
        command = [sys.executable, "-m", "offgrid_tools.emulators", *wanted, *self._options]
        self._emulator = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._emulator.stdout is not None
        ready = self._emulator.stdout.readline().split()
        if ready[:1] != ["ready"]:
            self._end()
            raise RuntimeError(f"the emulated radios did not start: {command}")
        if self._medium == "lora":
            opened = [f"lora:{link}?region=EU868&sf=7" for link in links]
        else:
            opened = [f"ble:tcp-client:127.0.0.1:{port}" for port in ready[1:]]
        for node, link in zip(self.mesh.nodes.values(), opened, strict=True):
            node.settings = {**node.settings, "links.open": [link]}
        return self

    def __exit__(self, *_: object) -> None:
        self.mesh.stop()
        self._end()

    def start(self) -> None:
        """Until each sees the other alive, over the air."""
        self.mesh.start()
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

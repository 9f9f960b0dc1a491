"""An install kit that goes from machine to machine, where nothing else is to be reached.

Three network namespaces on one switch, without a way out. The first serves a kit made here for this machine; the second
installs from it and runs the demo; the third installs from what the second kept. Held is: an environment within 30 s,
the demo well, and the very same kit in the third's hands.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from offgrid_node.kit.install import this_target
from offgrid_node.kit.making import make_kit
from offgrid_node.kit.manifest import sha256_of
from offgrid_node.kit.serving import PORT
from offgrid_node.kit.targets import Target
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.namespaces import LACKING, Switch, namespaces

INSTALLED_MAX_S = 30.0
NAMES = ("first", "second", "third")
OUTSIDE = "import socket; socket.create_connection(('192.0.2.1', 443), 2)"


def soak_kits(rounds: int, say: Callable[[str], None]) -> list[str]:
    """What was violated; nothing where there are no namespaces or no package index, which is said."""
    if LACKING:
        say(f"kit: not tried, {LACKING}")
        return []
    broken: list[str] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="offgrid-kits-") as scratch:
            try:
                broken += _Chain(Path(scratch), say).run()
            except Unavailable as fault:
                say(f"kit: not tried, {fault.message}")
                return broken
    return broken


class _Chain:
    """One kit and three machines."""

    def __init__(self, scratch: Path, say: Callable[[str], None]) -> None:
        self._scratch, self._say = scratch, say
        version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        self._python = str(Path(sys.base_prefix) / "bin" / version)  # as on a machine that has nothing of ours

    def run(self) -> list[str]:
        kit, broken = self._scratch / "kit", list[str]()
        platform, _, python = this_target().rpartition("-")
        make_kit(kit, [Target(platform, python)], lambda line: self._say(f"  {line}"))
        with namespaces("switch", *NAMES) as (hub, *spaces):
            switch = Switch(hub, dict(zip(NAMES, spaces, strict=True)))
            if self._try(switch.runners["second"], [self._python, "-c", OUTSIDE], 5).returncode == 0:
                return ["the machines of the soak reach the outside"]
            ours = [sys.executable, "-P", "-m", "offgrid_node"]
            with self._serving(switch.runners["first"], [*ours, "bundle", "serve", str(kit)]):
                broken += self._install(switch, "second", switch.addresses["first"], kit / "install.py")
            theirs = str(self._scratch / "second" / "bin" / "offgrid-node")
            began = time.monotonic()
            demo = self._try(switch.runners["second"], [theirs, "demo"], 300)
            self._say(f"  demo: {time.monotonic() - began:.1f} s")
            if demo.returncode:
                broken.append(f"the demo did not go well: {demo.stdout[-1000:]}")
            with self._serving(switch.runners["second"], [theirs, "bundle", "serve"]):
                broken += self._install(switch, "third", switch.addresses["second"], kit / "install.py")
        kept = self._scratch / "third" / "og" / "kit" / "install.py"
        if not broken and sha256_of(kept) != sha256_of(kit / "install.py"):
            broken.append("the third machine was given another kit than the second")
        return broken

    def _install(self, switch: Switch, name: str, server: str, script: Path) -> list[str]:
        home = self._scratch / name
        home.mkdir()
        command = [self._python, str(script), f"http://{server}:{PORT}"]
        command += ["--dir", str(home / "og"), "--commands", str(home / "bin")]
        began, worked_s = time.monotonic(), _children_s()
        done = self._try(switch.runners[name], command, 300)
        took_s = time.monotonic() - began
        self._say(f"  {name} machine installed in {took_s:.1f} s, {_children_s() - worked_s:.1f} s of processors")
        if done.returncode:
            return [f"{name} machine: {done.stdout[-1000:]}"]
        return [f"{name} machine took {took_s:.1f} s to install"] if took_s > INSTALLED_MAX_S else []

    def _try(self, runner: Sequence[str], command: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*runner, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            env={"HOME": str(self._scratch), "PATH": os.defpath, "TMPDIR": str(self._scratch)},
        )

    @contextmanager
    def _serving(self, runner: Sequence[str], command: Sequence[str]) -> Iterator[None]:
        """While it serves: until the lines to copy have been printed, nobody is to ask."""
        path = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen([*runner, *command], stdout=subprocess.PIPE, text=True, env=path) as server:
            try:
                assert server.stdout is not None
                if not any("python3 install.py http" in line for line in server.stdout):
                    raise AssertionError("the kit is not served")
                yield
            finally:
                server.kill()


def _children_s() -> float:
    """Processor time of all that was run and has ended."""
    spent = os.times()
    return spent.children_user + spent.children_system

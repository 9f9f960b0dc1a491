"""Where a walk takes place: machines, each a folder and an environment, on this one machine.

A guide speaks of machines; here each differs from the others by its folder, by the host name that it has, and by what
its environment says: loopback addresses instead of the ports that all would have. What is typed is the same.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from offgrid.client import OffgridError, connect
from offgrid_node.config.env import long_name
from offgrid_node.executors import programs
from offgrid_node.local_mesh import LOCAL, POLL_S, READY_TIMEOUT_S, STOP_TIMEOUT_S
from offgrid_tools.walks.checking import WalkFailed

ROOT = Path(__file__).parents[3]
CALL_S = 5.0
_TAIL = re.compile(r"(?:\s*&)?(?:\s+#.*)?\s*$")
Meant = str | Callable[[], str]
"""What stands for a word of the page; called at each use where it is not known before."""
IN_A_CLONE = ("python3 tools/run.py", "pip install .", "pip install '.")
HOST_NAME = "WALK_HOST_NAME"
NAMED = f"import os, socket; name = os.environ['{HOST_NAME}']; socket.gethostname = lambda: name; "
SHIMS = {
    "offgrid": "from offgrid_tools.cli import main; main()",
    "offgrid-node": NAMED + "from offgrid_node.__main__ import main; main()",
}


class Machine(msgspec.Struct):
    """`means`: what the page writes for something that is elsewhere here, such as a serial port."""

    name: str
    folder: Path
    environ: dict[str, str]
    means: Mapping[str, Meant] = msgspec.field(default_factory=dict)
    node: subprocess.Popen[bytes] | None = None


class Stage:
    """Use it in a `with` block: leaving it ends every process that a walk has left running."""

    def __init__(self, folder: Path) -> None:
        self.machines: dict[str, Machine] = {}
        self._folder, self._left = folder, list[subprocess.Popen[bytes]]()
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell has it for what runs in the background
            signal.signal(signal.SIGINT, signal.default_int_handler)  # else all that is started here ignores Ctrl-C
        for name, code in SHIMS.items():
            shim = self._bin / name
            shim.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -c {shlex.quote(code)} "$@"\n')
            shim.chmod(0o755)
        (self._bin / "python").symlink_to(sys.executable)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._left:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._left:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()

    @property
    def first(self) -> Machine:
        return next(iter(self.machines.values()))

    def add_bare(self, name: str, means: Mapping[str, Meant] | None = None, **settings: object) -> Machine:
        """A machine on which there is nothing yet; `settings` with double underscores are what its environment says."""
        said = {**LOCAL, **{key.replace("__", "."): value for key, value in settings.items()}}
        return self._add(name, self._folder / name, said, means or {})

    def add_running(self, name: str, folder: Path, means: Mapping[str, Meant]) -> Machine:
        """One with a node that runs in `folder`."""
        return self._add(name, folder, {}, means)

    def _add(self, name: str, folder: Path, said: Mapping[str, object], means: Mapping[str, Meant]) -> Machine:
        folder.mkdir(parents=True, exist_ok=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("OFFGRID_")}
        kept |= {long_name(tuple(key.split("."))): _variable(value) for key, value in said.items()}
        kept |= {"PATH": f"{self._bin}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100", "NO_COLOR": "1"}
        kept |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HOME": str(self._folder / "home")}
        kept[HOST_NAME] = name
        machine = self.machines[name] = Machine(name, folder, kept, means)
        return machine

    def give(self, machine: Machine, files: Mapping[str, bytes]) -> None:
        """What a reader has in the folder already."""
        for name, content in files.items():
            path = machine.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def meant(self, machine: Machine, text: str) -> str:
        """What the page writes, as it is called here."""
        for word, meant in machine.means.items():
            if word in text:
                text = text.replace(word, meant if isinstance(meant, str) else meant())
        return text

    # ---- what is typed

    def run(
        self, machine: Machine, command: str, timeout_s: float, *, stream: bool = False, typed: str = "", ends: int = 0
    ) -> str:
        """What it says, on both outputs. Raises WalkFailed where it ends with anything but `ends`; `stream`: it is
        ended by Ctrl-C after `timeout_s`; `typed` is what it is answered."""
        process = self._start(machine, ["bash", "-c", command], subprocess.PIPE, subprocess.PIPE)
        try:
            out, _ = process.communicate(typed.encode(), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end_all(process, interrupt=stream)
            try:
                out, _ = process.communicate(timeout=STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                _end_all(process, interrupt=False)
                raise WalkFailed(f"{command}\nis not ended by Ctrl-C") from None
            if not stream:
                raise WalkFailed(f"{command}\nhas not ended after {timeout_s:g} s:\n{_text(out)}") from None
        if process.returncode != ends and not stream:
            raise WalkFailed(f"{command}\nended with {process.returncode}:\n{_text(out)}")
        return _text(out)

    def leave_running(self, machine: Machine, command: str) -> str:
        """Starts a node by what is typed, and waits until it answers; returns what it said until then."""
        log = machine.folder / "typed.log"
        with log.open("wb") as out:
            process = self._start(machine, ["bash", "-c", _in_place(command)], out)
        self._left.append(process)
        machine.node = process
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with connect(str(machine.folder), timeout_s=CALL_S) as client:
                    client.mesh.status()
                return _text(log.read_bytes())
            except OffgridError:
                time.sleep(POLL_S)
        raise WalkFailed(f"{command}\nis no node that answers:\n{_text(log.read_bytes())}")

    def leave_talking(self, machine: Machine, command: str) -> str:
        """Starts another server, which says a line once it serves."""
        process = self._start(machine, ["bash", "-c", _in_place(command)], subprocess.PIPE)
        self._left.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise WalkFailed(f"{command}\nhas ended without a word")
        return _text(line)

    def kill(self, machine: Machine) -> None:
        """Its node, by kill -9."""
        assert machine.node is not None, f"no node was started at {machine.name}"
        machine.node.kill()
        machine.node.wait()

    def stop(self, machine: Machine) -> None:
        """Its node, as Ctrl-C does."""
        assert machine.node is not None, f"no node was started at {machine.name}"
        machine.node.send_signal(signal.SIGINT)
        machine.node.wait(STOP_TIMEOUT_S)

    def wait_together(self, machines: Iterable[Machine]) -> None:
        """Until each of them sees as many alive as there are: who reads a page is slower than this."""
        deadline, these = time.monotonic() + READY_TIMEOUT_S, list(machines)
        for machine in these:
            with connect(str(machine.folder), timeout_s=CALL_S) as client:
                while sum(peer.liveness == 1 for peer in client.mesh.peers()) < len(these):
                    if time.monotonic() > deadline:
                        raise WalkFailed(f"{machine.name} does not see {len(these)} alive")
                    time.sleep(POLL_S)

    def _start(
        self, machine: Machine, command: list[str], out: IO[bytes] | int, typed: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        command = [self.meant(machine, part) for part in command]
        folder, environ = machine.folder, machine.environ
        if command[-1].startswith(IN_A_CLONE):  # which has an environment of its own, or makes one
            folder, environ = ROOT, {key: value for key, value in environ.items() if key != "PYTHONPATH"}
        if command[-1].startswith("pip "):
            venv.create(self._folder / "venv", with_pip=True)
            environ = {**environ, "PATH": f"{self._folder / 'venv' / 'bin'}{os.pathsep}{environ['PATH']}"}
        return subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdin=typed,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _in_place(command: str) -> str:
    """For a shell: becomes the command, without what it is told to do in the background, and without its comment."""
    return "exec env " + _TAIL.sub("", command)


def _end_all(process: subprocess.Popen[bytes], *, interrupt: bool) -> None:
    """The shell and what it started, as a terminal would."""
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGINT if interrupt else signal.SIGKILL)


def module(name: str) -> bytes:
    """A WebAssembly module of the guides, as it lies in the repository."""
    return programs.load(name)


def _variable(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _text(out: bytes) -> str:
    return out.decode("utf-8", "replace")

"""One node whose process tells what it is doing (marked_node.py), and dies in the midst of it; and what is asked of it
meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offgrid.client import Client, OffgridError, connect
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.soak.clients import TRANSIENT
from offgrid_tools.soak.marked_node import DONE, MARK, NO_FATE

READY_S, POLL_S, CALL_S = 120.0, 0.02, 20.0
CHILDREN_S = 10.0


class Marks:
    """What a process has said so far, read by a thread of its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._open: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def left_open(self) -> set[str]:
        """Of one that has ended."""
        self._thread.join(CHILDREN_S)
        return {phase for phase, count in self._open.items() if count > 0}

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            _, marked, said = line.rpartition(MARK)
            if marked and line.endswith(b"\n"):
                self._open[said[1:].strip().decode()] += -1 if said[:1] == DONE else 1


class MarkedNode:
    """A node's folder, and its process while it runs. `skew_s`: how wrong the clock of the next one is."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.skew_s = folder, folder / "data", 0
        self.process: subprocess.Popen[bytes] | None = None
        self.marks: Marks | None = None

    @property
    def log_path(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    def client(self, timeout_s: float = CALL_S) -> Client:
        return connect(str(self.folder), timeout_s=timeout_s)

    def start(self, *command: str, fate: str = NO_FATE) -> None:
        """`offgrid-node COMMAND --dir FOLDER`."""
        words = [sys.executable, "-m", "offgrid_tools.soak.marked_node", str(self.skew_s), fate, *command]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("OFFGRID_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*words, "--dir", str(self.folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        self.marks = Marks(self.process)

    def wait_ready(self) -> None:
        """Raises Unavailable with the end of its log when it does not answer."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                with self.client() as client:
                    client.mesh.status()
                return
            except OffgridError:
                time.sleep(POLL_S)
        raise Unavailable(f"{self.folder.name} does not answer:\n{self.log_tail()}", reason="NotReady")

    def doom(self, fate: str) -> None:
        """It dies by itself, as marked_node.py says."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(fate.encode() + b"\n")
        self.process.stdin.flush()

    def kill(self) -> set[str]:
        """kill -9, if it has not died yet; the phases that it was in."""
        assert self.process is not None
        assert self.marks is not None
        self.process.kill()
        self.process.wait()
        return self.marks.left_open()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None while it runs."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> int | None:
        if self.process is None or self.process.poll() is not None:
            return None
        self.process.terminate()
        return self.wait(READY_S)

    def log_tail(self, lines: int = 15) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"


@dataclass(slots=True)
class Asked:
    """Something that the node is asked for in a thread: whether it was done, and how long that took."""

    what: str
    work: Callable[[Client], Any]
    node: MarkedNode
    done: bool = False
    fault: str = ""
    took_s: float = 0.0
    _thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            with self.node.client(60.0) as client:
                self.work(client)
            self.done = True
        except OffgridError as error:
            if error.code not in TRANSIENT:
                self.fault = f"{self.what}: {error.code} {error.reason}: {error.message}"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
            self.fault = f"{self.what}: {type(error).__name__}: {error}"
        self.took_s = time.monotonic() - began


def told_of(node: MarkedNode, words: Sequence[str]) -> list[str]:
    """Lines of a node's log that have one of these words."""
    try:
        lines = node.log_path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if any(word in line for word in words)]

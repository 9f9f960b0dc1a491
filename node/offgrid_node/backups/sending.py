"""Sends a process on an errand (errand.py), from a thread that waits for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict

from offgrid_node.backups.errand import LINE_BYTES_MAX, Done, Errand, fault_from
from offgrid_node.protocol.errors import Internal, Unavailable

MODULE = "offgrid_node.backups"
RETRY_MS = 60_000
END_S = 5.0

Said = Callable[[str, int, int], None]


class Errands:
    """One at a time; `close`, from any thread, ends the one that is under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def send(self, errand: Errand, said: Said) -> Done:
        """Returns when it is done. Raises what it raised, Unavailable (Stopping), Internal when it died."""
        process = self._start()
        try:
            assert process.stdin is not None
            with suppress(OSError):  # it has died: its end tells
                process.stdin.write(json.dumps(asdict(errand)).encode() + b"\n")
                process.stdin.flush()
            return self._wait(process, said)
        finally:
            with suppress(OSError):
                process.kill()
            process.communicate()
            self._process = None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._process is not None:
                with suppress(OSError):
                    self._process.kill()

    def _start(self) -> subprocess.Popen[bytes]:
        # Our own import path, since we may not be installed.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self._lock:
            if self._closed:
                raise Unavailable("this node is stopping", reason="Stopping")
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", MODULE],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            except OSError as error:
                text = f"no process can be started that copies the store: {error.strerror}"
                raise Unavailable(text, reason="NoProcess", retry_ms=RETRY_MS) from error
            return self._process

    def _wait(self, process: subprocess.Popen[bytes], said: Said) -> Done:
        assert process.stdout is not None
        assert process.stderr is not None
        while line := process.stdout.readline(LINE_BYTES_MAX):
            told: dict[str, Any] = json.loads(line)
            if "done" in told:
                return Done(**{**told["done"], "damaged": tuple(told["done"]["damaged"])})
            if "fault" in told:
                raise fault_from(told["fault"])
            said(told["doing"], told["done_bytes"], told["total_bytes"])
        words = process.stderr.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        if self._closed:
            raise Unavailable("this node is stopping", reason="Stopping")
        process.wait(END_S)
        text = f"what copies the store ended with {process.returncode}: {words[-1]}; is the store damaged?"
        raise Internal(text, reason="ErrandDied")

"""Whoever looks into the core's drop folder: a worker of nobody's mesh, that answers each file beside it, once."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from offgrid_node.services.jobs.drops import JOB, RESULT

LOOK_S = 0.1


class Outside(msgspec.Struct):
    """Gives each job its input back. Goes on over all deaths of the node."""

    folder: Path
    answered: int = 0
    violations: list[str] = msgspec.field(default_factory=list)
    _stop: threading.Event = msgspec.field(default_factory=threading.Event)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            for path in self.folder.glob(f"*{JOB}"):
                self._answer(path)

    def _answer(self, path: Path) -> None:
        result = path.with_name(path.name.removesuffix(JOB) + RESULT)
        if result.exists():
            return
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:  # its job has ended
            return
        except ValueError as error:
            self.violations.append(f"{path.name} is not whole: {error}")
            return
        given = base64.b64decode(told["payload"].get("input", ""))
        begun = result.with_suffix(".begun")
        answer = {"status": "completed", "output_base64": base64.b64encode(given).decode("ascii"), "exit_code": 0}
        begun.write_text(json.dumps(answer), encoding="utf-8")
        os.replace(begun, result)
        self.answered += 1

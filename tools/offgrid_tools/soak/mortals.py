"""Clients that are killed as well: processes that ask for jobs, die by kill -9 in the middle of it, and go on where
they were, by their request ids alone.

    python -m offgrid_tools.soak.mortals FOLDER NAME FIRST      asks until it is killed, and says what was acknowledged
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import msgspec

from offgrid.client import Client, OffgridError, connect, payloads
from offgrid_tools.soak.clients import PAUSE_S, TRANSIENT
from offgrid_tools.soak.load import Acked

LIFE_S = (1.5, 5.0)  # starting takes about one
JOBS_PER_CALL = 4
CALL_TIMEOUT_S = 5.0
AHEAD_PAUSE_S = 0.3  # between its calls
if sys.platform == "win32":
    KILLED = 1  # what Popen says of one that it killed
else:
    KILLED = -signal.SIGKILL


def contents(name: str, number: int) -> list[bytes]:
    """What its jobs of that number are about: the same in each life."""
    return [f"{name} {number} {each}".encode() for each in range(JOBS_PER_CALL)]


class Mortal(msgspec.Struct):
    """A client that dies and is followed by another of its name. Runs in a thread; `acked` is what any life of it was
    told."""

    name: str
    folder: Path
    rng: Random
    violations: list[str] = msgspec.field(default_factory=list)
    deaths: int = 0
    ids: dict[int, list[str]] = msgspec.field(default_factory=dict)  # by the number of the call
    _stop: threading.Event = msgspec.field(default_factory=threading.Event)

    @property
    def acked(self) -> list[Acked]:
        return [
            Acked(job_id, content, dispatched=True)
            for number, job_ids in self.ids.items()
            for job_id, content in zip(job_ids, contents(self.name, number), strict=True)
        ]

    def run(self) -> None:
        while not self._stop.is_set():
            self._live(self.rng.uniform(*LIFE_S))

    def stop(self) -> None:
        self._stop.set()

    def _live(self, life_s: float) -> None:
        first = str(max(self.ids, default=0))  # the last one that it knows of is asked for again
        command = [sys.executable, "-m", __name__, str(self.folder), self.name, first]
        with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
            self._stop.wait(life_s)
            process.kill()
            said, _ = process.communicate()
        self.deaths += 1
        if process.returncode != KILLED:
            self.violations.append(f"{self.name} ended by itself with {process.returncode}")
        self.hear(said.decode())

    def hear(self, said: str) -> None:
        """What a life has said; of a last line that was broken off, nothing."""
        for line in said.splitlines(keepends=True):
            if line.endswith("\n"):
                self._acked(line.split())

    def _acked(self, words: list[str]) -> None:
        number, job_ids = int(words[0]), words[1:]
        if self.ids.setdefault(number, job_ids) != job_ids:
            known = ", ".join(self.ids[number])
            self.violations.append(f"request {self.name}-{number} made {known} and then {', '.join(job_ids)}")


def ask_for_ever(client: Client, name: str, number: int) -> None:
    pause = threading.Event()
    task_id = ""
    while True:
        try:
            if not task_id:
                mission = client.missions.create(name, request_id=f"{name}-m")
                task_id = client.tasks.create(mission.mission_id, name, "compute", request_id=f"{name}-t").task_id
            works = [payloads.builtin(input=content) for content in contents(name, number)]
            made = client.jobs.start(task_id, works, request_id=f"{name}-{number}")
        except OffgridError as error:
            if error.code not in TRANSIENT:
                raise
            pause.wait(PAUSE_S)
            continue
        sys.stdout.write(f"{number} {' '.join(made.job_ids)}\n")
        sys.stdout.flush()
        number += 1
        pause.wait(AHEAD_PAUSE_S)


if __name__ == "__main__":
    folder, name, first = sys.argv[1:]
    with connect(folder, timeout_s=CALL_TIMEOUT_S) as client:
        ask_for_ever(client, name, int(first))

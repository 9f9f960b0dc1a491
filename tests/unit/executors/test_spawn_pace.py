"""A program whose words take long to understand is heard now and then: the loop is everybody's."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.spawn import REST, SPENT_S, Spawned, spawn

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there asyncio reads the pipes")

CHUNKS = 4
FLOOD = "import sys\nwhile True: sys.stdout.write('{}' * 4096)"
LITTLE = "import sys\nsys.stdout.write('x' * 300_000)"


class SlowEar:
    """Takes `takes_s` of the loop's thread for whatever it hears."""

    def __init__(self, takes_s: float, chunks_max: int) -> None:
        self._takes_s, self._chunks_max = takes_s, chunks_max
        self.began_s: list[float] = []
        self.ended_s: list[float] = []
        self.heard_bytes = 0
        self.enough, self.closed = asyncio.Event(), asyncio.Event()

    def on_data(self, stream: int, data: bytes) -> None:
        self.began_s.append(time.monotonic())
        until_s = time.thread_time() + self._takes_s
        while time.thread_time() < until_s:
            pass
        self.heard_bytes += len(data)
        self.ended_s.append(time.monotonic())
        if len(self.ended_s) >= self._chunks_max:
            self.enough.set()

    def on_exit(self, code: int, cpu_us: int, memory_peak_bytes: int) -> None:
        pass

    def on_closed(self) -> None:
        self.closed.set()


async def begin(ear: SlowEar, program: str, folder: Path) -> Spawned:
    argv = [sys.executable, "-c", program]
    return await spawn(ear, argv, stdin=b"", cwd=folder, env={}, bounds=Bounds(0, 0))


def test_between_words_that_took_long_the_program_is_left_unread(tmp_path: Path) -> None:
    async def scenario() -> SlowEar:
        ear = SlowEar(2 * SPENT_S, CHUNKS)
        program = await begin(ear, FLOOD, tmp_path)
        await ear.enough.wait()
        program.end()
        return ear

    ear = asyncio.run(scenario())
    pauses_s = [began - ended for began, ended in zip(ear.began_s[1:], ear.ended_s, strict=False)]
    assert min(pauses_s) >= REST * 2 * SPENT_S * 0.9


def test_what_it_has_said_before_its_end_is_heard_all_the_same(tmp_path: Path) -> None:
    async def scenario() -> SlowEar:
        ear = SlowEar(2 * SPENT_S, 1_000)
        program = await begin(ear, LITTLE, tmp_path)
        await ear.closed.wait()
        program.end()
        return ear

    assert asyncio.run(scenario()).heard_bytes == 300_000

"""What a node tells systemd: datagrams, in the order of its life; and nothing where nobody asks."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid_node.supervisor import Supervisor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="systemd is Linux's")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(5)
        yield line


def heard(manager: socket.socket) -> list[str]:
    manager.setblocking(False)
    found = []
    try:
        while True:
            found.append(manager.recv(1000).decode())
    except BlockingIOError:
        return found


def test_says_when_it_serves_beats_and_says_when_it_stops(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000", "HOME": "/"}

    async def live() -> None:
        supervisor = Supervisor.take(environ)
        assert supervisor.beat_s == pytest.approx(0.01)
        supervisor.ready("attic serves")
        while len(said) < 3:
            await asyncio.sleep(0.01)
            said.extend(heard(manager))
        supervisor.stopping()

    said = list[str]()
    asyncio.run(asyncio.wait_for(live(), 60))
    first, *beats, last = [*said, *heard(manager)]
    assert (first, last) == ("READY=1\nSTATUS=attic serves", "STOPPING=1")
    assert len(beats) >= 2
    assert {*beats} == {"WATCHDOG=1"}
    assert environ == {"HOME": "/"}, "jobs inherit nothing of it"


@pytest.mark.parametrize(
    "environ",
    [{}, {"WATCHDOG_USEC": "1000"}, {"NOTIFY_SOCKET": "/nowhere"}, {"NOTIFY_SOCKET": "@nobody", "WATCHDOG_USEC": "x"}],
)
def test_nobody_to_tell_is_no_trouble(environ: dict[str, str]) -> None:
    supervisor = Supervisor.take(environ)
    supervisor.ready("attic serves")
    supervisor.stopping()
    assert supervisor.beat_s == 0


def test_a_watchdog_of_another_process_is_not_fed(manager: socket.socket) -> None:
    words = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000"}
    assert Supervisor({**words, "WATCHDOG_PID": "1"}, os.getpid()).beat_s == 0
    assert Supervisor({**words, "WATCHDOG_PID": str(os.getpid())}, os.getpid()).beat_s > 0

"""What the node tells the manager that started it, where that asks to be told: systemd's datagrams (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

BEATS_PER_WATCHDOG = 3


class Supervisor:
    """Says READY, beats while the event loop turns, says STOPPING; to nobody where there is nobody to be told."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        watched = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        text = environ.get("WATCHDOG_USEC", "") if watched and self._address else ""
        self.beat_s = int(text) / 1_000_000 / BEATS_PER_WATCHDOG if text.isdecimal() and int(text) else 0.0
        """Seconds between beats; 0 where nobody waits for them."""
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Supervisor:
        """By the environment, from which its words are taken, so that no job inherits them."""
        found = cls(environ, os.getpid())
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            environ.pop(name, None)
        return found

    def ready(self, status: str) -> None:
        """The node serves. `status` is one line for people."""
        self._tell(f"READY=1\nSTATUS={status}")
        if self.beat_s:
            self._beating = asyncio.get_running_loop().create_task(self._beat())

    def stopping(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        self._tell("STOPPING=1")

    async def _beat(self) -> None:
        while True:
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self.beat_s)

    def _tell(self, text: str) -> None:
        if not self._address or sys.platform == "win32":
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:  # it is gone: nobody to tell
            line.setblocking(False)
            line.sendto(text.encode(), address)

"""Tells the owner's program, or an address on this machine, that an alert's state has changed.

Each of the two has a thread of its own, so that one that hangs holds up neither the node nor the other: one alert at a
time, WAITING_MAX wait, further ones are dropped and counted. A program has COMMAND_S, then it and what it began are
killed; what it writes is not read. An address is tried TRIES times, by Python's own http.client: no proxy from the
environment, no redirect followed. The program's environment is the node's without the node's own settings, which may be
secret. Nothing is kept for the next start.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from offgrid_node.config import place_of
from offgrid_node.logs import fields
from offgrid_node.services.health.alerts import Alert

if TYPE_CHECKING:
    from http.client import HTTPConnection

WAITING_MAX = 64
COMMAND_S, REQUEST_S, CLOSE_S = 10.0, 5.0, 1.0
TRIES, PAUSE_S = 3, 2.0  # between two tries, and twice as much before the third
ANSWER_BYTES_MAX = 4_096
DONE, FAILED, DROPPED = "done", "failed", "dropped"
SETTINGS = "OFFGRID_"  # how their names begin in the environment

_log = logging.getLogger("offgrid.health")


class HookFailed(Exception):
    """In words."""


class Hook:
    """One way to tell: `send` does it, in the hook's thread, or raises HookFailed or OSError."""

    def __init__(self, name: str, send: Callable[[bytes], None], stop: Callable[[], None]) -> None:
        self.name, self._send, self._stop = name, send, stop
        self.counts = dict.fromkeys((DONE, FAILED, DROPPED), 0)
        self.trouble = ""  # of the last one
        self._waiting: queue.Queue[bytes | None] = queue.Queue(WAITING_MAX)
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=f"alert-{name}", daemon=True)
        self._thread.start()

    def tell(self, body: bytes) -> None:
        try:
            self._waiting.put_nowait(body)
        except queue.Full:
            self.counts[DROPPED] += 1

    def close(self) -> None:
        """What waits is forgotten; what is under way is broken off."""
        self._closing = True
        self._stop()
        with suppress(queue.Full):
            self._waiting.put_nowait(None)
        self._thread.join(CLOSE_S)

    def _work(self) -> None:
        while not self._closing and (body := self._waiting.get()) is not None and not self._closing:
            try:
                self._send(body)
            except (HookFailed, OSError, ValueError) as error:
                self.counts[FAILED] += 1
                self.trouble = f"health.{self.name} was not told of an alert: {error or type(error).__name__}"
                _log.warning(
                    "an alert was not told", extra=fields("alert_hook_failed", hook=self.name, why=self.trouble)
                )
            else:
                self.counts[DONE] += 1
                self.trouble = ""


class Command:
    """`health.command`."""

    def __init__(self, argv: Sequence[str], timeout_s: float = COMMAND_S) -> None:
        self._argv, self._timeout_s = list(argv), timeout_s
        self._process: subprocess.Popen[bytes] | None = None

    def send(self, body: bytes) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
        self._process = process = subprocess.Popen(
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environ,
            start_new_session=True,
        )
        try:
            process.communicate(body, timeout=self._timeout_s)
        except subprocess.TimeoutExpired:
            self.stop()
            process.communicate()
            raise HookFailed(f"{self._argv[0]} did not end within {self._timeout_s:g} s") from None
        finally:
            self._process = None
        if process.returncode:
            raise HookFailed(f"{self._argv[0]} ended with {process.returncode}")

    def stop(self) -> None:
        process = self._process
        if process is None:
            return
        with suppress(OSError):
            if sys.platform != "win32":
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()


class Webhook:
    """`health.webhook`. Its path, which may be what lets one in, is in no message."""

    def __init__(self, url: str, pause_s: float = PAUSE_S, timeout_s: float = REQUEST_S) -> None:
        parts = urlsplit(url)
        self._place, self._path = place_of(url), parts.path or "/"
        self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
        self._pause_s, self._timeout_s = pause_s, timeout_s
        self._stopped = threading.Event()

    def send(self, body: bytes) -> None:
        from http.client import HTTPException  # loaded on nodes that have such an address

        for tried in range(1, TRIES + 1):
            try:
                status = self._post(body)
            except (OSError, HTTPException) as error:
                said = f"{self._place}: {error or type(error).__name__}"
            else:
                if 200 <= status < 300:
                    return
                said = f"{self._place} answered {status}"
            if tried == TRIES or self._stopped.wait(tried * self._pause_s):
                break
        raise HookFailed(said)

    def stop(self) -> None:
        self._stopped.set()

    def _post(self, body: bytes) -> int:
        connection = self._connect()
        try:
            headers = {"Content-Type": "application/json", "User-Agent": "offgrid-node", "Connection": "close"}
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            answer.read(ANSWER_BYTES_MAX)
            return answer.status
        finally:
            connection.close()

    def _connect(self) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        if not self._secure:
            return HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        import ssl

        context = ssl.create_default_context()
        return HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)


class AlertHooks:
    """Those that the owner has set."""

    def __init__(self, command: Sequence[str], webhook: str, node: str, node_id: str) -> None:
        self._node, self._node_id = node, node_id
        self._hooks: list[Hook] = []
        if command:
            program = Command(command)
            self._hooks.append(Hook("command", program.send, program.stop))
        if webhook:
            address = Webhook(webhook)
            self._hooks.append(Hook("webhook", address.send, address.stop))

    def tell(self, alert: Alert) -> None:
        body = json.dumps(self._said(alert)).encode()
        for hook in self._hooks:
            hook.tell(body)

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(hook.close) for hook in self._hooks))

    @property
    def counts(self) -> tuple[tuple[str, str, int], ...]:
        """By way and outcome."""
        return tuple((hook.name, outcome, count) for hook in self._hooks for outcome, count in hook.counts.items())

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(hook.trouble for hook in self._hooks if hook.trouble)

    def _said(self, alert: Alert) -> Mapping[str, object]:
        return {
            "node": self._node,
            "node_id": self._node_id,
            "name": alert.name,
            "about": alert.about,
            "state": alert.state.name.lower(),
            "since_us": alert.since_us,
            "value": alert.value,
            "threshold": alert.threshold,
        }

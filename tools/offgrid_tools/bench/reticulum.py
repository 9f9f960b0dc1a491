"""Reticulum as an outside peer: installed unmodified into an environment of its own, and driven as two programs.

Its licence is not open source (no dependency of ours, and nothing of it is imported here). One program answers, the
other does what it is told, a line of JSON for each order and each outcome; both reach each other as the configuration
of their one interface says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE = "rns==1.5.7"
INSTALL_S = 600
START_S = 120
GRACE_S = 30  # beyond the time that an order was given
ANNOUNCE_S = 8

CONFIG = """[reticulum]
enable_transport = False
share_instance = False
[logging]
loglevel = 1
[interfaces]
  [[Only]]
    enabled = yes
{interface}
"""
RNODE = """    type = RNodeInterface
    port = {port}
    frequency = 869525000
    bandwidth = 125000
    txpower = 14
    spreadingfactor = 7
    codingrate = 5"""
UDP = """    type = UDPInterface
    listen_ip = 127.0.0.1
    listen_port = {listen}
    forward_ip = 127.0.0.1
    forward_port = {forward}"""

ANSWERING = """
import sys, RNS
reticulum = RNS.Reticulum(sys.argv[1])
destination = RNS.Destination(RNS.Identity(), RNS.Destination.IN, RNS.Destination.SINGLE, "offgrid", "bench")
def echo(path, data, request_id, link_id, remote_identity, requested_at):
    return data
def linked(link):
    link.set_resource_strategy(RNS.Link.ACCEPT_ALL)
destination.set_link_established_callback(linked)
destination.register_request_handler("/echo", echo, allow=RNS.Destination.ALLOW_ALL)
print(destination.hash.hex(), flush=True)
while sys.stdin.readline():
    destination.announce()
"""
ASKING = """
import json, os, sys, threading, time, RNS
reticulum = RNS.Reticulum(sys.argv[1])
target, link = bytes.fromhex(sys.argv[2]), None
print("listening", flush=True)

def wait(true, seconds):
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.002)
    return bool(true())

def path(within):
    return {"done": wait(lambda: RNS.Transport.has_path(target), within)}

def connect(within):
    global link
    if link is not None:
        link.teardown()
    identity = RNS.Identity.recall(target)
    link = RNS.Link(RNS.Destination(identity, RNS.Destination.OUT, RNS.Destination.SINGLE, "offgrid", "bench"))
    return {"done": wait(lambda: link.status == RNS.Link.ACTIVE, within)}

def send(within, size):
    ended = threading.Event()
    resource = RNS.Resource(os.urandom(size), link, callback=lambda resource: ended.set())
    ended.wait(within)
    done = resource.status == RNS.Resource.COMPLETE
    if not ended.is_set():
        resource.cancel()
    return {"done": done}

def calls(within, count, size, in_flight):
    began, asked, waits, open_calls = time.monotonic(), 0, [], []
    failed = 0
    while len(waits) + failed < count and time.monotonic() < began + within and link.status == RNS.Link.ACTIVE:
        while len(open_calls) < in_flight and asked < count:
            receipt = link.request("/echo", os.urandom(size), timeout=within)
            asked += 1
            if receipt:
                open_calls.append((time.monotonic(), receipt))
            else:
                failed += 1
        for at, receipt in list(open_calls):
            if receipt.concluded():
                open_calls.remove((at, receipt))
                if receipt.status == RNS.RequestReceipt.READY:
                    waits.append(time.monotonic() - at)
                else:
                    failed += 1
        time.sleep(0.001)
    return {"done": len(waits) == count, "answered": len(waits), "failed": failed, "waits": sorted(waits)}

for line in sys.stdin:
    order = json.loads(line)
    what, began = order.pop("do"), time.monotonic()
    try:
        said = {"path": path, "link": connect, "send": send, "calls": calls}[what](**order)
    except Exception as error:
        said = {"done": False, "error": repr(error)}
    print(json.dumps({"seconds": time.monotonic() - began, **said}), flush=True)
os._exit(0)
"""


def install(folder: Path, *packages: str) -> Path | str:
    """The Python of an environment below `folder` that has them, or Reticulum; or why there is none."""
    python = folder / "reticulum" / "bin" / "python"
    if not python.exists():
        for command in (
            [sys.executable, "-m", "venv", str(folder / "reticulum")],
            [str(python), "-m", "pip", "install", "--quiet", *(packages or (PACKAGE,))],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            if done.returncode:
                return f"they cannot be installed: {done.stderr.strip()[-300:]}"
    return python


class Reticulum:
    """Two programs that reach each other; `order` has the asking one do something."""

    def __init__(self, answering: subprocess.Popen[str], asking: subprocess.Popen[str]) -> None:
        self._answering, self._asking = answering, asking

    def announce(self) -> None:
        assert self._answering.stdin is not None
        self._answering.stdin.write("announce\n")
        self._answering.stdin.flush()

    def order(self, what: str, within: float, **more: Any) -> dict[str, Any]:
        """The outcome: `done`, `seconds`, and more for some."""
        assert self._asking.stdin is not None
        self._asking.stdin.write(json.dumps({"do": what, "within": within, **more}) + "\n")
        self._asking.stdin.flush()
        said = line_of(self._asking, within + GRACE_S)
        if not said:
            raise RuntimeError(f"Reticulum said nothing to {what!r} within {within + GRACE_S:.0f} s")
        outcome: dict[str, Any] = json.loads(said)
        return outcome

    def meet(self, within: float) -> bool:
        """Has the one find the other; announcements that are lost are made again."""
        until = time.monotonic() + within
        while time.monotonic() < until:
            self.announce()
            if self.order("path", ANNOUNCE_S)["done"]:
                return True
        return False


@contextmanager
def reticulum(python: Path, folder: Path, answering: str, asking: str) -> Iterator[Reticulum]:
    """Both programs, with these interfaces."""
    for name, interface in (("answering", answering), ("asking", asking)):
        (folder / name).mkdir(parents=True)
        (folder / name / "config").write_text(CONFIG.format(interface=interface), encoding="utf-8")
    with running([str(python), "-c", ANSWERING, str(folder / "answering")]) as one:
        target = line_of(one, START_S)
        with running([str(python), "-c", ASKING, str(folder / "asking"), target]) as other:
            if line_of(other, START_S) != "listening":
                raise RuntimeError("Reticulum did not start")
            yield Reticulum(one, other)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A program that is spoken with line by line, and ended."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except (subprocess.TimeoutExpired, ValueError):
            process.kill()
            process.wait()


def line_of(process: subprocess.Popen[str], within: float) -> str:
    """The next line that it says; empty where it ends, or says nothing in that time."""
    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stdout.readline().strip()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    reader.join(within)
    return said[0] if said else ""

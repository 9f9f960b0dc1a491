"""Other people's software on our emulated modems: unmodified Reticulum over RNodes, unmodified Meshtastic clients.

Both are installed into a throw-away environment and run as programs of their own; neither licence allows more
(Reticulum's is not open source, Meshtastic's client is GPL-3.0-only). What works with them is what their vendors'
firmware does, so the emulators are honest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PACKAGES = ("rns==1.5.7", "meshtastic==2.7.11")
INSTALL_S, RUN_S = 600, 240
PAYLOAD_BYTES = 2_000
RETICULUM_CONFIG = """[reticulum]
enable_transport = False
share_instance = False
[logging]
loglevel = 2
[interfaces]
  [[RNode]]
    type = RNodeInterface
    enabled = yes
    port = {port}
    frequency = 869525000
    bandwidth = 125000
    txpower = 14
    spreadingfactor = 7
    codingrate = 5
"""
ANSWERING = """
import sys, time, RNS
reticulum = RNS.Reticulum(sys.argv[1])
destination = RNS.Destination(RNS.Identity(), RNS.Destination.IN, RNS.Destination.SINGLE, "offgrid", "soak")
def echo(path, data, request_id, remote_identity, requested_at):
    return data
destination.register_request_handler("/echo", echo, allow=RNS.Destination.ALLOW_ALL)
print(destination.hash.hex(), flush=True)
while sys.stdin.readline():
    destination.announce()
"""
ASKING = """
import sys, time, RNS
reticulum = RNS.Reticulum(sys.argv[1])
target, size = bytes.fromhex(sys.argv[2]), int(sys.argv[3])
print("listening", flush=True)
until = time.monotonic() + 300
while not RNS.Transport.has_path(target) and time.monotonic() < until:
    time.sleep(0.2)
assert RNS.Transport.has_path(target), "no path"
identity = RNS.Identity.recall(target)
destination = RNS.Destination(identity, RNS.Destination.OUT, RNS.Destination.SINGLE, "offgrid", "soak")
link = RNS.Link(destination)
while link.status != RNS.Link.ACTIVE and time.monotonic() < until:
    time.sleep(0.1)
assert link.status == RNS.Link.ACTIVE, "no link"
for data in (b"a small request", bytes(range(256)) * (size // 256)):
    receipt = link.request("/echo", data, timeout=250)
    while not receipt.concluded() and time.monotonic() < until:
        time.sleep(0.1)
    assert receipt.get_response() == data, f"request of {len(data)} bytes: {receipt.get_status()}"
print("answered", flush=True)
"""
MESSAGING = """
import sys, time
from pubsub import pub
from meshtastic.tcp_interface import TCPInterface
from meshtastic.mesh_interface import MeshInterface
heard, acked = [], []
def hear(packet, interface):
    if packet["decoded"]["portnum"] == "PRIVATE_APP":
        heard.append(packet["decoded"])
pub.subscribe(hear, "meshtastic.receive")
one, two = (TCPInterface("127.0.0.1", portNumber=int(port)) for port in sys.argv[1:3])
for size in (16, 230):
    one.sendData(bytes(range(size)), portNum=256, wantAck=True, onResponse=acked.append, onResponseAckPermitted=True)
until = time.monotonic() + 60
while (len(heard) < 2 or len(acked) < 2) and time.monotonic() < until:
    time.sleep(0.1)
assert [len(data["payload"]) for data in heard] == [16, 230], heard
assert len(acked) == 2, "no acknowledgement"
try:
    one.sendData(bytes(234), portNum=256)
except MeshInterface.MeshInterfaceError:
    print("answered", flush=True)
one.close(); two.close()
"""


def soak_radio_peers(rounds: int, say: Callable[[str], None]) -> list[str]:
    """Installs both once and runs each `rounds` times; returns what did not work."""
    with tempfile.TemporaryDirectory(prefix="offgrid-peers-") as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        say(f"installing {', '.join(PACKAGES)}")
        for command in (
            [sys.executable, "-m", "venv", str(Path(folder) / "venv")],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES],
        ):
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S, check=False)
            if done.returncode:
                return [f"they cannot be installed: {done.stderr.strip()[-500:]}"]
        broken: list[str] = []
        for number in range(rounds):
            for what, run in (("Reticulum", reticulum_peers), ("Meshtastic", meshtastic_peers)):
                work = Path(folder) / f"{what}-{number}"
                work.mkdir()
                wrong = run(python, work)
                say(f"{what} {number}: {wrong or 'works'}")
                broken += [f"{what}: {wrong}"] if wrong else []
        return broken


def reticulum_peers(python: Path, folder: Path) -> str:
    """A path, a link, a small request and one of 2 kB over two RNodes; says what went wrong, or nothing."""
    ports = [folder / "rnode-a", folder / "rnode-b"]
    for port in ports:
        config = Path(f"{port}.config")
        config.mkdir()
        (config / "config").write_text(RETICULUM_CONFIG.format(port=port), encoding="utf-8")
    with _running([sys.executable, "-m", "offgrid_tools.emulators", "lora", "rnode", *map(str, ports)]) as emulators:
        if _line(emulators) != "ready":
            return "the emulators did not start"
        with _running([str(python), "-c", ANSWERING, f"{ports[0]}.config"]) as answering:
            target = _line(answering)
            asking_command = [str(python), "-c", ASKING, f"{ports[1]}.config", target, str(PAYLOAD_BYTES)]
            with _running(asking_command) as asking:
                if _line(asking) != "listening":
                    return f"it did not start: {_said(asking)}"
                assert answering.stdin is not None
                answering.stdin.write("announce\n")
                answering.stdin.flush()
                return "" if _line(asking) == "answered" else _said(asking)


def meshtastic_peers(python: Path, folder: Path) -> str:
    """Two clients exchange packets with acknowledgements; says what went wrong, or nothing."""
    command = [sys.executable, "-m", "offgrid_tools.emulators", "lora", "meshtastic", "0", "0", "speed=5"]
    with _running(command) as emulators:
        word, *ports = _line(emulators).split()
        if word != "ready":
            return "the emulators did not start"
        with _running([str(python), "-c", MESSAGING, *ports]) as clients:
            return "" if _line(clients) == "answered" else _said(clients)


@contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    """The next line that it says; empty when it ends without one."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _said(process: subprocess.Popen[str]) -> str:
    process.terminate()
    try:
        out, err = process.communicate(timeout=RUN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return (out + err).strip()[-800:] or f"it ended with {process.returncode}"

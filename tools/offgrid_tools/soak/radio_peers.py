"""Other people's software on our emulated modems: unmodified Reticulum over RNodes, unmodified Meshtastic clients.

Both are installed into a throw-away environment and run as programs of their own; neither licence allows more
(Reticulum's is not open source, Meshtastic's client is GPL-3.0-only). What works with them is what their vendors'
firmware does, so the emulators are honest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from offgrid_tools.bench.reticulum import PACKAGE, RNODE, install, line_of, reticulum, running

PACKAGES = (PACKAGE, "meshtastic==2.7.11")
START_S, RUN_S = 30, 240
PAYLOAD_BYTES = 2_000
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
        say(f"installing {', '.join(PACKAGES)}")
        python = install(Path(folder), *PACKAGES)
        if isinstance(python, str):
            return [python]
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
    """A path, a link, a small request and a Resource of 2 kB over two RNodes; says what went wrong, or nothing."""
    ports = [folder / "rnode-a", folder / "rnode-b"]
    with running([sys.executable, "-m", "offgrid_tools.emulators", "lora", "rnode", *map(str, ports)]) as emulators:
        if line_of(emulators, START_S) != "ready":
            return "the emulators did not start"
        answering, asking = (RNODE.format(port=port) for port in ports)
        with reticulum(python, folder / "reticulum", answering, asking) as peer:
            if not peer.meet(RUN_S):
                return "no path"
            for what, more in (
                ("link", {}),
                ("calls", {"count": 1, "size": 15, "in_flight": 1}),
                ("send", {"size": PAYLOAD_BYTES}),
            ):
                outcome = peer.order(what, RUN_S, **more)
                if not outcome["done"]:
                    return f"{what}: {outcome}"
    return ""


def meshtastic_peers(python: Path, folder: Path) -> str:
    """Two clients exchange packets with acknowledgements; says what went wrong, or nothing."""
    command = [sys.executable, "-m", "offgrid_tools.emulators", "lora", "meshtastic", "0", "0", "speed=5"]
    with running(command) as emulators:
        word, *ports = line_of(emulators, START_S).split() or [""]
        if word != "ready":
            return "the emulators did not start"
        said = subprocess.run(
            [str(python), "-c", MESSAGING, *ports], capture_output=True, text=True, timeout=RUN_S, check=False
        )
        answered = said.stdout.strip() == "answered"
        return "" if answered else (said.stdout + said.stderr).strip()[-800:] or f"it ended with {said.returncode}"

"""Tahoe-LAFS on this machine: an introducer, storage servers and one client, whose web port is what people call.

As it comes, but for shares and ports: encrypted, coded and spread like ours, with nothing fsynced. Ten servers hold two
shares each of 12 of 20.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offgrid_tools.bench.peers import Processes, free_port, lacking, listens
from offgrid_tools.bench.processes import at_rest

CALL_S_MAX = 900.0
HAPPY_SHARE = 0.7  # of the servers must take something, or Tahoe refuses an upload: 7 of 10, its own proportion
CLIENT, INTRODUCER = "client", "introducer"


class TahoeGrid:
    """Use it in a `with` block."""

    name = "Tahoe-LAFS"

    def __init__(self, folder: Path, servers: int, needed: int, total: int) -> None:
        self._processes, self._folder = Processes(folder), folder
        self._servers = [f"server{number}" for number in range(servers)]
        self._needed, self._total = needed, total
        self._url = ""

    @staticmethod
    def missing() -> str:
        return "" if program() else lacking([], ["tahoe"])

    def __enter__(self) -> TahoeGrid:
        try:
            self._start()
        except BaseException:
            self._processes.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._processes.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        return self._processes.pids

    @property
    def client_pid(self) -> int:
        return self._processes.pids[CLIENT]

    # ---- what people do

    def put(self, data: bytes) -> str:
        """The capability by which it is read. Tahoe says nothing of disks: it has answered once all servers have."""
        request = urllib.request.Request(f"{self._url}/uri", data=data, method="PUT")  # noqa: S310
        return self._ask(request).decode()

    def get(self, capability: str) -> bytes:
        return self._ask(urllib.request.Request(self._place(capability)))  # noqa: S310

    def verify(self, capability: str) -> None:
        """Every share is fetched and checked. Raises RuntimeError when one is damaged or missing."""
        if not self._check(capability, verify="true")["results"]["healthy"]:
            raise RuntimeError("Tahoe finds an object damaged that nobody touched")

    def repair(self, capability: str) -> None:
        """Raises RuntimeError unless all shares are there again afterwards."""
        if not self._check(capability, repair="true").get("repair-successful"):
            raise RuntimeError("Tahoe could not repair what it can read")

    # ---- what befalls it

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """None of them does anything; in the end the client sees all servers."""
        with at_rest(self.pids.values()):
            yield
        self._wait_servers(sum(1 for name in self._servers if name in self.pids))

    def losable_servers(self) -> int:
        """How many may be lost together without loss of data; their shares are lost with them."""
        each = -(-self._total // len(self._servers))
        return (self._total - self._needed) // each

    def kill(self, count: int) -> None:
        """The first ones, for good, with whatever they hold."""
        for name in self._servers[:count]:
            self._processes.kill(name)
        self._wait_servers(len(self._servers) - count)

    # ---- inside

    def _start(self) -> None:
        port = free_port()
        self._create(INTRODUCER, "create-introducer", f"--port={_tcp(port)}", f"--location=tcp:127.0.0.1:{port}")
        self._run(INTRODUCER)
        furl_file = self._folder / INTRODUCER / "private" / "introducer.furl"
        self._processes.wait(INTRODUCER, lambda: listens(port) and furl_file.exists())
        introducer = f"--introducer={furl_file.read_text(encoding='ascii').strip()}"
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: self._make_server(name, introducer), self._servers))
        web = free_port()
        counts = (f"--shares-needed={self._needed}", f"--shares-total={self._total}")
        happy = f"--shares-happy={int(HAPPY_SHARE * len(self._servers))}"
        self._create(CLIENT, "create-client", introducer, f"--webport={_tcp(web)}", *counts, happy, listen=False)
        for name in (*self._servers, CLIENT):
            self._run(name)
        self._url = f"http://127.0.0.1:{web}"
        self._processes.wait(CLIENT, lambda: listens(web))
        self._wait_servers(len(self._servers))

    def _make_server(self, name: str, introducer: str) -> None:
        port = free_port()
        where = (f"--port={_tcp(port)}", f"--location=tcp:127.0.0.1:{port}")
        self._create(name, "create-node", *where, introducer, f"--nickname={name}", "--webport=none")

    def _create(self, name: str, command: str, *options: str, listen: bool = True) -> None:
        listening = ("--listen=tcp",) if listen else ()
        self._processes.start(f"make-{name}", [program(), command, *listening, *options, str(self._folder / name)])
        self._processes.finish(f"make-{name}")

    def _run(self, name: str) -> None:
        self._processes.start(name, [program(), "run", "--allow-stdin-close", str(self._folder / name)])

    def _wait_servers(self, count: int) -> None:
        """Until the client sees just so many."""
        self._processes.wait(CLIENT, lambda: self._connected() == count)

    def _connected(self) -> int:
        try:
            welcome = json.loads(self._ask(urllib.request.Request(f"{self._url}/?t=json")))  # noqa: S310
        except OSError:
            return -1
        said = [str(server.get("connection_status") or "") for server in welcome["servers"]]
        return sum(1 for status in said if re.match(r"connected\b", status, re.IGNORECASE))

    def _check(self, capability: str, **options: str) -> Any:
        query = urllib.parse.urlencode({"t": "check", "output": "JSON", **options})
        request = urllib.request.Request(f"{self._place(capability)}?{query}", data=b"", method="POST")  # noqa: S310
        return json.loads(self._ask(request))

    def _place(self, capability: str) -> str:
        return f"{self._url}/uri/{urllib.parse.quote(capability, safe='')}"

    def _ask(self, request: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(request, timeout=CALL_S_MAX) as answer:  # noqa: S310
            data: bytes = answer.read()
            return data


def program() -> str:
    """Beside this interpreter, else on the PATH; "" when it is nowhere."""
    beside = Path(sys.executable).with_name("tahoe")
    return str(beside) if beside.exists() else shutil.which("tahoe") or ""


def _tcp(port: int) -> str:
    return f"tcp:{port}:interface=127.0.0.1"

"""Our road: an owner and ten hosts, each a process with its own store and keys, mutual TLS between them, real fsyncs.

An object counts as durable when its quorum has acked: each of those hosts has fsynced what it signed for. It is spread
when the owner has nothing left to bring to anybody and has dropped its own copy.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.objects.manifest import Code

CALL_S_MAX = 300.0
POLL_S = 0.005
OWNER = "owner"
REQUIRED_MILLI = 2_000
COPIES = 3  # of what is too small to be coded
CODED_FROM_BYTES = 10_000_000


def stretch(code: Code) -> float:
    """Bytes that hosts keep for one of the owner's; 1 of N are full copies."""
    return code.total / code.needed


def losable(code: Code, hosts: int) -> int:
    """How many hosts may be lost together, when shards are spread evenly over so many."""
    return (code.total - code.needed) // -(-code.total // min(hosts, code.total))


def in_words(code: Code) -> str:
    return f"{code.total} copies" if code.needed == 1 else f"{code.needed} of {code.total}"


class OurStorage:
    """Use it in a `with` block."""

    def __init__(self, folder: Path, hosts: int, code: Code) -> None:
        names = [f"host{number}" for number in range(hosts)]
        roles = {OWNER: ["core"], **{name: ["host"] for name in names}}
        self.code, self._hosts = code, names
        self._mesh = LocalMesh(folder, "bench", roles, storage__required_milli=REQUIRED_MILLI)

    def __enter__(self) -> OurStorage:
        try:
            self._mesh.start()
            self._mesh.wait_alive()
        except BaseException:
            self._mesh.stop()
            raise
        self._client = self._mesh[OWNER].client(CALL_S_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._mesh.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        """Of owner and hosts; the client is this process."""
        return {name: process.pid for name, node in self._mesh.nodes.items() if (process := node.process)}

    @property
    def alive(self) -> list[str]:
        """Owner and hosts whose processes run."""
        return [name for name, node in self._mesh.nodes.items() if node.alive]

    # ---- what people do

    def put(self, data: bytes | Path) -> objects_pb2.Object:
        """Until it is durable. What is small is copied, as nodes do by themselves."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size < CODED_FROM_BYTES or self.code.needed == 1:
            made = self._client.objects.put(data, copies=COPIES if self.code.needed > 1 else self.code.total)
        else:
            made = self._client.objects.put(data, code=(self.code.needed, self.code.total))
        return self._client.objects.wait_durable(made.object_id, timeout_s=CALL_S_MAX)

    def wait_spread(self, object_id: str) -> objects_pb2.Object:
        return eventually(lambda: self._client.objects.get(object_id), lambda seen: not seen.local)

    def get(self, object_id: str) -> bytes:
        return self._client.objects.read(object_id)

    def fetch(self, object_id: str, target: Path) -> None:
        self._client.objects.fetch(object_id, target)

    # ---- what befalls it

    @contextmanager
    def lost(self, object_id: str) -> Iterator[int]:
        """As many hosts that hold it are killed as may be, and come back in the end."""
        holders = [self._mesh.by_id(ack.node_id) for ack in self._client.objects.get(object_id).acks]
        doomed = holders[: losable(self.code, len(holders))]
        for host in doomed:
            host.kill()
        try:
            yield len(doomed)
        finally:
            for host in doomed:
                host.run("run")
            for host in doomed:
                host.wait_ready()
            self._mesh.wait_alive()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """One host stops in the midst of whatever it does, and goes on in the end."""
        if sys.platform == "win32":
            raise NotImplementedError  # measure() asks first
        host = self._host(0)
        assert host.process is not None
        os.kill(host.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(host.process.pid, signal.SIGCONT)

    def _host(self, number: int) -> LocalNode:
        return self._mesh[self._hosts[number]]


def eventually(
    look: Callable[[], objects_pb2.Object], reached: Callable[[objects_pb2.Object], bool]
) -> objects_pb2.Object:
    """Raises TimeoutError with the object's trouble."""
    deadline = time.monotonic() + CALL_S_MAX
    while not reached(seen := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seen.object_id}: {seen.trouble or 'it is not there yet'} after {CALL_S_MAX:g} s")
        time.sleep(POLL_S)
    return seen

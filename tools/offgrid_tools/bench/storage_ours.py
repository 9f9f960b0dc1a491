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

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_node.protocol.mesh.machine import PROBE_INTERVAL_MS
from offgrid_node.protocol.objects.manifest import Code
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS
from offgrid_tools.bench.processes import at_rest

CALL_S_MAX = 300.0
POLL_S = 0.005
WAIT_S = 10.0  # within the put's own call, of what is small
DURABLE = objects_pb2.OBJECT_STATE_DURABLE
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


class Repair(msgspec.Struct, frozen=True):
    """`pulled_bytes` came into those who made the shards anew, `owner_bytes` into the owner."""

    shards: int
    took_s: float
    pulled_bytes: int
    owner_bytes: int


class OurStorage:
    """Use it in a `with` block."""

    def __init__(self, folder: Path, hosts: int, code: Code, *, repair_after_ms: int = REPAIR_AFTER_MS) -> None:
        names = [f"host{number}" for number in range(hosts)]
        roles = {OWNER: ["core"], **{name: ["host"] for name in names}}
        self.code, self._hosts = code, names
        self._mesh = LocalMesh(
            folder,
            "bench",
            roles,
            mesh__probe_interval_ms=PROBE_INTERVAL_MS,
            storage__required_milli=REQUIRED_MILLI,
            storage__repair_after_ms=repair_after_ms,
        )

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
        """Of owner and hosts that run; the client is this process."""
        return {name: node.process.pid for name, node in self._mesh.nodes.items() if node.process and node.alive}

    @property
    def alive(self) -> list[str]:
        """Owner and hosts whose processes run."""
        return [name for name, node in self._mesh.nodes.items() if node.alive]

    # ---- what people do

    def put(self, data: bytes | Path) -> objects_pb2.Object:
        """Until it is durable. What is small is copied, as nodes do by themselves."""
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if size < CODED_FROM_BYTES or self.code.needed == 1:
            copies = COPIES if self.code.needed > 1 else self.code.total
            made = self._client.objects.put(data, copies=copies, wait_s=WAIT_S)
        else:
            made = self._client.objects.put(data, code=(self.code.needed, self.code.total))
        if made.state == DURABLE:
            return made
        return self._client.objects.wait_durable(made.object_id, timeout_s=CALL_S_MAX)

    def wait_spread(self, object_id: str) -> objects_pb2.Object:
        return eventually(lambda: self._client.objects.get(object_id), lambda seen: not seen.local)

    def audit(self, object_id: str) -> objects_pb2.AuditObjectResponse:
        return self._client.objects.audit(object_id)

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

    def repair(self, object_id: str) -> Repair:
        """As many hosts that hold it are killed for good as may be. Timed is from when the owner has given the first of
        them up until all that they held is acked elsewhere."""
        made = self._client.objects.get(object_id)
        doomed = [self._mesh.by_id(ack.node_id) for ack in made.acks][: losable(self.code, len(made.acks))]
        gone = {host.node_id for host in doomed}
        shards = sum(len(ack.shards) for ack in made.acks if ack.node_id in gone)
        left = [name for name in self.alive if name not in {host.name for host in doomed}]
        before = {name: self._pulled(name) for name in left}
        for host in doomed:
            host.kill()
        self._wait(object_id, lambda held: not gone <= held.keys())
        began_s = time.monotonic()
        self._wait(object_id, lambda held: gone.isdisjoint(held) and sum(held.values()) == self.code.total)
        took_s = time.monotonic() - began_s
        pulled = {name: self._pulled(name) - before[name] for name in left}
        return Repair(shards, took_s, sum(pulled.values()), pulled[OWNER])

    def _wait(self, object_id: str, reached: Callable[[Mapping[str, int]], bool]) -> None:
        """Until so many shards of it are acked by whom."""

        def held(seen: objects_pb2.Object) -> Mapping[str, int]:
            return {ack.node_id: len(ack.shards) for ack in seen.acks}

        eventually(lambda: self._client.objects.get(object_id), lambda seen: reached(held(seen)))

    def _pulled(self, name: str) -> int:
        with self._mesh[name].client() as client:
            return client.mesh.status().repair_pulled_bytes

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """None of them does anything; in the end the owner sees all alive."""
        with at_rest(self.pids.values()):
            yield
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

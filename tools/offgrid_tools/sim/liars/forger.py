"""A host that signs some of its reports falsely: it has done the work, and nobody could prove it."""

from __future__ import annotations

from random import Random

from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.process import Process

FORGED_CHANCE = 0.3


class Forger:
    """Takes the place of its process's own pen."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._rng = Random(f"forger {cluster.engine.rng.random()}")  # noqa: S311 - to be repeatable
        self._signer: Signer = process.pen
        self.node_id, self.public_key = self._signer.node_id, self._signer.public_key
        self.lies = 0
        process.pen = self

    def wrapping_key(self, number: int) -> WrappingKey:
        return self._signer.wrapping_key(number)

    def sign(self, digest: bytes) -> bytes:
        honest = self._signer.sign(digest)
        if self._rng.random() >= FORGED_CHANCE:
            return honest
        self.lies += 1
        return bytes([honest[0] ^ 1]) + honest[1:]

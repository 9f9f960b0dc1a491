"""Where a node is called: its owner's socket, its mesh's port and the door for newcomers.

The same handlers answer on two carriers: gRPC, and where it can be had beside it the framed one, for calls that hurry.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from offgrid_node.access_files import TOKEN_NAME
from offgrid_node.config.addresses import admin_socket, split_address
from offgrid_node.discovery.addresses import join_address
from offgrid_node.finding import listen_again
from offgrid_node.keys import NodeTls
from offgrid_node.logs import fields
from offgrid_node.members import Members
from offgrid_node.node import Node
from offgrid_node.protocol.errors import FailedPrecondition, Fault
from offgrid_node.services.framed_road import FramedRoad
from offgrid_node.services.framed_server import FramedServer
from offgrid_node.services.grpc_gate import Gate
from offgrid_node.services.grpc_road import GrpcRoad
from offgrid_node.services.grpc_server import GrpcServer

if TYPE_CHECKING:
    from offgrid_node.config import Config

LOOPBACK_ANY = "127.0.0.1:0"

_log = logging.getLogger("offgrid")


class Listeners:
    """`admin` and `admin_framed` are where the owner is served, the latter empty where it is by gRPC alone; they stand
    once `open_to_owner` is through, the ports once `open_to_mesh` is. `close` is due whichever of them raises."""

    def __init__(
        self,
        config: Config,
        node: Node,
        tls: NodeTls,
        road: GrpcRoad,
        framed_road: FramedRoad,
        on_refused: Callable[[Fault], None] | None,
    ) -> None:
        self._config, self._node, self._tls = config, node, tls
        self._server = GrpcServer(node.router, on_refused=on_refused)
        self._framed = FramedServer(node.router, self._server.running, on_refused)
        self._members = Members(node, self._server, road, framed_road)
        self.admin = self.admin_framed = ""
        self.mesh_port = 0
        self.door_port: int | None = None

    async def open_to_mesh(self) -> None:
        """Raises FailedPrecondition where an address cannot be had."""
        config = self._config
        addresses, doors = self._node.mesh.reach
        self.mesh_port = await listen_again(self._listen_mesh, config.mesh.listen, addresses, config.mesh.advertise)
        if config.mesh.door:
            self.door_port = await listen_again(self._server.listen_door, config.mesh.door, doors)

    async def open_to_owner(self) -> None:
        """Raises FailedPrecondition where an address cannot be had."""
        address, token_file = admin_address(self._config)
        self.admin = await self._server.listen_admin(address, token_file=token_file, beside=self._beside_admin)

    async def close(self) -> None:
        await asyncio.gather(self._server.close(), self._framed.close())

    async def _listen_mesh(self, address: str) -> int:
        certificates = self._members.certificates
        return await self._server.listen_mesh(address, self._tls, certificates, self._node.caller_of, self._beside_mesh)

    def _beside_admin(self, gate: Gate) -> None:
        try:
            self.admin_framed = self._framed.listen_admin(admin_address(self._config)[0], gate)
        except FailedPrecondition as fault:  # a path that is a few characters too long, and no reason to stop
            _log.info("the owner is served by gRPC alone", extra=fields("admin_framed_off", why=fault.message))

    def _beside_mesh(self, gate: Gate) -> None:
        mesh = self._config.mesh
        if mesh.framed_port >= 0:
            where = join_address(split_address(mesh.listen, port_min=0)[0], mesh.framed_port)
            self._server.framed_port = self._framed.listen_mesh(where, gate, self._tls, self._members.certificates)


def admin_address(config: Config) -> tuple[str, Path | None]:
    """Where this machine's owner is listened to, and the token file where that is no unix socket."""
    socket = admin_socket(config)
    if socket is not None:
        return f"unix:{socket}", None
    return config.admin.address or LOOPBACK_ANY, config.node.data_dir / TOKEN_NAME
